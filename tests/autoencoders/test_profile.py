"""The profile of latents against scipy and torch over everything at once, and against spectra that are known."""

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from scipy import stats

from ldm.autoencoders.profile import LatentProfile, Profile, band_members


def some_latents(batch: int = 11) -> torch.Tensor:
    """Three channels: a Gaussian, a far and narrow one, a uniform one; (B, 3, 6, 5)."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(batch, 3, 6, 5, generator=generator)
    latents[:, 2] = torch.rand(batch, 6, 5, generator=generator)
    return latents * torch.tensor([1.0, 0.01, 30.0])[:, None, None] + torch.tensor([0.0, 1e2, -7.0])[:, None, None]


def profile_of(*parts: torch.Tensor, bands: int = 4) -> Profile:
    profile = LatentProfile(parts[0].shape[1], bands)
    for part in parts:
        profile.update(part)
    return profile.finalize()


def check(profile: Profile, latents: torch.Tensor) -> None:
    values = latents.double()
    torch.testing.assert_close(profile.mean, values.mean((0, 2, 3)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(profile.std, values.std((0, 2, 3), correction=0), rtol=1e-9, atol=1e-12)
    expected = stats.kurtosis(values.transpose(0, 1).flatten(1).numpy(), axis=1)
    torch.testing.assert_close(profile.kurtosis, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)
    whole = profile_of(latents)
    torch.testing.assert_close(profile.spectrum, whole.spectrum, rtol=1e-12, atol=0, equal_nan=True)
    assert profile.num_samples == len(latents)


@pytest.mark.parametrize("batch_size", [1, 4, 11])
def test_any_splitting_equals_all_of_it_at_once(batch_size: int) -> None:
    latents = some_latents()
    check(profile_of(*latents.split(batch_size)), latents)


def test_merging_ranks_equals_one_rank() -> None:
    latents, ranks = some_latents(), [LatentProfile(3) for _ in range(3)]
    ranks[0].update(latents[:2])
    ranks[1].update(latents[2:])  # and the last rank has seen nothing
    total = LatentProfile(3)
    for rank in ranks:
        total.merge(rank)
    check(total.finalize(), latents)


@pytest.mark.parametrize("shape", [(4, 4), (5, 8), (1, 7)])
def test_every_frequency_but_0_is_in_one_band_and_power_is_variance(shape: tuple[int, int]) -> None:
    """Parseval: the powers of all bands and of the means are the squares of all values."""
    members = band_members(*shape, bands=3)
    expected = torch.ones(shape, dtype=torch.float64)
    expected[0, 0] = 0
    assert torch.equal(members.sum(0), expected)
    latents = torch.randn(6, 2, *shape, generator=torch.Generator().manual_seed(1)).double()
    profile = LatentProfile(2, bands=3)
    profile.update(latents)
    around_own_mean = latents - latents.mean((2, 3), keepdim=True)
    torch.testing.assert_close(profile.power.sum(1), around_own_mean.square().sum((0, 2, 3)))


def test_white_noise_has_power_1_in_every_band_and_no_excess() -> None:
    profile = profile_of(torch.randn(2000, 1, 16, 16, generator=torch.Generator().manual_seed(2)))
    assert (profile.spectrum - 1).abs().max() < 0.03
    assert profile.kurtosis.abs().max() < 0.05


@pytest.mark.parametrize(("waves", "band"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (7, 3), (8, 3)])
def test_a_wave_lies_in_the_band_of_its_frequency(waves: int, band: int) -> None:
    """`waves` in 16 positions are waves / 16 cycles per position, and bands are an eighth wide."""
    wave = torch.cos(2 * math.pi * waves * torch.arange(16).double() / 16).expand(1, 2, 16, 16)
    for latents in (wave, wave.transpose(2, 3)):
        spectrum = profile_of(latents).spectrum
        assert (spectrum[:, band] > 0.1).all()
        assert spectrum.sum(1).sub(spectrum[:, band]).abs().max() < 1e-12


def test_a_small_latent_lacks_bands_and_says_so() -> None:
    """4 x 4 latents have frequencies 1/4, 1/2 and beyond: none below an eighth."""
    plain = profile_of(some_latents()[:, :, :4, :4]).plain()
    assert [row[0] for row in plain["spectrum"]] == [None] * 3
    assert all(value > 0 for row in plain["spectrum"] for value in row[1:])
    assert profile_of(torch.ones(2, 1, 4, 4)).plain()["kurtosis"] == [None]


def test_bad_latents_are_refused() -> None:
    profile = LatentProfile(3)
    with pytest.raises(ValueError, match="at least one image"):
        profile.finalize()
    with pytest.raises(ValueError, match="latent_channels"):
        profile.update(torch.zeros(2, 4, 1, 1))
    with pytest.raises(ValueError, match="NaN or Inf"):
        profile.update(torch.full((1, 3, 1, 1), float("nan")))


def _run_rank(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    profile = LatentProfile(3)
    profile.update(some_latents()[:3] if rank == 0 else some_latents()[3:])
    torch.save([vars(profile.finalize()) for _ in range(2)], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_agree_with_one_bit_for_bit_with_each_other(tmp_path: Path) -> None:
    mp.spawn(_run_rank, (2, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for result in (*first, *second):
        check(Profile(**result), some_latents())
        for name in ("mean", "std", "kurtosis", "spectrum"):
            torch.testing.assert_close(result[name], first[0][name], rtol=0, atol=0, equal_nan=True)
