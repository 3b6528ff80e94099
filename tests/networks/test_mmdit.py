"""MM-DiT: two sequences, one attention."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ldm.networks import Conditioning, MMDiT
from ldm.networks.blocks.joint import JointBlock, LastJointBlock
from ldm.networks.blocks.parts import Parts
from ldm.networks.positions import NoPositions

TEXT = 6
ALL = {"rope": True, "swiglu": True, "rms_norm": True, "qk_norm": True, "concat_channels": 2}


def tiny(**options):
    torch.manual_seed(0)
    sizes = {"input_size": 8, "in_channels": 3, "patch_size": 2, "width": 16, "depth": 2, "num_heads": 2}
    return MMDiT(TEXT, **{**sizes, **options})


def awake(**options):
    net = tiny(**options)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net.double()


def inputs(net, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(2, *shape, generator=generator, dtype=dtype)

    concat = normal(net.concat_channels, 8, 8) if net.concat_channels else None
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    cond = Conditioning(vector=normal(net.width), tokens=normal(4, TEXT), mask=mask, concat=concat)
    return normal(*net.sample_shape), torch.tensor([3.0, 700.0]), cond


@pytest.mark.parametrize("options", [{}, {"depth": 1}, ALL, {**ALL, "checkpointing": True}])
def test_it_starts_silent_and_trains_every_weight(options):
    net = tiny(**options)
    x, t, cond = inputs(net, torch.float32)
    assert not net(x, t, cond).any()
    net.check(net.sample_shape, cond)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(6):  # the text is carried on only once gates of both streams have opened
        optimizer.zero_grad()
        (net(x, t, cond) - x).square().mean().backward()
        optimizer.step()
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()


@pytest.mark.parametrize("options", [{}, ALL])
def test_it_runs_in_low_precision(options):
    net = awake(**options).float()
    x, t, cond = inputs(net, torch.float32)
    plain = net(x, t, cond)
    with torch.autocast("cpu", torch.bfloat16):
        low = net(x, t, cond)
    assert (low - plain).norm() < 0.1 * plain.norm()


@pytest.mark.slow  # the fast test of this kind is that of all switches of DiT
@pytest.mark.parametrize("options", [{}, ALL])
def test_it_compiles_as_one_graph(options):
    torch._dynamo.reset()
    net = awake(**options)
    asked = inputs(net)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*asked), net(*asked))


def test_blocks_start_as_the_identity_of_both_streams():
    image, text, c = torch.randn(2, 9, 16), torch.randn(2, 4, 16), torch.randn(2, 16)
    for block in tiny(depth=3).blocks:
        assert all(map(torch.equal, block(image, text, c), (image, text)))


@pytest.mark.parametrize("options", [{}, ALL])
def test_masked_tokens_change_nothing_and_the_order_of_tokens_neither(options):
    net = awake(**options)
    x, t, cond = inputs(net)

    def answer(tokens, mask):
        return net(x, t, Conditioning(cond.vector, tokens, mask, cond.concat))

    out = net(x, t, cond)
    other = torch.where(cond.mask[:, :, None], cond.tokens, 7.0)
    torch.testing.assert_close(answer(other, cond.mask), out)
    padding = torch.ones(2, 3, TEXT), torch.zeros(2, 3, dtype=torch.bool)
    torch.testing.assert_close(
        answer(torch.cat([cond.tokens, padding[0]], 1), torch.cat([cond.mask, padding[1]], 1)), out
    )
    order = [2, 0, 3, 1]
    torch.testing.assert_close(answer(cond.tokens[:, order], cond.mask[:, order]), out)
    none = torch.zeros_like(cond.mask)
    torch.testing.assert_close(answer(other, none), answer(cond.tokens, none))
    assert not torch.allclose(answer(2 * cond.tokens, cond.mask), out)
    assert not torch.allclose(answer(cond.tokens, None), out)


def test_it_hears_the_noise_level_and_the_vector_in_both_streams():
    net = awake()
    x, t, cond = inputs(net)
    out = net(x, t, cond)
    assert not torch.allclose(net(x, t + 100, cond), out)
    without = Conditioning(tokens=cond.tokens, mask=cond.mask)
    assert not torch.allclose(net(x, t, without), out)
    silent = Conditioning(torch.zeros_like(cond.vector), cond.tokens, cond.mask)
    torch.testing.assert_close(net(x, t, silent), net(x, t, without))


def test_a_joint_block_is_one_attention_over_what_each_stream_projects():
    """Written out with softmax for one row, without einops."""
    torch.manual_seed(0)
    block = JointBlock(Parts(16, 2)).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    image, text, c = (torch.randn(1, n, 16).double() for n in (5, 3, 1))
    streams = ((block.text, text), (block.image, image))
    turns = [stream.modulation(F.silu(c[:, 0])).reshape(6, 16) for stream, _ in streams]

    def turned(x, shift, scale):
        return F.layer_norm(x, (16,), eps=1e-6) * (1 + scale) + shift

    qkv = [s.attention.qkv(turned(x, m[0], m[1])) for (s, x), m in zip(streams, turns, strict=True)]
    q, k, v = torch.cat(qkv, dim=1)[0].reshape(8, 3, 2, 8).unbind(1)
    heads = [((q[:, h] @ k[:, h].T / 8**0.5).softmax(1) @ v[:, h]) for h in range(2)]
    found = torch.cat(heads, dim=1)[None]
    expected = []
    for (stream, x), m, part in zip(streams, turns, (found[:, :3], found[:, 3:]), strict=True):
        x = x + m[2] * stream.attention.out(part)
        expected.append(x + m[5] * stream.mlp(turned(x, m[3], m[4])))
    got_image, got_text = block(image, text, c[:, 0])
    torch.testing.assert_close(got_text, expected[0])
    torch.testing.assert_close(got_image, expected[1])


@pytest.mark.parametrize("qk_norm", [False, True])
def test_the_last_block_is_a_joint_one_whose_text_goes_nowhere(qk_norm):
    torch.manual_seed(0)
    parts = Parts(16, 2, qk_norm=qk_norm)
    whole, last = JointBlock(parts), LastJointBlock(parts)
    for parameter in whole.parameters():
        nn.init.normal_(parameter, std=0.3)
    last.image.load_state_dict(whole.image.state_dict())
    with torch.no_grad():
        for kind in ("weight", "bias"):
            getattr(last.text.kv, kind).copy_(getattr(whole.text.attention.qkv, kind)[16:])
            getattr(last.text.modulation, kind).copy_(getattr(whole.text.modulation, kind)[:32])
        if qk_norm:
            last.text.k_norm.weight.copy_(whole.text.attention.qk_norm.k.weight)
    image, text, c = torch.randn(2, 5, 16), torch.randn(2, 3, 16), torch.randn(2, 16)
    heard, carried = last(image, text, c)
    torch.testing.assert_close(heard, whole(image, text, c)[0])
    assert carried is text


def test_the_size_of_stable_diffusion_3_medium():
    """Less its embedder of the pooled text (ours is a conditioner's) and the queries that no one reads."""
    width, pooled = 1536, 2048
    with torch.device("meta"):
        net = MMDiT(4096)
    count = sum(parameter.numel() for parameter in net.parameters())
    embedder = pooled * width + width + width * width + width
    assert count + embedder + width * width + width == 2_028_328_000


@pytest.mark.parametrize("options", [{}, {"rope": True, "positions": NoPositions()}])
def test_other_sizes_and_aspect_ratios(options):
    net = awake(**options)
    t, cond = inputs(net)[1:]
    for size in ((4, 12), (16, 8)):
        assert net(torch.randn(2, 3, *size).double(), t, cond).shape == (2, 3, *size)


def test_what_does_not_fit_is_refused():
    net = tiny(concat_channels=2)
    shape, tokens = net.sample_shape, torch.zeros(1, 2, TEXT)
    with pytest.raises(
        ValueError, match="MMDiT attends to image and text together, and the conditioner gives no tokens"
    ):
        net.check(shape, Conditioning())
    with pytest.raises(ValueError, match="gives 0 channels beside x_t and the net's concat_channels is 2"):
        net.check(shape, Conditioning(tokens=tokens))
    with pytest.raises(ValueError, match="set the net's in_channels to 4"):
        net.check((4, 8, 8), Conditioning(tokens=tokens))
    with pytest.raises(ValueError, match="depth=0"):
        tiny(depth=0)
