"""The seam of a weights layout: how another code base names the weights of one of our networks."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from ldm.errors import UserError
from ldm.networks.base import Network

MOST_NAMED = 3  # keys in a message


class Layout(ABC):
    """Names and shapes that another code base gives to the weights of a network; both directions are exact.

    A layout holds no state: it is a pure function of the structure of the network that it is asked about.

    Attributes:
        title: what a message calls it.
    """

    title: str

    @abstractmethod
    def matches(self, keys: Collection[str]) -> bool:
        """Is this the layout of weights with these keys?"""

    @abstractmethod
    def names(self, net: Network) -> dict[str, str]:
        """Our key -> their key, for every tensor of `net.state_dict()`.

        Raises:
            UserError: the layout has no names for what this network is made of.
        """

    @abstractmethod
    def describe(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """Arguments of our network's constructor, as far as shapes tell them."""

    def own(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of a whole file, the weights of the network by the names that `names` gives; here all of them."""
        return dict(weights)

    def renamed(self, weights: Mapping[str, Tensor], net: Network) -> dict[str, Tensor]:
        """Theirs -> ours: a state dict that `net` loads strictly.

        Raises:
            UserError: keys or shapes are not those of `net`; the first that differ are named.
        """
        given, names, shapes = self.own(weights), self.names(net), shapes_of(net)
        self.check_keys(set(names.values()), given.keys())
        ours = {our: fitted(given[their], shapes[our]) for our, their in names.items()}
        bad = [our for our, tensor in ours.items() if tensor.shape != shapes[our]]
        if bad:
            told = "; ".join(
                f"{names[our]} is {list(given[names[our]].shape)} and the network's {our} is {list(shapes[our])}"
                for our in bad[:MOST_NAMED]
            )
            raise UserError(
                f"{len(bad)} weights in the layout of {self.title} have other shapes than this network: {told}. Build "
                "the network with the sizes that the weights were trained with."
            )
        return ours

    def written(self, weights: Mapping[str, Tensor], net: Network) -> dict[str, Tensor]:
        """Ours -> theirs, of a state dict of `net`."""
        return {their: weights[our] for our, their in self.names(net).items()}

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


def shapes_of(net: Network) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}


def fitted(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`tensor` in `shape` if that only adds or drops sizes of 1: a 1x1 convolution is a linear layer."""
    essence = [[size for size in sizes if size != 1] for sizes in (tensor.shape, shape)]
    return tensor.reshape(shape) if essence[0] == essence[1] else tensor


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:MOST_NAMED]) + (", ..." if len(keys) > MOST_NAMED else "")
