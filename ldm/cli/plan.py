"""Which image gets which seed, conditions and guidance scale."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ldm.cli.asking import Said
from ldm.cli.labels import Labels, labels
from ldm.diffusion.guidance import Guidance
from ldm.sampling import Request

USUAL = 16  # images, where nothing says how many


@dataclass(frozen=True)
class Plan:
    """The images of one call. Lists have one value an image.

    Attributes:
        request: all of them, without guidance.
        rules: the rules of guidance at each scale.
        scales: guidance scales.
        entries: what was asked for, as text entries of the files.
        columns: columns of a grid.
        same_seed: whether images share seeds, so that a grid has to say which.
    """

    request: Request
    rules: Mapping[float, Sequence[Guidance]]
    scales: Sequence[float]
    entries: Sequence[Mapping[str, Any]]
    columns: int
    same_seed: bool

    def __len__(self) -> int:
        return len(self.scales)

    def pick(self, places: Sequence[int]) -> Request:
        """Images of one guidance scale."""
        return replace(self.request.pick(places), guidance=self.rules[self.scales[places[0]]])

    def batches(self, places: Sequence[int], batch_size: int) -> Iterator[list[int]]:
        """Places of at most `batch_size` images of one guidance scale each."""
        for scale in dict.fromkeys(self.scales[i] for i in places):
            alike = [i for i in places if self.scales[i] == scale]
            for start in range(0, len(alike), batch_size):
                yield alike[start : start + batch_size]

    def labels(self) -> Labels:
        """What a grid of the images says beside them."""
        facts = [dict(entries) for entries in self.entries]
        for fact, scale, seed in zip(facts, self.scales, self.request.seeds, strict=True):
            fact |= {"scale": f"{scale:g}"} if len(self.rules) > 1 else {}
            fact |= {"seed": seed} if self.same_seed else {}
        return labels(facts, self.columns)


def make_plan(
    said: Said,
    rules: Mapping[float, Sequence[Guidance]],
    scales: Sequence[float],
    num_images: int | None,
    seed: int,
    same_seed: bool,
    num_pictures: int = 0,
    columns: int = 0,
) -> Plan:
    """Deal all lists to the images.

    The conditions change from image to image and the scale after each round of them; with `same_seed` the seed changes
    after each round of all scales, else from image to image.

    Args:
        said: conditions.
        rules: the rules of guidance at each scale.
        scales: guidance scales.
        num_images: images in all; None: one for each line of a file, or all that it is to be drawn with at each of
            several scales; without a file 16, rounded up to whole rounds with several scales or shared seeds.
        seed: the first seed.
        same_seed: whether all images of a round share a seed.
        num_pictures: pictures to start from, dealt in turn too.
        columns: columns of a grid; 0: the conditions of a round or else the scales, or about as many as rows.
    """
    across = math.lcm(*said.lengths, num_pictures or 1)
    together = across * len(scales)
    sweeps = same_seed or len(scales) > 1
    if num_images is None:
        usual = math.ceil(USUAL / together) * together if sweeps else USUAL
        num_images = usual if not said.seeds else together if len(scales) > 1 else len(said.seeds)
    seeds = [seed + (i // together if same_seed else i) for i in range(num_images)]
    if said.seeds:
        own = deal(said.seeds, num_images)
        lap = len(said.seeds) * len(scales)  # a line that comes again has the next seed, or it would be the same image
        seeds = [seeds[i] if given is None else given + i // lap for i, given in enumerate(own)]
    wish, avoided = ({k: deal(v, num_images) for k, v in part.items()} for part in (said.wish, said.avoided))
    words = {name: deal(rows, num_images) for name, rows in said.entries.items()}
    entries = [{name: rows[i] for name, rows in words.items() if rows[i] is not None} for i in range(num_images)]
    dealt = [scales[i // across % len(scales)] for i in range(num_images)]
    scattered = said.seeds and not sweeps  # a file may have more lines than a picture can have columns
    in_a_row = len(scales) if across == 1 else 1 if scattered else across
    width = columns or (in_a_row if in_a_row > 1 else square(num_images))
    return Plan(Request(seeds, wish, avoided=avoided), rules, dealt, entries, width, same_seed)


def deal(values: Sequence[Any], count: int) -> list[Any]:
    """The values in turn, one an image."""
    return [values[i % len(values)] for i in range(count)]


def square(count: int) -> int:
    """Columns that make a grid of `count` images about as wide as high."""
    return max(1, round(count**0.5))
