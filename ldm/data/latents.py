"""Latents as `.latent.npy` members: (2, 2C, h, w) = [image, mirror] x cat(mean, logvar)."""

import io

import numpy as np

from ldm.data.manifest import LatentContract
from ldm.errors import UserError

MEMBER = "latent.npy"
FLOAT16_MAX = 65504.0


def to_npy(key: str, array: np.ndarray, dtype: str = "float16") -> bytes:
    """The bytes of one member.

    Raises:
        UserError: naming `key`, where a value is not finite or beyond float16.
    """
    if dtype not in ("float16", "float32"):
        raise UserError(f"latents can be stored as float16 or float32, not as {dtype!r}")
    if not np.isfinite(array).all():
        raise UserError(f"sample {key!r}: its latent is not finite: the autoencoder's weights or this image are broken")
    largest = float(np.abs(array).max(initial=0.0))
    if dtype == "float16" and largest > FLOAT16_MAX:
        raise UserError(f"sample {key!r}: its latent reaches {largest:g}, beyond float16: store float32")
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array, dtype=dtype), allow_pickle=False)
    return buffer.getvalue()


def from_npy(data: bytes, where: str, contract: LatentContract | None = None) -> np.ndarray:
    """float32 (2, 2C, h, w), finite, and with `contract` of its shape and dtype.

    Raises:
        UserError: opening with `where`, which names the sample and its shard.
    """
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{where}: its latent cannot be read ({error}): encode the shard again") from None
    if contract is not None:
        channels, height, width = contract.shape
        expected = (2, 2 * channels, height, width)
        if array.shape != expected or str(array.dtype) != contract.dtype:
            raise UserError(
                f"{where}: its latent is {array.dtype} {array.shape}, but the manifest says {contract.dtype} "
                f"{expected}: encode the shard again"
            )
    if array.dtype not in (np.float16, np.float32) or not np.isfinite(array).all():
        raise UserError(f"{where}: its latent is not finite float16 or float32: encode the shard again")
    latent: np.ndarray = array.astype(np.float32)
    return latent
