"""What validation measures: closed forms, and that nothing depends on how the set is cut into batches."""

import copy
import math

import pytest
import torch
import torchvision
from torchmetrics.functional.image.lpips import _LPIPS

from ldm.autoencoders import Autoencoded, Autoencoder, DiagonalGaussian, Pixels
from ldm.autoencoders.measures import (
    CodeUse,
    FrechetDistance,
    LatentShape,
    LPIPSDistance,
    Measure,
    PixelQuality,
    code_counts,
    use_of,
)
from ldm.autoencoders.measures.frechet import Moments, frechet_distance
from ldm.errors import UserError
from ldm.nn.features import Features, TimmFeatures


class Plain(Features):
    """The pixels themselves."""

    width = 3 * 2 * 2

    def __init__(self):
        self.asked = 0

    def maps(self, images):
        return [images]

    def sizes(self):
        raise NotImplementedError

    def pooled(self, images):
        self.asked += 1
        return images.flatten(1)

    def check(self):
        pass

    def fingerprint(self):
        return "plain"

    def __deepcopy__(self, memo):
        return self


def seen(images, reconstructions, latents=None, codes=None):
    latents = images if latents is None else latents
    return Autoencoded(Pixels(images.shape[1]), images, reconstructions, DiagonalGaussian.point(latents), codes=codes)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def measured(measure: Measure, *batches):
    for batch in batches:
        measure.update(batch)
    return {name: value.item() for name, value in measure.compute().items()}


def test_the_distance_of_a_set_to_itself_is_zero_in_any_order():
    images = normal(40, 3, 2, 2).clamp(-1, 1)
    found = measured(FrechetDistance(Plain()), seen(images, images.flip(0)))
    assert found["rfid"] == pytest.approx(0, abs=1e-6)


def test_the_distance_of_normal_features_is_the_closed_formula():
    """Of diagonal covariances in a common basis: |m1 - m2|^2 + sum (s1 - s2)^2."""
    basis, _ = torch.linalg.qr(normal(6, 6).double())
    one_std, other_std = torch.tensor([1.0, 2, 3, 0.5, 0.1, 0]), torch.tensor([2.0, 1, 3, 0.1, 0, 0])
    shift = torch.tensor([0.3, 0, 0, -0.4, 0, 1.0])
    # 2 D points with exactly these moments: plus and minus each axis, for the unbiased covariance
    axes = torch.cat([torch.eye(6), -torch.eye(6)]).double() * math.sqrt(11 / 2)
    one, other = Moments(6), Moments(6)
    one.update(axes * one_std @ basis.T)
    other.update((axes * other_std + shift) @ basis.T)
    expected = shift.square().sum() + (one_std - other_std).square().sum()
    assert frechet_distance(one, other).item() == pytest.approx(expected.item(), rel=1e-6)
    assert frechet_distance(other, one).item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_distance_is_torchmetrics_own():
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Network(torch.nn.Module):
        num_features = 12

        def forward(self, images):
            return images.flatten(1)

    theirs = FrechetInceptionDistance(Network(), normalize=True, input_img_size=(3, 2, 2)).set_dtype(torch.float64)
    images, made = torch.rand(50, 3, 2, 2), torch.rand(50, 3, 2, 2) * 0.8
    (ours,) = measured(FrechetDistance(Plain()), seen(images, made)).values()
    theirs.update(images.double(), real=True)
    theirs.update(made.double(), real=False)
    assert ours == pytest.approx(theirs.compute().item(), rel=1e-4)


def test_originals_are_looked_at_once_for_all_versions_of_the_weights():
    features = Plain()
    prototype = FrechetDistance(features)
    versions = [copy.deepcopy(prototype) for _ in range(3)]
    for batch in range(2):
        images = normal(5, 3, 2, 2, seed=batch).clamp(-1, 1)
        for number, version in enumerate(versions):
            version.update(seen(images, images * number / 2))
    assert features.asked == 2 * (1 + 3)
    assert [version.compute()["rfid"].item() > 1e-6 for version in versions] == [True, True, False]
    assert prototype.compute() == {}


def test_a_network_of_timm_gives_its_width_and_a_lacking_file_is_named(tmp_path):
    images = normal(6, 1, 32, 32).clamp(-1, 1)
    found = measured(FrechetDistance(TimmFeatures("test_resnet")), seen(images, images * 0.5))
    assert found["rfid"] > 0
    for measure in (
        FrechetDistance(TimmFeatures("test_resnet", str(tmp_path / "none.pth"))),
        LPIPSDistance(str(tmp_path / "none.pth")),
    ):
        with pytest.raises(UserError, match=r"none\.pth"):
            measure.check()


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "squeezenet1_1.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    return path


def test_lpips_is_the_mean_of_torchmetrics_distances(squeezenet):
    images, made = normal(5, 3, 32, 32).clamp(-1, 1), normal(5, 3, 32, 32, seed=1)
    theirs = _LPIPS(pretrained=True, net="squeeze", pnet_rand=True).eval()
    weights = torch.load(squeezenet, weights_only=True)
    slices = theirs.net.state_dict()  # slices.0.0.weight is features.0.weight
    theirs.net.load_state_dict({name: weights[f"features.{name.split('.', 2)[2]}"] for name in slices})
    with torch.no_grad():
        expected = theirs(images, made.clamp(-1, 1)).mean().item()
        batches = (seen(images[part], made[part]) for part in (slice(0, 3), slice(3, 5)))
        found = measured(LPIPSDistance(str(squeezenet), "squeeze"), *batches)
    assert expected > 0
    assert found == {"lpips": pytest.approx(expected, rel=1e-5)}


def test_usage_and_perplexity_are_counted():
    images = torch.zeros(2, 1, 2, 2)
    codes = torch.tensor([0, 0, 1, 1, 5, 5, 7, 7]).reshape(2, 2, 2)
    batches = [seen(images[:1], images[:1], codes=codes[i : i + 1]) for i in range(2)]
    found = measured(CodeUse(8), *batches)
    assert found == {"code_usage": 0.5, "perplexity": pytest.approx(4.0)}
    assert code_counts(codes, 8).tolist() == [2, 2, 0, 0, 0, 2, 0, 2]
    share = torch.tensor([0.7, 0.2, 0.1, 0.0])
    entropy = -sum(p * math.log(p) for p in (0.7, 0.2, 0.1))
    assert use_of(share * 10)["perplexity"].item() == pytest.approx(math.exp(entropy))
    assert CodeUse(8).compute() == {}


@pytest.mark.parametrize("bits", [25, 40])
def test_a_vocabulary_that_is_too_large_for_counters_is_not_counted(bits):
    images, codes = torch.zeros(1, 1, 2, 2), torch.full((1, 2, 2), 2**bits - 1)
    assert measured(CodeUse(2**bits), seen(images, images, codes=codes)) == {}
    assert use_of(code_counts(codes, 2**bits)) == {}


def test_latents_are_described_channel_by_channel():
    """White noise has its power everywhere; a slow wave in the lowest band, its kurtosis is that of a sine."""
    noise = 3.0 * normal(64, 16, 16)
    wave = torch.sin(2 * math.pi * torch.arange(16) / 16).expand(64, 16, 16)
    latents = torch.stack([noise, wave], dim=1)
    images = torch.zeros(64, 1, 2, 2)
    found = measured(
        LatentShape(2), seen(images[:20], images[:20], latents[:20]), seen(images[20:], images[20:], latents[20:])
    )
    assert found["latent_std/0"] == pytest.approx(3.0, rel=0.02)
    assert found["latent_std/1"] == pytest.approx(math.sqrt(0.5))
    assert found["latent_kurtosis/0"] == pytest.approx(0.0, abs=0.1)
    assert found["latent_kurtosis/1"] == pytest.approx(-1.5)
    assert [found[f"latent_spectrum/0/{band}"] for band in range(4)] == pytest.approx([1.0] * 4, rel=0.1)
    assert found["latent_spectrum/1/0"] > 1
    assert [found[f"latent_spectrum/1/{band}"] for band in (1, 2, 3)] == pytest.approx([0.0] * 3, abs=1e-9)


def test_what_cannot_be_told_is_left_out():
    images = torch.zeros(2, 1, 2, 2)
    constant = measured(LatentShape(1), seen(images, images, torch.ones(2, 1, 1, 1)))
    assert constant == {"latent_std/0": 0.0}
    broken = torch.full((2, 1, 2, 2), math.nan)
    assert measured(LatentShape(1), seen(images, images, broken)) == {}
    assert measured(FrechetDistance(Plain()), seen(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2))) == {}
    pixels = torch.zeros(4, 3, 2, 2)
    assert math.isnan(measured(FrechetDistance(Plain()), seen(pixels, pixels * math.nan))["rfid"])


def test_pixel_quality_is_of_what_is_shown():
    images = normal(4, 1, 16, 16).clamp(-1, 1)
    found = measured(PixelQuality(), seen(images, images + 0.1))
    error = (images - (images + 0.1).clamp(-1, 1)).square().mean()
    assert found["psnr"] == pytest.approx((10 * (4 / error).log10()).item(), rel=1e-5)
    assert 0 < found["ssim"] < 1


@pytest.mark.parametrize(("height", "width"), [(4, 4), (10, 10), (16, 10), (11, 11)])
def test_the_structural_similarity_is_left_out_where_no_window_fits(height, width):
    images = normal(2, 1, height, width).clamp(-1, 1)
    found = measured(PixelQuality(), seen(images, images))
    assert found.pop("ssim", None) == (pytest.approx(1.0) if min(height, width) >= 11 else None)
    assert list(found) == ["psnr"]


def test_a_pixel_autoencoder_is_measured_too():
    assert isinstance(Pixels(1), Autoencoder)
    assert "latent_std/0" in measured(LatentShape(1), Pixels(1).examine(normal(2, 1, 16, 16)))
