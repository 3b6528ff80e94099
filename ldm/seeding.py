"""Random numbers that are a function of what they are for, never of what was drawn before."""

import zlib
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Draws(Protocol):
    """The random numbers of one batch."""

    def uniform(self) -> Tensor:
        """(B,) in [0, 1)."""

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape), standard normal."""

    def shared(self, count: int) -> Tensor:
        """(count,) in [0, 1), the same on every rank."""


def seeded_generator(use: str, *numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on its arguments and the device's kind alone; neighbours are unrelated.

    Args:
        use: what the numbers are for, so that two uses of the same seed share no stream.
        numbers: each 0 or more; a use always gives equally many.
        device: where it draws.
    """
    word = np.random.SeedSequence([zlib.crc32(use.encode()), *numbers]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(word))
