"""Frozen vision networks from local files."""

import copy
import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

from ldm.errors import UserError
from ldm.nn.features import TimmFeatures

MODEL = "resnet10t"


def test_gradients_reach_the_images_and_no_weight():
    features = TimmFeatures(MODEL, layers=[0, 1, 2])
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    maps = features.maps(images)
    assert [tuple(m.shape) for m in maps] == [(2, 64, 32, 32), (2, 64, 16, 16), (2, 128, 8, 8)]
    sum(m.square().mean() for m in maps).backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    assert not any(p.requires_grad for p in features.net(images.device).parameters())


def test_random_weights_are_the_same_ones_and_leave_the_global_generator_alone():
    torch.manual_seed(7)
    wanted = torch.rand(1)
    torch.manual_seed(7)
    images = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    one, other = TimmFeatures(MODEL).pooled(images), TimmFeatures(MODEL).pooled(images)
    assert torch.equal(one, other)
    assert torch.equal(torch.rand(1), wanted)


def test_weights_come_from_the_file_and_count_in_the_fingerprint(tmp_path):
    net = timm.create_model(MODEL, pretrained=False, num_classes=5).eval()
    save_file({f"backbone.{k}": v for k, v in net.state_dict().items()}, tmp_path / "w.safetensors")
    features = TimmFeatures(MODEL, str(tmp_path / "w.safetensors"))
    images = torch.rand(2, 3, 48, 48) * 2 - 1
    mean, std = (torch.tensor(net.pretrained_cfg[k])[:, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        expected = net.forward_head(net.forward_features(((images + 1) / 2 - mean) / std), pre_logits=True)
        assert torch.allclose(features.pooled(images), expected, atol=1e-5)
    assert features.pooled(images).shape == (2, features.width)
    assert features.fingerprint() != TimmFeatures(MODEL).fingerprint()
    assert pickle.loads(pickle.dumps(features)).fingerprint() == features.fingerprint()
    assert copy.deepcopy(features) is features


def test_a_transformer_takes_images_of_another_size_and_one_colour_is_as_good_as_three():
    features = TimmFeatures("vit_tiny_patch16_224", layers=[-1], size=64)
    grey = torch.rand(1, 1, 32, 32)
    (tokens,) = features.maps(grey)
    assert tokens.shape == (1, features.width, 4, 4)
    assert torch.equal(tokens, features.maps(grey.expand(-1, 3, -1, -1))[0])


@pytest.mark.parametrize(("model", "layers"), [("resnet10t", [1, 2]), ("test_vit", [0, -1]), ("convnext_atto", None)])
def test_the_sizes_of_the_maps_are_known_without_weights(model, layers):
    features = TimmFeatures(model, "nowhere.safetensors", layers)
    sizes = features.sizes()
    maps = TimmFeatures(model, layers=layers).maps(torch.zeros(1, 3, 64, 64))
    assert [(size.channels, 64 // size.stride) for size in sizes] == [(m.shape[1], m.shape[2]) for m in maps]


def test_autocast_changes_nothing():
    features, images = TimmFeatures(MODEL), torch.rand(1, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = features.pooled(images)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, features.pooled(images))


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(ValueError, match="timm has no model"):
        TimmFeatures("resnet10000")
    with pytest.raises(UserError, match=r"there is no such file"):
        TimmFeatures(MODEL, str(tmp_path / "none.pth")).pooled(torch.zeros(1, 3, 32, 32))
    save_file({"conv1.0.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"conv1.0.weight is \(3,\) there"):
        TimmFeatures(MODEL, str(tmp_path / "other.safetensors")).pooled(torch.zeros(1, 3, 32, 32))
