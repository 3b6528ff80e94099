"""Pictures at the file border."""

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from ldm.images import grid, save_film, save_png, to_uint8


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


def test_titles_stand_above_the_columns_and_are_cut_to_fit():
    images = torch.zeros(4, 3, 8, 8)
    plain, titled = grid(images, 2), grid(images, 2, ["class 3", "a title far too long for its column"])
    assert titled.height == plain.height + 20
    assert titled.width == plain.width
    assert grid(images, 2, ["a", "b", "c"]).size == titled.size


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
