"""The `compare-latents` command: may two sets of latents be mixed?"""

import json
import sys
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ldm.cli.inspection import words
from ldm.comparing import Comparison, EncodedLatents, Latents, StoredLatents, compare
from ldm.errors import UserError

CANNOT_BE_MIXED = 1  # the exit code


def compare_latents(
    a: str,
    b: str,
    shards: str | None = None,
    num_samples: int = 1000,
    json: bool = False,
    trust_code: bool = False,
) -> None:
    """May two sets of latents be mixed, and if not, how far apart are they?

    They may if one contract made both: autoencoder, transform, shape and dtype. The exit code says it: 0 they may,
    1 they may not, 2 one of them cannot be read. Besides, mean, std, excess kurtosis and power spectrum of both are
    shown per channel, and how the means of samples with equal keys differ. Example: ldm compare-latents
    data/digits-latents/train data/digits-latents/val

    Args:
        a: folder of latent shards; or with --shards the run or export of an autoencoder.
        b: the same of the other.
        shards: folder of image shards, which two autoencoders then encode to be compared.
        num_samples: samples of each that are read, spread evenly.
        json: print everything as JSON.
        trust_code: allow a run's config to name classes from outside ldm, which runs their code.
    """
    if num_samples < 1:
        raise UserError(f"--num-samples is {num_samples}: it must be at least 1.")
    sides: list[Latents] = [
        StoredLatents(place) if shards is None else EncodedLatents(place, shards, trust_code) for place in (a, b)
    ]
    found = compare(sides[0], sides[1], num_samples)
    if json:
        print(as_json(sides, found))
    else:
        show(sides, found)
    if not found.mixable:
        sys.exit(CANNOT_BE_MIXED)


def as_json(sides: list[Latents], found: Comparison) -> str:
    each = [
        {"path": side.place, "contract": asdict(side.contract), "profile": profile.plain()}
        for side, profile in zip(sides, found.profiles, strict=True)
    ]
    pairs = {"keys_in_common": found.common, "compared": found.compared, "rms": found.rms}
    verdict = {"mixable": found.mixable, "differences": found.differences}
    return json.dumps({"latents": each, **pairs, "correlation": found.correlation, **verdict}, indent=1)


def show(sides: list[Latents], found: Comparison) -> None:
    """Print contracts, figures per channel and the verdict."""
    console = Console(highlight=False)
    console.print(contracts(sides, found.differences))
    console.print(figures(found))
    console.print(f"{found.common:,} keys in common.", soft_wrap=True)
    if found.rms is not None:
        correlation = "-" if found.correlation is None else f"{found.correlation:.4f}"
        told = f"Over {found.compared:,} of them the means differ by {found.rms:.4g} (RMS), correlation {correlation}."
        console.print(told, soft_wrap=True)
    console.print(verdict(found), soft_wrap=True, markup=False)


def contracts(sides: list[Latents], differences: list[str]) -> Table:
    table = Table(title="Contracts", title_justify="left")
    table.add_column(no_wrap=True)
    for name, side in zip("AB", sides, strict=True):
        table.add_column(Text(f"{name}: {side.place}"), overflow="fold")
    table.add_column(no_wrap=True)
    for name in asdict(sides[0].contract):
        values = (Text(words(name, getattr(side.contract, name))) for side in sides)
        table.add_row(name, *values, "differs" if name in differences else "")
    return table


def figures(found: Comparison) -> Table:
    """A row for each channel of each set; narrow enough for 80 columns, and no digit is left out where it is not."""
    bands = [f"power {band + 1}" for band in range(found.profiles[0].spectrum.shape[1])]
    table = Table(title=told(found), title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("channel", no_wrap=True)
    table.add_column(no_wrap=True)
    for heading in ("mean", "std", "kurtosis", *bands):
        table.add_column(heading, justify="right", overflow="fold")
    plain: list[dict[str, Any]] = [profile.plain() for profile in found.profiles]
    for channel in range(max(len(profile["mean"]) for profile in plain)):
        for name, profile in zip("AB", plain, strict=True):
            if channel < len(profile["mean"]):
                values = [profile[key][channel] for key in ("mean", "std", "kurtosis")] + profile["spectrum"][channel]
                table.add_row(str(channel), name, *(number(value) for value in values))
    return table


def told(found: Comparison) -> str:
    one, other = (profile.num_samples for profile in found.profiles)
    return f"Normalised means, over {one:,} samples of A and {other:,} of B; power of frequencies from low to high"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def verdict(found: Comparison) -> str:
    if found.mixable:
        return "They may be mixed: one contract made both."
    return f"They may not be mixed: they differ in {', '.join(found.differences)}. Encode the images of one again."
