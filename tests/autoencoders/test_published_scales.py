"""The scale and shift that published models name are cases of mean and std per channel."""

import pytest
import torch

from ldm.autoencoders import KLAutoencoder

EDM2_MEAN, EDM2_STD = [5.81, 3.25, 0.12, -2.15], [4.17, 4.62, 3.71, 3.28]

# Model: channels, mean and std as given to set_statistics, and what its code does with raw latents.
PUBLISHED = {
    "stable-diffusion": (4, 0.0, 1 / 0.18215, lambda z: z * 0.18215),
    "sdxl": (4, 0.0, 1 / 0.13025, lambda z: z * 0.13025),
    "stable-diffusion-3": (16, 0.0609, 1 / 1.5305, lambda z: (z - 0.0609) * 1.5305),
    "flux": (16, 0.1159, 1 / 0.3611, lambda z: (z - 0.1159) * 0.3611),
    # EDM2 goes on to a standard deviation of 0.5, which is its network's affair; ours is 1.
    "edm2": (4, EDM2_MEAN, EDM2_STD, lambda z: 2 * (z * (0.5 / column(EDM2_STD)) - column(EDM2_MEAN) * half())),
}


def column(values):
    return torch.tensor(values)[:, None, None]


def half():
    return 0.5 / column(EDM2_STD)


@pytest.mark.parametrize("name", PUBLISHED)
def test_encode_is_the_published_formula_and_decode_undoes_it(name):
    channels, mean, std, formula = PUBLISHED[name]
    torch.manual_seed(0)
    autoencoder = KLAutoencoder(1, channels, channels=8, channel_multipliers=[1, 2], num_res_blocks=1).eval()
    autoencoder.set_statistics(mean, std, num_samples=None)
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(3, 1, 8, 8, generator=generator) * 2 - 1
    with torch.no_grad():
        posterior = autoencoder.posterior(images)
        eps = torch.randn(posterior.mean.shape, generator=generator)
        raw, latents = posterior.sample(eps), autoencoder.encode(images).sample(eps)
        torch.testing.assert_close(latents, formula(raw), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(autoencoder.decode(latents), autoencoder.reconstruct(raw), rtol=1e-4, atol=1e-5)
    assert autoencoder.latent_samples == -1
