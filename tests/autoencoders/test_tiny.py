"""The tiny decoder: the teacher's latents, a network of its own, and nothing of the teacher trained or saved."""

import pytest
import torch
from torch import nn

from ldm.autoencoders import AutoencoderLoss, KLAutoencoder
from ldm.autoencoders.tiny import TinyDecoder
from ldm.errors import UserError
from ldm.tasks import AutoencoderTask


def teacher(seed: int = 0) -> KLAutoencoder:
    torch.manual_seed(seed)
    made = KLAutoencoder(channels=8, channel_multipliers=[1, 2, 2], num_res_blocks=1)
    made.set_statistics([0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0], 10)
    return made


def tiny(seed: int = 0, **options: bool) -> TinyDecoder:
    return TinyDecoder(teacher(seed), channels=8, num_res_blocks=1, **options)


class Draws:
    def normal(self, *shape: int) -> torch.Tensor:
        return torch.zeros(2, *shape)


def test_its_latents_are_the_teachers() -> None:
    made, images = tiny(), torch.rand(2, 3, 8, 16)
    assert made.fingerprint() == teacher().fingerprint()
    assert made.latent_shape(8, 16) == teacher().latent_shape(8, 16)
    torch.testing.assert_close(made.encode(images).moments(), teacher().encode(images).moments())
    assert made.decode(made.encode(images).mode).shape == images.shape


def test_a_region_of_the_image_depends_on_its_own_latents_only() -> None:
    made, latents = tiny(), torch.randn(1, 4, 4, 24)
    with torch.no_grad():
        whole, part = made.decode(latents), made.decode(latents[..., 8:])
    torch.testing.assert_close(part[..., 32:], whole[..., 64:], rtol=1e-4, atol=1e-5)


def test_the_teacher_is_neither_trained_nor_saved() -> None:
    task = AutoencoderTask(tiny(), AutoencoderLoss(kl_weight=0.0))
    task.train()
    assert not task.autoencoder.teacher.training
    assert {name.split(".")[1] for name in task.trained_parameters()} == {"network", "conv_out"}
    checkpoint = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    assert not any("teacher" in key for key in checkpoint["state_dict"])
    other = AutoencoderTask(tiny(), AutoencoderLoss(kl_weight=0.0))
    nn.init.zeros_(other.autoencoder.conv_out.weight)
    other.on_load_checkpoint(checkpoint)
    other.load_state_dict(checkpoint["state_dict"], strict=True)
    torch.testing.assert_close(other.state_dict(), task.state_dict())


def test_weights_that_learned_from_another_teacher_are_refused() -> None:
    state = tiny(seed=0).state_dict()
    own = {name: value for name, value in tiny(seed=1).state_dict().items() if name.startswith("teacher.")}
    with pytest.raises(UserError, match="learned from autoencoder"):
        tiny(seed=1).load_state_dict({**state, **own})


def test_it_learns_from_what_the_teacher_decodes_or_from_the_images() -> None:
    images = torch.rand(2, 3, 8, 8)
    for imitate in (True, False):
        made = tiny(imitate=imitate)
        seen = made.autoencode(images, Draws())  # type: ignore[arg-type]
        drawn = teacher().reconstruct(teacher().posterior(images).mode)
        torch.testing.assert_close(seen.images, drawn if imitate else images)
        assert not seen.images.requires_grad
        seen.reconstructions.square().mean().backward()
        assert all((p.grad is None) == name.startswith("teacher.") for name, p in made.named_parameters())
        torch.testing.assert_close(made.examine(images).images, images)


def test_it_learns_to_draw_what_the_teacher_draws() -> None:
    torch.manual_seed(0)
    made = tiny()
    latents = torch.randn(4, 4, 4, 4)
    with torch.no_grad():
        drawn = made.teacher.decode(latents)
    optimizer = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(60):
        error = (made.decode(latents) - drawn).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert error.item() < 0.5 * drawn.var()


def test_a_teacher_whose_factor_is_no_power_of_two_is_refused() -> None:
    odd = teacher()
    odd.downsample = 6
    with pytest.raises(ValueError, match="power of 2"):
        TinyDecoder(odd)
