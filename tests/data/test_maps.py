"""A map beside an image is cropped and mirrored as the image is, and the crop's place is told."""

from pathlib import Path

import numpy as np
import pytest
import torch
from data_pictures import picture
from PIL import Image

from ldm.data import ImageTransform, Manifest, Order, ShardData, ShardDataset, ShardReader, pack
from ldm.data.dataset import collate
from ldm.data.transform import resized
from ldm.seeding import seeded_generator

COLUMNS = np.tile(np.arange(20, dtype=np.uint8), (8, 1))  # 8 x 20 pixels, each its column


@pytest.fixture
def mapped(tmp_path: Path) -> Path:
    """Eight images of 20 x 8 whose grey is 10 x the column, and maps of the column."""
    source = tmp_path / "source"
    source.mkdir()
    for i in range(8):
        Image.fromarray(10 * COLUMNS).save(source / f"{i}.v1.png")
        Image.fromarray(COLUMNS).save(source / f"{i}.v1.map.png")
    pack(str(source), str(tmp_path / "packed"))
    return tmp_path / "packed"


def test_a_map_is_a_member_of_its_image_and_no_image(mapped: Path) -> None:
    manifest = Manifest.load(mapped)
    assert (manifest.num_samples, manifest.fields) == (8, ["maps"])
    assert set(ShardReader(mapped).read(0, 0)[1]) == {"png", "map.png"}
    assert "maps" in ShardData(str(mapped), size=8).provides


def test_the_map_follows_crop_and_mirror_and_the_crop_says_where(mapped: Path) -> None:
    dataset = ShardDataset(mapped, ImageTransform(8), channels=1, order=Order([8], 8), augment=True)
    batch = collate([dataset.load(position) for position in range(40)])
    columns = ((batch["images"] + 1) * 127.5 / 10).round()
    assert torch.equal(batch["maps"].float(), columns)
    first, last = columns[:, 0, 0, 0], columns[:, 0, 0, -1]
    mirrored = first > last
    assert 8 < mirrored.sum() < 32
    left = batch["crop"][:, 1]
    assert torch.equal(torch.where(mirrored, 19 - left, left).float(), first)  # a mirror image counts from its own left
    assert len(set(left.tolist())) > 5
    assert batch["crop"][:, 0].eq(0).all()
    assert batch["original_size"].tolist() == [[8, 20]] * 40


@pytest.mark.parametrize(("size", "seed"), [(8, None), (8, 1), (5, 2), (13, 3)])
def test_a_resized_map_has_only_the_classes_that_were_there(size: int, seed: int | None) -> None:
    transform = ImageTransform(size)
    classes = torch.randint(0, 2, (1, 10, 14), dtype=torch.uint8) * 200
    view = transform.view(classes, None if seed is None else seeded_generator("test", seed))
    found = transform.look_at_map(classes, view)
    assert found.shape == (1, size, size)
    assert set(found.unique().tolist()) <= {0, 200}
    smooth = ImageTransform(5, map_resampling="bilinear")
    assert len(smooth.look_at_map(classes, smooth.view(classes)).unique()) > 2


@pytest.mark.parametrize("shape", [(10, 33), (33, 10), (10, 10), (7, 100)])
@pytest.mark.parametrize("size", [4, 10, 23])
def test_the_view_is_torchvisions_resize_and_centre_crop(shape: tuple[int, int], size: int) -> None:
    from torchvision.transforms.v2 import functional as tv

    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    expected = tv.resize(image, [size], interpolation=tv.InterpolationMode.BICUBIC, antialias=True)
    assert resized(*shape, size) == tuple(expected.shape[1:])
    assert torch.equal(ImageTransform(size)(image), tv.center_crop(expected, [size, size]).float() / 127.5 - 1)


def test_palettes_are_classes_and_colours_are_pictures(tmp_path: Path) -> None:
    for name, values in (("palette", Image.fromarray(COLUMNS)), ("colour", Image.fromarray(np.dstack([COLUMNS] * 3)))):
        source = tmp_path / name
        source.mkdir()
        if name == "palette":
            values = values.convert("P")
            values.putpalette([200, 100, 0] * 256)
            values.putdata(COLUMNS.flatten().tolist())
        Image.fromarray(10 * COLUMNS).save(source / "a.png")
        values.save(source / "a.map.png")
        pack(str(source), str(tmp_path / f"{name}-out"))
        found = ShardDataset(tmp_path / f"{name}-out", ImageTransform(8)).load(0)["maps"]
        assert torch.equal(found, torch.from_numpy(COLUMNS[:, 6:14]).expand(1 if name == "palette" else 3, -1, -1))


def test_maps_that_do_not_fit_are_left_out_by_reason(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in "abcd":
        picture(0, (12, 10)).save(source / f"{name}.jpg")
    picture(0, (10, 12)).save(source / "a.map.png")
    (source / "b.map.png").write_bytes(b"<html>")
    Image.fromarray(np.zeros((10, 12), dtype=np.uint16)).save(source / "c.map.png")
    picture(0, (12, 10)).save(source / "alone.map.png")
    report = pack(str(source), str(tmp_path / "out"))
    reasons = ["map of another size", "map without its image", "map: more than 8 bits", "map: not an image"]
    assert report.skipped == dict.fromkeys(reasons, 1)
    assert Manifest.load(tmp_path / "out").num_samples == 1


def test_maps_of_unlike_shapes_are_named(mapped: Path) -> None:
    samples = [{"keys": key, "maps": torch.zeros(channels, 8, 8)} for key, channels in (("a", 1), ("b", 1), ("c", 3))]
    fault = collate(samples)
    assert fault.message.startswith("maps of sample 'a' are (1, 8, 8) and those of sample 'c' are (3, 8, 8)")
