"""A model and latents of two different autoencoders, mixed up by hand, are refused at each of the three doors."""

import dataclasses
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from made_runs import NET, autoencoder_run, diffusion_model, diffusion_run, edit_config, label_conditioner
from safetensors.torch import load_file, save_file

from ldm import checkpoints, exporting, runs
from ldm.cli import main
from ldm.data import Manifest, ShardData, ShardWriter, shard_info
from ldm.data.stamp import read_stamp, stamp
from ldm.encoding import encode
from ldm.errors import UserError

SHARD = "shard-000001.tar"
QUIET = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}


@pytest.fixture(scope="module")
def originals(tmp_path_factory, few_digits):
    """Autoencoders ae and other of one make, latents A and B of the two, a model of each, and its export."""
    root = tmp_path_factory.mktemp("originals")
    before = Path.cwd()
    os.chdir(root)
    try:
        for ae, latents, dit, seed in (("ae", "A", "dit", 0), ("other", "B", "dit_other", 1)):
            autoencoder_run(ae, seed=seed)
            encode(ae, str(few_digits / "train"), latents, accelerator="cpu", num_workers=0)
            diffusion_run(dit, ae, seed=seed)
            exporting.export(dit, f"export_{dit}")
    finally:
        os.chdir(before)
    return root


@pytest.fixture
def work(originals, tmp_path, monkeypatch):
    """A copy to spoil, as the working directory."""
    shutil.copytree(originals, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")


def named(run):
    """An autoencoder as messages name it."""
    return runs.load_autoencoder(run).fingerprint()[:12]


def fit(latents="A", autoencoder="ae", run="new", val=None, steps=1):
    """The `fit` command of a model of an autoencoder on latents."""
    model = diffusion_model(NET, label_conditioner(10, NET["width"]), autoencoder)
    arguments = {"shards": latents, "val_shards": val, "batch_size": 12, "num_workers": 0}
    data = {"class_path": "ldm.data.ShardData", "init_args": arguments}
    config = {"run": run, "model": model, "data": data, "trainer": {**QUIET, "max_steps": steps}}
    Path("fit.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "-c", "fit.yaml"])


def refused(capsys, command, *arguments, **options):
    """The one sentence that a door says."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        command(*arguments, **options)
    assert ended.value.code == 2
    sentence = capsys.readouterr().err.partition("ldm: error: ")[2].rstrip("\n")
    assert sentence
    assert "\n" not in sentence
    return sentence


def edit_manifest(folder, change):
    content = json.loads((Path(folder) / "manifest.json").read_text())
    change(content)
    (Path(folder) / "manifest.json").write_text(json.dumps(content))


def from_the_other(content):
    """What the manifest of B says of the shard that was copied."""
    other = {shard["name"]: shard for shard in json.loads(Path("B/manifest.json").read_text())["shards"]}
    content["shards"] = [other[s["name"]] if s["name"] == SHARD else s for s in content["shards"]]


# --- the first door: training


def test_each_set_trains_with_its_own_autoencoder(work):
    fit("A", "ae", "one")
    fit("B", "other", "two", val="B")
    assert checkpoints.newest(Path("one"))
    assert checkpoints.newest(Path("two"))


def test_latents_of_another_autoencoder_than_the_models(work, capsys):
    told = refused(capsys, fit, "A", "other")
    assert f"latents in A were made by autoencoder {named('ae')}, and the model is given autoencoder" in told
    assert named("other") in told
    assert not list(Path("new").glob("checkpoints/*"))


@pytest.mark.parametrize("with_index", [False, True])
@pytest.mark.parametrize("with_manifest", [False, True])
def test_a_shard_of_one_set_in_the_folder_of_another(work, capsys, with_index, with_manifest):
    """Its size is that of the shard it replaces, so only what it says of itself tells them apart."""
    assert Path("A", SHARD).stat().st_size == Path("B", SHARD).stat().st_size
    shutil.copy(f"B/{SHARD}", "A")
    if with_index:
        shutil.copy(f"B/{SHARD}.idx.json", "A")
    if with_manifest:
        edit_manifest("A", from_the_other)
    with pytest.raises(UserError) as caught:
        ShardData("A").setup()
    assert f"shard A/{SHARD} is not of its folder: its latents were made by autoencoder {named('other')}" in str(caught)
    assert f"the manifest says {named('ae')}" in str(caught.value)
    if with_index and with_manifest:
        assert refused(capsys, fit) == str(caught.value)
        assert not list(Path("new").glob("checkpoints/*"))


def test_a_manifest_that_claims_another_autoencoder(work, capsys):
    """All of A is passed off as latents of the other autoencoder, to please its model."""
    claimed = json.loads(Path("B/manifest.json").read_text())["latents"]
    edit_manifest("A", lambda content: content.update(latents=claimed))
    told = refused(capsys, fit, "A", "other")
    assert f"shard A/shard-000000.tar is not of its folder: its latents were made by autoencoder {named('ae')}" in told


@pytest.mark.parametrize(
    ("name", "value"),
    [("mean", [0.0, 0.0]), ("std", [1.0, 1.0]), ("num_samples", 50_000), ("shape", [2, 4, 8]), ("transform", {})],
)
def test_a_contract_that_was_changed_by_hand(work, name, value):
    edit_manifest("A", lambda content: content["latents"].update({name: value}))
    with pytest.raises(UserError, match=f"is not of its folder: its latents were made with {name} "):
        ShardData("A").setup()


def test_validation_on_latents_of_another(work, capsys):
    assert "val_shards B differs from shards A in latents" in refused(capsys, fit, val="B")
    shutil.copytree("A", "val")
    shutil.copy(f"B/{SHARD}", "val")
    assert f"shard val/{SHARD} is not of its folder" in refused(capsys, fit, val="val")


def test_a_run_that_is_resumed_with_everything_of_another(work, capsys):
    fit("A", "ae", "run")
    told = refused(capsys, fit, "B", "other", "run", steps=2)
    assert f"trained in the latent space of autoencoder {named('ae')} and is given {named('other')}" in told


def test_an_autoencoder_that_was_trained_on_after_encoding(work, capsys):
    path = checkpoints.newest(Path("ae"))
    checkpoint = checkpoints.read(path)
    for average in checkpoint["ema"].values():
        average["weights"]["autoencoder.decoder.conv_out.bias"] += 1e-3
    checkpoints.write(checkpoint, path.with_name("step-00000009.ckpt"))
    assert "latents in A were made by autoencoder" in refused(capsys, fit)
    for command in (["sample", "dit", "--accelerator", "cpu"], ["export", "dit", "out"]):
        assert "trained in the latent space of autoencoder" in refused(capsys, main, command)


def repacked(shard, place):
    """The same samples in a tar of the same name in a folder, which says no contract; what its manifest has of it."""
    with tarfile.open(shard) as source, tarfile.open(Path(place, shard.name), "w", format=tarfile.USTAR_FORMAT) as tar:
        for member in source:
            tar.addfile(member, source.extractfile(member))
    Path(place, f"{shard.name}.idx.json").unlink(missing_ok=True)
    assert read_stamp(Path(place, shard.name)) is None
    return dataclasses.asdict(shard_info(Path(place, shard.name)))


def aged(folder, place):
    """A copy as older versions wrote it: no shard, and nothing in the manifest, tells the contract of a shard."""
    shutil.copytree(folder, place)
    shards = [repacked(shard, place) for shard in sorted(Path(folder).glob("*.tar"))]
    edit_manifest(place, lambda content: content.update(shards=shards))
    edit_manifest(place, lambda content: (content.pop("stamped"), content["latents"].pop("autoencoder_class")))


@pytest.mark.parametrize("with_key", [True, False])
def test_a_repacked_shard_of_another_set_whose_manifest_was_edited(work, capsys, with_key):
    assert json.loads(Path("A/manifest.json").read_text())["stamped"] is True
    shard = repacked(Path("B", SHARD), "A")
    edit_manifest("A", lambda content: content["shards"].__setitem__(1, shard))
    if not with_key:
        edit_manifest("A", lambda content: content.pop("stamped"))
    told = refused(capsys, fit)
    assert f"shard A/{SHARD} says nothing of the autoencoder of its latents, as the others of its set do" in told


def test_a_set_that_is_said_to_be_stamped_and_is_not(work):
    aged("A", "older")
    edit_manifest("older", lambda content: content.update(stamped=True))
    with pytest.raises(UserError, match=r"shard older/shard-000000\.tar says nothing"):
        ShardData("older").setup()


def test_encoding_that_goes_on_replaces_shards_without_a_contract(work, few_digits):
    whole = Path("A", SHARD).read_bytes()
    repacked(Path("A", SHARD), "A/..")
    Path(SHARD).rename(Path("A", SHARD))
    Path(f"A/{SHARD}.idx.json").unlink()
    encode("ae", str(few_digits / "train"), "A", accelerator="cpu", num_workers=0)
    assert Path("A", SHARD).read_bytes() == whole


def test_older_sets_do_not_say_their_contract_and_are_read_whole(work, capsys):
    for folder, older in (("A", "older"), ("B", "older_other")):
        aged(folder, older)
    fit("older")
    shutil.copy(f"older_other/{SHARD}", "older")
    told = refused(capsys, fit, "older", run="again")
    assert f"shard older/{SHARD} says nothing of the autoencoder of its latents" in told
    shutil.copy(f"B/{SHARD}", "older")
    assert "is not of its folder: its latents were made by autoencoder" in refused(capsys, fit, "older", run="again")


def test_encoding_that_goes_on_replaces_a_shard_that_is_not_its_own(work, few_digits):
    whole = Path("A", SHARD).read_bytes()
    shutil.copy(f"B/{SHARD}", "A")
    shutil.copy(f"B/{SHARD}.idx.json", "A")
    encode("ae", str(few_digits / "train"), "A", accelerator="cpu", num_workers=0)
    assert Path("A", SHARD).read_bytes() == whole
    fit()


def test_an_older_folder_of_latents_is_taken_up_as_it_is(work, few_digits):
    """Its contract.json lacks the name of the class, which tells no latents apart."""
    content = json.loads(Path("A/contract.json").read_text())
    content["contract"].pop("autoencoder_class")
    Path("A/contract.json").write_text(json.dumps(content))
    before = Path("A", SHARD).stat().st_mtime_ns
    encode("ae", str(few_digits / "train"), "A", accelerator="cpu", num_workers=0)
    assert Path("A", SHARD).stat().st_mtime_ns == before


# --- the second and the third door: sampling and exporting


DOORS = {"sample": ["--accelerator", "cpu"], "export": ["out"], "inspect": []}


def through_every_door(capsys, folder):
    """What the doors say, which is one thing."""
    said = {refused(capsys, main, [door, folder, *arguments]) for door, arguments in DOORS.items()}
    assert len(said) == 1
    assert not Path("out").exists()
    return said.pop()


def test_a_run_whose_config_was_edited_to_another_autoencoder(work, capsys):
    edit_config("dit", lambda arguments: arguments["autoencoder"]["init_args"].update(run="other"))
    told = through_every_door(capsys, "dit")
    assert "dit cannot be loaded. The checkpoint was trained in the latent space of autoencoder" in told
    assert f"{named('ae')} and is given {named('other')}" in told


def test_a_checkpoint_of_another_run(work, capsys):
    shutil.rmtree("dit/checkpoints")
    shutil.copytree("dit_other/checkpoints", "dit/checkpoints")
    assert f"autoencoder {named('other')} and is given {named('ae')}" in through_every_door(capsys, "dit")


def test_another_autoencoder_in_the_folder_of_the_first(work, capsys):
    expected = named("ae"), named("other")
    shutil.rmtree("ae")
    shutil.copytree("other", "ae")
    assert f"autoencoder {expected[0]} and is given {expected[1]}" in through_every_door(capsys, "dit")


def exchanged(part):
    """The export of dit with a part of the other's weights."""
    path = Path("export_dit/model.safetensors")
    own, other = load_file(path), load_file("export_dit_other/model.safetensors")
    save_file({name: (other if name.startswith(part) else own)[name] for name in own}, path)


def test_an_export_whose_autoencoder_was_exchanged(work, capsys):
    expected = named("ae"), named("other")
    exchanged("autoencoder.")
    told = through_every_door(capsys, "export_dit")
    assert "export_dit cannot be loaded" in told
    assert f"was made with autoencoder {expected[0]}, and it holds autoencoder {expected[1]}" in told
    assert "was made with autoencoder" in refused(capsys, fit, autoencoder="export_dit")


def test_an_export_whose_network_was_exchanged(work, capsys):
    exchanged("net.")
    assert "is not the file that it was made with (sha256 differs)" in through_every_door(capsys, "export_dit")


def test_an_export_with_all_weights_of_another(work, capsys):
    shutil.copy("export_dit_other/model.safetensors", "export_dit")
    assert "was made with autoencoder" in through_every_door(capsys, "export_dit")


def test_an_export_of_an_older_version_still_loads(work):
    path = Path("export_dit/config.yaml")
    config = yaml.safe_load(path.read_text())
    assert set(config.pop("made")) == {"autoencoder", "weights"}
    path.write_text(yaml.safe_dump(config))
    assert runs.load("export_dit").autoencoder.fingerprint() == runs.load_autoencoder("ae").fingerprint()


def test_an_export_says_the_fingerprint_of_its_autoencoder(work):
    for export, autoencoder in (("export_dit", "ae"), ("export_dit_other", "other")):
        made = yaml.safe_load(Path(export, "config.yaml").read_text())["made"]
        assert made["autoencoder"] == runs.load_autoencoder(autoencoder).fingerprint()


# --- what a shard says of itself


def test_a_shard_tells_the_contract_that_it_was_written_under(work):
    manifest = Manifest.load("A")
    assert manifest.latents is not None
    assert all(read_stamp(Path("A", shard.name)) == manifest.latents for shard in manifest.shards)
    assert manifest.latents.differences(manifest.latents) == []
    renamed = dataclasses.replace(manifest.latents, autoencoder_class="Another", dtype="float32")
    assert manifest.latents.differences(renamed) == ["dtype"]


@pytest.mark.parametrize("comment", [None, "made by hand", "ldm latents {", "ldm latents {}", "ldm latents []"])
def test_a_shard_without_a_contract_tells_none(tmp_path, comment):
    with ShardWriter(tmp_path / "a.tar", comment) as writer:
        writer.add("a", {"cls": "0"})
    assert read_stamp(tmp_path / "a.tar") is None
    (tmp_path / "b.tar").write_bytes(b"no tar")
    assert read_stamp(tmp_path / "b.tar") is None


# --- latents that are broken


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


GOOD = np.zeros((2, 4, 4, 4), dtype=np.float16)
BROKEN = {
    "not a number": (np.where(np.arange(4) == 2, np.nan, GOOD).astype(np.float16), "is not finite"),
    "infinite": (np.full_like(GOOD, np.inf), "is not finite"),
    "too small": (GOOD[..., :2], r"is float16 \(2, 4, 4, 2\), but the manifest says float16 \(2, 4, 4, 4\)"),
    "too many channels": (np.zeros((2, 8, 4, 4), np.float16), r"is float16 \(2, 8, 4, 4\), but the manifest says"),
    "no mirror image": (GOOD[0], r"is float16 \(4, 4, 4\), but the manifest says"),
    "of another precision": (GOOD.astype(np.float32), r"is float32 \(2, 4, 4, 4\), but the manifest says float16"),
}


@pytest.mark.parametrize(("broken", "num_workers"), [*((name, 0) for name in BROKEN), ("not a number", 1)])
def test_a_broken_latent_is_refused_by_its_key_and_shard(work, broken, num_workers):
    latent, message = BROKEN[broken]
    manifest = Manifest.load("A")
    assert manifest.latents is not None
    with ShardWriter(Path("A/shard-000000.tar"), stamp(manifest.latents)) as writer:
        for i in range(16):
            writer.add(f"digit{i}", {"latent.npy": npy(latent if i == 7 else GOOD), "cls": "0"})
    assert writer.info is not None
    dataclasses.replace(manifest, shards=[writer.info, *manifest.shards[1:]]).save("A")
    data = ShardData("A", batch_size=12, num_workers=num_workers)
    data.setup()
    with pytest.raises(UserError, match=rf"sample 'digit7' in shard A/shard-000000\.tar: its latent {message}"):
        list(data.train_dataloader())


def test_latents_are_what_the_good_ones_say(work):
    """The sets of the two autoencoders differ at all: what is refused above would have been another training."""
    sets = [ShardData(folder, batch_size=12, num_workers=0, flip=False) for folder in "AB"]
    batches = [next(iter(each.train_dataloader())) for each in sets]
    assert batches[0]["keys"] == batches[1]["keys"]
    assert not torch.allclose(batches[0]["moments"], batches[1]["moments"], atol=0.1)
