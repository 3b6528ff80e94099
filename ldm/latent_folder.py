"""The folder that `ldm encode` writes: what of it is done, what may go on, and what is replaced or left alone."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from ldm.atomic import write_bytes
from ldm.autoencoders import Autoencoder
from ldm.data import LatentContract, Manifest, ShardInfo, shard_info
from ldm.data.manifest import TextContract
from ldm.data.stamp import read_stamp
from ldm.errors import UserError

CONTRACT = "contract.json"  # what the shards that are there already were made under, until the manifest says it
OURS = re.compile(
    r"(shard-\d+\.tar|text\.[a-z0-9+-]+\.safetensors|contract\.json|manifest\.json)(\.idx\.json|(\.\d+)?\.part)?"
)


def check_overlap(folder: Path, shards: Path) -> None:
    inner, outer = folder.resolve(), shards.resolve()
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise UserError(f"{folder} and the images in {shards} overlap: give a folder elsewhere for the latents.")


def make_contract(
    autoencoder: Autoencoder, size: int, dtype: str, map_resampling: str = "nearest", tile: int | None = None
) -> LatentContract:
    """The contract of the latents that an autoencoder makes of images of a size, or of their tiles."""
    try:
        shape = autoencoder.latent_shape(size, size)
    except ValueError as error:
        raise UserError(f"--size {size} does not fit the autoencoder: {error}") from None
    transform: dict[str, Any] = {"size": size, "crop": "center", "channels": autoencoder.in_channels}
    if map_resampling != "nearest":
        transform["map_resampling"] = map_resampling
    if tile is not None and tile < size:
        transform["tile"] = tile
    return LatentContract(
        autoencoder=autoencoder.fingerprint(),
        transform=transform,
        shape=list(shape),
        dtype=dtype,
        mean=autoencoder.latent_mean.tolist(),
        std=autoencoder.latent_std.tolist(),
        num_samples=int(autoencoder.latent_samples),
        autoencoder_class=type(autoencoder).__name__,
    )


def prepare(
    folder: Path, source: Manifest, contract: LatentContract, texts: list[TextContract], force: bool
) -> str | None:
    """Make the folder ready: go on where shards of this very contract and source are, refuse or replace others.

    What an earlier `encode` wrote can be replaced; a folder that holds anything else is left alone, `force` or not.

    Returns:
        Why the folder cannot be used, None if it is ready.
    """
    if folder.exists() and not folder.is_dir():
        return f"{folder} is a file: give another name."
    wanted = {
        "source": source.digest(),
        "contract": dataclasses.asdict(contract),
        "texts": [dataclasses.asdict(text) for text in texts],
    }
    found = read_contract(folder / CONTRACT)
    if found is not None:  # what an older version did not write down
        found["contract"] = {"autoencoder_class": contract.autoencoder_class, **found["contract"]}
    if found != wanted:
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        known = {shard.name for shard in source.shards}
        foreign = [name for name in names if not OURS.fullmatch(name) and name.removesuffix(".idx.json") not in known]
        if names and found is None:  # it was not encode that made this folder
            foreign = foreign or names
        if foreign:
            return f"{folder} holds other things than latents, such as {foreign[0]}: give another folder."
        if names and not force:
            return f"{folder} holds {difference(found, wanted)}: give another folder, or --force to replace it."
        for name in [CONTRACT, *names]:  # the contract first: without it nothing here counts
            (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / CONTRACT, json.dumps(wanted, indent=1).encode())
    return None


def read_contract(path: Path) -> dict[str, Any] | None:
    """What contract.json says, None where there is none that can be read."""
    try:
        content = json.loads(path.read_text())
        texts = [dict(text) for text in content.get("texts", [])]
        return {"source": content["source"], "contract": dict(content["contract"]), "texts": texts}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def difference(found: dict[str, Any] | None, wanted: dict[str, Any]) -> str:
    """In which respect the latents that are there are others than those that are wanted."""
    there, here = (side["contract"] if side else {} for side in (found, wanted))
    if there.get("autoencoder") != here["autoencoder"]:
        one, other = str(there.get("autoencoder"))[:12], here["autoencoder"][:12]
        return f"latents of autoencoder {one}, and this is autoencoder {other}"
    for name in ("transform", "shape", "dtype"):
        if there.get(name) != here[name]:
            return f"latents with {name} {there.get(name)}, and {here[name]} is asked for"
    said, asked = (described(side["texts"]) if side else "" for side in (found, wanted))
    if said != asked:
        return f"latents with embeddings of captions by {said}, and {asked} is asked for"
    return "latents of other images"


def described(texts: list[dict[str, Any]]) -> str:
    """Text encoders in words."""
    each = (f"{text.get('name')} {str(text.get('fingerprint'))[:12]} in {text.get('dtype')}" for text in texts)
    return ", ".join(each) or "no text encoder"


def finished(folder: Path, source: ShardInfo, contract: LatentContract) -> ShardInfo | None:
    """The finished latent shard of a source shard; None where it is missing, or says another contract or none."""
    try:
        found = shard_info(folder / source.name)
    except (OSError, UserError):
        return None
    made_under = read_stamp(folder / source.name)
    ours = made_under is not None and not contract.differences(made_under)
    return found if found.samples == source.samples and ours else None
