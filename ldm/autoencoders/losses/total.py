"""The loss of an autoencoder: a weighted sum of named terms, each per pixel value.

Convention. `reconstruction` is the mean over the B*C*H*W pixel values. `kl` is the KL divergence in nats,
summed over the latent and divided by the C*H*W pixel values of an image, averaged over the batch. The published
losses instead sum both over the image; dividing both by C*H*W changes no ratio, so a weight published for the
sums, such as 1e-6, is the weight here. (For a *mean* over the latent it would read
weight * latent values / pixel values: 2.1e-8 for kl-f8.)
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from ldm.autoencoders.autoencoded import Autoencoded
from ldm.autoencoders.losses.adversarial import Adversarial
from ldm.autoencoders.losses.base import LossTerm
from ldm.autoencoders.losses.kl import KL
from ldm.autoencoders.losses.reconstruction import Error, Reconstruction


class AutoencoderLoss(nn.Module):
    """Reconstruction error + kl_weight * KL + further terms, in float32 under autocast too.

    Called with what an autoencoder made of a batch, the posterior in raw units; returns every term without its weight
    under its name, and their weighted sum under "total". Each term is per pixel value, the KL too, which leaves weights
    published for sums as they are (docs/autoencoder.md).

    Args:
        reconstruction: "l1", "l2" or "huber": mean absolute, squared or Huber's error per pixel value.
        kl_weight: Weight of the KL divergence in nats per pixel value; the published 1e-6 is 1e-6 here. 0 where the
            autoencoder quantises.
        terms: Further terms: LPIPS or Perceptual, Adversarial, ...
        kl_free_bits: Nats that each latent value may have without being charged.
        kl_warmup: Global batches over which kl_weight rises from 0.
        huber_delta: Where Huber's error becomes linear.
        learned_logvar: Divide reconstruction and perceptual terms by exp(s) and add s, a learned number, as a
            likelihood with its own scale does.
        logvar: s at the start.
    """

    def __init__(
        self,
        reconstruction: Error = "l1",
        kl_weight: float = 1e-6,
        terms: list[LossTerm] | None = None,
        kl_free_bits: float = 0.0,
        kl_warmup: int = 0,
        huber_delta: float = 0.1,
        learned_logvar: bool = False,
        logvar: float = 0.0,
    ) -> None:
        super().__init__()
        all_terms: list[LossTerm] = [Reconstruction(reconstruction, delta=huber_delta)]
        all_terms += [KL(kl_weight, kl_free_bits, kl_warmup)] if kl_weight else []
        all_terms += terms or []
        names = [term.name for term in all_terms]
        taken = {"total", "logvar", "discriminator"}
        if len({*names, *taken}) < len(names) + len(taken):
            raise ValueError(f"The loss terms {names} need different names, and none of {sorted(taken)}.")
        self.terms = nn.ModuleList(all_terms)
        self.logvar = nn.Parameter(torch.tensor(float(logvar))) if learned_logvar else None

    @property
    def adversarial(self) -> Adversarial | None:
        """The adversarial term, if there is one."""
        return next((term for term in self.each_term() if isinstance(term, Adversarial)), None)

    def each_term(self) -> Iterator[LossTerm]:
        yield from cast(Iterable[LossTerm], self.terms)

    def forward(self, seen: Autoencoded, batch: int = 0) -> dict[str, Tensor]:
        """The terms of a global batch, counted from 0; without gradients only those that validation measures."""
        training = torch.is_grad_enabled()
        with torch.autocast(seen.images.device.type, enabled=False):
            seen = dataclasses.replace(seen, images=seen.images.float(), reconstructions=seen.reconstructions.float())
            weights = {term: term.weight_at(batch) for term in self.each_term() if training or term.measured()}
            losses = {term.name: term(seen) for term, weight in weights.items() if weight}
            likelihood = self.likelihood(losses, weights)
            total = likelihood + sum_of(seen.penalties.values())
            for term, weight in weights.items():
                if term.in_likelihood or not weight:
                    continue
                if term.balance != "none" and training:
                    ratio = gradient_ratio(likelihood, losses[term.name], balanced_at(term, seen), term.most)
                    losses[f"{term.name}_ratio"] = ratio
                    total = total + weight * ratio * losses[term.name]
                else:
                    total = total + weight * losses[term.name]
            losses |= seen.penalties
            if self.logvar is not None:
                losses["logvar"] = self.logvar.detach().clone()
            adversarial = self.adversarial
            if adversarial is not None and training and adversarial.learns_at(batch):
                losses |= adversarial.discriminator_terms(seen, batch)
        return {**losses, "total": total}

    def likelihood(self, losses: Mapping[str, Tensor], weights: Mapping[LossTerm, float]) -> Tensor:
        """The weighted terms that measure the reconstruction, with the learned variance."""
        likelihood = sum_of(weight * losses[term.name] for term, weight in weights.items() if term.in_likelihood)
        return likelihood if self.logvar is None else likelihood / self.logvar.exp() + self.logvar

    def idle_parameters(self, batch: int) -> list[nn.Parameter]:
        """Parameters that nothing in this global batch looks at, because their term has not begun."""
        idle = []
        for term in self.each_term():
            learning = isinstance(term, Adversarial) and term.learns_at(batch)
            if not (term.weight_at(batch) or learning):
                idle += [parameter for parameter in term.parameters() if parameter.requires_grad]
        return idle


def sum_of(values: Iterable[Tensor]) -> Tensor:
    """Of 0-dim tensors, 0 of none."""
    return sum(values, torch.zeros(()))


def balanced_at(term: LossTerm, seen: Autoencoded) -> Tensor:
    """The weight at which the gradients of a term are compared with the likelihood's."""
    return seen.autoencoder.last_weight if term.balance == "decoder" else seen.autoencoder.last_encoder_weight


def gradient_ratio(likelihood: Tensor, term: Tensor, weight: Tensor, most: float) -> Tensor:
    """|gradient of the likelihood| / |gradient of the term| at a weight, within [0, most], without gradients.

    Both are of a mean over the batch, so their size does not depend on it. Gradients of means over many pixel values
    may be too small for float16 inside the network, so both losses are scaled up for this.
    """
    scale = 2.0**10
    norms = [
        torch.autograd.grad(loss * scale, weight, retain_graph=True)[0].float().norm() / scale
        for loss in (likelihood, term)
    ]
    return (norms[0] / (norms[1] + 1e-4)).clamp(0.0, most).detach()
