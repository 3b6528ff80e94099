"""A small version of the image, noised to a level that is told."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from ldm.conditioners import Conditioner, LowResolution
from ldm.errors import UserError
from ldm.sampling.checks import check_wish
from ldm.tasks.base import BatchNoise

NONE = torch.zeros(3, dtype=torch.bool)
IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
SMALL = IMAGES.reshape(3, 3, 4, 2, 4, 2).mean((3, 5))


def embedder(**options):
    torch.manual_seed(0)
    return LowResolution(**{"size": 8, "factor": 2, "grid": 4, "width": 8, **options})


def noise(count=3):
    return BatchNoise(0, 0, torch.arange(count), count)


def test_without_noise_it_is_the_mean_of_the_pixels():
    found = embedder()({"images": IMAGES}, NONE)
    torch.testing.assert_close(found.concat, SMALL)
    assert torch.equal(found.vector[0], found.vector[1])


def test_training_noises_it_with_the_level_that_it_tells():
    low, expected = embedder(), noise()
    found = low({"images": IMAGES}, NONE, noise())
    level, eps = 0.5 * expected.uniform(), expected.normal(3, 4, 4)
    s = level[:, None, None, None]
    torch.testing.assert_close(found.concat, (1 - s**2).sqrt() * SMALL + s * eps)
    torch.testing.assert_close(found.vector, low.level(1000 * level[:, None]))


def test_a_users_small_picture_goes_before_the_images_and_its_level_counts():
    low = embedder()
    asked = {"low_res": SMALL, "images": torch.zeros_like(IMAGES), "low_res_level": torch.tensor([0.0, 0.3, 0.3])}
    found = low(asked, NONE)
    torch.testing.assert_close(found.concat[0], SMALL[0])
    added = found.concat[1:] - (1 - 0.3**2) ** 0.5 * SMALL[1:]
    torch.testing.assert_close(added[0], added[1])  # the same noise in every picture, and in every batch
    assert torch.equal(low({k: v[1:] for k, v in asked.items()}, NONE[1:]).concat, found.concat[1:])
    assert added.std() == pytest.approx(0.3, rel=0.3)


def test_it_is_brought_to_a_grid_of_another_size():
    found = embedder(grid=6, factor=4)({"images": torch.full((3, 3, 8, 8), 0.5)}, NONE)
    torch.testing.assert_close(found.concat, torch.full((3, 3, 6, 6), 0.5))


def test_a_dropped_row_is_zeros_and_the_null_whatever_the_batch():
    low = embedder()
    torch.nn.init.normal_(low.null)
    null = Conditioner([low])({}, ~NONE)
    mixed = low({"images": IMAGES}, torch.tensor([True, False, False]), noise())
    assert torch.equal(mixed.vector[0], null.vector[0])
    assert torch.equal(mixed.concat[0], null.concat[0])
    assert not null.concat.any()


def test_the_images_stand_in_for_the_picture_that_a_user_would_name():
    conditioner = Conditioner([embedder()])
    assert conditioner.keys == ("low_res", "low_res_level")
    assert list(conditioner.wish({"images": IMAGES, "labels": NONE})) == ["low_res"]
    with pytest.raises(UserError, match="LowResolution reads 'low_res' of sample 'a', and there is none"):
        conditioner({"keys": ["a", "b", "c"]}, NONE)


def test_data_of_latents_alone_are_refused():
    with pytest.raises(ValueError, match="latents/ holds latents alone: train from the shards of images"):
        embedder().check_data(SimpleNamespace(provides={"moments"}, shards="latents/"))
    embedder().check_data(SimpleNamespace(provides={"images"}, shards="images/"))


def test_a_users_file_keeps_its_pixels_where_it_has_the_size(tmp_path):
    pixels = torch.randint(0, 256, (4, 4, 3), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "small.png")
    low = embedder()
    assert torch.equal(low.read("low_res", str(tmp_path / "small.png")), pixels.permute(2, 0, 1) / 127.5 - 1)
    assert low.read("low_res_level", "0.25") == 0.25
    low.check_asked({"low_res_level": [0, 0.5]})
    with pytest.raises(UserError, match=r"low_res_level is 0.6: the model knows 0 to 0.5"):
        low.check_asked({"low_res_level": [0.6]})


def test_a_level_without_a_picture_is_refused():
    task = SimpleNamespace(conditioner=Conditioner([embedder()]))
    check_wish(task, {"low_res": [SMALL], "low_res_level": [0.2]})
    with pytest.raises(UserError, match=r"low_res_level .* goes with low_res .*: name both"):
        check_wish(task, {"low_res_level": [0.2]})


def test_what_does_not_fit_is_refused():
    for options, text in (({"factor": 3}, "factor is 3"), ({"max_noise": 1.5}, "max_noise is 1.5")):
        with pytest.raises(ValueError, match=text):
            embedder(**options)
    with pytest.raises(UserError, match="8 pixels a side, and is given"):
        embedder()({"images": torch.zeros(3, 3, 6, 6)}, NONE)
