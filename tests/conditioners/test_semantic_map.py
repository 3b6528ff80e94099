"""Classes and pictures that lie over the image."""

import pytest
import torch
from PIL import Image

from ldm.conditioners import Conditioner, ImageConcat, SemanticMap
from ldm.errors import UserError

NONE = torch.zeros(3, dtype=torch.bool)
DROP = torch.tensor([False, True, False])
MAPS = torch.randint(0, 5, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
PICTURES = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def semantic_map(**options):
    torch.manual_seed(0)
    return SemanticMap(5, grid=4, channels=2, factor=2, width=8, **options)


def image_concat(**options):
    torch.manual_seed(0)
    return ImageConcat(4, factor=2, width=8, **options)


@pytest.mark.parametrize("make", [semantic_map, image_concat, lambda: image_concat(channels=2)])
def test_a_dropped_row_is_zeros_on_the_grid_and_the_others_stay(make):
    embedder = make()
    batch = {"maps": MAPS if isinstance(embedder, SemanticMap) else PICTURES}
    mixed, kept = (embedder(batch, drop).concat for drop in (DROP, NONE))
    assert mixed.shape[2:] == (4, 4)
    assert torch.equal(mixed, torch.where(DROP[:, None, None, None], 0, kept))
    assert kept[1].abs().max() > 0
    null = Conditioner([embedder])({}, ~NONE).concat
    assert torch.equal(null, torch.zeros_like(kept))


def test_it_is_a_convolution_of_the_one_hot_map():
    embedder = semantic_map()
    one_hot = torch.nn.functional.one_hot(MAPS[:, 0].long(), 5).permute(0, 3, 1, 2).float()
    kernel = embedder.classes.weight[:5].T[..., None, None]
    expected = embedder.down(torch.nn.functional.conv2d(one_hot, kernel))
    torch.testing.assert_close(embedder(({"maps": MAPS}), NONE).concat, expected)


def test_a_pixel_of_which_nothing_is_known_says_nothing():
    embedder = semantic_map()
    unknown = torch.full_like(MAPS, 255)
    with torch.no_grad():
        for layer in embedder.down:
            if isinstance(layer, torch.nn.Conv2d):
                layer.bias.zero_()
    assert not embedder({"maps": unknown}, NONE).concat.any()


def test_a_map_of_another_resolution_keeps_its_classes():
    embedder = semantic_map()
    finer = MAPS.repeat_interleave(3, 2).repeat_interleave(3, 3)
    assert torch.equal(embedder({"maps": finer}, NONE).concat, embedder({"maps": MAPS}, NONE).concat)


def test_a_picture_without_a_stem_is_only_resized():
    flat = torch.full((3, 3, 8, 8), 255, dtype=torch.uint8)
    assert torch.allclose(image_concat()({"maps": flat}, NONE).concat, torch.ones(3, 3, 4, 4))
    means = PICTURES[:, :, ::2, ::2]  # of another range, to be told from the picture itself
    assert image_concat()({"maps": means}, NONE).concat.equal(means.float() / 127.5 - 1)


def test_any_entry_of_images_may_be_joined():
    images = torch.linspace(-1, 1, 3 * 3 * 16).reshape(3, 3, 4, 4)
    assert torch.equal(image_concat(key="images")({"images": images}, NONE).concat, images)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"values 0 to 4 of 'maps', and finds 5"):
        semantic_map()({"maps": MAPS + 1}, NONE)
    with pytest.raises(UserError, match="one class a pixel, and the maps are pictures in colour"):
        semantic_map()({"maps": PICTURES}, NONE)
    with pytest.raises(UserError, match="takes pictures of 3 channel"):
        image_concat()({"maps": MAPS}, NONE)
    with pytest.raises(ValueError, match="factor is 3"):
        SemanticMap(5, 4, factor=3)
    with pytest.raises(ValueError, match="num_classes is 0"):
        SemanticMap(0, 4)
    with pytest.raises(ValueError, match="in_channels is 2"):
        ImageConcat(4, in_channels=2)


def test_a_users_file_becomes_what_training_saw(tmp_path):
    file = str(tmp_path / "map.png")
    classes = Image.fromarray(MAPS[0, 0].numpy()).convert("P")
    classes.putpalette([9, 9, 200] * 256)
    classes.putdata(MAPS[0, 0].flatten().tolist())
    classes.save(file)
    embedder = semantic_map()
    value = embedder.read("maps", file)
    assert torch.equal(value, MAPS[0])
    embedder.check_asked({"maps": [value]})
    with pytest.raises(UserError, match="hold the classes 0 to 4"):
        embedder.check_asked({"maps": [value + 1]})
    SemanticMap(256, grid=4).check_asked({"maps": [value]})
    Image.fromarray(PICTURES[0].permute(1, 2, 0).numpy()).save(file)
    assert torch.equal(image_concat().read("maps", file), PICTURES[0])
    with pytest.raises(UserError, match=r"as maps, and one has 3"):
        image_concat(in_channels=1).check_asked({"maps": [PICTURES[0]]})
    with pytest.raises(UserError, match=r"The picture .*gone.png cannot be read"):
        embedder.read("maps", str(tmp_path / "gone.png"))
    (tmp_path / "page.png").write_text("<html>")
    with pytest.raises(UserError, match=r"page.png: not an image"):
        embedder.read("maps", str(tmp_path / "page.png"))
