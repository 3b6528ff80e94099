"""A new model from the weights of another: what fits is kept, what can be is resized, and the report says which."""

import json
from argparse import Namespace

import pytest
import torch
from made_runs import NET, autoencoder_run, diffusion_run, diffusion_task, shaken, tiny_autoencoder
from rich.console import Console

from ldm.adapting import Report, Source, adapt, read_source
from ldm.adapting.offers import pairs
from ldm.adapting.report import Entry, folded
from ldm.conditioners import Conditioner, Label, Number, SizeAndCrop
from ldm.diffusion import Diffusion
from ldm.diffusion.paths import Cosine, RectifiedFlow
from ldm.diffusion.predictions import V, Velocity
from ldm.errors import UserError
from ldm.networks import Conditioning, DiT, UNet
from ldm.networks.blocks import AdaLNSingle, AdaLNZeroCross
from ldm.networks.layouts.dit_official import LABELS, OfficialDiT
from ldm.networks.positions import Learned, SinCos
from ldm.runs import load_autoencoder
from ldm.tasks import DiffusionTask

LABELS_OF_TASK = "conditioner.embedders.0.embedding.weight"


NAMES = [f"class {i}" for i in range(10)]


@pytest.fixture(scope="module")
def trained():
    """A model of ten named classes."""
    task = diffusion_task()
    return Source("RUN", task.net, task.conditioner, task.diffusion, task.autoencoder.fingerprint(), NAMES)


def new_task(classes=10, net=None, embedders=None, process=None):
    torch.manual_seed(7)
    net = DiT(**NET) if net is None else net
    embedders = [Label(classes, net.width)] if embedders is None else embedders
    process = Diffusion(RectifiedFlow(), Velocity()) if process is None else process
    return DiffusionTask(net, process, tiny_autoencoder(), Conditioner(embedders)).eval()


def state_of(source):
    """Of the network and the conditioner of a source, by names as in a task's."""
    parts = {"net": source.net, "conditioner": source.conditioner}
    return {f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()}


def names(entries):
    return {entry.name for entry in entries}


def answers(task, vector_of=3, x=None, level=300.0, **cond):
    """What the network says to two samples of a class."""
    x = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(1)) if x is None else x
    vector = task.conditioner({"labels": torch.full((2,), vector_of)}, torch.zeros(2, dtype=torch.bool)).vector
    with torch.no_grad():
        return task.net(x, torch.full((2,), level), Conditioning(vector=vector, **cond))


def test_the_same_model_is_kept_to_the_last_bit_by_its_average(trained):
    task = new_task()
    report = adapt(task, trained, NAMES)
    for name, tensor in task.trained_parameters().items():
        assert torch.equal(tensor, state_of(trained)[name])
    assert names(report.kept) == set(task.trained_parameters())
    assert not report.resized
    assert not report.initialised
    assert not report.unused
    assert not report.notes


def test_classes_go_by_name_and_the_rest_of_the_network_stays(trained):
    task = new_task(classes=4)
    report = adapt(task, trained, ["class 8", "a new one", "class 2", "class 3"])
    before, after = state_of(trained)[LABELS_OF_TASK], task.state_dict()[LABELS_OF_TASK]
    assert torch.equal(after[[0, 2, 3, 4]], before[[8, 2, 3, 10]])
    assert torch.equal(after[1], before[:10].mean(0))
    assert torch.equal(answers(task, 0), answers(trained, 8))
    assert names(report.resized) == {LABELS_OF_TASK}
    assert report.resized[0].how == "3 classes by name, 1 new as the mean"
    by_number = new_task(classes=4)
    adapt(by_number, trained)
    assert torch.equal(by_number.state_dict()[LABELS_OF_TASK][:4], before[:4])


def test_more_channels_say_the_same_of_the_old_ones_whatever_the_new_ones_are(trained):
    task = new_task(net=DiT(**{**NET, "in_channels": 3}, concat_channels=1, learned_variance=True))
    report = adapt(task, trained)
    x = torch.randn(2, 3, 4, 4)
    new = answers(task, x=x, concat=torch.randn(2, 1, 4, 4))
    torch.testing.assert_close(new[:, :2], answers(trained, x=x[:, :2]))
    assert not new[:, 2:].any()  # as in a new model
    assert names(report.resized) == {"net.patch_embed.weight", "net.head.linear.weight", "net.head.linear.bias"}


def test_larger_patches_at_a_larger_size_say_the_same_of_an_image_made_larger(trained):
    task = new_task(net=DiT(**{**NET, "input_size": 8, "patch_size": 4}))
    report = adapt(task, trained)
    small = torch.randn(2, 2, 4, 4)

    def larger(image):
        """Each patch of 2 x 2 by itself, to 4 x 4."""
        patches = image.unfold(2, 2, 2).unfold(3, 2, 2).flatten(0, 3)[:, None]
        big = torch.nn.functional.interpolate(patches, size=(4, 4), mode="bilinear")
        return big.reshape(2, 2, 2, 2, 4, 4).transpose(3, 4).reshape(2, 2, 8, 8)

    torch.testing.assert_close(answers(task, x=larger(small)), larger(answers(trained, x=small)), atol=1e-5, rtol=1e-5)
    assert {entry.before for entry in report.resized} == {(16, 2, 2, 2), (8, 16), (8,)}
    assert not report.notes  # the tokens are as many


def test_positions_that_are_trained_now_start_as_the_fixed_ones_were(trained):
    task = new_task(net=DiT(**NET, positions=Learned()))
    report = adapt(task, trained)
    assert torch.equal(answers(task), answers(trained))
    assert "net.pos_embed" in names(report.kept)
    larger = new_task(net=DiT(**{**NET, "input_size": 8}, positions=Learned()))
    adapt(larger, trained)
    expected = Learned().resized(trained.net.pos_embed, (2, 2), (4, 4))
    assert torch.equal(larger.net.pos_embed, expected)


def test_fixed_positions_that_count_further_are_told_of(trained):
    assert "SinCos(base_size: 2)" in adapt(new_task(net=DiT(**{**NET, "input_size": 8})), trained).notes[0]
    told = adapt(new_task(net=DiT(**{**NET, "input_size": 8}, positions=SinCos(2))), trained)
    assert not told.notes


def test_blocks_that_are_new_leave_a_deeper_network_with_the_same_answers(trained):
    task = new_task(net=DiT(**{**NET, "depth": 3}))
    report = adapt(task, trained)
    assert torch.equal(answers(task), answers(trained))
    assert {name.split(".")[2] for name in names(report.initialised)} == {"1", "2"}
    shallow = adapt(new_task(net=DiT(**{**NET, "depth": 0})), trained)
    assert names(shallow.unused) == {name for name in state_of(trained) if name.startswith("net.blocks.")}


def test_a_network_that_also_attends_to_text_starts_from_the_same_answers(trained):
    task = new_task(net=DiT(**NET, block=AdaLNZeroCross(6)))
    report = adapt(task, trained)
    torch.testing.assert_close(answers(task, tokens=torch.randn(2, 5, 6)), answers(trained))
    assert all("cross" in name or "hearing" in name for name in names(report.initialised))


def test_adaln_single_starts_from_what_adaln_zero_says_to_no_class(trained):
    task = new_task(net=DiT(**NET, block=AdaLNSingle(6)), embedders=[])
    report = adapt(task, trained)
    x, level = torch.randn(2, 2, 4, 4), torch.full((2,), 500.0)
    nothing = trained.conditioner({}, torch.ones(2, dtype=torch.bool))
    with torch.no_grad():
        new = task.net(x, level, Conditioning(tokens=torch.randn(2, 5, 6)))
        torch.testing.assert_close(new, trained.net(x, level, nothing))
    assert all("cross" in name or "hearing.embed" in name for name in names(report.initialised))
    assert names(report.unused) == {LABELS_OF_TASK}
    assert "adaLN-single" in report.notes[0]


def test_embedders_find_their_kind_wherever_it_stands(trained):
    task = new_task(embedders=[SizeAndCrop(16, [8, 8]), Label(10, 16)])
    report = adapt(task, trained)
    source = state_of(trained)
    assert torch.equal(task.state_dict()["conditioner.embedders.1.embedding.weight"], source[LABELS_OF_TASK])
    assert all(name.startswith("conditioner.embedders.0.") for name in names(report.initialised))
    one, two = Number("one", 16), Number("two", 16)
    assert pairs([one, two, Label(3, 16)], [Label(3, 16), two, one]) == {0: 2, 1: 1, 2: 0}
    assert pairs([one], [two, two]) == {0: 0}


def test_what_no_shape_tells_is_a_note(trained):
    task = new_task(net=DiT(**{**NET, "num_heads": 4}), process=Diffusion(Cosine(), V()))
    task.autoencoder.set_statistics(0.0, 1.0, 5)
    told = " ".join(adapt(task, trained).notes)
    for word in ("autoencoder", "RectifiedFlow", "Cosine", "predict Velocity", "num_heads was 2 and is 4"):
        assert word in told


def test_where_nothing_fits_the_first_keys_that_differ_are_named(trained):
    wider = new_task(net=DiT(**{**NET, "width": 32}))
    before = {name: tensor.clone() for name, tensor in wider.state_dict().items()}
    with pytest.raises(UserError, match=r"patch_embed.weight is \[16, 2, 2, 2\] there and \[32, 2, 2, 2\] here"):
        adapt(wider, trained)
    assert all(torch.equal(tensor, before[name]) for name, tensor in wider.state_dict().items())
    unet = UNet(4, 2, channels=32, channel_multipliers=(1,), num_res_blocks=1, attention_levels=())
    with pytest.raises(UserError, match=r"init_from: nothing of .* fits"):
        adapt(new_task(net=unet, embedders=[]), trained)


def test_a_run_is_a_source_by_its_average_and_knows_its_classes(tmp_path):
    run = diffusion_run(tmp_path / "dit", autoencoder_run(tmp_path / "ae"))
    (tmp_path / "dit" / "classes.json").write_text(json.dumps(NAMES))
    source = read_source(run)
    assert source.classes == NAMES
    assert source.autoencoder == load_autoencoder(str(tmp_path / "ae")).fingerprint()
    averaged = {name: tensor + 0.01 for name, tensor in diffusion_task().net.state_dict().items()}
    torch.testing.assert_close(dict(source.net.state_dict()), averaged)
    with pytest.raises(UserError, match="holds an autoencoder"):
        read_source(str(tmp_path / "ae"))


def test_a_place_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="init_from is nowhere, and there is nothing"):
        read_source("nowhere")
    torch.save({"some.weight": torch.zeros(2)}, tmp_path / "some.pt")
    with pytest.raises(UserError, match=r"its keys begin with some.weight. It knows .*official DiT"):
        read_source(str(tmp_path / "some.pt"))
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"broken.safetensors cannot be read"):
        read_source(str(tmp_path / "broken.safetensors"))


def test_a_weight_file_of_another_code_base_is_a_source(tmp_path):
    net, label = shaken(DiT(**NET)), shaken(Label(5, 16))
    weights = {**OfficialDiT().written(net.state_dict(), net), LABELS: label.embedding.weight.detach()}
    torch.save({"ema": weights, "opt": {}, "args": Namespace(model="DiT")}, tmp_path / "dit.pt")
    other = DiT(**{**NET, "in_channels": 4, "num_heads": 1})
    report = adapt(task := new_task(net=other, classes=3), read_source(str(tmp_path / "dit.pt")))
    assert torch.equal(task.net.patch_embed.weight[:, :2], net.patch_embed.weight)
    assert torch.equal(task.state_dict()[LABELS_OF_TASK][:3], label.embedding.weight[:3])
    assert not report.initialised
    assert not report.unused


def test_the_report_folds_blocks_and_is_written_whole(tmp_path):
    entries = [Entry(f"net.blocks.{i}.mlp.0.weight", (64, 16)) for i in range(3)]
    entries += [Entry("net.head.linear.bias", (8,), (4,), "channels")]
    assert folded(entries) == ["net.blocks.*.mlp.*.weight 64 x 16, 3 times", "net.head.linear.bias 4 -> 8 (channels)"]
    report = Report("runs/one", kept=entries[:1], initialised=entries[1:], notes=["the path [is] another."])
    report.write(tmp_path / "new" / "init_from.json")
    read = json.loads((tmp_path / "new" / "init_from.json").read_text())
    assert [entry["name"] for entry in read["initialised"]] == [entry.name for entry in entries[1:]]
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    report.show(console)
    told = console.export_text()
    for text in ("runs/one", "1,024", "4 -> 8", "Note: the path [is] another."):
        assert text in told
