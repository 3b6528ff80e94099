"""Weight files of other code bases, read and given to modules of ours."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor, nn

from ldm.autoencoders.layouts import layouts as autoencoder_layouts
from ldm.conditioners import Conditioner, Label
from ldm.errors import UserError
from ldm.networks import DiT, Network, UNet
from ldm.networks.layouts import Layout
from ldm.networks.layouts import layouts as network_layouts
from ldm.networks.layouts.dit_official import LABELS
from ldm.weight_files import read_tensors

NETWORKS: dict[str, type[Network]] = {"dit": DiT, "unet": UNet}  # by what the name of a layout begins with
AUTOENCODER = "autoencoder"
MOST_NAMED = 3  # keys in a message


@dataclass(frozen=True)
class ForeignModel:
    """The weights of a file, and the layout that they are in.

    Attributes:
        file: where they are.
        kind: dit, unet or autoencoder.
        layout: the names that they have.
        weights: all tensors of the file.
    """

    file: Path
    kind: str
    layout: Layout[Any]
    weights: Mapping[str, Tensor]

    def arguments(self) -> dict[str, Any]:
        """Arguments of the module's constructor, as far as the weights tell them."""
        try:
            return self.layout.describe(self.weights)
        except UserError as error:
            raise UserError(f"{self.file}: {error}") from None
        except KeyError as error:
            raise UserError(
                f"{self.file} looks like {self.layout.title} and lacks {error.args[0]}: give the whole file."
            ) from None

    def load_into(self, net: nn.Module) -> None:
        """Raise a UserError where the weights are not of `net`, with the first keys that differ, or are not finite."""
        try:
            net.load_state_dict(self.layout.renamed(self.weights, net), strict=True)
        except UserError as error:
            raise UserError(f"{self.file}: {error}") from None
        if not all_finite(net.state_dict()):
            self.refuse_broken()

    def refuse_broken(self) -> NoReturn:
        """Raise the UserError that names the first tensor of the file with NaN or Inf."""
        broken = next((key for key, tensor in self.weights.items() if not all_finite({key: tensor})), "a tensor")
        raise UserError(
            f"{self.file} holds weights that are not finite (NaN or Inf), first in {broken}: its download is damaged "
            "or its training diverged. Fetch it again, or give another."
        )

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
        table = self.weights.get(LABELS)
        if table is not None and not all_finite({LABELS: table}):
            self.refuse_broken()
        return table

    def conditioner(self) -> Conditioner:
        """What comes with the network: the embedder of its classes, if it has some."""
        table = self.label_table()
        if table is None:
            return Conditioner()
        label = Label(len(table) - 1, table.shape[1])
        label.embedding.load_state_dict({"weight": table})
        return Conditioner([label])


def read_foreign(file: Path, kind: str | None = None) -> ForeignModel:
    """The model in a file, whose layout its keys tell; of a given kind, or any diffusion network.

    A file that holds several, such as the whole of Stable Diffusion, is read as the kind that is asked for.

    Raises:
        UserError: the file cannot be read without running its code, or is in no layout that is known.
    """
    found = models_in(file)
    for model in found:
        if model.kind in (NETWORKS if kind is None else (kind,)):
            return model
    other, title = found[0].kind, found[0].layout.title
    what = "an autoencoder" if other == AUTOENCODER else f"a {other}"
    way_out = "give a diffusion network's weights" if kind is None else f"say {other}, not {kind}"
    raise UserError(f"{file} holds {what}, in the layout of {title}: {way_out}.")


def models_in(file: Path) -> list[ForeignModel]:
    """All models of a file, at least one, diffusion networks first.

    Raises:
        UserError: the file cannot be read without running its code, or is in no layout that is known.
    """
    weights = read_tensors(file)
    if found := matching(weights):
        return [ForeignModel(file, kind, layout, weights) for kind, layout in found.items()]
    known = "; ".join(layout.title for _, layout in known_layouts())
    raise UserError(
        f"{file} is in no layout of weights that ldm knows: its keys begin with {first_keys(weights)}. It knows "
        f"{known}."
    )


def known_layouts() -> list[tuple[str, Layout[Any]]]:
    """Every layout, with the kind of model that it is a layout of."""
    networks = [(name.partition("_")[0], layout) for name, layout in network_layouts().items()]
    return networks + [(AUTOENCODER, layout) for layout in autoencoder_layouts().values()]


def matching(keys: Collection[str]) -> dict[str, Layout[Any]]:
    """By kind of model, the layouts that weights with these keys are in."""
    return {kind: layout for kind, layout in known_layouts() if layout.matches(keys)}


def all_finite(tensors: Mapping[str, Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors.values())


def first_keys(weights: Mapping[str, Any]) -> str:
    return ", ".join(list(weights)[:MOST_NAMED]) or "none at all"
