"""Weight files of other code bases, read and given to networks of ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ldm.conditioners import Conditioner, Label
from ldm.errors import UserError
from ldm.networks import DiT, Network, UNet
from ldm.networks.layouts import Layout, layouts, recognise
from ldm.networks.layouts.dit_official import LABELS
from ldm.weight_files import read_tensors

NETWORKS: dict[str, type[Network]] = {"dit": DiT, "unet": UNet}  # by what the name of a layout begins with
MOST_NAMED = 3  # keys in a message


@dataclass(frozen=True)
class ForeignModel:
    """The weights of a file, and the layout that they are in.

    Attributes:
        file: where they are.
        kind: dit or unet.
        layout: the names that they have.
        weights: all tensors of the file.
    """

    file: Path
    kind: str
    layout: Layout
    weights: Mapping[str, Tensor]

    def arguments(self) -> dict[str, Any]:
        """Arguments of the network's constructor, as far as the weights tell them."""
        try:
            return self.layout.describe(self.weights)
        except KeyError as error:
            raise UserError(
                f"{self.file} looks like {self.layout.title} and lacks {error.args[0]}: give the whole file."
            ) from None

    def load_into(self, net: Network) -> None:
        """Raise a UserError that names the first keys that differ where the weights are not of `net`."""
        try:
            net.load_state_dict(self.layout.renamed(self.weights, net), strict=True)
        except UserError as error:
            raise UserError(f"{self.file}: {error}") from None

    def network(self) -> Network:
        """The network that the weights describe, with them."""
        try:
            net = NETWORKS[self.kind](**self.arguments())
        except ValueError as error:
            raise UserError(f"{self.file} describes no network that can be built: {error}") from None
        self.load_into(net)
        return net

    def label_table(self) -> Tensor | None:
        """(num_classes + 1, width), "no class" last; None where the model knows no classes."""
        return self.weights.get(LABELS)

    def conditioner(self) -> Conditioner:
        """What comes with the network: the embedder of its classes, if it has some."""
        table = self.label_table()
        if table is None:
            return Conditioner()
        label = Label(len(table) - 1, table.shape[1])
        label.embedding.load_state_dict({"weight": table})
        return Conditioner([label])


def read_foreign(file: Path, kind: str | None = None) -> ForeignModel:
    """The model in a file, whose layout its keys tell.

    Raises:
        UserError: the file cannot be read without running its code, or is in no layout that is known.
    """
    weights = read_tensors(file)
    name = recognise(weights.keys())
    if name is None:
        known = "; ".join(layout.title for layout in layouts().values())
        raise UserError(
            f"{file} is in no layout of weights that ldm knows: its keys begin with {first_keys(weights)}. It knows "
            f"{known}."
        )
    found = name.partition("_")[0]
    if kind is not None and kind != found:
        raise UserError(f"{file} holds a {found}, in the layout of {layouts()[name].title}: say {found}, not {kind}.")
    return ForeignModel(file, found, layouts()[name], weights)


def first_keys(weights: Mapping[str, Any]) -> str:
    return ", ".join(list(weights)[:MOST_NAMED]) or "none at all"
