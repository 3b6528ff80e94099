"""An autoencoder that starts from another one's weights."""

import pytest
import torch
from tiny_models import tiny_autoencoder

from ldm.adapting import adapt_autoencoder
from ldm.autoencoders import KLAutoencoder, QuantisedAutoencoder
from ldm.autoencoders.quantisers import FSQ
from ldm.cli import main
from ldm.errors import UserError

CONFIG = ["-c", "configs/photos/autoencoder.yaml", "-c", "configs/parts/tiny_autoencoder.yaml"]


@pytest.fixture(scope="module")
def run(few_digits, tmp_path_factory):
    """A finished run of a small KL autoencoder, in the working folder that the overlays want."""
    from ldm.quickstart import configs

    folder = tmp_path_factory.mktemp("adapt")
    (folder / "data").mkdir()
    (folder / "data" / "tiny").symlink_to(few_digits)
    (folder / "configs").symlink_to(configs().resolve())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", *CONFIG])
    return folder


def test_a_run_starts_from_the_average_of_another_and_stands_on_its_own(run, monkeypatch, capsys):
    monkeypatch.chdir(run)
    main(["fit", *CONFIG, "--run", "runs/second", "--model.init_args.init_from", "runs/tiny/autoencoder"])
    assert "Weights from runs/tiny/autoencoder" in capsys.readouterr().out
    (run / "runs/tiny").rename(run / "runs/elsewhere")
    main(["inspect", "runs/second"])  # which needs the first run no more
    (run / "runs/elsewhere").rename(run / "runs/tiny")


def test_all_weights_are_those_of_the_source_and_no_statistics(run, monkeypatch):
    monkeypatch.chdir(run)
    from ldm import runs

    source = runs.load_autoencoder("runs/tiny/autoencoder")
    new = KLAutoencoder(channels=8, channel_multipliers=(1, 2), num_res_blocks=1)
    report = adapt_autoencoder(new, "runs/tiny/autoencoder")
    assert report.initialised == report.unused == []
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(new.posterior(images).mean, source.posterior(images).mean)
    assert new.latent_samples == 0


def test_what_does_not_fit_stays_and_is_named(run, monkeypatch):
    monkeypatch.chdir(run)
    new = QuantisedAutoencoder(FSQ([5, 5, 5]), channels=8, channel_multipliers=(1, 2), num_res_blocks=1)
    report = adapt_autoencoder(new, "runs/tiny/autoencoder")
    initialised = {entry.name for entry in report.initialised}
    assert {"encoder.conv_out.weight", "quant_conv.weight", "decoder.conv_in.weight"} <= initialised
    assert {"encoder.conv_in.weight", "decoder.conv_out.weight"} <= {entry.name for entry in report.kept}
    assert {entry.name for entry in report.unused} >= {"quant_conv.weight"}
    with pytest.raises(UserError, match=r"nothing of runs/tiny/autoencoder fits this autoencoder: encoder.conv_in"):
        adapt_autoencoder(KLAutoencoder(1, 5, channels=12, channel_multipliers=(1, 3)), "runs/tiny/autoencoder")
    with pytest.raises(UserError, match="and there is nothing"):
        adapt_autoencoder(new, "runs/none")


def test_a_weight_file_of_another_code_base_is_taken(tmp_path):
    from ldm.autoencoders.layouts import layouts

    torch.manual_seed(0)
    source = KLAutoencoder(channels=128, channel_multipliers=(1,), num_res_blocks=1)
    layout = layouts()["compvis"]
    torch.save({"state_dict": layout.written(source.state_dict(), source)}, tmp_path / "kl.ckpt")
    new = KLAutoencoder(channels=128, channel_multipliers=(1,), num_res_blocks=1)
    adapt_autoencoder(new, str(tmp_path / "kl.ckpt"))
    assert torch.equal(new.encoder.conv_in.weight, source.encoder.conv_in.weight)
    broken = {key: tensor.clone() for key, tensor in layout.written(source.state_dict(), source).items()}
    broken["decoder.conv_out.bias"][0] = float("nan")
    torch.save({"state_dict": broken}, tmp_path / "broken.ckpt")
    with pytest.raises(UserError, match=r"init_from: .*not finite .*first in decoder.conv_out.bias"):
        adapt_autoencoder(new, str(tmp_path / "broken.ckpt"))
    with pytest.raises(UserError, match=r"init_from: .*kl.ckpt: "):
        adapt_autoencoder(tiny_autoencoder(), str(tmp_path / "kl.ckpt"))
