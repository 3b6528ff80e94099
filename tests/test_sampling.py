"""An image is a function of its seed, label and settings alone."""

from dataclasses import replace

import pytest
import torch
from made_runs import diffusion_task, shaken, tiny_autoencoder, walks

from ldm.cli.by_name import known
from ldm.conditioners import Conditioner, Label, SizeAndCrop
from ldm.diffusion import Diffusion
from ldm.diffusion.guidance import ClassifierFree, guide
from ldm.diffusion.paths import Cosine, RectifiedFlow
from ldm.diffusion.predictions import Velocity
from ldm.diffusion.samplers import DDIM, DDPM, Sampler
from ldm.errors import UserError
from ldm.images import to_uint8
from ldm.networks import DiT
from ldm.sampling import ImageNoise, Request, check_request, contrast, sample_images, sample_steps
from ldm.sampling.wishes import other_condition, wanted_condition
from ldm.tasks import DiffusionTask

SAMPLERS = [DDIM(4), DDIM(4, eta=1.0), DDPM(4)]


@pytest.fixture(scope="module")
def task():
    return diffusion_task()


@pytest.fixture(scope="module")
def unconditional():
    return diffusion_task(classes=None)


def drawn(task, request, sampler, batch_size):
    return torch.cat([sample_images(task, part, sampler) for part in request.split(batch_size)])


@pytest.mark.parametrize("path", [None, Cosine()], ids=["flow", "cosine"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=["ddim", "ddim eta 1", "ddpm"])
def test_a_seed_is_the_same_image_at_any_batch_size(sampler, path):
    task = diffusion_task(path=path)
    request = Request(range(100, 107), {"labels": [0, 1, 2, 3, 4, 5, 9]}, [ClassifierFree(2.0)])
    whole = to_uint8(drawn(task, request, sampler, 7)).int()
    for batch_size in (1, 3):
        assert (to_uint8(drawn(task, request, sampler, batch_size)).int() - whole).abs().max() <= 1
    assert len({image.numpy().tobytes() for image in whole}) == 7


def test_a_seed_is_the_same_image_among_others(task):
    alone = sample_images(task, Request([5], {"labels": [3]}), DDIM(4))
    among = sample_images(task, Request([9, 5, 7], {"labels": [1, 3, 2]}), DDIM(4))
    torch.testing.assert_close(among[1:2], alone, rtol=0, atol=1 / 255)


def test_image_noise_is_standard_normal_each_image_from_its_own_generator():
    noise = ImageNoise([4, 5], (2, 64, 64), torch.device("cpu"))
    first, second = noise(), noise()
    assert first.shape == (2, 2, 64, 64)
    assert not torch.equal(first, second)
    assert abs(first.mean()) < 0.03
    assert abs(first.std() - 1) < 0.03
    other = ImageNoise([5, 4], (2, 64, 64), torch.device("cpu"))
    assert torch.equal(other().flip(0), first)
    assert torch.equal(other().flip(0), second)


def test_guidance_of_scale_one_is_the_conditional_model(task):
    request = Request(range(3), {"labels": [1, 2, 3]}, [ClassifierFree(1.0)])
    guided = guide(contrast(task, request), *request.guidance)
    x_t, t = torch.randn(3, *task.net.sample_shape), torch.full((3,), 0.6)
    cond = task.conditioner({"labels": torch.tensor([1, 2, 3])}, drop=torch.zeros(3, dtype=torch.bool))
    with torch.inference_mode():
        expected = task.diffusion.denoiser(task.net, cond)(x_t, t).x0
        assert torch.equal(guided(x_t, t).x0, expected)
        stronger = guide(contrast(task, request), ClassifierFree(3.0))
        assert not torch.allclose(stronger(x_t, t).x0, expected)


def test_one_batched_pass_or_two_give_the_same(task):
    request = Request(range(3), {"labels": [1, 2, 3]}, [ClassifierFree(3.0)])
    passes = []
    hook = task.net.register_forward_pre_hook(lambda net, args: passes.append(len(args[0])))
    one, two = (sample_images(task, replace(request, two_passes=apart), DDIM(2)) for apart in (False, True))
    hook.remove()
    assert passes == [6, 6, 3, 3, 3, 3]
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


def test_a_class_can_be_avoided_in_place_of_no_class(task):
    shape = task.net.sample_shape
    x_t, t = torch.randn(3, *shape), torch.tensor(0.6, dtype=torch.float64)
    held = contrast(task, Request(range(3), {"labels": [1, 2, 3]}, avoided={"labels": [4, 5, 6]}))
    labels = [torch.tensor(x) for x in ([1, 2, 3], [4, 5, 6])]
    keep = torch.zeros(3, dtype=torch.bool)
    with torch.inference_mode():
        denoised = [task.diffusion.denoiser(task.net, task.conditioner({"labels": x}, drop=keep)) for x in labels]
        wanted, other = (denoise(x_t, t).x0 for denoise in denoised)
        guided = guide(held, ClassifierFree(3.0))(x_t, t).x0
    torch.testing.assert_close(guided, wanted + 2 * (wanted - other), rtol=0, atol=1e-5)


def test_without_labels_a_conditional_model_draws_the_data_set_as_a_whole(task):
    null = sample_images(task, Request(range(2)), DDIM(3))
    labelled = sample_images(task, Request(range(2), {"labels": [1, 1]}), DDIM(3))
    assert not torch.allclose(null, labelled, atol=1e-2)


def test_requests_that_the_model_cannot_serve(task, unconditional):
    for label in (-1, 10, 11):
        with pytest.raises(UserError, match=f"no class {label}: the model knows the classes 0 to 9"):
            check_request(task, Request([0, 1], {"labels": [3, label]}))
    with pytest.raises(UserError, match=r"cannot be asked for classes .--classes.; it takes nothing"):
        check_request(unconditional, Request([0], {"labels": [3]}))
    for model, told in ((task, "Guidance needs something"), (unconditional, "nothing can be guided towards")):
        with pytest.raises(UserError, match=told):
            check_request(model, Request([0], {}, [ClassifierFree(2.0)]))
        check_request(model, Request([0]))


@pytest.mark.parametrize(
    "leaf", [leaf for leaf in known(Sampler).values() if walks(leaf)], ids=lambda leaf: leaf.__name__
)
def test_every_sampler_gives_images_and_ends_at_the_data(task, unconditional, leaf):
    for model, labels in ((task, [1, 2]), (unconditional, None)):
        request = Request([0, 1], {"labels": labels} if labels else {}, [ClassifierFree(2.0)] if labels else [])
        steps = list(sample_steps(model, request, leaf(num_steps=3)))
        assert [step.index for step in steps] == [0, 1, 2]
        assert steps[-1].t == 0
        images = sample_images(model, request, leaf(num_steps=3))
        assert images.shape == (2, 1, 8, 8)
        assert images.isfinite().all()
        assert images.abs().max() <= 1
        assert not images.requires_grad


def test_a_request_is_split_into_parts_that_join_to_it():
    request = Request(range(5), {"labels": [0, 1, 2, 3, 4]}, [ClassifierFree(2.0)])
    parts = list(request.split(2))
    assert [list(part.seeds) for part in parts] == [[0, 1], [2, 3], [4]]
    assert [label for part in parts for label in part.wish["labels"]] == [0, 1, 2, 3, 4]
    assert all(part.guidance == request.guidance for part in parts)
    assert [part.wish for part in Request(range(3)).split(2)] == [{}, {}]


def sized(dropout):
    """A model of classes, dropped with this probability, and of sizes, which have a value without being named."""
    torch.manual_seed(0)
    embedders = [Label(10, 16, dropout=dropout), SizeAndCrop(16, [8, 8])]
    net = shaken(DiT(4, 2, 2, 16, 1, 2))
    process = Diffusion(RectifiedFlow(), Velocity())
    return DiffusionTask(net, process, tiny_autoencoder(), shaken(Conditioner(embedders))).eval()


def test_where_nothing_is_to_be_avoided_a_model_that_never_did_without_hears_the_wish():
    task, wish = sized(0.0), {"labels": [1, 2]}
    held = other_condition(task, Request([0, 1], wish, avoided={"labels": [4, None]})).vector
    expected = wanted_condition(task, Request([0, 1], {"labels": [4, 2]})).vector
    assert torch.equal(held, expected)
    dropped = other_condition(sized(0.1), Request([0, 1], wish, avoided={"labels": [4, None]})).vector
    assert not torch.allclose(dropped[1], expected[1])


def test_guidance_towards_what_it_leaves_as_it_is_is_refused():
    sizes = Request([0], {"original_size": [[4, 4]]}, [ClassifierFree(2.0)])
    with pytest.raises(UserError, match="cannot do without what is asked for"):
        check_request(sized(0.1), sizes)
    check_request(sized(0.1), replace(sizes, wish={**sizes.wish, "labels": [3]}))
