"""The moving average of weights against its closed form."""

import pytest
import torch

from ldm.nn.ema import WeightAverage


def walk(steps, dtype=torch.float32):
    """A parameter's values after each of `steps` updates, the first its start."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(5, generator=generator).to(dtype) for _ in range(steps + 1)]


def follow(average, parameter, values):
    for value in values[1:]:
        parameter.data.copy_(value)
        average.update({"w": parameter})


def test_without_warm_up_it_is_a_geometric_sum():
    values, decay = walk(30), 0.9
    parameter = torch.nn.Parameter(values[0].clone())
    average = WeightAverage({"w": parameter}, decay, warmup=False)
    follow(average, parameter, values)
    expected = decay**30 * values[0].double()
    for k, value in enumerate(values[1:], start=1):
        expected = expected + (1 - decay) * decay ** (30 - k) * value.double()
    torch.testing.assert_close(average.weights["w"].double(), expected, rtol=1e-5, atol=1e-6)
    assert average.num_updates == 30


def test_with_warm_up_the_nth_update_keeps_at_most_1_plus_n_over_10_plus_n():
    values, decay = walk(40), 0.5
    parameter = torch.nn.Parameter(values[0].clone())
    average = WeightAverage({"w": parameter}, decay, warmup=True)
    expected = values[0].double()
    for n, value in enumerate(values[1:], start=1):
        parameter.data.copy_(value)
        average.update({"w": parameter})
        keep = min(decay, (1 + n) / (10 + n))
        expected = keep * expected + (1 - keep) * value.double()
        torch.testing.assert_close(average.weights["w"].double(), expected, rtol=1e-5, atol=1e-6)
    assert decay == (1 + 8) / (10 + 8)  # so that both sides of the minimum were walked through


def test_under_bf16_weights_it_is_kept_in_float32():
    """In bfloat16 the average of a decay of 0.9999 would never move."""
    steps, decay = 3000, 0.9999
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    average = WeightAverage({"w": parameter}, decay, warmup=False)
    parameter.data.fill_(2.0)
    for _ in range(steps):
        average.update({"w": parameter})
    assert average.weights["w"].dtype == torch.float32
    torch.testing.assert_close(average.weights["w"], torch.full((3,), 2 - decay**steps), rtol=1e-4, atol=0)
    with average.swapped({"w": parameter}):
        assert parameter.dtype == torch.bfloat16
        assert torch.equal(parameter.data, average.weights["w"].bfloat16())
    assert torch.equal(parameter.data, torch.full((3,), 2.0, dtype=torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fails", [False, True])
def test_swapping_gives_back_every_bit(dtype, fails):
    values = walk(3, dtype)
    values[3][0] = float("nan")
    parameter = torch.nn.Parameter(values[0].clone())
    average = WeightAverage({"w": parameter}, 0.9)
    follow(average, parameter, values[:3])
    parameter.data.copy_(values[3])
    storage, averaged = parameter.data_ptr(), average.weights["w"].clone()
    try:
        with average.swapped({"w": parameter}):
            assert parameter.data_ptr() == storage
            assert torch.equal(parameter.data, averaged.to(dtype))
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert parameter.data_ptr() == storage
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    assert torch.equal(parameter.data.view(bits), values[3].view(bits))
    assert torch.equal(average.weights["w"], averaged)


def test_swapping_undoes_a_half_done_swap():
    """The second weight cannot take its average: the first one has to get back what it was."""
    first, second = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    average = WeightAverage({"a": first, "b": second}, 0.9)
    average.weights["a"].fill_(5.0)
    average.weights["b"] = torch.ones(3)
    with pytest.raises(RuntimeError), average.swapped({"a": first, "b": second}):
        pass
    assert torch.equal(first.data, torch.ones(2))


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_autocast_sees_the_swapped_weights(precision):
    """autocast keeps the casts of weights that it has seen; after a swap those are of other weights."""
    layer, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    average = WeightAverage(dict(layer.named_parameters()), 0.9)
    for weights in average.weights.values():
        weights.fill_(0.5)
    with torch.autocast("cpu", precision), torch.no_grad():
        before = layer(x)
        with average.swapped(dict(layer.named_parameters())):
            averaged = layer(x)
        after = layer(x)
    torch.testing.assert_close(
        averaged.float(), (x.sum(1, keepdim=True) * 0.5 + 0.5).expand(2, 4), rtol=0.02, atol=0.02
    )
    assert torch.equal(before, after)


def test_it_survives_its_state():
    values = walk(9)
    parameter = torch.nn.Parameter(values[0].clone())
    whole = WeightAverage({"w": parameter}, 0.9)
    follow(whole, parameter, values)
    parameter.data.copy_(values[0])
    first = WeightAverage({"w": parameter}, 0.9)
    follow(first, parameter, values[:5])
    state = {**first.state_dict(), "weights": {"w": first.weights["w"].clone()}}
    second = WeightAverage({"w": torch.zeros(5)}, 0.9)
    second.load_state_dict(state)
    follow(second, parameter, values[4:])
    assert torch.equal(second.weights["w"], whole.weights["w"])
    assert second.num_updates == 9


def test_what_it_refuses():
    for decay in (-0.1, 1.0, 1.5):
        with pytest.raises(ValueError, match="outside"):
            WeightAverage({}, decay)
    average = WeightAverage({"a": torch.zeros(1)}, 0.9)
    with pytest.raises(ValueError, match=r"do not fit this network: \['a', 'b'\]"):
        average.load_state_dict({"num_updates": 1, "weights": {"b": torch.zeros(1)}})
