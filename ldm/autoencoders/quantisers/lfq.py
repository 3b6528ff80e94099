"""Lookup-free quantisation (Yu et al. 2023, arXiv 2310.05737): each channel is its sign."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ldm.autoencoders.quantisers.base import Quantised, Quantiser, straight_through
from ldm.autoencoders.ranks import averaged
from ldm.seeding import Draws

JOINT_BITS = 10  # of which the entropy of all words together is taken at once


class LFQ(Quantiser):
    """Rounds each channel to -1 or +1; an entropy penalty keeps each choice sure and all words in use (equation 5).

    The words of a latent are taken as chosen with probabilities softmax(2 z . word / temperature), under which the
    channels are independent, so the entropy of a choice is a sum over channels. The entropy of the words in use is
    that of all 2^bits together for up to 10 bits, else the sum over groups of at most 10.

    Args:
        bits: number of channels; the vocabulary has 2^bits words.
        commitment: weight of the squared distance of the latents from their words.
        entropy: weight of (entropy of a choice - diversity * entropy of the words in use), in nats.
        diversity: weight of the latter inside.
        temperature: of the choice.
    """

    strides: Tensor

    def __init__(
        self,
        bits: int,
        commitment: float = 0.25,
        entropy: float = 0.1,
        diversity: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        if not 1 <= bits <= 62:
            raise ValueError(f"LFQ has {bits} bits: give 1 to 62; 9 to 18 are usual.")
        if temperature <= 0:
            raise ValueError(f"LFQ's temperature is {temperature}: it must be positive.")
        super().__init__(bits, 2**bits)
        self.commitment, self.entropy, self.diversity, self.temperature = commitment, entropy, diversity, temperature
        self.register_buffer("strides", 2 ** torch.arange(bits), persistent=False)

    def codes(self, z: Tensor) -> Tensor:
        return ((z > 0).long() * rearrange(self.strides, "c -> c 1 1")).sum(1)

    def words(self, codes: Tensor) -> Tensor:
        digits = rearrange(codes, "b h w -> b 1 h w") // rearrange(self.strides, "c -> c 1 1") % 2
        return 2.0 * digits - 1.0

    def learn(self, z: Tensor, draws: Draws) -> Quantised:
        codes = self.codes(z.detach())
        words = self.words(codes)
        penalties = {
            "commitment": self.commitment * F.mse_loss(z.float(), words),
            "entropy": self.entropy * self.entropy_penalty(z.float()),
        }
        return Quantised(straight_through(z, words), codes, penalties)

    def entropy_penalty(self, z: Tensor) -> Tensor:
        """Entropy of a choice - diversity * entropy of the words in use, in nats, over all ranks."""
        logits = rearrange(z, "b c h w -> (b h w) c") * (4.0 / self.temperature)
        ups = torch.sigmoid(logits)
        of_a_choice = averaged(F.binary_cross_entropy_with_logits(logits, ups, reduction="none").sum(1).mean())
        in_use = torch.stack([entropy(averaged(joint(group))) for group in ups.split(JOINT_BITS, dim=1)])
        return of_a_choice - self.diversity * in_use.sum()


def joint(ups: Tensor) -> Tensor:
    """Probabilities (N, bits) of independent bits being up -> (2^bits,), of all their words, averaged over N."""
    words = torch.ones(len(ups), 1, device=ups.device)
    for up in ups.T:
        words = torch.cat([words * (1 - up[:, None]), words * up[:, None]], dim=1)
    return words.mean(0)


def entropy(probabilities: Tensor) -> Tensor:
    """In nats."""
    return torch.special.entr(probabilities.clamp_min(1e-12)).sum()
