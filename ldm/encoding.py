"""Shards of images -> shards of latents: the posterior of each image and of its mirror image, and what text encoders
make of its captions."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ldm import runs
from ldm.autoencoders import Autoencoder, DiagonalGaussian
from ldm.autoencoders.tiling import encoding
from ldm.data import (
    LatentContract,
    Manifest,
    ShardDataset,
    ShardWriter,
    load_index,
    to_npy,
)
from ldm.data.annotations import SIZES, parse_fields
from ldm.data.dataset import Fault
from ldm.data.manifest import MANIFEST, TextContract
from ldm.data.stamp import stamp
from ldm.data.text_cache import empty_path
from ldm.data.transform import ImageTransform, MapResampling
from ldm.data.verify import check_shards
from ldm.errors import UserError
from ldm.latent_folder import check_overlap, finished, make_contract, prepare
from ldm.launch import launch
from ldm.text_encoding import CaptionEncoding, check_captions, encoders_of

Encode = Callable[[Tensor], DiagonalGaussian]


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
    text: str | None = None,
    tile: int | None = None,
) -> None:
    """Encode image shards with a trained autoencoder, once, so that training need not.

    Each image (centre crop) and its mirror image give the mean and log-variance of their latents; training draws from
    them. Labels, captions, json and maps are carried over; the json also gets the sizes of image and crop. Stopped and
    started again it goes on with the next shard. With --text what frozen text encoders make of all captions is kept
    too, so that none runs in training; SHARDS may then also be latents of this very autoencoder, which are taken over.

    Args:
        run: run folder of the autoencoder, or its export.
        shards: folder of image shards, made by `ldm pack`.
        out: folder for the latent shards.
        size: side of the images in pixels; left out, the size that the autoencoder was trained at.
        dtype: how latents and embeddings are stored; float16 is checked for its range and takes half the room.
        batch_size: images that are encoded at once on one device (each with its mirror image).
        num_workers: processes that decode images, on each device.
        accelerator: what computes; auto takes a GPU if there is one.
        devices: devices on each node; they share the shards.
        num_nodes: nodes; start the command with srun or torchrun on them.
        precision: arithmetic of the autoencoder.
        force: replace latents in OUT that were made otherwise.
        trust_code: allow the run's config to name classes from outside ldm, which runs their code.
        map_resampling: how maps beside the images are brought to size: nearest for classes, bilinear for pictures.
        text: training config or run folder whose text encoders (FrozenText) encode the captions.
        tile: encode in overlapping tiles of so many pixels a side: large images in bounded memory.
    """
    if batch_size < 1 or num_workers < 0:
        raise UserError("--batch-size must be at least 1, and --num-workers at least 0.")
    source = Manifest.load(shards)
    if source.kind != "images" and text is None:
        raise UserError(f"{shards} holds latents already: give a folder of images that `ldm pack` made, or --text.")
    check_shards(shards, source)
    if text is not None:
        check_captions(source, shards)
    encoders = [] if text is None else encoders_of(text, trust_code)
    autoencoder = runs.load_autoencoder(run, trust_code)
    contract = settled_contract(run, source, shards, autoencoder, size, dtype, map_resampling, tile)
    try:
        encode_images = encoding(autoencoder, tile)
    except ValueError as error:
        raise UserError(f"--tile: {error}") from None
    folder = Path(out)
    check_overlap(folder, Path(shards))
    fabric = launch(accelerator, devices, num_nodes, precision)
    texts = CaptionEncoding(encoders, dtype, fabric.device, batch_size)
    refusal = prepare(folder, source, contract, texts.contracts, force) if fabric.is_global_zero else None
    refusal = fabric.broadcast(refusal)
    if refusal:  # on every rank, so that none waits for the others
        raise UserError(refusal)
    autoencoder.to(fabric.device).eval().requires_grad_(False)
    transform = ImageTransform(contract.transform["size"], "center", flip=False, map_resampling=map_resampling)
    dataset = ShardDataset(shards, transform, autoencoder.in_channels)
    todo = [n for n in range(len(source.shards)) if finished(folder, source.shards[n], contract) is None]
    lacking = any(not empty_path(folder, contract.name).is_file() for contract in texts.contracts)
    fabric.barrier()  # no rank writes before every rank has listed what is left
    empties = texts.empties() if todo or lacking else []  # on every rank, so that all fail together
    if (todo or lacking) and fabric.is_global_zero:
        (folder / MANIFEST).unlink(missing_ok=True)
        texts.save_empties(folder, empties)
    mine = todo[fabric.global_rank :: fabric.world_size]
    with Progress(disable=not fabric.is_global_zero, console=Console(stderr=True)) as progress:
        bar = progress.add_task("encoding", total=sum(source.shards[n].samples for n in mine))
        for number in mine:
            rows = DataLoader(Rows(dataset, number), batch_size, num_workers=num_workers, collate_fn=list)
            path = folder / source.shards[number].name
            for count in write_shard(path, rows, encode_images, fabric, contract, texts):
                progress.advance(bar, count)
    fabric.barrier()
    if fabric.is_global_zero:
        finish(folder, source, contract, texts.contracts)
        Console(highlight=False, soft_wrap=True).print(f"{source.num_samples} latents of {contract.shape} in {folder}/")


def write_shard(
    path: Path,
    rows: Iterable[list[dict[str, Any]]],
    encode_images: Encode,
    fabric: Fabric,
    contract: LatentContract,
    texts: CaptionEncoding,
) -> Iterator[int]:
    """Encode one shard into `path`, which exists once it is whole; yields how many samples were written each time."""
    with ShardWriter(path, stamp(contract)) as writer:
        for batch in rows:
            check_readable(batch)
            there = "latent" in batch[0]
            latents = (s["latent"] for s in batch) if there else encode_batch(encode_images, batch, fabric)
            for sample, moments, said in zip(batch, latents, texts.members(batch), strict=True):
                member = to_npy(sample["key"], moments.numpy(), contract.dtype)
                writer.add(sample["key"], {**sample["members"], **said, "latent.npy": member})
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
def encode_batch(encode_images: Encode, batch: list[dict[str, Any]], fabric: Fabric) -> Iterator[Tensor]:
    """For each sample the moments (2, 2C, h, w) of the image and of its mirror image, float32 on the CPU."""
    images = torch.stack([sample["image"] for sample in batch]).to(fabric.device)
    with fabric.autocast():
        pair = [encode_images(view).moments().float().cpu() for view in (images, images.flip(-1))]
    yield from torch.stack(pair, dim=1)


def settled_contract(
    run: str,
    source: Manifest,
    shards: str,
    autoencoder: Autoencoder,
    size: int | None,
    dtype: str,
    map_resampling: MapResampling,
    tile: int | None,
) -> LatentContract:
    """The contract of what will be written: that of latents which are taken over, or one of images to be encoded."""
    if source.latents is None:
        size = size or runs.trained_size(Path(run))
        if size is None:
            raise UserError(f"{run} does not say at which size it was trained: pass --size.")
        return make_contract(autoencoder, size, dtype, map_resampling, tile)
    source.latents.check(autoencoder.fingerprint(), shards)
    made_at = source.latents.transform["size"]
    if size not in (None, made_at):
        raise UserError(f"--size is {size}, but {shards} was encoded at {made_at}: leave it out.")
    if tile is not None:
        raise UserError(f"--tile is about images, and {shards} holds latents already: leave it out.")
    return source.latents


def finish(folder: Path, source: Manifest, contract: LatentContract, texts: list[TextContract]) -> None:
    """Write the manifest, last, so that its presence means a complete set."""
    done = [finished(folder, shard, contract) for shard in source.shards]
    missing = [shard.name for shard, info in zip(source.shards, done, strict=True) if info is None]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing[:3])}: run the same command again.")
    sizes = SIZES if all(has_sizes(folder / shard.name) for shard in source.shards) else ()
    dataclasses.replace(
        source,
        kind="latents",
        shards=[info for info in done if info is not None],
        latents=contract,
        texts=texts,
        stamped=True,
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
