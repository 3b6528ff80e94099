"""What came after DiT: each switch trains, and keeps what it promises."""

import pytest
import torch
from torch import nn

from ldm.networks import Conditioning, DiT
from ldm.networks.blocks import InContext
from ldm.networks.positions import Fractional, Learned, NoPositions, SinCos
from ldm.nn.rotary import rotary_table

SWITCHES = {
    "none": {},
    "rope": {"rope": True},
    "swiglu": {"swiglu": True},
    "rms_norm": {"rms_norm": True},
    "qk_norm": {"qk_norm": True},
    "registers": {"registers": 3},
    "long_skips": {"long_skips": True},
    "concat": {"concat_channels": 2},
    "learned": {"positions": Learned()},
    "fractional": {"positions": Fractional()},
    "rope alone": {"rope": True, "positions": NoPositions()},
}
EVERYTHING = {name: value for options in SWITCHES.values() for name, value in options.items()}
SWITCHES["everything"] = {**EVERYTHING, "positions": Learned(), "checkpointing": True, "block": InContext(6)}


def tiny(**options):
    torch.manual_seed(0)
    sizes = {"input_size": 8, "in_channels": 3, "patch_size": 2, "width": 16, "depth": 4, "num_heads": 2}
    return DiT(**{**sizes, **options})


def awake(**options):
    net = tiny(**options)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net.double()


def inputs(net, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(2, *shape, generator=generator, dtype=dtype)

    tokens = None if net.block.context_width is None else normal(4, net.block.context_width)
    mask = None if tokens is None else torch.tensor([[True, True, False, False], [True] * 4])
    concat = normal(net.concat_channels, 8, 8) if net.concat_channels else None
    return normal(*net.sample_shape), torch.tensor([3.0, 700.0]), Conditioning(normal(net.width), tokens, mask, concat)


@pytest.mark.parametrize("name", SWITCHES)
def test_it_starts_silent_and_trains_every_weight(name):
    net = tiny(**SWITCHES[name])
    x, t, cond = inputs(net, torch.float32)
    assert not net(x, t, cond).any()
    net.check(net.sample_shape, cond)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(4):
        optimizer.zero_grad()
        (net(x, t, cond) - x).square().mean().backward()
        optimizer.step()
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()


@pytest.mark.parametrize("name", SWITCHES)
def test_it_runs_in_low_precision(name):
    net = awake(**SWITCHES[name]).float()
    x, t, cond = inputs(net, torch.float32)
    plain = net(x, t, cond)
    with torch.autocast("cpu", torch.bfloat16):
        low = net(x, t, cond)
    assert (low - plain).norm() < 0.15 * plain.norm()


@pytest.mark.parametrize(
    "name", [name if name == "everything" else pytest.param(name, marks=pytest.mark.slow) for name in SWITCHES]
)
def test_it_compiles_as_one_graph(name):
    torch._dynamo.reset()
    net = awake(**{**SWITCHES[name], "depth": 3, "checkpointing": False})
    asked = inputs(net)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*asked), net(*asked))


def test_the_plain_net_has_the_weights_of_trained_runs_and_no_others():
    layers = ["attention.qkv", "attention.out", "mlp.0", "mlp.2", "modulation"]
    modules = ["patch_embed", "noise_embed.enter", "noise_embed.leave", "head.modulation", "head.linear"]
    modules += [f"blocks.{i}.{layer}" for i in range(4) for layer in layers]
    assert tiny().state_dict().keys() == {f"{name}.{kind}" for name in modules for kind in ("weight", "bias")}


def test_every_argument_is_kept_under_its_name():
    options = {**SWITCHES["everything"], "learned_variance": True, "mlp_ratio": 2.0}
    net = tiny(**options)
    for name, value in options.items():
        assert getattr(net, name) is value, name


def test_rotary_positions_alone_tell_the_places_of_patches():
    net = awake(rope=True, positions=NoPositions())
    x, t, cond = inputs(net)
    assert not torch.allclose(net(x.roll(2, 2), t, cond).roll(-2, 2), net(x, t, cond))
    net.rotary, net.rope = None, False
    torch.testing.assert_close(net(x.roll(2, 2), t, cond).roll(-2, 2), net(x, t, cond))


def test_with_rotary_positions_only_distances_count():
    """The same patches at the places of a window further down and to the right."""
    net = awake(rope=True, positions=NoPositions())
    x, t, cond = inputs(net)
    before = net(x, t, cond)
    net.rotary = rotary_table(8, 7, 9).reshape(2, 7, 9, 8)[:, 3:, 5:].reshape(2, 16, 8).double()
    torch.testing.assert_close(net(x, t, cond), before, rtol=1e-4, atol=1e-4)


def test_a_gated_perceptron_has_as_many_weights_as_a_plain_one():
    def count(net):
        return sum(parameter.numel() for parameter in net.blocks[0].mlp.parameters())

    plain, gated = tiny(width=192, num_heads=2), tiny(width=192, num_heads=2, swiglu=True)
    assert count(gated) == pytest.approx(count(plain), rel=0.01)
    assert gated.blocks[0].mlp.leave.in_features == 512  # 2/3 * 4 * width


def test_qk_norm_makes_attention_deaf_to_the_length_of_queries_and_keys():
    net = awake(qk_norm=True)
    x, t, cond = inputs(net)
    before = net(x, t, cond)
    with torch.no_grad():
        for block in net.blocks:
            block.attention.qkv.weight[:32] *= 50
            block.attention.qkv.bias[:32] *= 50
    torch.testing.assert_close(net(x, t, cond), before, rtol=1e-3, atol=1e-3)


def test_rms_norms_keep_the_mean():
    net, plain = awake(rms_norm=True), awake()
    x = torch.randn(2, 5, 16).double()
    assert not torch.allclose(net.blocks[0].norm1(x + 1), net.blocks[0].norm1(x))
    torch.testing.assert_close(plain.blocks[0].norm1(x + 1), plain.blocks[0].norm1(x))
    torch.testing.assert_close(net.blocks[0].norm1(x).square().mean(-1), torch.ones(2, 5).double(), rtol=1e-4, atol=0)


def test_long_skips_start_as_the_net_without_and_join_pairs_from_the_outside_in():
    plain, skipping = awake(depth=5), tiny(depth=5, long_skips=True).double()
    skipping.load_state_dict({**skipping.state_dict(), **plain.state_dict()})
    x, t, cond = inputs(plain)
    torch.testing.assert_close(skipping(x, t, cond), plain(x, t, cond))
    seen = {}
    for i, block in enumerate(skipping.blocks):
        block.register_forward_hook(lambda _, __, out, i=i: seen.update({i: out}))
    joined = []
    for skip in skipping.skips:
        skip.register_forward_pre_hook(lambda _, pair: joined.append(pair))
    skipping(x, t, cond)
    assert [next(i for i in seen if seen[i] is early) for _, early in joined] == [1, 0]
    assert [next(i for i in seen if seen[i] is late) for late, _ in joined] == [2, 3]
    assert len(tiny(depth=4, long_skips=True).skips) == 1


def test_registers_are_heard_and_leave_no_trace_in_the_shape():
    net = awake(registers=3)
    x, t, cond = inputs(net)
    before = net(x, t, cond)
    assert before.shape == x.shape
    with torch.no_grad():
        net.register_tokens.mul_(2)
    assert not torch.allclose(net(x, t, cond), before)


def test_an_image_beside_x_t_is_further_channels():
    net, wide = awake(concat_channels=2), tiny(in_channels=5).double()
    x, t, cond = inputs(net)
    weights = {name: value for name, value in net.state_dict().items() if not name.startswith("head.linear")}
    wide.load_state_dict({**wide.state_dict(), **weights})
    with torch.no_grad():
        rows = [p * 5 + c for p in range(4) for c in range(3)]
        wide.head.linear.weight[rows] = net.head.linear.weight
        wide.head.linear.bias[rows] = net.head.linear.bias
    both = wide(torch.cat([x, cond.concat], 1), t, Conditioning(cond.vector))
    torch.testing.assert_close(both[:, :3], net(x, t, cond))


@pytest.mark.parametrize("options", [{}, {"rope": True, "registers": 1}, {"positions": SinCos(base_size=4)}])
def test_other_sizes_and_aspect_ratios(options):
    net = awake(**options)
    t, cond = inputs(net)[1:]
    for size in ((4, 12), (16, 8)):
        assert net(torch.randn(2, 3, *size).double(), t, cond).shape == (2, 3, *size)
