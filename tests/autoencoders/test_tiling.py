"""Tiles: shares that add up, no seams, memory that does not grow with the image; any size comes out as it went in."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from ldm.autoencoders import Autoencoder, DiagonalGaussian, KLAutoencoder, Pixels
from ldm.autoencoders.tiling import Cut, autoencode_any_size, check_tile, decode_tiled, encode_tiled, padded
from ldm.evaluation.seams import seam


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small(**options: object) -> KLAutoencoder:
    torch.manual_seed(0)
    arguments = {"channels": 8, "channel_multipliers": [1, 2, 2], "num_res_blocks": 1, **options}
    model = KLAutoencoder(**arguments).eval()  # type: ignore[arg-type]
    model.set_statistics(0.3, 2.0, 10)
    return model


class Blocks(Autoencoder):
    """Each latent is the mean of 4x4 pixels, and each pixel its latent, in whatever tile."""

    def __init__(self) -> None:
        super().__init__(3, 3, downsample=4)
        self.batches: list[int] = []

    def posterior(self, images: Tensor) -> DiagonalGaussian:
        self.check_images(images)
        self.batches.append(len(images))
        mean = torch.nn.functional.avg_pool2d(images, 4)
        return DiagonalGaussian(mean, -mean.abs())

    def reconstruct(self, z: Tensor) -> Tensor:
        self.batches.append(len(z))
        return torch.nn.functional.interpolate(z, scale_factor=4.0)


@pytest.mark.parametrize("length", [5, 8, 9, 11, 16, 23, 64])
@pytest.mark.parametrize("overlap", [0, 1, 2, 4])
def test_the_shares_of_tiles_add_up_and_fade_before_the_borders(length: int, overlap: int) -> None:
    cut, scale = Cut.of(length, 8, overlap), 4
    total = torch.zeros(length * scale)
    for start, share in zip(cut.starts, cut.weights(scale), strict=True):
        total[start * scale : (start + cut.tile) * scale] += share
        margin = overlap * scale // 8
        assert start == 0 or (share[:margin] == 0).all()
        assert start + cut.tile == length or (share[len(share) - margin :] == 0).all()
    torch.testing.assert_close(total, torch.ones_like(total))
    assert cut.starts[-1] + cut.tile == length
    assert all(a + cut.tile - b >= overlap for a, b in zip(cut.starts, cut.starts[1:], strict=False))


@pytest.mark.parametrize("overlap", [0, 4, 8, 16])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_where_tiles_do_not_matter_nothing_changes(overlap: int, batch_size: int) -> None:
    model, images, latents = Blocks(), random(2, 3, 44, 100), random(2, 3, 11, 25)
    model.set_statistics([0.1, 0.2, 0.3], [2.0, 3.0, 4.0], 10)
    torch.testing.assert_close(decode_tiled(model, latents, 32, overlap, batch_size), model.decode(latents))
    tiled, whole = encode_tiled(model, images, 32, overlap, batch_size), model.encode(images)
    torch.testing.assert_close(tiled.moments(), whole.moments())


def test_images_and_tiles_go_through_a_few_at_a_time() -> None:
    model = Blocks()
    decode_tiled(model, random(3, 3, 8, 8), tile=32, batch_size=2)  # one tile each
    decode_tiled(model, random(1, 3, 8, 14), tile=32, batch_size=2)  # two tiles
    encode_tiled(model, random(1, 3, 32, 60), tile=32, batch_size=2)  # three
    assert model.batches == [2, 1, 2, 2, 1]


def test_an_image_of_one_tile_is_decoded_as_a_whole() -> None:
    model, latents = small(), random(2, 4, 5, 8)
    with torch.no_grad():
        torch.testing.assert_close(decode_tiled(model, latents, tile=32), model.decode(latents))


def test_a_tile_alone_stands_where_its_neighbour_ends() -> None:
    """So the padding at a tile's border never shows."""
    model, latents = small(), random(1, 4, 16, 24)
    left, right = model.decode(latents[..., :16]), model.decode(latents[..., 8:])
    blended = decode_tiled(model, latents, tile=64, overlap=32)
    torch.testing.assert_close(blended[..., :36], left[..., :36])  # the right one starts at 32
    torch.testing.assert_close(blended[..., 60:], right[..., 28:])  # the left one ends at 64
    assert not torch.allclose(blended[..., 36:60], left[..., 36:60], atol=1e-3)


def test_seams_are_below_one_step_of_eight_bits() -> None:
    model = small(channels=16, channel_multipliers=[1, 2, 2, 4])
    for seed in range(2):
        latents = random(1, 4, 32, 56, seed=seed)
        assert seam(model, latents, tile=256) < 1
        assert seam(model, latents, tile=256, overlap=0) > 3  # where one tile ends and the next begins, at once


def test_encoding_in_tiles_is_near_encoding_whole() -> None:
    model, images = small(), random(1, 3, 128, 160)
    with torch.no_grad():
        whole = model.encode(images)
    tiled = encode_tiled(model, images, tile=64)
    assert tiled.mean.shape == whole.mean.shape
    assert (tiled.mean - whole.mean).abs().mean() < 0.1 * whole.mean.std()


@pytest.mark.parametrize("size", [(37, 50), (64, 61), (1, 3), (4, 5), (33, 2), (40, 40)])
def test_any_size_comes_out_as_it_went_in(size: tuple[int, int]) -> None:
    model, images = small(), random(2, 3, *size)
    assert autoencode_any_size(model, images, tile=32).shape == images.shape


def test_pixels_lose_nothing_at_any_size() -> None:
    images = random(1, 1, 13, 29)
    torch.testing.assert_close(autoencode_any_size(Pixels(), images, tile=8), images)


def test_padding_mirrors_and_where_it_cannot_it_repeats() -> None:
    image = torch.arange(6.0).reshape(1, 1, 1, 6)
    made = padded(image, 4)
    assert made[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 4, 3]
    assert made.shape == (1, 1, 4, 8)
    assert (made == made[:, :, :1]).all()  # one row cannot be mirrored
    assert padded(image, 1) is image


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (30, None, "such as 32"),
        (4, None, "such as 8"),
        (32, 2, "multiple of 4"),
        (32, 20, "at most 16"),
        (32, -4, "-4"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(tile: int, overlap: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_tile(small(), tile, overlap)


PEAK = """
import resource, torch
from ldm.autoencoders import KLAutoencoder
from ldm.autoencoders.tiling import decode_tiled
model = KLAutoencoder(channels=4, channel_multipliers=[1, 1, 1, 1], num_res_blocks=1).eval()
for side in (128, 256):
    decode_tiled(model, torch.randn(1, 4, side, side), tile=256)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_2048_image_takes_the_memory_of_a_1024_one_and_its_own_pixels() -> None:
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    of_1024, of_2048 = (int(line) / 1024 for line in done.stdout.split())  # MiB
    images = 3 * 4 * (2048**2 - 1024**2) / 2**20  # 36 MiB; a map inside has 64, and whole there would be several
    assert of_2048 - of_1024 < images + 20
