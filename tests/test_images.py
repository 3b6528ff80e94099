"""Pictures at the file border."""

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from ldm.images import grid, save_film, save_png, to_uint8
from ldm.titles import too_wide, wrapped


def test_to_uint8_rounds_to_the_nearest_level_and_clips():
    levels = torch.arange(256)
    assert torch.equal(to_uint8(levels / 127.5 - 1).int(), levels.int())
    assert to_uint8(torch.tensor([-3.0, 3.0, -1.0, 1.0])).tolist() == [0, 255, 0, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_its_pixels_and_what_it_was_told(tmp_path, channels):
    levels = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    save_png(levels / 127.5 - 1, tmp_path / "deep" / "a.png", {"seed": 3, "run": "räume/x"})
    with Image.open(tmp_path / "deep" / "a.png") as picture:
        assert picture.info["seed"] == "3"
        assert picture.info["run"] == "räume/x"
        assert torch.equal(pil_to_tensor(picture), levels)


def test_a_grid_enlarges_small_images_by_a_whole_factor_and_runs_row_by_row():
    images = torch.linspace(-1, 1, 6).view(6, 1, 1, 1).expand(6, 1, 8, 8)
    picture = grid(images, columns=3)
    assert picture.size == (3 * 66 + 2, 2 * 66 + 2)
    centres = [picture.getpixel((34 + 66 * column, 34 + 66 * row))[0] for row in range(2) for column in range(3)]
    assert centres == to_uint8(torch.linspace(-1, 1, 6)).tolist()
    assert grid(images.expand(6, 3, 8, 8), 4, min_side=8).size == (4 * 10 + 2, 2 * 10 + 2)
    assert grid(torch.zeros(2, 3, 70, 70), columns=2).size == (146, 74)  # large enough as they are


def test_a_short_title_stands_above_its_column():
    images = torch.zeros(4, 3, 8, 8)
    plain, titled = grid(images, 2), grid(images, 2, ["class 3", "class 7"])
    assert titled.size == (plain.width, plain.height + 20)
    assert grid(images, 2, ["a", "b", "c"]).size == titled.size  # there are two columns
    assert grid(images, 2, ["", ""]).size == plain.size
    assert dark(titled.crop((0, 0, 68, 20))) > 10
    assert dark(titled.crop((68, 0, 134, 20))) > 10


def test_a_long_title_gets_wider_images_and_further_lines():
    images = torch.zeros(2, 3, 8, 8)
    titled = grid(images, 2, ["class 3", "a red circle to the left of a large blue square"])
    assert titled.size == (2 * 130 + 2, 130 + 2 + 2 + 3 * 18)
    assert dark(titled.crop((132, 0, 262, 20))) > 10
    assert dark(titled.crop((0, 0, 130, 38))) == 0  # the short one stands at its image
    endless = grid(images, 2, ["word " * 100, "class 7"])
    assert endless.height == 130 + 2 + 2 + 4 * 18


def test_titles_of_all_images_of_rows_and_of_the_whole():
    images = torch.zeros(3, 1, 8, 8)
    picture = grid(images, 2, ["a", "b", "c"], ["seed 0", "seed 1"], "all of them")
    plain = grid(images, 2)
    assert picture.height == plain.height + 3 * 20  # the heading, and titles above both rows
    left = picture.width - plain.width
    assert 40 < left < 60
    assert picture.getpixel((left + 30, 40 + 30)) == (128, 128, 128)
    assert picture.getpixel((left + 30, 40 + 86 + 30)) == (128, 128, 128)
    assert picture.getpixel((left + 100, 40 + 86 + 30)) == (255, 255, 255)  # there is no fourth image
    assert dark(picture.crop((0, 40, left, 106))) > 10
    assert dark(picture.crop((0, 126, left, picture.height))) > 10


def test_no_line_is_wider_than_its_column():
    for text in ("a red circle left of a blue square", "Donaudampfschifffahrtsgesellschaft", "x " * 200, ""):
        for width in (4, 30, 130):
            lines = wrapped(text, width)
            assert len(lines) <= 4
            assert width < 30 or not any(too_wide(line, width) for line in lines)
    assert " ".join(wrapped("a red circle left of a blue square", 130)) == "a red circle left of a blue square"
    assert wrapped("Donaudampfschifffahrtsgesellschaft", 100)[0].endswith("...")


def dark(picture):
    """How many pixels are dark, as letters are."""
    return sum(picture.convert("L").histogram()[:100])


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_a_film_keeps_every_frame_and_rests_on_the_last(tmp_path, kind):
    frames = [Image.new("RGB", (16, 16), (10 * i, 0, 255 - 10 * i)) for i in range(7)]
    save_film(frames, tmp_path / "deep" / f"film.{kind}", seconds=1.4)
    with Image.open(tmp_path / "deep" / f"film.{kind}") as film:
        assert film.n_frames == 7
        durations = []
        for number in range(7):
            film.seek(number)
            film.load()
            durations.append(film.info["duration"])
    assert durations == [200] * 6 + [2000]


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_a_film_of_one_frame(tmp_path, kind):
    save_film([Image.new("RGB", (16, 16))], tmp_path / f"film.{kind}")
    with Image.open(tmp_path / f"film.{kind}") as film:
        assert getattr(film, "n_frames", 1) == 1
