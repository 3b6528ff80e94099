"""What frozen text encoders make of captions, kept as members `.text.NAME.{tokens,mask,pooled}.npy` of a sample.

Their rows are the sample's captions: tokens (n, l, D) and mask (n, l), cut after the last token that counts in any of
them, and pooled (n, P). What the encoder makes of the empty caption, which dropped rows hear, stands whole and in
float32 in a file beside the manifest.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ldm.atomic import write_bytes
from ldm.data.annotations import captions_in, parse_fields
from ldm.data.decode import parse_caption
from ldm.data.manifest import TextContract
from ldm.errors import UserError
from ldm.text import Text


@dataclass(frozen=True)
class TextCache:
    """What a set says of the embeddings that it keeps of one encoder.

    Attributes:
        fingerprint: of the encoder that made them.
        empty: of the empty caption, one row, float32.
    """

    fingerprint: str
    empty: Text


def text_cache(folder: Path, texts: Sequence[TextContract], name: str) -> TextCache | None:
    """What a set keeps of the encoder of that name, None where it keeps nothing."""
    contract = next((text for text in texts if text.name == name), None)
    return None if contract is None else TextCache(contract.fingerprint, load_empty(folder, contract))


def caption_list(members: Mapping[str, bytes], where: str) -> list[str]:
    """All captions that one may be drawn of, in the order of `annotations.drawn_place`."""
    fields = parse_fields(members["json"]) if "json" in members else {}
    captions = captions_in(fields) or ([parse_caption(members["txt"], where)] if "txt" in members else [])
    if not captions:
        raise UserError(f"{where} has no caption: pack the set with a caption for every image")
    return captions


def to_members(contract: TextContract, texts: Sequence[Text], where: str) -> dict[str, bytes]:
    """The members of a sample, of what an encoder makes of each of its captions (one row each, float32, on the CPU).

    Raises:
        UserError: opening with `where`, for values that are not finite or too large for the contract's dtype.
    """
    length = max(used(text.mask) for text in texts)
    cut = [Text(text.tokens[:, :length], text.mask[:, :length], text.pooled) for text in texts]
    members = {}
    for part in cut[0].parts():
        values = torch.cat([text.parts()[part] for text in cut]).numpy()
        members[f"text.{contract.name}.{part}.npy"] = npy(values, contract, where)
    return members


def used(mask: Tensor) -> int:
    """How many places of (B, L) there are up to the last that counts, at least one."""
    places = mask.any(0).nonzero()
    return int(places[-1]) + 1 if len(places) else 1


def npy(values: np.ndarray, contract: TextContract, where: str) -> bytes:
    """One member."""
    if values.dtype != bool:
        largest = float(np.abs(values).max(initial=0.0))
        if not np.isfinite(largest):
            raise UserError(f"{where}: {contract.name} makes no finite numbers of its captions: check its weights")
        if largest > float(np.finfo(contract.dtype).max):
            raise UserError(
                f"{where}: what {contract.name} makes of its captions reaches {largest:g}, beyond {contract.dtype}: "
                "store float32 (--dtype float32)"
            )
        values = values.astype(contract.dtype)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(values), allow_pickle=False)
    return buffer.getvalue()


def from_members(
    members: Mapping[str, bytes], texts: Sequence[TextContract], place: int, where: str
) -> dict[str, Tensor]:
    """The entries of a sample of which the caption at `place` is heard, each filled up to its context's length.

    Returns:
        of each encoder text.NAME.tokens (L, D) in the stored dtype, text.NAME.mask (L,) and text.NAME.pooled (P,).

    Raises:
        UserError: opening with `where`, for members that are not what the manifest says.
    """
    found = {}
    for contract in texts:
        for entry in sorted(contract.entries()):
            values = read_row(members, f"{entry}.npy", place, where)
            part = entry.rpartition(".")[2]
            length = min(len(values), contract.context_length)
            shape = {"tokens": (length, contract.token_width), "mask": (length,)}
            expected = "bool" if part == "mask" else contract.dtype, shape.get(part, (contract.pooled_width,))
            if (str(values.dtype), values.shape) != expected or not np.isfinite(values).all():
                here, there = f"{values.dtype} {values.shape}", "{} {}".format(*expected)
                raise UserError(
                    f"{where}: its {entry} are {here}, but the manifest says finite {there}: encode the shard again"
                )
            found[entry] = filled(values, contract.context_length) if part != "pooled" else torch.from_numpy(values)
    return found


def read_row(members: Mapping[str, bytes], name: str, place: int, where: str) -> np.ndarray:
    """One row of a member."""
    try:
        rows = np.load(io.BytesIO(members[name]), allow_pickle=False)
        return np.atleast_1d(rows[place])
    except KeyError:
        raise UserError(f"{where} has no {name} though its manifest says so: encode the shard again") from None
    except (ValueError, EOFError, OSError, IndexError, TypeError) as error:
        raise UserError(f"{where}: its {name} cannot be read ({error}): encode the shard again") from None


def filled(values: np.ndarray, length: int) -> Tensor:
    """(l, ...) with zeros (False) up to (length, ...)."""
    whole = torch.zeros(length, *values.shape[1:], dtype=torch.from_numpy(values[:0]).dtype)
    whole[: len(values)] = torch.from_numpy(values)
    return whole


def empty_path(folder: Path, name: str) -> Path:
    return folder / f"text.{name}.safetensors"


def save_empty(folder: Path, contract: TextContract, empty: Text) -> None:
    """Write what the encoder makes of the empty caption, one row."""
    parts = {name: value.cpu().contiguous() for name, value in empty.parts().items()}
    write_bytes(empty_path(folder, contract.name), save(parts))


def load_empty(folder: Path, contract: TextContract) -> Text:
    """What `save_empty` wrote; a UserError where it is missing or of other shapes."""
    path = empty_path(folder, contract.name)
    expected = {"tokens": (1, contract.context_length, contract.token_width), "mask": (1, contract.context_length)}
    if contract.pooled_width is not None:
        expected["pooled"] = (1, contract.pooled_width)
    try:
        parts = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}, what the text encoder {contract.name} makes of the empty caption, cannot be read "
            f"({' '.join(str(error).split())}): copy it back, or run the same `ldm encode` again"
        ) from None
    shapes = {name: tuple(value.shape) for name, value in parts.items()}
    if shapes != expected:
        raise UserError(f"{path} holds {shapes}, and {expected} is what the manifest says: encode the set again")
    return Text(**parts)
