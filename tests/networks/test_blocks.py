"""Every kind of block: it trains, hears what it says it hears, and nothing else."""

import pytest
import torch
from torch import nn

from ldm.networks import Conditioning, DiT
from ldm.networks.blocks import (
    AdaLN,
    AdaLNSingle,
    AdaLNZero,
    AdaLNZeroCross,
    BlockKind,
    CrossAttention,
    InContext,
)
from ldm.networks.blocks.base import Context
from ldm.networks.blocks.hearing import attended

TEXT = 6  # width of the tokens
KINDS = {
    "adaln_zero": AdaLNZero(),
    "adaln": AdaLN(),
    "in_context": InContext(),
    "in_context with text": InContext(TEXT),
    "cross_attention": CrossAttention(),
    "cross_attention with text": CrossAttention(TEXT),
    "adaln_zero_cross": AdaLNZeroCross(TEXT),
    "adaln_single": AdaLNSingle(),
    "adaln_single with text": AdaLNSingle(TEXT),
}
READERS = [name for name, kind in KINDS.items() if kind.context_width]


def tiny(name, **options):
    torch.manual_seed(0)
    sizes = {"input_size": 8, "in_channels": 3, "patch_size": 2, "width": 16, "depth": 2, "num_heads": 2}
    return DiT(**{**sizes, "block": KINDS[name], **options})


def awake(name, **options):
    """A net with random weights everywhere, also where training starts from zero; in double precision."""
    net = tiny(name, **options)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net.double()


def inputs(net, mask=((1, 1, 1, 1), (1, 1, 0, 0)), dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(2, *shape, generator=generator, dtype=dtype)

    reads = net.block.context_width is not None
    cond = Conditioning(
        vector=normal(net.width),
        tokens=normal(4, TEXT) if reads else None,
        mask=torch.tensor(mask).bool() if reads and mask else None,
    )
    return normal(*net.sample_shape), torch.tensor([3.0, 700.0]), cond


def with_tokens(cond, tokens, mask=None):
    return Conditioning(vector=cond.vector, tokens=tokens, mask=mask)


def test_every_kind_is_tested():
    assert {type(kind) for kind in KINDS.values()} == set(BlockKind.__subclasses__())


@pytest.mark.parametrize("name", KINDS)
def test_it_starts_silent_and_trains_every_weight(name):
    net = tiny(name)
    x, t, cond = inputs(net, dtype=torch.float32)
    assert not net(x, t, cond).any()
    net.check(net.sample_shape, cond)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = (net(x, t, cond) - x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()


@pytest.mark.parametrize("name", KINDS)
def test_it_runs_in_low_precision(name):
    net = awake(name).float()
    x, t, cond = inputs(net, dtype=torch.float32)
    plain = net(x, t, cond)
    with torch.autocast("cpu", torch.bfloat16):
        low = net(x, t, cond)
    assert (low - plain).norm() < 0.1 * plain.norm()


@pytest.mark.slow  # the fast test of this kind is that of all switches at once
@pytest.mark.parametrize("name", KINDS)
def test_it_compiles_as_one_graph(name):
    torch._dynamo.reset()
    net = awake(name, depth=1)
    asked = inputs(net)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*asked), net(*asked))


@pytest.mark.parametrize("name", ["adaln_zero", "adaln_zero_cross"])
def test_gated_blocks_start_as_the_identity(name):
    net = tiny(name)
    h, c = torch.randn(2, 16, 16), torch.randn(2, 16)
    for block in net.blocks:
        assert torch.equal(block(h, c, Context(tokens=torch.randn(2, 4, 16))), h)


def test_the_text_of_adaln_single_starts_unheard():
    net = awake("adaln_single with text")
    for block in net.blocks:
        block.silence()
        nn.init.zeros_(block.cross.out.bias)
    x, t, cond = inputs(net)
    torch.testing.assert_close(net(x, t, with_tokens(cond, 5 * cond.tokens)), net(x, t, cond))


@pytest.mark.parametrize("name", KINDS)
def test_it_hears_all_that_it_is_told(name):
    net = awake(name)
    x, t, cond = inputs(net)
    out = net(x, t, cond)
    assert not torch.allclose(net(x, t + 100, cond), out)
    louder = Conditioning(vector=2 * cond.vector, tokens=cond.tokens, mask=cond.mask)
    assert not torch.allclose(net(x, t, louder), out)
    if cond.tokens is not None:
        assert not torch.allclose(net(x, t, with_tokens(cond, 2 * cond.tokens, cond.mask)), out)
        assert not torch.allclose(net(x, t, with_tokens(cond, cond.tokens)), out)


@pytest.mark.parametrize("name", READERS)
def test_masked_tokens_change_nothing_and_the_order_of_tokens_neither(name):
    net = awake(name, registers=1)
    x, t, cond = inputs(net)
    out = net(x, t, cond)
    other = torch.where(cond.mask[:, :, None], cond.tokens, 7.0)
    torch.testing.assert_close(net(x, t, with_tokens(cond, other, cond.mask)), out)
    padded = torch.cat([cond.tokens, torch.ones(2, 3, TEXT)], dim=1)
    mask = torch.cat([cond.mask, torch.zeros(2, 3, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(net(x, t, with_tokens(cond, padded, mask)), out)
    order = [2, 0, 3, 1]
    turned = with_tokens(cond, cond.tokens[:, order], cond.mask[:, order])
    torch.testing.assert_close(net(x, t, turned), out)
    full = torch.ones_like(cond.mask)
    torch.testing.assert_close(net(x, t, with_tokens(cond, other, full)), net(x, t, with_tokens(cond, other)))


@pytest.mark.parametrize("name", READERS)
def test_a_row_without_a_token_hears_nothing_of_them(name):
    net = awake(name)
    x, t, cond = inputs(net, mask=((1, 0, 0, 1), (0, 0, 0, 0)))
    out = net(x, t, cond)
    assert out.isfinite().all()
    other = with_tokens(cond, torch.randn(2, 9, TEXT).double(), torch.zeros(2, 9, dtype=torch.bool))
    torch.testing.assert_close(net(x, t, other)[1], out[1])
    net(x, t, cond)[1].square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_tokens_of_an_empty_row_are_zeros_that_count():
    cond = Conditioning(tokens=torch.ones(2, 3, 4), mask=torch.tensor([[True, False, True], [False] * 3]))
    context = attended(nn.Identity(), cond)
    assert context.mask.tolist() == [[[[True, False, True]]], [[[True, True, True]]]]
    assert torch.equal(context.tokens, torch.stack([torch.ones(3, 4), torch.zeros(3, 4)]))


@pytest.mark.parametrize(
    ("kind", "millions"), [(InContext(), 449), (CrossAttention(), 598), (AdaLN(), 600), (AdaLNZero(), 675)]
)
def test_sizes_of_table_4_of_the_paper(kind, millions):
    """DiT-XL/2, with the label table of 1000 classes and none."""
    with torch.device("meta"):
        net = DiT(learned_variance=True, block=kind)
    count = sum(parameter.numel() for parameter in net.parameters()) + 1001 * 1152
    assert round(count / 1e6) == millions


def test_the_size_of_pixart_alpha():
    with torch.device("meta"):
        net = DiT(learned_variance=True, block=AdaLNSingle(4096))
    assert sum(parameter.numel() for parameter in net.parameters()) == 610_856_096


def test_check_says_what_to_change():
    def check(kind, tokens):
        shape = (3, 8, 8)
        DiT(8, 3, 2, 16, 1, 2, block=kind).check(shape, Conditioning(tokens=tokens))

    tokens = torch.zeros(1, 2, TEXT)
    check(AdaLNZeroCross(TEXT), tokens)
    check(CrossAttention(), None)
    with pytest.raises(ValueError, match=r"AdaLN blocks hears no tokens.*choose a block with a context_width of 6"):
        check(AdaLN(), tokens)
    with pytest.raises(
        ValueError, match="AdaLNZeroCross blocks attends to tokens 6 wide, and the conditioner gives none"
    ):
        check(AdaLNZeroCross(TEXT), None)
    with pytest.raises(ValueError, match="tokens are 6 wide and the context_width of DiT with InContext blocks is 7"):
        check(InContext(7), tokens)
