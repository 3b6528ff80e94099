"""The U-Net: what its parts promise, whatever they are."""

from dataclasses import replace

import pytest
import torch
from unet_cases import KINDS, asked, awake, tiny

from ldm.networks import Conditioning
from ldm.networks.unet_parts import ConvNeXt, Linear, Residual, Transformers

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("learned", [False, True])
def test_output_shape_and_silence_at_the_start(kind, learned):
    net = tiny(**KINDS[kind], learned_variance=learned, concat_channels=1)
    x, t, cond = asked(net)
    net.check((2, 4, 4), cond)
    out = net(x, t, cond)
    assert out.shape == (2, net.out_channels, 4, 4) == (2, 4 if learned else 2, 4, 4)
    assert not out.any()


@every_kind
@pytest.mark.parametrize("size", [(2, 2), (6, 4), (4, 10)])
def test_any_grid_that_the_levels_halve_is_taken(kind, size):
    net = awake(**KINDS[kind])
    assert net(*asked(net, size=size)).shape == (2, 2, *size)
    with pytest.raises(ValueError, match="2 levels cannot halve 5 x 4 evenly: choose multiples of 2"):
        net(*asked(net, size=(5, 4)))


@every_kind
def test_all_weights_are_trained(kind):
    net = awake(**KINDS[kind])
    net(*asked(net)).square().mean().backward()
    assert [name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@every_kind
def test_samples_of_a_batch_do_not_see_each_other(kind):
    net = awake(**KINDS[kind])
    x, t, cond = asked(net, batch=3)
    together = net(x, t, cond)
    for i in range(3):
        here = slice(i, i + 1)
        torch.testing.assert_close(net(x[here], t[here], cond.rows(here)), together[here], rtol=1e-4, atol=1e-4)


@every_kind
def test_it_hears_the_noise_level_the_vector_and_what_stands_beside_x_t(kind):
    net = awake(**KINDS[kind], concat_channels=2)
    x, t, cond = asked(net)
    out = net(x, t, cond)
    assert not torch.allclose(net(x, t + 100, cond), out)
    for field in ("vector", "tokens", "concat", "estimate"):
        given = getattr(cond, field)
        if given is not None:
            assert not torch.allclose(net(x, t, replace(cond, **{field: -given})), out), field
    silent = replace(cond, vector=torch.zeros_like(cond.vector))
    assert torch.equal(net(x, t, silent), net(x, t, replace(cond, vector=None)))


def test_no_estimate_is_an_estimate_of_zero():
    net = awake(**KINDS["lucid"])
    x, t, cond = asked(net)
    assert torch.equal(net(x, t, replace(cond, estimate=None)), net(x, t, cond.with_estimate(torch.zeros_like(x))))


def test_masked_tokens_are_as_if_they_were_not_there():
    net = awake(**KINDS["transformers"])
    x, t, cond = asked(net, length=5)
    mask = torch.tensor([[True] * 3 + [False] * 2] * 2)
    masked = net(x, t, replace(cond, mask=mask))
    torch.testing.assert_close(masked, net(x, t, replace(cond, tokens=cond.tokens[:, :3])), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(masked, net(x, t, cond))


def test_a_row_without_a_token_that_counts_hears_nothing_of_them():
    net = awake(**KINDS["transformers"])
    x, t, cond = asked(net)
    cond = replace(cond, mask=torch.tensor([[False] * 3, [True] * 3]))
    out = net(x, t, cond)
    other = net(x, t, replace(cond, tokens=2 * cond.tokens))
    assert out.isfinite().all()
    assert torch.equal(other[0], out[0])
    assert not torch.allclose(other[1], out[1])


@every_kind
def test_checkpointing_changes_no_gradient(kind):
    gradients = []
    for checkpointing in (False, True):
        net = awake(**KINDS[kind], checkpointing=checkpointing).train()
        net(*asked(net)).square().mean().backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


@every_kind
def test_channels_last_is_a_matter_of_memory_alone(kind):
    net = awake(**KINDS[kind])
    x, t, cond = asked(net)
    out = net(x, t, cond)
    net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last), t, cond), out, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@every_kind
def test_it_compiles_into_one_graph(kind):
    net = awake(**KINDS[kind])
    x, t, cond = asked(net)
    if cond.tokens is not None:
        cond = replace(cond, mask=torch.tensor([[True, True, False], [True] * 3]))
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, t, cond), net(x, t, cond))


def test_attention_stands_at_its_levels_and_in_the_middle():
    net = tiny(channel_multipliers=(1, 2, 2), attention_levels=(1,), attention=Transformers(2, depth=[1, 2, 3]))
    assert [len(level.attentions) for level in net.down] == [0, 1, 0]
    assert [len(level.attentions) for level in net.up] == [0, 2, 0]
    assert [len(level.attentions[0].blocks) for level in (net.down[1], net.up[1], net.middle)] == [2, 2, 3]


def test_without_a_context_width_there_is_no_cross_attention():
    net = tiny(**KINDS["self-attention"])
    assert not [key for key in net.state_dict() if "cross_attention" in key or ("norm2" in key and "attentions" in key)]


def test_linear_attention_is_full_where_the_map_is_smallest():
    net = tiny(**KINDS["annotated"])
    kinds = [type(level.attentions[0]).__name__ for level in (net.down[0], net.down[1], net.middle, net.up[1])]
    assert kinds == ["LinearAttention", "MapAttention", "MapAttention", "LinearAttention"]


def test_norms_have_the_groups_asked_for():
    net = tiny(norm_groups=4, attention=Transformers(2))
    assert {module.num_groups for module in net.modules() if isinstance(module, torch.nn.GroupNorm)} == {4}


def test_check_says_what_to_change():
    net = tiny(context_width=6, attention=Transformers(2), concat_channels=1, input_size=(4, 6))
    good = Conditioning(tokens=torch.zeros(1, 2, 6), concat=torch.zeros(1, 1, 4, 6))
    net.check((2, 4, 6), replace(good, vector=torch.zeros(1, 32)))
    with pytest.raises(ValueError, match=r"in_channels to 3 and its input_size to \[4, 4\]"):
        net.check((3, 4, 4), good)
    for wrong, message in (
        ({"vector": torch.zeros(1, 8)}, "conditioner's width is 8 and the network's 32"),
        ({"tokens": torch.zeros(1, 2, 5)}, "tokens are 5 wide and the context_width of UNet is 6"),
        ({"tokens": None}, "UNet attends to tokens 6 wide.*leave its context_width out"),
        ({"concat": None}, "set concat_channels to 0"),
        ({"concat": torch.zeros(1, 3, 4, 6)}, "set concat_channels to 3"),
        ({"concat": torch.zeros(1, 1, 2, 2)}, r"images are \[2, 2\] and x_t is \[4, 6\]"),
    ):
        with pytest.raises(ValueError, match=message):
            net.check((2, 4, 6), replace(good, **wrong))
    with pytest.raises(ValueError, match=r"UNet hears no tokens.*set its context_width to 6"):
        tiny().check((2, 4, 4), Conditioning(tokens=torch.zeros(1, 2, 6)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 5}, "2 levels cannot halve 5 x 5 evenly"),
        ({"channel_multipliers": ()}, "channel_multipliers"),
        ({"channels": 7}, "channels=7: choose an even number"),
        ({"num_res_blocks": 0}, "num_res_blocks=0"),
        ({"attention_levels": (2,)}, "attention_levels names level 2: choose from 0 to 1"),
        ({"attention": Transformers(3)}, "does not split into 3 heads"),
        ({"attention": Transformers(head_width=3)}, "head_width of 3 does not divide 8 channels"),
        ({"attention": Transformers(2, depth=[1, 2, 3])}, "depth has 3 numbers and channel_multipliers 2"),
        ({"attention": Linear(), "context_width": 6}, "Linear attention hears no tokens"),
        ({"block": ConvNeXt(), "resample": "residual"}, "ConvNeXt blocks do not resample"),
        ({"norm_groups": 3}, "3 groups does not divide 8 channels"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Residual, {"dropout": 1.0}),
        (ConvNeXt, {"expansion": 0}),
        (Transformers, {"num_heads": 0}),
        (Transformers, {"depth": 0}),
        (Linear, {"head_width": 0}),
    ],
)
def test_settings_without_meaning_are_refused(kind, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        kind(**options)
