"""Image embeddings by open_clip's towers, whose weights stay outside of the model."""

import copy
import json
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from open_clip.factory import _MODEL_CONFIGS
from PIL import Image
from safetensors.torch import save_file

from ldm.conditioners import CLIPImage, Conditioner
from ldm.conditioners.encoders.image_tower import ImageTower
from ldm.errors import UserError

CONFIG = {
    "embed_dim": 10,
    "vision_cfg": {"image_size": 8, "layers": 1, "width": 8, "patch_size": 4, "head_width": 4},
    "text_cfg": {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 2, "layers": 1},
}
MODEL = "tiny-image"
NONE = torch.zeros(3, dtype=torch.bool)
IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module", autouse=True)
def tiny_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / f"{MODEL}.json"
    path.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(path)
    yield
    _MODEL_CONFIGS.pop(MODEL, None)


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return open_clip.create_model(MODEL, pretrained=None).eval()


@pytest.fixture(scope="module")
def weights(clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "clip.pt"
    torch.save(clip.state_dict(), path)
    return str(path)


def test_the_embedding_is_open_clips_of_the_pixels_as_it_wants_them(clip, weights):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    transform = open_clip.image_transform(8, is_train=False)
    with torch.no_grad():
        expected = clip.encode_image(transform(Image.fromarray(pixels))[None], normalize=True)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    torch.testing.assert_close(ImageTower(MODEL, weights, "openai").encode(images), expected)


def test_other_layouts_of_the_file_give_the_same(clip, weights, tmp_path):
    expected = ImageTower(MODEL, weights, "half").encode(IMAGES)
    whole = {name: value.contiguous().clone() for name, value in clip.state_dict().items()}
    alone = {name.removeprefix("visual."): value for name, value in whole.items() if name.startswith("visual.")}
    for number, state in enumerate((whole, alone, {f"module.{name}": value for name, value in whole.items()})):
        path = tmp_path / f"{number}.safetensors"
        save_file(state, path)
        assert torch.equal(ImageTower(MODEL, str(path), "half").encode(IMAGES), expected)


@pytest.mark.parametrize("num_tokens", [None, 2])
def test_a_dropped_row_is_the_null_whatever_the_batch(weights, num_tokens):
    embedder = CLIPImage(MODEL, weights, 6, num_tokens)
    torch.nn.init.normal_(embedder.null)
    part = "vector" if num_tokens is None else "tokens"
    drop = torch.tensor([False, True, False])
    mixed, kept = (getattr(embedder({"images": IMAGES}, d), part) for d in (drop, NONE))
    null = getattr(Conditioner([embedder])({}, ~NONE), part)
    assert mixed.shape == ((3, 6) if num_tokens is None else (3, 2, 6))
    assert torch.equal(mixed[1], null[1])
    assert torch.equal(mixed[[0, 2]], kept[[0, 2]])
    assert (kept[0] - kept[2]).abs().max() > 1e-4


def test_a_reference_goes_before_the_image(weights):
    embedder = CLIPImage(MODEL, weights, 6)
    asked = embedder({"reference": IMAGES, "images": torch.zeros_like(IMAGES)}, NONE).vector
    assert torch.equal(asked, embedder({"images": IMAGES}, NONE).vector)


def test_grey_and_larger_images_are_brought_to_what_the_tower_sees(weights):
    embedder = CLIPImage(MODEL, weights, 6)
    grey = torch.rand(3, 1, 24, 24) * 2 - 1
    colour = grey.expand(-1, 3, -1, -1)
    assert torch.equal(embedder({"images": grey}, NONE).vector, embedder({"images": colour}, NONE).vector)


def test_only_the_projection_and_the_null_are_the_models(weights):
    embedder = CLIPImage(MODEL, weights, 6)
    embedder({"images": IMAGES}, NONE).vector.sum().backward()
    assert set(embedder.state_dict()) == {"null", "project.weight", "project.bias"}
    copied = copy.deepcopy(embedder)
    assert copied.tower is embedder.tower
    assert pickle.loads(pickle.dumps(embedder.tower))._tower is None


def test_the_fingerprint_is_of_weights_and_settings(weights, tmp_path):
    again = tmp_path / "elsewhere.pt"
    shutil.copy(weights, again)
    one, same = CLIPImage(MODEL, weights, 6), CLIPImage(MODEL, str(again), 12, num_tokens=2)
    assert one.fingerprint() == same.fingerprint()
    assert one.fingerprint() != CLIPImage(MODEL, weights, 6, normalisation="half").fingerprint()


def test_what_cannot_be_used_is_refused(weights, tmp_path):
    with pytest.raises(ValueError, match="open_clip knows no model 'ViT-B-33'"):
        CLIPImage("ViT-B-33", weights, 6)
    with pytest.raises(ValueError, match="num_tokens is 0"):
        CLIPImage(MODEL, weights, 6, 0)
    with pytest.raises(ValueError, match="normalisation is 'clip'"):
        CLIPImage(MODEL, weights, 6, normalisation="clip")
    gone = CLIPImage(MODEL, str(tmp_path / "gone.pt"), 6)
    with pytest.raises(UserError, match=r"gone.pt, and there is no such file: nothing is downloaded"):
        gone.check_data(SimpleNamespace(provides={"images"}, shards="x"))
    with pytest.raises(ValueError, match="holds latents alone"):
        gone.check_data(SimpleNamespace(provides={"moments"}, shards="x"))
    torch.save({"visual.proj": torch.zeros(3, 3)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"not of tiny-image's image tower: class_embedding is absent in the file"):
        ImageTower(MODEL, str(tmp_path / "other.pt"), "openai").encode(IMAGES)


def test_a_users_picture_is_read_at_the_towers_size(weights, tmp_path):
    Image.new("RGB", (30, 20), (255, 255, 255)).save(tmp_path / "white.png")
    value = CLIPImage(MODEL, weights, 6).read("reference", str(tmp_path / "white.png"))
    assert torch.equal(value, torch.ones(3, 8, 8))
