"""Weights in the official DiT's layout against its forward pass, written here over its key names."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ldm.conditioners import Label
from ldm.errors import UserError
from ldm.networks import Conditioning, DiT
from ldm.networks.blocks import AdaLN
from ldm.networks.layouts import recognise
from ldm.networks.layouts.dit_official import LABELS, PLACES, OfficialDiT

HEADS = 2
LAYOUT = OfficialDiT()


def official_keys(depth):
    """As `DiT_models["DiT-XL/2"]().state_dict()` lists them."""
    layers = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1"]
    modules = ["x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2"]
    modules += [f"blocks.{i}.{layer}" for i in range(depth) for layer in layers]
    modules += ["final_layer.linear", "final_layer.adaLN_modulation.1"]
    both = [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]
    return {"pos_embed", *both, "y_embedder.embedding_table.weight"}


def official_weights(width=16, depth=2, patch=2, channels=3, classes=5, grid=4):
    """Random, in the shapes of the official code with learned sigma."""
    generator = torch.Generator().manual_seed(0)
    out = patch**2 * 2 * channels
    rows_columns = {"t_embedder.mlp.0": (width, 256), "t_embedder.mlp.2": (width, width)}
    for i in range(depth):
        sizes = {"attn.qkv": 3, "attn.proj": 1, "mlp.fc1": 4, "adaLN_modulation.1": 6}
        rows_columns |= {f"blocks.{i}.{layer}": (n * width, width) for layer, n in sizes.items()}
        rows_columns[f"blocks.{i}.mlp.fc2"] = (width, 4 * width)
    rows_columns |= {"final_layer.linear": (out, width), "final_layer.adaLN_modulation.1": (2 * width, width)}
    shapes = {f"{name}.weight": shape for name, shape in rows_columns.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in rows_columns.items()}
    shapes |= {"x_embedder.proj.weight": (width, channels, patch, patch), "x_embedder.proj.bias": (width,)}
    shapes["y_embedder.embedding_table.weight"] = (classes + 1, width)
    weights = {name: 0.2 * torch.randn(shape, generator=generator).double() for name, shape in shapes.items()}
    return {**weights, "pos_embed": official_places(width, grid)}


def official_places(width, grid):
    """get_2d_sincos_pos_embed: w goes first."""
    omega = 1 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    place = torch.arange(grid, dtype=torch.float64)
    one = torch.cat([torch.sin(place[:, None] * omega), torch.cos(place[:, None] * omega)], dim=1)
    w, h = one.repeat(grid, 1), one.repeat_interleave(grid, dim=0)
    return torch.cat([w, h], dim=1)[None]


def official_forward(p, x, t, y, depth=2, patch=2):
    """models.py of the official code, step by step."""

    def linear(name, h):
        return F.linear(h, p[f"{name}.weight"], p[f"{name}.bias"])

    def modulated(h, shift, scale):
        return F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    def attention(name, h):
        b, n, d = h.shape
        qkv = linear(f"{name}.qkv", h).reshape(b, n, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        weights = (q @ k.transpose(-2, -1) / (d // HEADS) ** 0.5).softmax(-1)
        return linear(f"{name}.proj", (weights @ v).transpose(1, 2).reshape(b, n, d))

    h = F.conv2d(x, p["x_embedder.proj.weight"], p["x_embedder.proj.bias"], stride=patch).flatten(2).transpose(1, 2)
    h = h + p["pos_embed"]
    frequencies = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128)
    angles = t[:, None].float() * frequencies
    c = torch.cat([angles.cos(), angles.sin()], dim=-1).double()
    c = linear("t_embedder.mlp.2", F.silu(linear("t_embedder.mlp.0", c))) + p["y_embedder.embedding_table.weight"][y]
    for i in range(depth):
        m = linear(f"blocks.{i}.adaLN_modulation.1", F.silu(c)).chunk(6, dim=1)
        h = h + m[2][:, None] * attention(f"blocks.{i}.attn", modulated(h, m[0], m[1]))
        inner = F.gelu(linear(f"blocks.{i}.mlp.fc1", modulated(h, m[3], m[4])), approximate="tanh")
        h = h + m[5][:, None] * linear(f"blocks.{i}.mlp.fc2", inner)
    shift, scale = linear("final_layer.adaLN_modulation.1", F.silu(c)).chunk(2, dim=1)
    h = linear("final_layer.linear", modulated(h, shift, scale))
    side = math.isqrt(h.shape[1])
    h = h.reshape(len(h), side, side, patch, patch, -1)
    return torch.einsum("nhwpqc->nchpwq", h).reshape(len(h), -1, side * patch, side * patch)


def loaded(weights, **options):
    net = DiT(**{**LAYOUT.describe(weights), "num_heads": HEADS, **options})
    net.load_state_dict(LAYOUT.renamed(weights, net))
    label = Label(len(weights[LABELS]) - 1, net.width)
    label.load_state_dict({"embedding.weight": weights[LABELS]})
    return net.double(), label.double()


def test_official_weights_give_equal_outputs():
    weights = official_weights()
    net, label = loaded(weights)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64)
    t, y = torch.tensor([0, 10, 500, 999]), torch.tensor([0, 4, 5, 2])  # 5: no class
    vector = label({"labels": y}, y == 5).vector
    expected = official_forward(weights, x, t, y)
    assert net.out_channels == expected.shape[1] == 6
    torch.testing.assert_close(net(x, t, Conditioning(vector=vector)), expected, rtol=1e-6, atol=1e-6)


def test_the_key_list_and_size_of_dit_xl_2():
    with torch.device("meta"):
        net = DiT(32, 4, 2, 1152, 28, 16, learned_variance=True)
        label = Label(1000, 1152)
    theirs = LAYOUT.written(net.state_dict(), net)
    theirs[LABELS] = label.embedding.weight
    assert theirs.keys() == official_keys(28)
    assert sum(tensor.numel() for tensor in theirs.values()) == 675_129_632
    assert theirs[PLACES].shape == (1, 256, 1152)
    assert recognise(theirs) == "dit_official"
    told = LAYOUT.describe(theirs)
    assert told == {
        "input_size": 32,
        "in_channels": 4,
        "patch_size": 2,
        "width": 1152,
        "depth": 28,
        "num_heads": 16,
        "mlp_ratio": 4.0,
        "learned_variance": True,
    }


@pytest.mark.parametrize(("width", "num_heads"), [(384, 6), (768, 12), (1024, 16)])
def test_heads_of_the_smaller_sizes(width, num_heads):
    with torch.device("meta"):
        net = DiT(width=width, depth=1, num_heads=num_heads)
    assert LAYOUT.describe(LAYOUT.written(net.state_dict(), net))["num_heads"] == num_heads


def test_writing_gives_back_what_was_read():
    weights = official_weights()
    net, label = loaded(weights)
    again = {**LAYOUT.written(net.state_dict(), net), LABELS: label.embedding.weight}
    assert again.keys() == weights.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=1e-6)


def test_what_does_not_fit_is_refused():
    weights = official_weights()
    with pytest.raises(UserError, match="trained on 16 patches and the network has 64: set its input_size to 8"):
        loaded(weights, input_size=16)
    with pytest.raises(UserError, match=r"are missing \(blocks.2"):
        loaded(weights, depth=3)
    with pytest.raises(UserError, match="other shapes"):
        loaded(weights, mlp_ratio=2.0)
    for options in ({"block": AdaLN()}, {"qk_norm": True}, {"rope": True}, {"rms_norm": True}, {"registers": 1}):
        with pytest.raises(UserError, match="official DiT has"):
            loaded(weights, **options)
    assert not LAYOUT.matches(nn.Linear(1, 1).state_dict())
