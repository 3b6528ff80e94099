"""Bytes to labels and captions."""

import re

from ldm.errors import UserError


def parse_label(data: bytes, num_classes: int | None, where: str) -> int:
    """The label of a `.cls` member: decimal digits (and at most an end of line), below `num_classes`.

    Raises:
        UserError: anything else. A label of `num_classes` would be taken for the null class of guidance.
    """
    text = data.rstrip(b"\r\n")
    if re.fullmatch(rb"[0-9]+", text) is None:
        raise UserError(f"{where}: label {text[:40].decode(errors='replace')!r} is not a whole number: pack it again")
    label = int(text[:18]) if len(text) <= 18 else 10**18
    if num_classes is not None and label >= num_classes:
        raise UserError(
            f"{where}: label {text[:40].decode()} is not one of the {num_classes} classes 0..{num_classes - 1}: "
            "correct num_classes, or pack the set again"
        )
    return label


def parse_caption(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{where}: the caption is not UTF-8: pack it again") from None
