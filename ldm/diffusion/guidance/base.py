"""The seam of every guidance rule, and what a rule may ask of a model."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from ldm.diffusion.denoise import Denoise, Denoised
from ldm.diffusion.paths import NoisePath

# (x_t, t) -> the answers under the wanted condition and under the other one, from a single batched forward pass.
Both = Callable[[Tensor, Tensor], tuple[Denoised, Denoised]]


@dataclass
class Contrast:
    """A model under the wanted condition, and what that is held against.

    Each answer to the newest (x_t, t) is kept, so that rules that ask the same again cost nothing.

    Attributes:
        path: the model's path.
        wanted: the model under the wanted condition.
        other: under no condition, or under one to keep away from; None where there is none.
        both: `wanted` and `other` in one batched forward pass; left out, two passes are made.
        weak: a worse model under the wanted condition, for autoguidance.
        labels: the classes asked for, (B,), for a classifier; None where none is.
    """

    path: NoisePath
    wanted: Denoise
    other: Denoise | None = None
    both: Both | None = None
    weak: Denoise | None = None
    labels: Tensor | None = None
    _newest: tuple[Tensor, Tensor] | None = field(default=None, init=False, repr=False)
    _answers: dict[str, Denoised] = field(default_factory=dict, init=False, repr=False)

    def ask_wanted(self, x_t: Tensor, t: Tensor) -> Denoised:
        return self._ask("wanted", self.wanted, x_t, t)

    def ask_other(self, x_t: Tensor, t: Tensor) -> Denoised:
        assert self.other is not None, "a rule that needs it checks for it"
        return self._ask("other", self.other, x_t, t)

    def ask_weak(self, x_t: Tensor, t: Tensor) -> Denoised:
        assert self.weak is not None, "a rule that needs it checks for it"
        return self._ask("weak", self.weak, x_t, t)

    def ask_both(self, x_t: Tensor, t: Tensor) -> tuple[Denoised, Denoised]:
        """Wanted and other."""
        self._turn_to(x_t, t)
        if self.both is not None and not {"wanted", "other"} & self._answers.keys():
            self._answers["wanted"], self._answers["other"] = self.both(x_t, t)
        return self.ask_wanted(x_t, t), self.ask_other(x_t, t)

    def _ask(self, which: str, denoise: Denoise, x_t: Tensor, t: Tensor) -> Denoised:
        self._turn_to(x_t, t)
        if which not in self._answers:
            self._answers[which] = denoise(x_t, t)
        return self._answers[which]

    def _turn_to(self, x_t: Tensor, t: Tensor) -> None:
        if self._newest is None or self._newest[0] is not x_t or self._newest[1] is not t:
            self._newest = x_t, t
            self._answers.clear()


class Guidance(ABC):
    """A rule that turns one Denoise into another; it holds settings only, so one rule serves many batches.

    Rules are applied in the order given, each to what those before it made: the first one gets `contrast.ask_wanted`.

    Attributes:
        needs_other: it holds the model against `other`, which must exist.
        needs_weak: it holds the model against `weak`, which must exist.
        moves: it moves the state (`Denoised.x_t`), which a sampler has to obey.
    """

    needs_other: bool = False
    needs_weak: bool = False
    moves: bool = False

    @abstractmethod
    def guide(self, inner: Denoise, contrast: Contrast) -> Denoise:
        """The rule around `inner`, for one batch on its way from noise to data."""


def guide(contrast: Contrast, *rules: Guidance) -> Denoise:
    """The model under all the rules; without any, the model under the wanted condition itself."""
    denoise: Denoise = contrast.ask_wanted if rules else contrast.wanted
    for rule in rules:
        denoise = rule.guide(denoise, contrast)
    return denoise
