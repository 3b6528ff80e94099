"""The hash by which two autoencoders are told apart."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def fingerprint_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of a state dict: names, dtypes, shapes and values.

    The same on every device, in every order of the names and after saving and loading.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
