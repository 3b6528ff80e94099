"""Shards of images -> shards of latents: the posterior of each image and of its mirror image."""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ldm import runs
from ldm.atomic import write_bytes
from ldm.autoencoders import Autoencoder
from ldm.data import (
    LatentContract,
    Manifest,
    ShardDataset,
    ShardInfo,
    ShardWriter,
    load_index,
    shard_info,
    to_npy,
)
from ldm.data.annotations import SIZES, parse_fields
from ldm.data.dataset import Fault
from ldm.data.manifest import MANIFEST
from ldm.data.transform import ImageTransform, MapResampling
from ldm.data.verify import check_sizes
from ldm.errors import UserError
from ldm.launch import launch

CONTRACT = "contract.json"  # what the shards that are there already were made under, until the manifest says it
OURS = re.compile(r"(shard-\d+\.tar|contract\.json|manifest\.json)(\.idx\.json|(\.\d+)?\.part)?")


def encode(
    run: str,
    shards: str,
    out: str,
    size: int | None = None,
    dtype: Literal["float16", "float32"] = "float16",
    batch_size: int = 64,
    num_workers: int = 2,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
    force: bool = False,
    trust_code: bool = False,
    map_resampling: MapResampling = "nearest",
) -> None:
    """Encode image shards with a trained autoencoder, once, so that training need not.

    Each image (centre crop) and its mirror image give the mean and log-variance of their latents; training draws from
    them. Labels, captions, json and maps are carried over; the json also gets the sizes of image and crop. Stopped and
    started again it goes on with the next shard.

    Args:
        run: run folder of the autoencoder, or its export.
        shards: folder of image shards, made by `ldm pack`.
        out: folder for the latent shards.
        size: side of the images in pixels; left out, the size that the autoencoder was trained at.
        dtype: how latents are stored; float16 is checked for its range and takes half the room.
        batch_size: images that are encoded at once on one device (each with its mirror image).
        num_workers: processes that decode images, on each device.
        accelerator: what computes; auto takes a GPU if there is one.
        devices: devices on each node; they share the shards.
        num_nodes: nodes; start the command with srun or torchrun on them.
        precision: arithmetic of the autoencoder.
        force: replace latents in OUT that were made otherwise.
        trust_code: allow the run's config to name classes from outside ldm, which runs their code.
        map_resampling: how maps beside the images are brought to size: nearest for classes, bilinear for pictures.
    """
    if batch_size < 1 or num_workers < 0:
        raise UserError("--batch-size must be at least 1, and --num-workers at least 0.")
    source = Manifest.load(shards)
    if source.kind != "images":
        raise UserError(f"{shards} holds latents already: give a folder of images that `ldm pack` made.")
    check_sizes(shards, source)
    autoencoder = runs.load_autoencoder(run, trust_code)
    size = size or runs.trained_size(Path(run))
    if size is None:
        raise UserError(f"{run} does not say at which size it was trained: pass --size.")
    contract = make_contract(autoencoder, size, dtype, map_resampling)
    folder = Path(out)
    check_overlap(folder, Path(shards))
    fabric = launch(accelerator, devices, num_nodes, precision)
    refusal = prepare(folder, source, contract, force) if fabric.is_global_zero else None
    refusal = fabric.broadcast(refusal)
    if refusal:  # on every rank, so that none waits for the others
        raise UserError(refusal)
    autoencoder.to(fabric.device).eval().requires_grad_(False)
    transform = ImageTransform(size, "center", flip=False, map_resampling=map_resampling)
    dataset = ShardDataset(shards, transform, autoencoder.in_channels)
    todo = [n for n in range(len(source.shards)) if finished(folder, source.shards[n]) is None]
    fabric.barrier()  # no rank writes a shard before every rank has listed what is left
    if todo and fabric.is_global_zero:
        (folder / MANIFEST).unlink(missing_ok=True)
    mine = todo[fabric.global_rank :: fabric.world_size]
    with Progress(disable=not fabric.is_global_zero, console=Console(stderr=True)) as progress:
        bar = progress.add_task("encoding", total=sum(source.shards[n].samples for n in mine))
        for number in mine:
            rows = DataLoader(Rows(dataset, number), batch_size, num_workers=num_workers, collate_fn=list)
            for count in write_shard(folder / source.shards[number].name, rows, autoencoder, fabric, dtype):
                progress.advance(bar, count)
    fabric.barrier()
    if fabric.is_global_zero:
        finish(folder, source, contract)
        Console(highlight=False, soft_wrap=True).print(f"{source.num_samples} latents of {contract.shape} in {folder}/")


def write_shard(
    path: Path,
    rows: Iterable[list[dict[str, Any]]],
    autoencoder: Autoencoder,
    fabric: Fabric,
    dtype: Literal["float16", "float32"],
) -> Iterator[int]:
    """Encode one shard into `path`, which exists once it is whole; yields how many samples were written each time."""
    with ShardWriter(path) as writer:
        for batch in rows:
            check_readable(batch)
            for sample, moments in zip(batch, encode_batch(autoencoder, batch, fabric), strict=True):
                member = to_npy(sample["key"], moments.numpy(), dtype)
                writer.add(sample["key"], {**sample["members"], "latent.npy": member})
            yield len(batch)


class Rows(Dataset[dict[str, Any] | Fault]):
    """One shard's samples in stored order, for the loader's workers."""

    def __init__(self, dataset: ShardDataset, shard: int) -> None:
        self.dataset, self.shard = dataset, shard

    def __len__(self) -> int:
        return self.dataset.reader.counts[self.shard]

    def __getitem__(self, row: int) -> dict[str, Any] | Fault:
        try:
            return self.dataset.stored(self.shard, row)
        except UserError as error:
            return Fault(str(error))


def check_readable(batch: Sequence[dict[str, Any] | Fault]) -> None:
    """Raise the UserError of a sample that a worker could not read."""
    for sample in batch:
        if isinstance(sample, Fault):
            raise UserError(sample.message)


@torch.inference_mode()
def encode_batch(autoencoder: Autoencoder, batch: list[dict[str, Any]], fabric: Fabric) -> Iterator[Tensor]:
    """For each sample the moments (2, 2C, h, w) of the image and of its mirror image, float32 on the CPU."""
    images = torch.stack([sample["image"] for sample in batch]).to(fabric.device)
    with fabric.autocast():
        pair = [autoencoder.encode(view).moments().float().cpu() for view in (images, images.flip(-1))]
    yield from torch.stack(pair, dim=1)


def make_contract(autoencoder: Autoencoder, size: int, dtype: str, map_resampling: str = "nearest") -> LatentContract:
    try:
        shape = autoencoder.latent_shape(size, size)
    except ValueError as error:
        raise UserError(f"--size {size} does not fit the autoencoder: {error}") from None
    transform: dict[str, Any] = {"size": size, "crop": "center", "channels": autoencoder.in_channels}
    if map_resampling != "nearest":
        transform["map_resampling"] = map_resampling
    return LatentContract(
        autoencoder=autoencoder.fingerprint(),
        transform=transform,
        shape=list(shape),
        dtype=dtype,
        mean=autoencoder.latent_mean.tolist(),
        std=autoencoder.latent_std.tolist(),
        num_samples=int(autoencoder.latent_samples),
    )


def check_overlap(folder: Path, shards: Path) -> None:
    inner, outer = folder.resolve(), shards.resolve()
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise UserError(f"{folder} and the images in {shards} overlap: give a folder elsewhere for the latents.")


def prepare(folder: Path, source: Manifest, contract: LatentContract, force: bool) -> str | None:
    """Make the folder ready: go on where shards of this very contract and source are, refuse or replace others.

    What an earlier `encode` wrote can be replaced; a folder that holds anything else is left alone, `force` or not.

    Returns:
        Why the folder cannot be used, None if it is ready.
    """
    if folder.exists() and not folder.is_dir():
        return f"{folder} is a file: give another name."
    wanted = {"source": source.digest(), "contract": dataclasses.asdict(contract)}
    found = read_contract(folder / CONTRACT)
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
        return {"source": content["source"], "contract": dict(content["contract"])}
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
    return "latents of other images"


def finished(folder: Path, source: ShardInfo) -> ShardInfo | None:
    """The finished latent shard that belongs to a source shard, None where it is missing."""
    try:
        found = shard_info(folder / source.name)
    except (OSError, UserError):
        return None
    return found if found.samples == source.samples else None


def finish(folder: Path, source: Manifest, contract: LatentContract) -> None:
    """Write the manifest, last, so that its presence means a complete set."""
    done = [finished(folder, shard) for shard in source.shards]
    missing = [shard.name for shard, info in zip(source.shards, done, strict=True) if info is None]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing[:3])}: run the same command again.")
    sizes = SIZES if all(has_sizes(folder / shard.name) for shard in source.shards) else ()
    dataclasses.replace(
        source,
        kind="latents",
        shards=[info for info in done if info is not None],
        latents=contract,
        formats={},
        modes={},
        sizes={},
        fields=sorted({*source.fields, *sizes}),
    ).save(folder)


def has_sizes(shard: Path) -> bool:
    """Whether a shard's samples say how large their images were, as those of older shards do not."""
    offset, length = load_index(shard).members(0).get("json", (0, 0))
    with shard.open("rb") as file:
        file.seek(offset)
        return set(SIZES) <= parse_fields(file.read(length) or b"{}").keys()
