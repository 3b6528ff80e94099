"""Text embeddings kept with the data are those of encoding on the fly; stopped, `ldm encode --text` goes on."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from made_runs import NET, autoencoder_run
from PIL import Image
from tiny_clip import CONTEXT, WIDTH, text_conditioner, tiny_clip
from tiny_models import Losses, fit

from ldm import encoding, runs
from ldm.conditioners import Conditioner, FrozenText
from ldm.conditioners.encoders import OpenCLIPText
from ldm.data import Manifest, ShardData, ShardDataset, pack
from ldm.diffusion import Diffusion
from ldm.diffusion.paths import RectifiedFlow
from ldm.diffusion.predictions import Velocity
from ldm.encoding import encode
from ldm.errors import UserError
from ldm.networks import DiT
from ldm.networks.blocks import AdaLNZeroCross
from ldm.tasks import DiffusionTask

NAME = "tiny-kept-last"
WORDS = ["red", "blue", "a large green circle", "", "two squares side by side", "dot"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    with tiny_clip(tmp_path_factory.mktemp("clip")) as weights:
        yield weights


@pytest.fixture(scope="module")
def origin(tmp_path_factory, clip):
    """An autoencoder, twelve captioned grey images in three shards (one caption, or three), the text config."""
    folder = tmp_path_factory.mktemp("origin")
    (folder / "photos").mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"photos/{i}.png")
        captions = [f"{word} {i}".strip() for word in (WORDS[i % 6], WORDS[(i + 1) % 6], WORDS[(i + 2) % 6])]
        content = {"captions": captions, "caption_weights": [1, 2, 1]} if i % 2 else {"captions": captions[:1]}
        (folder / f"photos/{i}.json").write_text(json.dumps(content))
    pack(str(folder / "photos"), str(folder / "images"), shard_size=4, num_workers=1)
    autoencoder_run(folder / "ae")
    write_config(folder / "text.yaml", clip)
    return folder


@pytest.fixture
def work(origin, tmp_path, monkeypatch):
    for name in ("ae", "images", "text.yaml"):
        (tmp_path / name).symlink_to(origin / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_config(path, weights, **encoder):
    model = {
        "class_path": "ldm.tasks.DiffusionTask",
        "init_args": {"conditioner": text_conditioner(weights, **encoder)},
    }
    path.write_text(yaml.safe_dump({"model": model}))


def run_encode(out, text="text.yaml", shards="images", **options):
    encode("ae", shards, out, **{"accelerator": "cpu", "num_workers": 0, "text": text, "dtype": "float32", **options})


def task(weights, **encoder):
    torch.manual_seed(0)
    net = DiT(**NET, block=AdaLNZeroCross(WIDTH))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    conditioner = Conditioner([FrozenText(OpenCLIPText("tiny-kept", str(weights), **encoder), dropout=0.3)])
    process = Diffusion(RectifiedFlow(), Velocity())
    return DiffusionTask(net, process, runs.load_autoencoder("ae"), conditioner, lambda p: torch.optim.SGD(p, lr=0.1))


def data(folder):
    return ShardData(folder, batch_size=6, num_workers=0)


def losses_of(folder, made):
    losses = Losses()
    fit(made, data(folder), Path("runs") / folder, 2, [losses])
    return losses.by_batch


def test_cached_text_embeddings_give_the_same_loss_as_encoding_on_the_fly(work, clip):
    run_encode("plain", text=None)
    run_encode("kept")
    on_the_fly, absent = task(clip), task("nowhere/clip.pt")
    expected, found = losses_of("plain", on_the_fly), losses_of("kept", absent)
    assert on_the_fly.conditioner.embedders[0].encoder._model is not None
    assert len(expected) == 2
    assert found == pytest.approx(expected, rel=1e-5)
    shutil.rmtree("runs")
    assert losses_of("plain", task(clip, final_norm=False)) != pytest.approx(expected, rel=1e-4)  # the text is heard


def test_the_caption_that_is_drawn_comes_with_its_own_embedding(work, clip):
    run_encode("kept")
    encoder, module = OpenCLIPText("tiny-kept", str(clip)), data("kept")
    module.setup("fit")
    heard = set()
    for _ in range(3):
        for batch in module.train_dataloader():
            text = encoder.encode(batch["captions"], CPU)
            mask = batch[f"text.{NAME}.mask"]
            assert torch.equal(mask, text.mask)
            torch.testing.assert_close(batch[f"text.{NAME}.tokens"][mask], text.tokens[mask])
            torch.testing.assert_close(batch[f"text.{NAME}.pooled"], text.pooled)
            heard |= set(batch["captions"])
        module._consumed += 12
    assert len(heard) > 12  # of some images more than one was drawn
    assert {f"text.{NAME}.{part}" for part in ("tokens", "mask", "pooled")} <= module.provides


def test_what_is_stored_is_cut_and_described(work, clip):
    run_encode("kept", dtype="float16")
    (contract,) = Manifest.load("kept").texts
    assert (contract.name, contract.dtype) == (NAME, "float16")
    assert (contract.token_width, contract.context_length, contract.pooled_width) == (WIDTH, CONTEXT, 6)
    assert contract.fingerprint == OpenCLIPText("tiny-kept", str(clip)).fingerprint()
    reader, lengths = ShardDataset("kept").reader, set()
    for shard, count in enumerate(reader.counts):
        for row in range(count):
            _, members = reader.read(shard, row)
            texts = json.loads(members["json"])["captions"]
            tokens = np.load(io.BytesIO(members[f"text.{NAME}.tokens.npy"]))
            assert tokens.dtype == np.float16
            assert len(tokens) == len(texts)
            lengths.add(tokens.shape[1])
    assert len(lengths) > 1
    assert max(lengths) < CONTEXT
    cache = data("kept").text_cache(NAME)
    assert torch.equal(cache.empty.tokens, OpenCLIPText("tiny-kept", str(clip)).encode([""], CPU).tokens)
    assert data("kept").text_cache("another") is None
    assert Manifest.load("images").texts == []


def test_embeddings_of_another_encoder_are_refused_naming_both(work, clip):
    run_encode("kept")
    other = task(clip, final_norm=False)
    with pytest.raises(UserError, match="encode the captions again") as said:
        losses_of("kept", other)
    for encoder in (other.conditioner.embedders[0].encoder, OpenCLIPText("tiny-kept", str(clip))):
        assert encoder.fingerprint()[:12] in str(said.value)
    write_config(Path("other.yaml"), clip, final_norm=False)
    with pytest.raises(UserError, match=rf"embeddings of captions by {NAME} .* in float32, and {NAME} .*--force"):
        run_encode("kept", "other.yaml")
    with pytest.raises(UserError, match="and no text encoder is asked for"):
        run_encode("kept", None)


def test_validation_data_with_other_embeddings_than_the_training_data_are_refused(work):
    run_encode("plain", text=None)
    run_encode("kept")
    for train, val in (("plain", "kept"), ("kept", "plain")):
        with pytest.raises(UserError, match=r"differs from shards .* in texts"):
            ShardData(train, val, batch_size=6, num_workers=0).setup("fit")


class Stop(Exception):
    pass


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_stopped_it_goes_on_with_the_next_shard_and_takes_latents_over(work, monkeypatch):
    run_encode("whole")
    members, asked = encoding.CaptionEncoding.members, []

    def counting(self, samples):
        asked.append(len(samples))
        if limit is not None and len(asked) > limit:
            raise Stop
        return members(self, samples)

    monkeypatch.setattr(encoding.CaptionEncoding, "members", counting)
    limit = 1
    with pytest.raises(Stop):
        run_encode("out")
    assert (Path("out") / f"text.{NAME}.safetensors").is_file()
    limit = None
    asked.clear()
    run_encode("out")
    assert asked == [4, 4]
    assert contents("out") == contents("whole")
    (Path("out") / f"text.{NAME}.safetensors").unlink()
    with pytest.raises(UserError, match="copy it back, or run the same `ldm encode` again"):
        data("out").text_cache(NAME)
    asked.clear()
    run_encode("out")
    assert asked == []
    assert contents("out") == contents("whole")
    run_encode("plain", text=None)
    monkeypatch.setattr(encoding, "encode_batch", None)  # no image is encoded a second time
    run_encode("added", shards="plain")
    assert [path.read_bytes() for path in sorted(Path("added").glob("*.tar"))] == [
        path.read_bytes() for path in sorted(Path("whole").glob("*.tar"))
    ]
    assert Manifest.load("added") == Manifest.load("whole")


def test_what_cannot_be_encoded_is_refused_before_anything_is_written(work, clip, few_digits):
    for name, block in {"label.yaml": None, "none.yaml": {"class_path": "ldm.conditioners.Conditioner"}}.items():
        Path(name).write_text(yaml.safe_dump({"model": {"init_args": {"conditioner": block}}}))
    write_config(Path("gone.yaml"), "nowhere/clip.pt")
    for config, message in {
        "label.yaml": "has no model.init_args.conditioner",
        "none.yaml": "has no FrozenText",
        "gone.yaml": r"weights from nowhere/clip\.pt",
        "missing.yaml": "There is no file missing.yaml",
    }.items():
        with pytest.raises(UserError, match=message):
            run_encode("out", config)
    with pytest.raises(UserError, match="has no captions that --text could encode"):
        run_encode("out", shards=str(few_digits / "train"))
    run_encode("plain", text=None)
    with pytest.raises(UserError, match="--size is 16"):
        run_encode("out", shards="plain", size=16)
    autoencoder_run("other", seed=1)
    with pytest.raises(UserError, match="were made by autoencoder"):
        encode("other", "plain", "out", accelerator="cpu", text="text.yaml")
    assert not Path("out").exists()
