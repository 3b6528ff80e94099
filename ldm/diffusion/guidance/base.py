"""The seam of every guidance rule, and what a rule may ask of a model."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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
        needs_labels: it wants the classes asked for, which the model itself need not know.
        needs_rule: it acts on what rules before it made, and does nothing as the first one.
        moves: it moves the state (`Denoised.x_t`), which a sampler has to obey.
        needs_noise: it asks the path for alpha or sigma, or rests on Gaussian noise in some other way.
        keeps: it hands on what it gets as it is, or not at all, so it may follow a rule that moves the state.
    """

    needs_other: bool = False
    needs_weak: bool = False
    needs_labels: bool = False
    needs_rule: bool = False
    moves: bool = False
    needs_noise: bool = False
    keeps: bool = False

    @abstractmethod
    def guide(self, inner: Denoise, contrast: Contrast) -> Denoise:
        """The rule around `inner`, for one batch on its way from noise to data.

        Raises:
            ValueError: `contrast` lacks what the rule needs.
        """


def guide(contrast: Contrast, *rules: Guidance) -> Denoise:
    """The model under all the rules, for one batch; without any, the model under the wanted condition itself.

    Raises:
        ValueError: the rules have no meaning together, or `contrast` lacks what one of them needs.
    """
    check_rules(rules)
    check_contrast(contrast, rules)
    denoise: Denoise = contrast.ask_wanted if rules else contrast.wanted
    for rule in rules:
        denoise = rule.guide(denoise, contrast)
    return denoise


def check_rules(rules: Sequence[Guidance]) -> None:
    """Raise ValueError where rules have no meaning together in this order, naming both and what to do instead."""
    if rules and rules[0].needs_rule:
        raise ValueError(
            f"{_name(rules[0])} acts on the rules before it, and there is none: put ClassifierFree before it."
        )
    against = [_name(rule) for rule in rules if rule.needs_other]
    if len(against) > 1:
        raise ValueError(
            f"{against[0]} and {against[1]} both hold the model against the other condition, so it would be guided "
            "twice: keep one of them."
        )
    movers = [index for index, rule in enumerate(rules) if rule.moves]
    if len(movers) > 1:
        one, two = (_name(rules[index]) for index in movers[:2])
        raise ValueError(f"{one} and {two} both move the state, and a sampler goes on from one: keep one of them.")
    for rule in rules[movers[0] + 1 :] if movers else []:
        if not rule.keeps:
            mover, late = _name(rules[movers[0]]), _name(rule)
            way_out = "leave one of them out" if rule.needs_rule else f"put {late} before {mover}"
            raise ValueError(f"{mover} moves the state to fit its own x0, and {late} changes x0 after it: {way_out}.")


def check_contrast(contrast: Contrast, rules: Sequence[Guidance]) -> None:
    """Raise ValueError where a rule needs a model that `contrast` does not have."""
    for rule in rules:
        if rule.needs_other and contrast.other is None:
            raise ValueError(
                f"{_name(rule)} holds the model against itself under another condition, and there is none: give a "
                f"condition and what to hold it against (no condition, or a negative one), or leave {_name(rule)} out."
            )
        if rule.needs_weak and contrast.weak is None:
            raise ValueError(
                f"{_name(rule)} holds the model against a weaker one, and there is none: give one (an earlier "
                f"checkpoint or a smaller network of the same data), or leave {_name(rule)} out."
            )


def check_scale(scale: float) -> None:
    """Raise ValueError where a guidance scale is not a finite number."""
    if not math.isfinite(scale):
        raise ValueError(f"guidance scale {scale} is not a finite number; 1 is off, 1.5 to 8 is usual.")


def one_time(t: Tensor) -> float:
    """The time of the whole batch, from 0-dim t or from t (B,) of equal elements."""
    return float(t if t.dim() == 0 else t[0])


def _name(rule: Guidance) -> str:
    return type(rule).__name__
