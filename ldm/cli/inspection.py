"""The `inspect` command: what lies at a path."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ldm.inspecting import facts

SHOWN = 16  # entries of a list; --json has them all
TITLES = {
    "kind": "what",
    "latents": "latent contract",
    "mean": "mean per channel",
    "std": "std per channel",
    "num_samples": "measured over",
    "published": "as scale and shift",
    "texts": "caption embeddings",
    "checked": "content checked",
}
UNSAID = {
    "num_samples": "an unknown number of images: published statistics",
    "dtype": "chosen by ldm encode",
    "class": "not recorded",
    "published": "no: they differ between channels",
}


def inspect(path: str, verify: bool = False, json: bool = False, trust_code: bool = False) -> None:
    """What lies at PATH, and the contract of its latents.

    PATH is a folder of shards (images or latents), one shard, a run folder, an export, or a weight file of another
    code base. Of latents, and of whatever has an autoencoder, the contract is shown: fingerprint and class of the
    autoencoder, what was done to the images, shape, dtype, and the mean and std that normalise. Example: ldm inspect
    runs/digits/autoencoder

    Args:
        path: what to look at.
        verify: read every shard and compare its content with the manifest's hash.
        json: print everything as JSON.
        trust_code: allow a run's config to name classes from outside ldm, which runs their code.
    """
    found = {"path": path, **facts(Path(path), verify, trust_code)}
    if json:
        print(as_json(found))
    else:
        show(found)


def as_json(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1, ensure_ascii=False)


def show(found: dict[str, Any]) -> None:
    """Print what is known, a line each, the contract below the rest."""
    console = Console(highlight=False)
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    own = {name: value for name, value in found.items() if name != "latents" and said(value)}
    for name, value in own.items():
        table.add_row(title(name), Text(words(name, value)))
    if found["latents"] is not None:
        table.add_row("", "")
        table.add_row(Text(TITLES["latents"], style="bold"), "")
        for name, value in found["latents"].items():
            table.add_row(f"  {title(name)}", Text(words(name, value)))
    console.print(table)


def said(value: Any) -> bool:
    """Whether there is something to say: a number or yes and no always, else what is not empty."""
    return isinstance(value, int | float) or bool(value)


def title(name: str) -> str:
    return TITLES.get(name, name)


def words(name: str, value: Any) -> str:
    """A value for people."""
    if value is None:
        return UNSAID.get(name, "not known")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "shape":
        return " x ".join(map(str, value))
    if name == "num_samples":
        return f"{value:,} images" if value else "not measured yet: training has not ended"
    if isinstance(value, dict):
        return ", ".join(f"{key} {words('', entry)}" for key, entry in value.items())
    if isinstance(value, list):
        more = f", and {len(value) - SHOWN} more" if len(value) > SHOWN else ""
        return ", ".join(words("", entry) for entry in value[:SHOWN]) + more
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
