"""The seam of a weights layout: how another code base names the weights of one of our modules."""

import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ldm.errors import UserError

MOST_NAMED = 3  # keys in a message

Module = TypeVar("Module", bound=nn.Module)
Theirs = str | tuple[str, ...]  # several tensors of theirs, one below the other, are one of ours
Names = Mapping[str, Theirs]


class Layout(ABC, Generic[Module]):
    """Names and shapes that another code base gives to the weights of a module; both directions are exact.

    A layout holds no state: it is a pure function of the structure of the module that it is asked about.

    Attributes:
        title: what a message calls it.
    """

    title: str

    @abstractmethod
    def matches(self, keys: Collection[str]) -> bool:
        """Is this the layout of weights with these keys?"""

    @abstractmethod
    def names(self, net: Module) -> Names:
        """Our key -> their key, or their keys where one tensor of ours is several of theirs, along the first axis.

        For every tensor of `net.state_dict()` but those that `unnamed` lists.

        Raises:
            UserError: the layout has no names for what this module is made of.
        """

    @abstractmethod
    def describe(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """Arguments of our module's constructor, as far as shapes tell them."""

    def own(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of a whole file, the weights of the module by the names that `names` gives; here all of them."""
        return dict(weights)

    def unnamed(self, net: Module) -> Collection[str]:
        """Our keys of what files in this layout do not hold; here nothing."""
        return ()

    def renamed(self, weights: Mapping[str, Tensor], net: Module) -> dict[str, Tensor]:
        """Theirs -> ours: a state dict that `net` loads strictly; what is unnamed stays as it is in `net`.

        Raises:
            UserError: keys or shapes are not those of `net`; the first that differ are named.
        """
        given, names, own = self.own(weights), self.names(net), net.state_dict()
        self.check_keys({their for theirs in names.values() for their in several(theirs)}, given.keys())
        ours, bad = {key: own[key] for key in self.unnamed(net)}, []
        for our, theirs in names.items():
            parts = several(theirs)
            shape = (own[our].shape[0] // len(parts), *own[our].shape[1:]) if len(parts) > 1 else tuple(own[our].shape)
            pieces = [fitted(given[their], shape) for their in parts]
            wrong = [(their, our, shape) for their, piece in zip(parts, pieces, strict=True) if piece.shape != shape]
            bad += wrong
            if not wrong:
                ours[our] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        if bad:
            told = "; ".join(
                f"{their} is {list(given[their].shape)} and the network's {our} is {list(shape)}"
                for their, our, shape in bad[:MOST_NAMED]
            )
            raise UserError(
                f"{len(bad)} weights in the layout of {self.title} have other shapes than this network: {told}. Build "
                "the network with the sizes that the weights were trained with."
            )
        return ours

    def written(self, weights: Mapping[str, Tensor], net: Module) -> dict[str, Tensor]:
        """Ours -> theirs, of a state dict of `net`."""
        written: dict[str, Tensor] = {}
        for our, theirs in self.names(net).items():
            parts = several(theirs)
            pieces = weights[our].chunk(len(parts)) if len(parts) > 1 else (weights[our],)
            written |= zip(parts, pieces, strict=True)
        return written

    def check_keys(self, expected: Collection[str], given: Collection[str]) -> None:
        """Raise a UserError that names the first keys which only one side has."""
        missing = [key for key in sorted(expected) if key not in given]
        surplus = [key for key in sorted(given) if key not in expected]
        if missing or surplus:
            told = [f"{len(missing)} are missing ({_first(missing)})"] if missing else []
            told += [f"{len(surplus)} are not of this network ({_first(surplus)})"] if surplus else []
            raise UserError(
                f"The weights in the layout of {self.title} do not fit the network: {' and '.join(told)}. Build the "
                "network with the structure that the weights were trained with."
            )


def leaves(package: str) -> dict[str, Layout[Any]]:
    """One of each leaf of `Layout` that the modules of a package define, by the names of those modules."""
    found: dict[str, Layout[Any]] = {}
    for info in pkgutil.iter_modules(import_module(package).__path__):
        module = import_module(f"{package}.{info.name}")
        for thing in vars(module).values():
            if inspect.isclass(thing) and issubclass(thing, Layout) and thing.__module__ == module.__name__:
                found[info.name] = thing()
    return found


def recognised(known: Mapping[str, Layout[Any]], keys: Collection[str]) -> str | None:
    """The name of the layout, one of the `known`, that weights with these keys are in, or None."""
    return next((name for name, layout in known.items() if layout.matches(keys)), None)


def named_tensors(keys: Collection[str], modules: Names) -> dict[str, Theirs]:
    """Names of modules -> names of the tensors in them that `keys` lists; a KeyError names a module without one."""
    split = {key: key.rpartition(".") for key in keys}
    return {key: _each(modules[module], tensor) for key, (module, _, tensor) in split.items()}


def several(theirs: Theirs) -> tuple[str, ...]:
    return (theirs,) if isinstance(theirs, str) else theirs


def fitted(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`tensor` in `shape` if that only adds or drops sizes of 1: a 1x1 convolution is a linear layer."""
    essence = [[size for size in sizes if size != 1] for sizes in (tensor.shape, shape)]
    return tensor.reshape(shape) if essence[0] == essence[1] else tensor


def _each(modules: Theirs, tensor: str) -> Theirs:
    if isinstance(modules, str):
        return f"{modules}.{tensor}"
    return tuple(f"{module}.{tensor}" for module in modules)


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:MOST_NAMED]) + (", ..." if len(keys) > MOST_NAMED else "")
