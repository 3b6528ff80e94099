"""The LightningDataModule: which shards, what size, whose state a checkpoint carries."""

import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader

from ldm.data.annotations import SIZES
from ldm.data.dataset import Fault, ShardDataset, collate
from ldm.data.loader import ShardLoader, rank_batch
from ldm.data.manifest import MANIFEST, PACKING, LatentContract, Manifest
from ldm.data.order import Order
from ldm.data.stream import StreamDataset, StreamLoader, expand
from ldm.data.text_cache import TextCache, text_cache
from ldm.data.transform import Crop, ImageTransform, MapResampling
from ldm.data.verify import check_shards
from ldm.errors import UserError


class ShardData(L.LightningDataModule):
    """Batches of images or latents from shards.

    What is at which place of which batch is a function of (seed, position, manifest), whatever the number of
    processes and workers; a resumed run goes on with the very next batch.

    Args:
        shards: a folder that `ldm pack` or `ldm encode` wrote. Or, streamed: a URL, a brace pattern such as
            https://host/shard-{000000..000099}.tar, or a folder of tars without a manifest.
        val_shards: a folder with a manifest, for validation.
        batch_size: of the whole run, over all devices.
        size: side in pixels that images are brought to; of latents their contract says it.
        channels: 1 (grey) or 3 (RGB), for images.
        crop: random or center, for training images; validation takes the centre.
        flip: mirror half of the training samples.
        map_resampling: how maps beside images are brought to size: nearest for classes, bilinear for pictures; of
            latents `ldm encode` has done it.
        num_workers: loader processes per device.
        seed: of the order, the crops and the mirrors.
        num_classes: labels must lie below it. The manifest knows it; streamed labels are read only if it is given.
        samples_per_epoch: what is called an epoch of streamed shards.
    """

    def __init__(
        self,
        shards: str,
        val_shards: str | None = None,
        batch_size: int = 64,
        size: int | None = None,
        channels: Literal[1, 3] = 3,
        crop: Crop = "random",
        flip: bool = True,
        num_workers: int = 2,
        seed: int = 0,
        num_classes: int | None = None,
        samples_per_epoch: int | None = None,
        map_resampling: MapResampling = "nearest",
    ) -> None:
        super().__init__()
        for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0), ("seed", seed, 0)):
            if value < least:
                raise UserError(f"{name} is {value}: it must be at least {least}")
        if channels not in (1, 3):
            raise UserError(f"channels is {channels}: it must be 1 (grey) or 3 (RGB)")
        if num_classes is not None and num_classes < 1:
            raise UserError(f"num_classes is {num_classes}: it must be at least 1, or left out")
        self.shards, self.val_shards, self.batch_size = shards, val_shards, batch_size
        self.size, self.channels, self.flip = size, channels, flip
        self.num_workers, self.seed, self.samples_per_epoch = num_workers, seed, samples_per_epoch
        self.map_resampling = map_resampling
        self.transform = ImageTransform(size, crop, flip, map_resampling) if size is not None else None
        self._num_classes, self._consumed = num_classes, 0
        self._manifest: Manifest | None = None
        self._urls: list[str] | None = None
        if samples_per_epoch is not None and not self.streamed:
            raise UserError(f"samples_per_epoch is for streamed shards; {shards} has a manifest: leave it out")

    @property
    def streamed(self) -> bool:
        """Whether the training shards have no manifest. (An unfinished folder has none either, but is refused.)"""
        folder = Path(self.shards).expanduser()
        if (folder / MANIFEST).is_file() or (folder / PACKING).exists():
            return False
        if folder.is_dir():
            return any(folder.glob("*.tar")) and not any(folder.glob("*.part"))
        return ":" in self.shards or "{" in self.shards or self.shards.endswith(".tar")

    @property
    def manifest(self) -> Manifest | None:
        """Of the training shards; None if they are streamed."""
        if self._manifest is None and not self.streamed:
            self._manifest = Manifest.load(Path(self.shards).expanduser())
        return self._manifest

    @property
    def urls(self) -> list[str]:
        """The streamed shards."""
        if self._urls is None:
            self._urls = expand(self.shards)
        return self._urls

    @property
    def num_classes(self) -> int | None:
        """None without labels."""
        named = len(self.manifest.classes) if self.manifest and self.manifest.classes is not None else None
        return self._num_classes if self._num_classes is not None else named

    @property
    def contract(self) -> LatentContract | None:
        """What the latents are latents of; None for images."""
        return self.manifest.latents if self.manifest else None

    @property
    def provides(self) -> set[str] | None:
        """Entries of a batch that a condition may be made of; None if the shards are streamed and it is not known."""
        if self.manifest is None:
            return None
        found = given(self.manifest)
        if self.val_shards is not None:
            found &= given(Manifest.load(Path(self.val_shards).expanduser()))
        return found

    def text_cache(self, name: str) -> TextCache | None:
        """What the set keeps of the text encoder of that name; None where it keeps nothing."""
        texts = self.manifest.texts if self.manifest is not None else []
        return text_cache(Path(self.shards).expanduser(), texts, name)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image, or (C, h, w) of a latent (its moments have 2C channels)."""
        if self.contract is not None:
            channels, height, width = self.contract.shape
            return channels, height, width
        if self.size is None:
            raise UserError(f"size is missing: {self.shards} holds images; say the pixels that they are brought to")
        return self.channels, self.size, self.size

    def setup(self, stage: str | None = None) -> None:
        """Check everything that can be checked before the first batch.

        Raises:
            UserError: naming the shard, field or option.
        """
        _ = self.shape
        rank_batch(self.batch_size, self._world())
        if self.trainer is not None and getattr(self.trainer, "overfit_batches", 0) > 0:
            raise UserError("overfit_batches does not go with shards, whose order never repeats: pack a few images")
        if self.manifest is None:
            if self.samples_per_epoch is None:
                raise UserError(f"{self.shards} has no manifest, so it is streamed: say samples_per_epoch")
            _ = self.urls
        else:
            check_shards(Path(self.shards).expanduser(), self.manifest)
            self._check_against(self.manifest)
        if self.val_shards is not None:
            val = Manifest.load(Path(self.val_shards).expanduser())
            check_shards(Path(self.val_shards).expanduser(), val)
            self._check_val(val)

    def _check_against(self, manifest: Manifest) -> None:
        classes = manifest.classes
        if self._num_classes is not None and not manifest.has_labels:
            raise UserError(f"num_classes is {self._num_classes}, but {self.shards} has no labels: leave it out")
        if self._num_classes is not None and classes is not None and self._num_classes < len(classes):
            raise UserError(f"num_classes is {self._num_classes}, but {self.shards} has {len(classes)} classes")
        made_at = manifest.latents.transform.get("size") if manifest.latents else None
        if self.size is not None and made_at is not None and self.size != made_at:
            raise UserError(f"size is {self.size}, but {self.shards} was encoded at {made_at}: leave size out")

    def _check_val(self, val: Manifest) -> None:
        if self.manifest is None:
            if val.kind != "images":
                raise UserError(f"val_shards {self.val_shards} holds latents, but {self.shards} images")
            return
        for name in ("kind", "classes", "has_labels", "has_captions", "latents", "texts"):
            train, other = getattr(self.manifest, name), getattr(val, name)
            if name == "latents" and train is not None and other is not None:  # mean and std are those of each set
                train, other = ((c.autoencoder, c.transform, c.shape) for c in (train, other))
            if train != other:
                raise UserError(
                    f"val_shards {self.val_shards} differs from shards {self.shards} in {name}: make both alike"
                )

    def train_dataloader(self) -> ShardLoader | StreamLoader:
        world, rank = self._world(), self.trainer.global_rank if self.trainer is not None else 0
        if self.manifest is None:
            assert self.transform is not None
            assert self.samples_per_epoch is not None
            stream = StreamDataset(
                self.urls, self.transform, self.channels, self.num_classes, self.seed, rank=rank, world=world
            )
            return StreamLoader(stream, self.samples_per_epoch, self.batch_size, self.num_workers, self.consumed)
        order = Order([shard.samples for shard in self.manifest.shards], self.batch_size, self.seed)
        dataset = self._dataset(self.shards, order, augment=True)
        return ShardLoader(dataset, self.batch_size, rank, world, self.num_workers, self.consumed, self._limit(dataset))

    def val_dataloader(self) -> ShardLoader | list[Any]:
        if self.val_shards is None:
            warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")  # as intended
            return []
        rank = self.trainer.global_rank if self.trainer is not None else 0
        dataset = self._dataset(self.val_shards, None, augment=False)
        return ShardLoader(dataset, self.batch_size, rank, self._world(), self.num_workers)

    def plain_images(self, count: int) -> Iterator[Tensor]:
        """This rank's share of `count` training images, spread over the set (all of a smaller one), each once.

        The same however long training went on. Of streamed shards, whose number is not known, they are the first of
        the stream, in whole batches; a stream with fewer begins again.

        Yields:
            float32 (B, C, size, size), centre crop, no mirror.
        """
        rank, world = self.trainer.global_rank if self.trainer is not None else 0, self._world()
        if self.manifest is None:
            for batch in self._plain_stream(-(-count // self.batch_size)):
                yield batch["images"]
            return
        dataset = self._dataset(self.shards, None, augment=False)
        chosen = (
            np.linspace(0, len(dataset), min(count, len(dataset)), endpoint=False).astype(int).tolist()[rank::world]
        )
        batches = [chosen[i : i + self.batch_size] for i in range(0, len(chosen), self.batch_size)]
        for batch in DataLoader(dataset, batch_sampler=batches, num_workers=self.num_workers, collate_fn=collate):  # type: ignore[arg-type]
            if isinstance(batch, Fault):
                raise UserError(batch.message)
            yield batch["images"]

    def _plain_stream(self, batches: int) -> StreamLoader:
        """The first batches of the stream, whatever of it has been trained on."""
        assert self.size is not None
        rank = self.trainer.global_rank if self.trainer is not None else 0
        plain = ImageTransform(self.size, "center", flip=False)
        stream = StreamDataset(self.urls, plain, self.channels, None, self.seed, rank=rank, world=self._world())
        return StreamLoader(stream, batches * self.batch_size, self.batch_size, self.num_workers)

    def examples(self, count: int) -> dict[str, Any]:
        """The first samples of the validation set, or of the training set if there is none, as a batch, unaugmented."""
        if self.manifest is None and self.val_shards is None:
            first = next(iter(self.train_dataloader()))
            return {key: value[:count] if hasattr(value, "__getitem__") else value for key, value in first.items()}
        dataset = self._dataset(self.val_shards or self.shards, None, augment=False)
        batch = collate([dataset.load(place) for place in range(min(count, len(dataset)))])
        assert isinstance(batch, dict)
        return batch

    def _dataset(self, folder: str, order: Order | None, augment: bool) -> ShardDataset:
        path = Path(folder).expanduser()
        return ShardDataset(path, self.transform, self.channels, self.num_classes, order, augment, self.flip)

    def _world(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1

    def _limit(self, dataset: ShardDataset) -> int | None:
        limit = self.trainer.limit_train_batches if self.trainer is not None else None
        if isinstance(limit, float):
            return int(limit * (dataset.order.epoch_length // self.batch_size))
        return limit

    @property
    def consumed(self) -> int:
        """Global samples that training has done with: by the trainer's count of finished steps, since a loader's own
        may run ahead of it; without a trainer, what was loaded."""
        if self.trainer is None:
            return self._consumed
        steps: int = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        return steps * self.batch_size

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed, **self._identity()}

    def _identity(self) -> dict[str, Any]:
        if self.manifest is not None:
            digest = self.manifest.digest()
        else:
            digest = hashlib.sha256(json.dumps([self.urls, self.samples_per_epoch]).encode()).hexdigest()
        return {"seed": self.seed, "batch_size": self.batch_size, "manifest": digest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where a checkpoint left off.

        Raises:
            UserError: training would go on in another order than the checkpoint's.
        """
        if self.trainer is not None and self.trainer.state.fn != TrainerFn.FITTING:
            return  # validating a checkpoint on other data is fine
        for name, here in self._identity().items():
            if state_dict[name] != here:
                raise UserError(
                    f"the checkpoint was trained with {name} {state_dict[name]}, this run has {name} {here}: "
                    "resume with the same, or start a new run"
                )
        self._consumed = state_dict["consumed"]


def given(manifest: Manifest) -> set[str]:
    """Entries of a batch of a set that a condition may be made of."""
    found = {"labels": manifest.has_labels, "captions": manifest.has_captions}
    own = {"moments"} if manifest.kind == "latents" else {"images", *SIZES}
    own |= {entry for text in manifest.texts for entry in text.entries()}
    return own | set(manifest.fields) | {key for key, there in found.items() if there}
