"""How much of its vocabulary a quantised autoencoder uses."""

import torch
from torch import Tensor

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.measures.base import Measure
from ldm.autoencoders.ranks import summed


class CodeUse(Measure):
    """`code_usage`, the share of the code words that occur at all, and `perplexity`, the number of words that, all used
    equally often, would be as hard to guess: exp of the entropy in nats (van den Oord et al. 2017, arXiv 1711.00937).

    Neither can be more than there are latent positions in the validation set.

    Args:
        num_codes: words in the vocabulary.
    """

    def __init__(self, num_codes: int) -> None:
        self.counts = torch.zeros(num_codes, dtype=torch.float64)

    def update(self, seen: Autoencoded) -> None:
        assert seen.codes is not None
        self.counts = self.counts + code_counts(seen.codes, len(self.counts)).cpu().double()

    def compute(self) -> dict[str, Tensor]:
        counts = summed(self.counts)
        return use_of(counts) if counts.sum() else {}


def code_counts(codes: Tensor, num_codes: int) -> Tensor:
    """(num_codes,) float32, how often each occurs; exact up to 2**24. Nothing waits for the device."""
    flat = codes.flatten()
    ones = torch.ones(flat.shape, device=flat.device)
    return torch.zeros(num_codes, device=flat.device).scatter_add_(0, flat, ones)


def use_of(counts: Tensor) -> dict[str, Tensor]:
    """Usage and perplexity (0-dim) of counts (num_codes,) that are not all zero."""
    share = counts / counts.sum()
    return {"code_usage": (counts > 0).to(share.dtype).mean(), "perplexity": torch.special.entr(share).sum().exp()}
