"""How much of its vocabulary a quantised autoencoder uses."""

from typing import Any

import torch
from torch import Tensor

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.measures.base import Measure
from ldm.autoencoders.ranks import summed

MOST_COUNTED = 2**24  # words: 128 MiB of counters, and the numbers that float32 counts up to


class CodeUse(Measure):
    """`code_usage`, the share of the code words that occur at all, and `perplexity`, the number of words that, all used
    equally often, would be as hard to guess: exp of the entropy in nats (van den Oord et al. 2017, arXiv 1711.00937).

    Neither can be more than there are latent positions in the validation set. A vocabulary of more than 2**24 words, as
    LFQ has with many bits, is not counted: both are left out.

    Args:
        num_codes: words in the vocabulary.
    """

    def __init__(self, num_codes: int) -> None:
        self.num_codes = num_codes
        self.counts = no_counts(num_codes, dtype=torch.float64)

    def update(self, seen: Autoencoded) -> None:
        assert seen.codes is not None
        self.counts = self.counts + code_counts(seen.codes, self.num_codes).cpu().double()

    def compute(self) -> dict[str, Tensor]:
        if self.num_codes > MOST_COUNTED:
            return {}
        counts = summed(self.counts)
        return use_of(counts) if counts.sum() else {}


def no_counts(num_codes: int, **options: Any) -> Tensor:
    """(num_codes,) zeros; (0,) of a vocabulary that is too large to be counted."""
    return torch.zeros(num_codes if num_codes <= MOST_COUNTED else 0, **options)


def code_counts(codes: Tensor, num_codes: int) -> Tensor:
    """(num_codes,) float32, how often each occurs; exact up to 2**24. Nothing waits for the device.

    (0,) of a vocabulary of more than 2**24 words.
    """
    counts = no_counts(num_codes, device=codes.device)
    if num_codes > MOST_COUNTED:
        return counts
    flat = codes.flatten()
    ones = torch.ones(flat.shape, device=flat.device)
    return counts.scatter_add_(0, flat, ones)


def use_of(counts: Tensor) -> dict[str, Tensor]:
    """Usage and perplexity (0-dim) of counts (num_codes,) that are not all zero; nothing of (0,), words not counted."""
    if not len(counts):
        return {}
    share = counts / counts.sum()
    return {"code_usage": (counts > 0).to(share.dtype).mean(), "perplexity": torch.special.entr(share).sum().exp()}
