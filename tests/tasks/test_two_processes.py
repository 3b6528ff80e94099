"""Two processes (gloo, CPU) do what one does; all of it shares one pair of processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import autoencoder_task, digit_data
from two_ranks import (
    measure_pixels,
    measure_reconstructions,
    train_adversarial,
    train_autoencoder,
    train_denoiser,
)

from ldm import checkpoints
from ldm.data.loader import rank_batch
from ldm.errors import UserError

TIMEOUT = 240  # seconds, for everything


@pytest.fixture(scope="module")
def runs(few_digits, tmp_path_factory):
    """What one process saw, what each of the two ranks saw, and their folders."""
    out = tmp_path_factory.mktemp("two")
    one = {
        "denoiser": train_denoiser(few_digits, out / "denoiser1", 4),
        "resumed": train_denoiser(few_digits, out / "whole1", 7),
        "autoencoder": train_autoencoder(few_digits, out / "autoencoder1"),
        "adversarial": train_adversarial(few_digits, out / "adversarial1"),
        "pixels": measure_pixels(few_digits),
        "measures": measure_reconstructions(few_digits),
    }
    train_denoiser(few_digits, out / "from_one", 3)  # which the two ranks take up
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = str(Path(__file__).with_name("two_ranks.py"))
    ranks = []
    for rank in range(2):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "TORCHELASTIC_RUN_ID": "test",
        }
        log = (out / f"log{rank}.txt").open("w")
        command = [sys.executable, script, str(few_digits), str(out)]
        ranks.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
    try:
        codes = [process.wait(TIMEOUT) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    said = "\n".join((out / f"log{rank}.txt").read_text()[-3000:] for rank in range(2))
    assert codes == [0, 0], said
    return one, [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2)], out


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("name", ["denoiser", "autoencoder"])
def test_at_equal_global_batch_the_losses_are_those_of_one_process(runs, name):
    one, ranks, _ = runs
    first, *later = one[name]["losses"]
    mean = {step: sum(rank[name]["losses"][step] for rank in ranks) / 2 for step in one[name]["losses"]}
    assert mean[first] == pytest.approx(one[name]["losses"][first], abs=1e-6)
    for step in later:
        assert mean[step] == pytest.approx(one[name]["losses"][step], rel=1e-4)


def test_the_ranks_hold_the_same_weights_and_averages(runs):
    one, (first, second), _ = runs
    assert_equal(first["denoiser"]["weights"], second["denoiser"]["weights"])
    for decay in ("0.9", "0.5"):
        averages = [rank["denoiser"]["ema"][decay] for rank in (first, second)]
        assert [average["num_updates"] for average in averages] == [4, 4]
        assert_equal(averages[0]["weights"], averages[1]["weights"])
        for name, value in one["denoiser"]["ema"][decay]["weights"].items():
            torch.testing.assert_close(averages[0]["weights"][name], value, rtol=1e-3, atol=1e-4)
    assert_equal(first["autoencoder"]["state"], second["autoencoder"]["state"])
    assert_equal(first["autoencoder"]["ema"]["weights"], second["autoencoder"]["ema"]["weights"])


def test_both_sides_of_a_game_and_the_code_words_are_equal_on_both_ranks(runs):
    """Weights, codebook, counts of use, LeCam's averages, and the moments of a discriminator that began late."""
    one, (first, second), _ = runs
    assert_equal(first["adversarial"]["state"], second["adversarial"]["state"])
    assert {"autoencoder.quantiser.codebook", "autoencoder.quantiser.share"} <= first["adversarial"]["state"].keys()
    for mine, others in zip(*(rank["adversarial"]["moments"].values() for rank in (first, second)), strict=True):
        assert_equal(mine, others)
        assert mine["step"] == 4
    whole = one["adversarial"]["state"]
    for name in ("autoencoder.quantiser.share", "loss.terms.1.real_mean", "loss.terms.1.fake_mean"):
        torch.testing.assert_close(first["adversarial"]["state"][name], whole[name], rtol=2e-2, atol=1e-3)
    assert not torch.equal(whole["loss.terms.1.real_mean"], torch.zeros(()))


def test_the_ranks_share_the_samples_of_each_global_batch(runs):
    one, ranks, _ = runs
    for step, positions in one["denoiser"]["positions"].items():
        shares = [rank["denoiser"]["positions"][step] for rank in ranks]
        assert [len(share) for share in shares] == [6, 6]
        assert shares[0] + shares[1] == positions


def test_the_sample_grid_is_complete_and_that_of_one_process(runs):
    _, _, out = runs
    one, two = (
        Image.open(out / name / "pictures/samples-00000004.png").convert("L") for name in ("denoiser1", "denoiser")
    )
    assert one.size == two.size == (3 * 66 + 2, 3 * 66 + 2 + 20)
    one, two = (np.asarray(picture).astype(int) for picture in (one, two))
    assert np.abs(one - two).max() <= 1
    for i in range(9):
        cell = two[22 + i // 3 * 66 :, 2 + i % 3 * 66 :][:64, :64]
        assert cell.std() > 0


def test_validation_is_the_same_figure(runs):
    one, ranks, _ = runs
    for name in ("denoiser", "autoencoder"):
        figures = {k: v for k, v in one[name]["metrics"].items() if k.startswith("val/")}
        assert len(figures) >= 3
        for key, value in figures.items():
            assert [rank[name]["metrics"][key] for rank in ranks] == pytest.approx([value, value], rel=2e-3), key


def test_latent_statistics_are_of_the_whole_set_on_every_rank(runs, few_digits):
    """Equal on both ranks, and by the law of total variance those of all latents at once."""
    _, ranks, out = runs
    task, data = autoencoder_task(), digit_data(few_digits)
    task.load_state_dict({**ranks[0]["autoencoder"]["state"], **ranks[0]["autoencoder"]["ema"]["weights"]})
    data.setup("fit")
    images = torch.cat(list(data.plain_images(1000)))
    with torch.no_grad():
        posteriors = [task.autoencoder.posterior(part) for part in images.split(12)]
    means = torch.cat([posterior.mean for posterior in posteriors]).double()
    variances = torch.cat([posterior.std**2 for posterior in posteriors]).double()
    expected = (means.var((0, 2, 3), correction=0) + variances.mean((0, 2, 3))).sqrt()
    assert len(means) == 60
    for rank in ranks:
        mean, std, count = rank["autoencoder"]["statistics"]
        torch.testing.assert_close(mean.double(), means.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(std.double(), expected, rtol=1e-5, atol=1e-6)
        assert count == 60
    saved = checkpoints.read(checkpoints.newest(out / "autoencoder"))["state_dict"]
    assert torch.equal(saved["autoencoder.latent_mean"], ranks[0]["autoencoder"]["statistics"][0])


def test_two_ranks_measure_what_one_measures(runs):
    """37 images are 19 and 18: none lacks and none counts twice. Equal to the rounding of float64 for equal latents."""
    one, ranks, _ = runs
    assert [rank["pixels"]["seen"] for rank in ranks] == [19, 18]
    for rank in ranks:
        assert rank["pixels"]["count"] == one["pixels"]["count"] == 37
        for name in ("mean", "std"):
            assert torch.equal(rank["pixels"][name], ranks[0]["pixels"][name])
            torch.testing.assert_close(rank["pixels"][name], one["pixels"][name], rtol=1e-13, atol=0)


def test_measures_of_reconstructions_are_over_all_ranks(runs):
    one, ranks, _ = runs
    assert {"psnr", "ssim", "rfid", "code_usage", "perplexity", "latent_std/0"} <= one["measures"].keys()
    assert ranks[0]["measures"] == ranks[1]["measures"]
    for name, value in one["measures"].items():
        assert ranks[0]["measures"][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_saved_by_one_resumed_by_two_and_back(runs, few_digits):
    """The losses go on as if the number of processes had never changed."""
    one, ranks, out = runs
    whole = one["resumed"]["losses"]
    for step in (3, 4, 5, 6):
        assert sum(rank["resumed"]["losses"][step] for rank in ranks) / 2 == pytest.approx(whole[step], rel=1e-5)
        shares = [rank["resumed"]["positions"][step] for rank in ranks]
        assert shares[0] + shares[1] == one["resumed"]["positions"][step]
    assert min(ranks[0]["resumed"]["losses"]) == 3
    before = checkpoints.newest(out / "denoiser")
    assert before.name == "step-00000004.ckpt"
    back = train_denoiser(few_digits, out / "denoiser", 7)
    assert min(back["losses"]) == 4
    for step, loss in back["losses"].items():
        assert loss == pytest.approx(whole[step], rel=1e-5)
        assert back["positions"][step] == one["resumed"]["positions"][step]


def test_a_world_that_does_not_divide_the_batch_is_refused(few_digits):
    with pytest.raises(UserError, match="cannot be shared by 5 processes"):
        rank_batch(digit_data(few_digits).batch_size, 5)
