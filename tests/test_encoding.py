"""Latent shards hold what the autoencoder says of each image, whatever stops on the way."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from made_runs import NET, autoencoder_run, label_conditioner
from PIL import Image

from ldm import checkpoints, encoding, runs
from ldm.autoencoders.tiling import encode_tiled
from ldm.cli import main
from ldm.data import LatentContract, Manifest, Order, ShardData, ShardDataset, pack
from ldm.data.dataset import collate
from ldm.data.transform import ImageTransform
from ldm.encoding import encode
from ldm.errors import UserError


@pytest.fixture
def work(tmp_path, monkeypatch, few_digits):
    """A finished autoencoder and 60 digits in 4 shards."""
    monkeypatch.chdir(tmp_path)
    autoencoder_run("ae")
    Path("shards").symlink_to(few_digits)
    return tmp_path


def run_encode(out="out", run="ae", **options):
    encode(run, "shards/train", out, **{"accelerator": "cpu", "num_workers": 0, "batch_size": 7, **options})


def content(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(Path(folder).iterdir())}


def test_the_moments_are_those_of_the_image_and_of_its_mirror(work):
    run_encode(dtype="float32")
    autoencoder = runs.load_autoencoder("ae")
    images = list(ShardDataset("shards/train", ImageTransform(8, "center", flip=False), channels=1).samples())
    latents = list(ShardDataset("out").samples())
    assert [sample["key"] for sample in latents] == [sample["key"] for sample in images]
    assert [sample["labels"] for sample in latents] == [sample["labels"] for sample in images]
    pixels = torch.stack([sample["image"] for sample in images])
    found = torch.stack([sample["latent"] for sample in latents])
    with torch.inference_mode():
        for view, moments in ((pixels, found[:, 0]), (pixels.flip(-1), found[:, 1])):
            torch.testing.assert_close(moments, autoencoder.encode(view).moments(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[:, 0], found[:, 1], atol=1e-2)


def test_float16_differs_by_its_rounding_alone_and_takes_half_the_room(work):
    run_encode("half")
    run_encode("full", dtype="float32")
    half, full = (torch.stack([s["latent"] for s in ShardDataset(name).samples()]) for name in ("half", "full"))
    assert torch.equal(half, full.half().float())
    assert Manifest.load("half").latents.dtype == "float16"


def test_the_manifest_carries_labels_and_the_contract(work):
    run_encode()
    source, made = Manifest.load("shards/train"), Manifest.load("out")
    autoencoder = runs.load_autoencoder("ae")
    assert made.kind == "latents"
    assert (made.classes, made.has_labels, made.num_samples) == (source.classes, True, 60)
    assert [shard.name for shard in made.shards] == [shard.name for shard in source.shards]
    assert made.latents == LatentContract(
        autoencoder=autoencoder.fingerprint(),
        transform={"size": 8, "crop": "center", "channels": 1},
        shape=[2, 4, 4],
        dtype="float16",
        mean=autoencoder.latent_mean.tolist(),
        std=autoencoder.latent_std.tolist(),
        num_samples=10,
        autoencoder_class="KLAutoencoder",
    )


def test_captions_are_carried_over(work):
    Path("photos").mkdir()
    for i in range(3):
        Image.new("L", (8, 8), 50 * i).save(f"photos/{i}.png")
        Path(f"photos/{i}.txt").write_text(f"grey number {i}, größer")
    pack("photos", "captioned")
    encode("ae", "captioned", "out", accelerator="cpu", num_workers=0)
    captions = {sample["key"]: sample["captions"] for sample in ShardDataset("out").samples()}
    assert sorted(captions.values()) == [f"grey number {i}, größer" for i in range(3)]
    assert Manifest.load("out").has_captions
    assert not Manifest.load("out").has_labels


@pytest.fixture
def described(work):
    """Six images of 12 x 8 pixels that tell their columns, with maps and fields."""
    Path("photos").mkdir()
    columns = np.tile(np.arange(12, dtype=np.uint8), (8, 1))
    for i in range(6):
        Image.fromarray(20 * columns).save(f"photos/{i}.png")
        Image.fromarray(columns).save(f"photos/{i}.map.png")
        Path(f"photos/{i}.json").write_text(json.dumps({"score": i, "captions": [f"number {i}", "a ramp"]}))
    pack("photos", "described")
    encode("ae", "described", "out", accelerator="cpu", num_workers=0, dtype="float32")
    return Path("out")


def test_fields_maps_and_sizes_are_carried_over(described):
    made = Manifest.load(described)
    assert made.fields == ["captions", "crop", "maps", "original_size", "score"]
    stored = {sample["key"]: sample for sample in ShardDataset(described).samples()}
    for sample in ShardDataset("described", ImageTransform(8), channels=1).samples():
        latent = stored[sample["key"]]
        assert all(latent[name] == sample[name] for name in ("captions", "crop", "original_size", "score"))
        assert torch.equal(latent["maps"], sample["maps"])
        assert latent["crop"] == [0, 2]
    assert {"maps", "crop", "original_size", "score", "captions", "moments"} == ShardData("out").provides


def test_the_mirrored_latent_comes_with_the_mirrored_map_and_crop(described):
    dataset = ShardDataset(described, order=Order([6], 6), augment=True)
    batch = collate([dataset.load(position) for position in range(24)])
    autoencoder = runs.load_autoencoder("ae")
    images = batch["maps"] * 20 / 127.5 - 1  # the maps tell the columns, and so the images
    with torch.inference_mode():
        expected = autoencoder.encode(images).moments()
    torch.testing.assert_close(batch["moments"], expected, rtol=1e-4, atol=1e-5)
    mirrored = batch["maps"][:, 0, 0, 0] > batch["maps"][:, 0, 0, -1]
    assert 4 < mirrored.sum() < 20
    left = torch.where(mirrored, 11 - batch["maps"][:, 0, 0, 0].long(), batch["maps"][:, 0, 0, 0].long())
    assert torch.equal(batch["crop"][:, 1], left)


def test_latents_from_before_sizes_were_told_are_not_said_to_have_them(described, monkeypatch):
    monkeypatch.setattr(encoding, "SIZES", ("something_new",))
    encode("ae", "described", "out", accelerator="cpu", num_workers=0, dtype="float32")
    assert "something_new" not in Manifest.load("out").fields


def test_batch_size_and_workers_do_not_change_what_is_stored(work):
    run_encode("one", dtype="float32", batch_size=64)
    run_encode("other", dtype="float32", batch_size=64, num_workers=2)
    assert content("one") == content("other")


class Stop(Exception):
    pass


def test_stopped_it_goes_on_with_the_next_shard(work, monkeypatch):
    whole, encode_batch, asked = work / "whole", encoding.encode_batch, []
    run_encode("whole")

    def counting(autoencoder, batch, fabric):
        asked.extend(sample["key"] for sample in batch)
        if limit is not None and len(asked) > limit:
            raise Stop
        return encode_batch(autoencoder, batch, fabric)

    monkeypatch.setattr(encoding, "encode_batch", counting)
    limit = 20  # shards hold 16
    with pytest.raises(Stop):
        run_encode()
    assert sorted(name for name in os.listdir("out") if name.endswith(".tar")) == ["shard-000000.tar"]
    assert not list(Path("out").glob("*.part"))
    with pytest.raises(UserError, match=r"out holds no manifest\.json"):
        Manifest.load("out")
    first = (Path("out") / "shard-000000.tar").stat().st_mtime_ns
    limit = None
    asked.clear()
    run_encode()
    assert len(asked) == 44
    assert (Path("out") / "shard-000000.tar").stat().st_mtime_ns == first
    assert content("out") == content(whole)
    asked.clear()
    before = (Path("out") / "manifest.json").stat().st_mtime_ns
    run_encode()
    assert asked == []
    assert (Path("out") / "manifest.json").stat().st_mtime_ns >= before
    (Path("out") / "shard-000002.tar").write_bytes(b"cut short")
    run_encode()
    assert len(asked) == 16
    assert content("out") == content(whole)


def test_what_was_encoded_otherwise_is_refused_naming_both_and_replaced_by_force(work):
    run_encode()
    before = content("out")
    autoencoder_run("other", seed=1)
    one, other = (runs.load_autoencoder(name).fingerprint()[:12] for name in ("ae", "other"))
    with pytest.raises(
        UserError, match=rf"out holds latents of autoencoder {one}, and this is autoencoder {other}.*--force"
    ):
        run_encode(run="other")
    with pytest.raises(UserError, match="dtype float16, and float32 is asked for"):
        run_encode(dtype="float32")
    with pytest.raises(UserError, match=r"transform .*16"):
        run_encode(size=16)
    with pytest.raises(UserError, match="latents of other images"):
        encode("ae", "shards/val", "out", accelerator="cpu", num_workers=0)
    assert content("out") == before
    run_encode(run="other", force=True)
    assert Manifest.load("out").latents.autoencoder.startswith(other)
    encode("other", "shards/val", "out", accelerator="cpu", num_workers=0, force=True)
    assert sorted(path.name for path in Path("out").glob("*.tar")) == ["shard-000000.tar"]  # none of the old four


def test_force_leaves_everything_alone_that_encode_did_not_write(work):
    Path("mine").mkdir()
    (Path("mine") / "thesis.tex").write_text("years of work")
    shutil.copytree("shards/val", "packed")
    for target in ("mine", "packed", "ae"):
        before = content(target) if target != "ae" else None
        with pytest.raises(UserError, match=f"{target} holds other things than latents"):
            run_encode(target, force=True)
        assert before is None or content(target) == before
    run_encode()
    (Path("out") / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"such as notes\.txt"):
        run_encode(dtype="float32", force=True)
    assert (Path("out") / "notes.txt").read_text() == "mine"
    (Path("file")).write_text("mine")
    with pytest.raises(UserError, match="file is a file"):
        run_encode("file", force=True)


def test_latents_never_go_among_their_images(work, few_digits):
    images = Path("copy")
    shutil.copytree(few_digits / "train", images)
    before = content(images)
    for out in ("copy", "copy/latents", "."):
        with pytest.raises(UserError, match="overlap"):
            encode("ae", "copy", out, accelerator="cpu", num_workers=0, force=True)
    assert content(images) == before


def test_a_latent_beyond_float16_is_named_and_float32_holds_it(work):
    path = checkpoints.newest(Path(shutil.copytree("ae", "loud")))
    checkpoint = checkpoints.read(path)
    checkpoint["state_dict"]["autoencoder.latent_std"].fill_(1e-7)
    checkpoints.write(checkpoint, path)
    with pytest.raises(UserError, match="beyond float16: store float32"):
        run_encode(run="loud")
    assert not list(Path("out").glob("*.tar*"))
    run_encode(run="loud", dtype="float32", out="full")
    assert torch.stack([s["latent"] for s in ShardDataset("full").samples()]).abs().max() > 65504


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_label_out_of_range_is_one_sentence_from_any_worker(work, few_digits, num_workers):
    bad = Path("bad")
    shutil.copytree(few_digits / "train", bad)
    manifest = json.loads((bad / "manifest.json").read_text())
    manifest["classes"] = manifest["classes"][:5]
    (bad / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"sample .* in shard bad/shard-0") as caught:
        encode("ae", "bad", "out", accelerator="cpu", num_workers=num_workers)
    assert "\n" not in str(caught.value)
    assert not list(Path("out").glob("*.tar*"))


def test_what_cannot_be_encoded_is_refused_before_anything_is_written(work):
    autoencoder_run("young", measured=False)
    run_encode("latents")
    for message, arguments in {
        "young is not finished": ("young", "shards/train"),
        "latents holds latents already": ("ae", "latents"),
        "its sub-folders do": ("ae", "shards"),
        "gone is not a run folder": ("gone", "shards/train"),
    }.items():
        with pytest.raises(UserError, match=message):
            encode(*arguments, "out", accelerator="cpu")
    with pytest.raises(UserError, match="--size 9 does not fit"):
        run_encode(size=9)
    with pytest.raises(UserError, match="--batch-size"):
        run_encode(batch_size=0)
    edit = yaml.safe_load(Path("ae/config.yaml").read_text())
    edit["data"] = None
    Path("ae/config.yaml").write_text(yaml.safe_dump(edit))
    with pytest.raises(UserError, match="pass --size"):
        run_encode()
    assert not Path("out").exists()


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_and_refuse_as_one(work):
    command = [
        sys.executable,
        "-m",
        "ldm",
        "encode",
        "ae",
        "shards/train",
        "two",
        "--accelerator",
        "cpu",
        "--devices",
        "2",
    ]
    command += ["--num-workers", "0", "--batch-size", "7"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    run_encode("one")
    assert content("one") == content("two")
    refused = subprocess.run(
        [*command, "--dtype", "float32"], capture_output=True, text=True, timeout=120, env=environment
    )
    assert refused.returncode == 2
    assert "dtype float16, and float32 is asked for" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert content("one") == content("two")


def test_training_refuses_latents_of_another_autoencoder_naming_both(work, capsys):
    run_encode()
    autoencoder_run("other", seed=1)
    model = {
        "class_path": "ldm.tasks.DiffusionTask",
        "init_args": {
            "net": {"class_path": "ldm.networks.DiT", "init_args": NET},
            "diffusion": {
                "class_path": "ldm.diffusion.Diffusion",
                "init_args": {
                    "path": "ldm.diffusion.paths.RectifiedFlow",
                    "prediction": "ldm.diffusion.predictions.Velocity",
                },
            },
            "conditioner": label_conditioner(10, 16),
            "autoencoder": {"class_path": "ldm.runs.load_autoencoder", "init_args": {"run": "other"}},
        },
    }
    data = {"class_path": "ldm.data.ShardData", "init_args": {"shards": "out", "batch_size": 12, "num_workers": 0}}
    trainer = {"accelerator": "cpu", "devices": 1, "max_steps": 1, "logger": False, "enable_progress_bar": False}
    Path("dit.yaml").write_text(yaml.safe_dump({"run": "dit", "model": model, "data": data, "trainer": trainer}))
    with pytest.raises(SystemExit) as ended:
        main(["fit", "-c", "dit.yaml"])
    assert ended.value.code == 2
    told = capsys.readouterr().err.splitlines()[-1]
    for name in ("ae", "other"):
        assert runs.load_autoencoder(name).fingerprint()[:12] in told
    assert not Path("dit/config.yaml").exists()
    main(["fit", "-c", "dit.yaml", "--model.init_args.autoencoder.init_args.run", "ae"])
    assert runs.load("dit")


def test_latents_of_tiles_are_said_to_be_and_are_not_mixed_with_others(work):
    run_encode("tiled", size=12, tile=8, dtype="float32")
    contract = Manifest.load("tiled").latents
    assert contract.transform["tile"] == 8
    with pytest.raises(UserError, match="transform"):
        run_encode("tiled", size=12, dtype="float32")
    images = list(ShardDataset("shards/train", ImageTransform(12, "center", flip=False), channels=1).samples())[:3]
    latents = list(ShardDataset("tiled").samples())[:3]
    expected = encode_tiled(runs.load_autoencoder("ae"), torch.stack([sample["image"] for sample in images]), tile=8)
    found = torch.stack([sample["latent"][0] for sample in latents])
    torch.testing.assert_close(found, expected.moments(), rtol=1e-4, atol=1e-5)
    run_encode("whole", size=8, tile=8)  # one tile: what it is without
    assert "tile" not in Manifest.load("whole").latents.transform
    with pytest.raises(UserError, match=r"--tile.*multiple of 2"):
        run_encode("odd", size=16, tile=7)
