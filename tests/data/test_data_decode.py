import io

import numpy as np
import pytest
import torch
from data_pictures import picture
from PIL import Image

from ldm.data.decode import parse_label
from ldm.data.transform import ImageTransform
from ldm.errors import UserError
from ldm.pictures import BadImage, open_image, to_tensor
from ldm.seeding import seeded_generator


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def decoded(data: bytes, channels: int = 3) -> torch.Tensor:
    return to_tensor(open_image(data), channels)


def test_pixels_are_those_of_the_file() -> None:
    image = picture(0)
    assert torch.equal(decoded(encoded(image)).permute(1, 2, 0), torch.from_numpy(np.array(image)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    image = Image.fromarray(np.full((16, 32, 3), 255, dtype=np.uint8))
    image.paste((0, 0, 0), (0, 0, 16, 16))  # left half black
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's transpositions that a camera's turn is undone by
    stored = image if orientation == 1 else image.transpose(Image.Transpose(undo[orientation]))
    if orientation in (6, 8):  # quarter turns are not their own inverse
        stored = image.transpose(Image.Transpose({6: 2, 8: 4}[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decoded(encoded(stored, exif=exif.tobytes()), 1)
    assert pixels.shape == (1, 16, 32)
    assert pixels[0, :, :16].max() == 0
    assert pixels[0, :, 16:].min() == 255


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_is_laid_on_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))  # hidden black
    image.paste((0, 0, 0, 255), (0, 0, 2, 4))
    data = encoded(image.convert(mode) if mode != "P" else image.quantize(4))
    for channels in (1, 3):
        pixels = decoded(data, channels)
        assert pixels.shape[0] == channels
        assert pixels[:, :, :2].max() == 0
        assert pixels[:, :, 2:].min() == 255


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind: str) -> None:
    levels = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    for channels in (1, 3):
        pixels = decoded(encoded(Image.fromarray(levels), kind), channels)
        assert torch.equal(pixels[0].flatten(), torch.arange(256, dtype=torch.uint8))


def test_cmyk_and_animations_are_read() -> None:
    cmyk = decoded(encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG"))
    assert cmyk[0].float().mean() > 200
    assert cmyk[1:].float().mean() < 60
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    for kind in ("GIF", "WEBP", "PNG"):
        first = decoded(encoded(red, kind, save_all=True, append_images=[blue]))
        assert first.shape == (3, 4, 4)
        assert first[0].min() > 200


def test_float_pixels_are_refused() -> None:
    with pytest.raises(BadImage, match="float"):
        open_image(encoded(Image.fromarray(np.zeros((4, 4), dtype=np.float32)), "TIFF"))


@pytest.mark.parametrize(("text", "label"), [(b"0", 0), (b"9", 9), (b"007", 7), (b"3\n", 3)])
def test_labels(text: bytes, label: int) -> None:
    assert parse_label(text, 10, "x") == label


@pytest.mark.parametrize(
    "text",
    [b"", b"cat", b"3.0", b"-1", b"+1", b"1_0", b" 1", b"10", b"99999999999999999999", b"1" * 5000, "٣".encode()],
)
def test_labels_that_are_none(text: bytes) -> None:
    with pytest.raises(UserError, match="sample 'a' in shard b: label"):
        parse_label(text, 10, "sample 'a' in shard b")


def test_transform_shapes_and_range() -> None:
    for width, height in ((8, 8), (7, 23), (50, 9), (1, 20)):
        image = decoded(encoded(picture(1, (width, height))))
        for generator in (None, seeded_generator("augment", 0, 5)):
            result = ImageTransform(8)(image, generator)
            assert result.shape == (3, 8, 8)
            assert result.dtype == torch.float32
            assert result.abs().max() <= 1


def test_at_its_own_size_an_image_is_not_changed() -> None:
    image = decoded(encoded(picture(2, (8, 8))))
    assert torch.equal(ImageTransform(8)(image), image.float() / 127.5 - 1)


def test_crop_and_mirror_are_functions_of_seed_and_position() -> None:
    image, transform = decoded(encoded(picture(3, (40, 8)))), ImageTransform(8)
    views = [transform(image, seeded_generator("augment", 0, p)) for p in range(64)]
    again = [transform(image, seeded_generator("augment", 0, p)) for p in range(64)]
    assert all(map(torch.equal, views, again))
    assert len({view.numpy().tobytes() for view in views}) > 30
    fixed = ImageTransform(8, crop="center", flip=False)
    assert torch.equal(fixed(image, seeded_generator("augment", 0, 1)), transform(image))
