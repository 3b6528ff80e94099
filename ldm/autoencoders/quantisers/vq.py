"""Vector quantisation (van den Oord et al. 2017, arXiv 1711.00937) with a codebook that is kept alive."""

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.autoencoders.quantisers.base import Quantised, Quantiser, straight_through
from ldm.autoencoders.ranks import gathered, summed
from ldm.seeding import Draws

LEAST = 1e-12  # share of a code that is never chosen, so that dividing by it is possible
ROWS = 4096  # vectors whose distances to all codes are held at once


class VQ(Quantiser):
    """Replaces each latent vector by the nearest one of a learned codebook.

    A code that is hardly used is put where a latent of the present batch is (as in Jukebox, Dhariwal et al. 2020, arXiv
    2005.00341, section 3.1); all ranks count together and move the same codes to the same places.

    Args:
        num_codes: vectors in the codebook.
        width: channels of the latents.
        beta: weight of the commitment loss, the squared distance of the latents from their words (equation 3).
        codebook: "gradient": the codebook follows the gradient of the squared distance; "ema": it is a moving average
            of the latents that chose it (appendix A.1).
        decay: of that moving average, and of the counts of use, a global batch.
        restart_below: a code whose share of the latents falls below this part of the even share 1 / num_codes is put
            elsewhere; 0: never.
        restart_every: global batches between two looks for such codes.
        legacy: let beta weigh the codebook's loss and not the latents', as the published VQ models were trained.
    """

    codebook: Tensor
    share: Tensor
    batches: Tensor

    def __init__(
        self,
        num_codes: int = 8192,
        width: int = 3,
        beta: float = 0.25,
        codebook: Literal["gradient", "ema"] = "gradient",
        decay: float = 0.99,
        restart_below: float = 0.1,
        restart_every: int = 50,
        legacy: bool = False,
    ) -> None:
        if min(num_codes, width, restart_every) < 1:
            raise ValueError("VQ's num_codes, width and restart_every must be at least 1.")
        if codebook not in ("gradient", "ema"):
            raise ValueError(f'VQ\'s codebook is {codebook!r}: choose "gradient" or "ema".')
        if not (0 <= decay < 1 and 0 <= restart_below < 1):
            raise ValueError(f"VQ's decay is {decay} and restart_below {restart_below}: both must lie in [0, 1).")
        super().__init__(width, num_codes)
        self.beta, self.decay, self.legacy = beta, decay, legacy
        self.restart_below, self.restart_every = restart_below, restart_every
        self.averaged = codebook == "ema"
        start = torch.empty(num_codes, width).uniform_(-1 / num_codes, 1 / num_codes)
        if self.averaged:
            self.register_buffer("codebook", start)
        else:
            self.codebook = nn.Parameter(start)
        # A code that is new survives the next look if its share since then exceeds the bound.
        self.new_share = max(restart_below, 0.1) / num_codes
        self.register_buffer("share", torch.full((num_codes,), self.new_share))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def codes(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            vectors = rearrange(z.float(), "b c h w -> (b h w) c")
            nearest = torch.cat([self.nearest(part) for part in vectors.split(ROWS)])
        return rearrange(nearest, "(b h w) -> b h w", b=len(z), h=z.shape[2])

    def nearest(self, vectors: Tensor) -> Tensor:
        """(N, width) -> (N,): |v - c|^2 without |v|^2, which does not change which is the least."""
        book = self.codebook.detach().float()
        return (book.square().sum(1) - 2.0 * vectors @ book.T).argmin(1)

    def words(self, codes: Tensor) -> Tensor:
        return rearrange(F.embedding(codes, self.codebook), "b h w c -> b c h w")

    def learn(self, z: Tensor, draws: Draws) -> Quantised:
        z = z.float()
        codes = self.codes(z.detach())
        if self.training and self.restart(z.detach(), draws):
            codes = self.codes(z.detach())
        words = self.words(codes)
        commitment, codebook = F.mse_loss(z, words.detach()), F.mse_loss(words, z.detach())
        if self.averaged:
            penalties = {"commitment": self.beta * commitment}
        elif self.legacy:
            penalties = {"commitment": commitment, "codebook": self.beta * codebook}
        else:
            penalties = {"commitment": self.beta * commitment, "codebook": codebook}
        if self.training:
            self.follow(z.detach(), codes)
        return Quantised(straight_through(z, words), codes, penalties)

    @torch.no_grad()
    def restart(self, z: Tensor, draws: Draws) -> bool:
        """Put the codes that are hardly used where latents of this global batch are; whether there were any."""
        batches = int(self.batches)
        if self.restart_below == 0 or batches == 0 or batches % self.restart_every:
            return False
        dead = (self.share < self.restart_below / self.num_codes).nonzero().flatten()
        if len(dead) == 0:
            return False
        vectors = gathered(rearrange(z, "b c h w -> (b h w) c"))
        order = draws.shared(len(vectors)).argsort()  # each latent at most once, unless there are too few
        chosen = vectors[order[torch.arange(len(dead), device=order.device) % len(vectors)]]
        self.codebook[dead] = chosen
        self.share[dead] = self.new_share
        return True

    @torch.no_grad()
    def follow(self, z: Tensor, codes: Tensor) -> None:
        """Count who was chosen in this global batch, and move an averaged codebook towards the latents that chose."""
        self.batches += 1
        counts = torch.bincount(codes.flatten(), minlength=self.num_codes).float()
        if not self.averaged:
            counts = summed(counts)
            self.share.lerp_(counts / counts.sum(), 1 - self.decay)
            return
        vectors = rearrange(z, "b c h w -> (b h w) c")
        sums = torch.zeros_like(self.codebook).index_add_(0, codes.flatten(), vectors)
        found = summed(torch.cat([counts[:, None], sums], dim=1))  # (num_codes, 1 + width)
        if not found.isfinite().all():  # such a step is skipped, and the codebook would never recover
            return
        found = found / found[:, 0].sum()
        totals = self.codebook * self.share[:, None]  # the moving averages of the sums, of which `share` is the count
        totals.lerp_(found[:, 1:], 1 - self.decay)
        self.share.lerp_(found[:, 0], 1 - self.decay)
        self.codebook.copy_(totals / self.share[:, None])
        self.share.clamp_min_(LEAST)  # not before: a code that nobody chose stays where it is
