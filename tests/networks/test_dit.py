"""DiT against the official sizes, and what its parts promise."""

import pytest
import torch
from torch import nn

from ldm.conditioners import Label
from ldm.networks import Conditioning, DiT
from ldm.networks.patches import unpatchify

SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}  # depth, width, heads
OFFICIAL = {  # of the official code, learned variance, position embedding counted, 1000 classes and null
    "S/8": 33_148_160,
    "S/4": 32_945_024,
    "S/2": 32_963_360,
    "B/8": 130_881_536,
    "B/4": 130_475_648,
    "B/2": 130_512_416,
    "L/8": 458_594_816,
    "L/4": 458_053_760,
    "L/2": 458_102_816,
    "XL/8": 675_683_072,
    "XL/4": 675_074_432,
    "XL/2": 675_129_632,
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_parameter_count(name):
    size, patch = name.split("/")
    assert counted(size, int(patch), 32) == OFFICIAL[name]


def test_official_parameter_count_at_512_pixels():
    assert counted("XL", 2, 64) == 676_014_368


def counted(size, patch, input_size):
    depth, width, heads = SIZES[size]
    with torch.device("meta"):
        net = DiT(input_size, 4, patch, width, depth, heads, learned_variance=True)
        labels = Label(1000, width)
    weights = [*net.parameters(), *labels.parameters(), net.pos_embed]
    return sum(tensor.numel() for tensor in weights)


def tiny(**options):
    torch.manual_seed(0)
    sizes = {"input_size": 8, "in_channels": 3, "patch_size": 2, "width": 16, "depth": 2, "num_heads": 2}
    return DiT(**{**sizes, **options})


def awake(**options):
    """A net with random weights everywhere, also where training starts from zero."""
    net = tiny(**options)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net


def inputs(net, batch=2, labels=True):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, *net.sample_shape, generator=generator)
    vector = torch.randn(batch, net.width, generator=generator) if labels else None
    return x, torch.rand(batch, generator=generator) * 999, Conditioning(vector=vector)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(
    ("input_size", "patch_size"), [(8, 1), (8, 2), (8, 4), (8, 8), ((4, 12), 2), ((12, 4), 4), ((6, 9), 3)]
)
def test_output_shape_and_silence_at_the_start(input_size, patch_size, learned):
    net = tiny(input_size=input_size, patch_size=patch_size, learned_variance=learned)
    x, t, cond = inputs(net)
    out = net(x, t, cond)
    assert out.shape == (2, 6 if learned else 3, *x.shape[2:])
    assert net.out_channels == out.shape[1]
    assert not out.any()


@pytest.mark.parametrize(("input_size", "patch_size"), [((6, 9), 3), ((4, 8), 2), (5, 1), (4, 4)])
def test_unpatchify_puts_each_token_where_its_patch_was(input_size, patch_size):
    """Without einops: token n is the patch in row n // columns, its values ordered (row, column, channel)."""
    net = tiny(input_size=input_size, patch_size=patch_size)
    x, p = inputs(net)[0], patch_size
    columns = x.shape[3] // p
    tokens = []
    for n in range((x.shape[2] // p) * columns):
        top, left = n // columns * p, n % columns * p
        patch = x[:, :, top : top + p, left : left + p]
        tokens.append(patch.permute(0, 2, 3, 1).reshape(len(x), -1))
    assert torch.equal(unpatchify(torch.stack(tokens, dim=1), x.shape[2] // p, p), x)


def test_patches_enter_in_the_order_in_which_they_leave():
    """With blocks that say nothing, a change of one patch changes that very patch of the result."""
    net = awake(input_size=(4, 6), depth=0)
    x, t, cond = inputs(net, batch=1)
    before = net(x, t, cond)
    for row in range(2):
        for column in range(3):
            moved = x.clone()
            moved[..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 1
            changed = (net(moved, t, cond) - before).abs().sum((0, 1)) > 1e-6
            expected = torch.zeros(4, 6, dtype=torch.bool)
            expected[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = True
            assert torch.equal(changed, expected)


def test_initialisation_is_that_of_the_paper():
    net = tiny(width=64, num_heads=4)
    for block in net.blocks:
        for linear in (block.attention.qkv, block.attention.out, block.mlp[0], block.mlp[2]):
            rows, columns = linear.weight.shape  # Xavier on the fused matrix: 3 * width rows of qkv
            bound = (6 / (rows + columns)) ** 0.5
            assert 0.9 * bound < linear.weight.abs().max() <= bound
            assert not linear.bias.any()
        assert not block.modulation.weight.any()
        assert not block.modulation.bias.any()
    bound = (6 / (3 * 2 * 2 + 64)) ** 0.5  # Xavier on the flattened kernel
    assert 0.9 * bound < net.patch_embed.weight.abs().max() <= bound
    for silent in (net.head.linear, net.head.modulation):
        assert not silent.weight.any()
        assert not silent.bias.any()
    assert not net.patch_embed.bias.any()
    assert net.noise_embed.enter.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_each_block_starts_as_the_identity():
    net = tiny()
    h, c = torch.randn(2, 16, 16), torch.randn(2, 16)
    for block in net.blocks:
        assert torch.equal(block(h, c), h)


def test_only_the_position_embedding_breaks_the_symmetry_of_the_tokens():
    net = awake().double()
    x, t, cond = (v.double() if isinstance(v, torch.Tensor) else v for v in inputs(net))
    cond = Conditioning(vector=cond.vector.double())
    swapped = x.clone()
    swapped[..., :2, :2], swapped[..., 2:4, 4:6] = x[..., 2:4, 4:6], x[..., :2, :2]
    assert not torch.allclose(net(swapped, t, cond)[..., 6:, 6:], net(x, t, cond)[..., 6:, 6:])
    net.pos_embed.zero_()
    plain, moved = net(x, t, cond), net(swapped, t, cond)
    torch.testing.assert_close(moved[..., 6:, 6:], plain[..., 6:, 6:])
    torch.testing.assert_close(moved[..., :2, :2], plain[..., 2:4, 4:6])


def test_samples_of_a_batch_do_not_see_each_other():
    net = awake()
    x, t, cond = inputs(net, batch=3)
    together = net(x, t, cond)
    for i in range(3):
        alone = net(x[i : i + 1], t[i : i + 1], Conditioning(vector=cond.vector[i : i + 1]))
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-4, atol=1e-5)


def test_it_hears_the_noise_level_and_the_vector():
    net = awake()
    x, t, cond = inputs(net)
    out = net(x, t, cond)
    assert not torch.allclose(net(x, t + 100, cond), out)
    assert not torch.allclose(net(x, t, Conditioning()), out)
    assert torch.equal(net(x, t, Conditioning(vector=torch.zeros(2, 16))), net(x, t, Conditioning()))


def test_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        net = awake(checkpointing=checkpointing).train()
        net(*inputs(net)).square().mean().backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain is not None
        assert torch.equal(plain, recomputed)


def test_the_position_embedding_is_neither_trained_nor_saved():
    net = tiny()
    assert "pos_embed" not in net.state_dict()
    assert not net.pos_embed.requires_grad
    assert net.pos_embed.shape == (16, 16)


def test_check_says_what_to_change():
    net = tiny(input_size=(8, 4))
    net.check((3, 8, 4), Conditioning(vector=torch.zeros(1, 16)))
    net.check((3, 8, 4), Conditioning())
    with pytest.raises(ValueError, match=r"in_channels to 4 and its input_size to \[8, 8\]"):
        net.check((4, 8, 8), Conditioning())
    with pytest.raises(ValueError, match="conditioner's width is 8 and the network's 16"):
        net.check((3, 8, 4), Conditioning(vector=torch.zeros(1, 8)))
    with pytest.raises(ValueError, match="AdaLNZero blocks hears no tokens"):
        net.check((3, 8, 4), Conditioning(tokens=torch.zeros(1, 2, 16)))
    with pytest.raises(ValueError, match="set concat_channels to 1"):
        net.check((3, 8, 4), Conditioning(concat=torch.zeros(1, 1, 8, 4)))
    beside = tiny(input_size=(8, 4), concat_channels=1)
    beside.check((3, 8, 4), Conditioning(concat=torch.zeros(1, 1, 8, 4)))
    with pytest.raises(ValueError, match=r"images are \[4, 4\] and x_t is \[8, 4\]"):
        beside.check((3, 8, 4), Conditioning(concat=torch.zeros(1, 1, 4, 4)))
    with pytest.raises(ValueError, match="set concat_channels to 0, or add an embedder"):
        beside.check((3, 8, 4), Conditioning())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 3}, "patch_size of 3 does not cut an input of 8 x 8 evenly"),
        ({"patch_size": 0}, "patch_size of 0"),
        ({"width": 18, "num_heads": 2}, "multiple of 4"),
        ({"num_heads": 3}, "does not split into 3 heads"),
        ({"width": 12, "num_heads": 2, "rope": True}, "heads of width 6"),
        ({"long_skips": True}, "depth is 2: choose 3 or more"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)
