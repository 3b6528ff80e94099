"""Streaming statistics against torch's over everything at once."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ldm.autoencoders import LatentStatistics


def some_latents(batch: int = 11) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(batch, 3, 4, 5, generator=generator)
    return latents * torch.tensor([1.0, 0.01, 30.0])[:, None, None] + torch.tensor([0.0, 1e3, -7.0])[:, None, None]


def check(result: tuple[torch.Tensor, torch.Tensor, int], latents: torch.Tensor) -> None:
    mean, std, num_samples = result
    values = latents.double()
    torch.testing.assert_close(mean, values.mean((0, 2, 3)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(std, values.std((0, 2, 3), correction=0), rtol=1e-9, atol=1e-12)
    assert num_samples == len(latents)


@pytest.mark.parametrize("batch_size", [1, 4, 11])
def test_any_splitting_equals_torch_on_all_of_it(batch_size: int) -> None:
    latents, statistics = some_latents(), LatentStatistics(3)
    for part in latents.split(batch_size):
        statistics.update(part)
    check(statistics.finalize(), latents)


def test_merging_ranks_equals_one_rank() -> None:
    latents, ranks = some_latents(), [LatentStatistics(3) for _ in range(3)]
    ranks[0].update(latents[:2])
    ranks[1].update(latents[2:])  # and the last rank has seen nothing
    total = LatentStatistics(3)
    for rank in ranks:
        total.merge(rank)
    check(total.finalize(), latents)


def test_finalize_can_be_asked_twice() -> None:
    latents, statistics = some_latents(), LatentStatistics(3)
    statistics.update(latents[:5])
    check(statistics.finalize(), latents[:5])
    statistics.update(latents[5:])
    check(statistics.finalize(), latents)


def test_bad_latents_are_refused() -> None:
    statistics = LatentStatistics(3)
    with pytest.raises(ValueError, match="at least one image"):
        statistics.finalize()
    with pytest.raises(ValueError, match="latent_channels"):
        statistics.update(torch.zeros(2, 4, 1, 1))
    with pytest.raises(ValueError, match="NaN or Inf"):
        statistics.update(torch.full((1, 3, 1, 1), float("nan")))


def _run_rank(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    latents, statistics = some_latents(), LatentStatistics(3)
    statistics.update(latents[:3] if rank == 0 else latents[3:])
    first, second = statistics.finalize(), statistics.finalize()
    torch.save([first, second], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    mp.spawn(_run_rank, (2, str(tmp_path)), nprocs=2)
    for rank in range(2):
        for result in torch.load(tmp_path / f"{rank}.pt", weights_only=True):
            check(result, some_latents())
