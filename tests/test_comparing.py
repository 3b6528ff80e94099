"""`ldm compare-latents`: the verdict is the contracts', the figures are those of the latents."""

import json
import shutil

import numpy as np
import pytest
import torch
from made_runs import autoencoder_run

from ldm import runs
from ldm.cli import main
from ldm.comparing import StoredLatents, compare, spread
from ldm.data import ShardDataset, pack
from ldm.encoding import encode


@pytest.fixture(scope="module")
def made(tmp_path_factory, few_digits):
    """Latents a of autoencoder ae, b of autoencoder other, half: a in float16, wide: a of 16 pixels."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(few_digits / "train", root / "images")
    autoencoder_run(root / "ae")
    autoencoder_run(root / "other", seed=1)
    settings = {"accelerator": "cpu", "num_workers": 0}
    for name, run, options in (
        ("a", "ae", {"dtype": "float32"}),
        ("b", "other", {"dtype": "float32"}),
        ("half", "ae", {}),
        ("wide", "ae", {"dtype": "float32", "size": 16}),
    ):
        encode(str(root / run), str(root / "images"), str(root / name), **settings, **options)
    return root


def means(folder):
    return torch.stack([sample["latent"][0, :2] for sample in ShardDataset(folder).samples()]).double()


def compared(made, one, other, num_samples=1000):
    return compare(StoredLatents(str(made / one)), StoredLatents(str(made / other)), num_samples)


@pytest.mark.parametrize(
    ("other", "differences"), [("a", []), ("b", ["autoencoder"]), ("half", ["dtype"]), ("wide", ["transform", "shape"])]
)
def test_the_verdict_names_what_differs(made, other, differences, capsys):
    assert compared(made, "a", other).differences == differences
    argv = ["compare-latents", str(made / "a"), str(made / other)]
    if differences:
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert ended.value.code == 1
        assert f"may not be mixed: they differ in {', '.join(differences)}" in capsys.readouterr().out
    else:
        main(argv)
        assert "They may be mixed" in capsys.readouterr().out


def test_all_digits_are_shown_on_80_columns(made, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main(["compare-latents", str(made / "a"), str(made / "a")])
    told = capsys.readouterr().out
    assert "\N{HORIZONTAL ELLIPSIS}" not in told
    profile = compared(made, "a", "a").profiles[0].plain()
    for channel, (mean, spectrum) in enumerate(zip(profile["mean"], profile["spectrum"], strict=True)):
        row = next(line.split() for line in told.splitlines() if line.split()[:2] == [str(channel), "B"])
        assert row[2] == f"{mean:.4f}"
        assert row[5:] == ["-" if power is None else f"{power:.4f}" for power in spectrum]


def test_the_figures_are_those_of_all_latents(made):
    found, one, other = compared(made, "a", "b"), means(made / "a"), means(made / "b")
    assert (found.common, found.compared) == (60, 60)
    assert found.rms == pytest.approx((one - other).square().mean().sqrt().item(), rel=1e-6)
    expected = np.corrcoef(one.flatten().numpy(), other.flatten().numpy())[0, 1]
    assert found.correlation == pytest.approx(expected, rel=1e-6)
    for profile, values in zip(found.profiles, (one, other), strict=True):
        assert profile.num_samples == 60
        torch.testing.assert_close(profile.mean, values.mean((0, 2, 3)))
        torch.testing.assert_close(profile.std, values.std((0, 2, 3), correction=0))


def test_samples_meet_by_key_and_not_by_place(made, few_digits, tmp_path):
    """All 70 images in shards of 9, where the others are 60 of them in shards of 16: the same keys at other places."""
    pack(str(few_digits.parent / "images"), str(tmp_path / "images"), shard_size=9)
    settings = {"accelerator": "cpu", "num_workers": 0}
    encode(str(made / "ae"), str(tmp_path / "images"), str(tmp_path / "half"), **settings)
    one, other = StoredLatents(str(made / "a")), StoredLatents(str(tmp_path / "half"))
    assert one.keys != other.keys[:60]
    found = compare(one, other, 1000)
    assert (found.common, found.compared) == (60, 60)
    assert found.correlation > 0.9999
    assert 0 < found.rms < 1e-3  # the rounding of float16
    encode(str(made / "ae"), str(few_digits / "val"), str(tmp_path / "val"), **settings)
    apart = compare(one, StoredLatents(str(tmp_path / "val")), 1000)
    assert (apart.common, apart.compared, apart.rms) == (0, 0, None)


def test_latents_of_other_shapes_are_profiled_and_not_subtracted(made):
    found = compared(made, "a", "wide")
    assert (found.common, found.compared, found.rms, found.correlation) == (60, 0, None, None)


def test_the_number_of_samples_is_bounded_and_spread(made):
    found = compared(made, "a", "b", num_samples=7)
    assert (found.common, found.compared) == (60, 7)
    assert [profile.num_samples for profile in found.profiles] == [7, 7]
    assert spread(10, 5) == [0, 2, 4, 6, 8]
    assert spread(3, 5) == [0, 1, 2]


def test_two_autoencoders_are_compared_over_images(made, capsys):
    argv = [str(made / "ae"), str(made / "other"), "--shards", str(made / "images"), "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["compare-latents", *argv])
    assert ended.value.code == 1
    told = json.loads(capsys.readouterr().out)
    stored = compared(made, "a", "b")
    assert told["differences"] == ["autoencoder"]
    assert told["rms"] == pytest.approx(stored.rms, rel=1e-4)
    assert told["latents"][0]["contract"]["autoencoder"] == runs.load_autoencoder(str(made / "ae")).fingerprint()
    for side, profile in zip(told["latents"], stored.profiles, strict=True):
        assert side["profile"]["std"] == pytest.approx(profile.std.tolist(), rel=1e-4)


def test_what_cannot_be_compared_is_one_sentence_and_exit_code_2(made, tmp_path, capsys):
    a, ae, images = (str(made / name) for name in ("a", "ae", "images"))
    mixed = tmp_path / "mixed"
    shutil.copytree(made / "a", mixed)
    shutil.copy(made / "b" / "shard-000001.tar", mixed)
    for message, argv in {
        "pass --shards": [ae, ae],
        "holds images": [a, images],
        "is not a folder": [a, str(tmp_path / "nowhere")],
        "--shards names a folder of images": [ae, ae, "--shards", a],
        "--num-samples is 0": [a, a, "--num-samples", "0"],
        "shard-000001.tar is not of its folder": [a, str(mixed)],
    }.items():
        with pytest.raises(SystemExit) as ended:
            main(["compare-latents", *argv])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
