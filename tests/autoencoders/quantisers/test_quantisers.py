"""Words of a finite vocabulary: what holds for every quantiser, and what each promises of its own."""

import math

import pytest
import torch

from ldm.autoencoders.quantisers import FSQ, LFQ, VQ, Quantiser
from ldm.autoencoders.quantisers.lfq import entropy, joint
from ldm.tasks.base import BatchNoise

SMALL = {
    "VQ": lambda: VQ(32, 3),
    "VQ-ema": lambda: VQ(32, 3, codebook="ema"),
    "FSQ": lambda: FSQ([5, 4, 3]),
    "LFQ": lambda: LFQ(5),
}


def draws(step=0, batch=4):
    return BatchNoise(0, step, torch.arange(batch), batch)


@pytest.fixture(params=SMALL)
def quantiser(request):
    torch.manual_seed(0)
    return SMALL[request.param]()


def latents(quantiser, batch=4, scale=1.0):
    generator = torch.Generator().manual_seed(1)
    return quantiser.bounded(scale * torch.randn(batch, quantiser.width, 6, 5, generator=generator))


def test_every_leaf_is_here():
    assert {leaf.__name__ for leaf in Quantiser.__subclasses__()} == {name.partition("-")[0] for name in SMALL}


def test_words_are_their_own_words(quantiser):
    words = quantiser.quantise(latents(quantiser))
    assert torch.equal(quantiser.quantise(words), words)
    codes = quantiser.codes(words)
    assert codes.min() >= 0
    assert codes.max() < quantiser.num_codes
    assert torch.equal(quantiser.words(codes), words)


def test_every_code_has_a_word_of_its_own(quantiser):
    codes = torch.arange(quantiser.num_codes).reshape(1, 1, -1)
    assert torch.equal(quantiser.codes(quantiser.words(codes)), codes)


def test_the_gradient_passes_as_if_nothing_were_rounded(quantiser):
    quantiser.eval()  # else an averaged codebook moves on
    z = latents(quantiser).detach().requires_grad_()
    learned = quantiser.learn(z, draws())
    assert torch.allclose(learned.words, quantiser.words(learned.codes), atol=1e-6)
    upstream = torch.randn(z.shape, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad((learned.words * upstream).sum(), z, retain_graph=True)
    assert torch.allclose(gradient, upstream, atol=1e-6)


def test_vq_takes_the_nearest_vector():
    torch.manual_seed(0)
    quantiser = VQ(50, 3)
    torch.nn.init.normal_(quantiser.codebook)
    z = latents(quantiser)
    distances = torch.cdist(z.permute(0, 2, 3, 1).reshape(-1, 3).double(), quantiser.codebook.detach().double())
    assert torch.equal(quantiser.codes(z).flatten(), distances.argmin(1))


@pytest.mark.parametrize(("legacy", "on_latents", "on_codebook"), [(False, 0.25, 1.0), (True, 1.0, 0.25)])
def test_beta_weighs_the_commitment_as_the_paper_says(legacy, on_latents, on_codebook):
    """The gradient of each side of |z - e|^2, apart: beta belongs to the latents, with `legacy` to the codebook."""
    torch.manual_seed(0)
    quantiser = VQ(32, 3, beta=0.25, legacy=legacy, restart_below=0)
    z = latents(quantiser).requires_grad_()
    learned = quantiser.learn(z, draws())
    words = quantiser.words(learned.codes).detach()
    gradients = torch.autograd.grad(sum(learned.penalties.values()), [z, quantiser.codebook])
    pull = 2 * (z.detach() - words) / z.numel()
    assert torch.allclose(gradients[0], on_latents * pull, atol=1e-7)
    of_codes = torch.zeros(32, 3).index_add_(0, learned.codes.flatten(), -pull.permute(0, 2, 3, 1).reshape(-1, 3))
    assert torch.allclose(gradients[1], on_codebook * of_codes, atol=1e-7)


def test_an_averaged_codebook_goes_to_the_mean_of_those_who_chose_it():
    """Of a fixed batch the fixed point is k-means' (van den Oord et al. 2017, appendix A.1)."""
    torch.manual_seed(0)
    quantiser = VQ(4, 2, codebook="ema", decay=0.5, restart_below=0)
    quantiser.codebook.copy_(torch.tensor([[2.0, 2.0], [-2.0, 2.0], [2.0, -2.0], [-2.0, -2.0]]))
    z = latents(quantiser, scale=3.0)
    for _ in range(60):
        codes = quantiser.learn(z, draws()).codes
    vectors = z.permute(0, 2, 3, 1).reshape(-1, 2)
    for code in range(4):
        assert torch.allclose(quantiser.codebook[code], vectors[codes.flatten() == code].mean(0), atol=1e-4)
    assert not any(p.requires_grad for p in quantiser.parameters())


@pytest.mark.parametrize("codebook", ["gradient", "ema"])
def test_dead_codes_are_put_where_latents_are(codebook):
    """All codes but two lie far from the latents, and hardly one would ever be chosen; restarts bring them back."""

    def trained(restart_below):
        torch.manual_seed(0)
        quantiser = VQ(64, 2, codebook=codebook, restart_below=restart_below, restart_every=5, decay=0.8)
        with torch.no_grad():
            quantiser.codebook[2:] += 100.0
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1)), *quantiser.parameters()], 1.0)
        generator = torch.Generator().manual_seed(3)
        for step in range(120):
            z = torch.randn(16, 2, 8, 8, generator=generator)
            loss = sum(quantiser.learn(z, draws(step)).penalties.values())
            optimizer.zero_grad()
            if loss.requires_grad:
                loss.backward()
            optimizer.step()
        return len(quantiser.codes(torch.randn(64, 2, 8, 8, generator=generator)).unique())

    assert trained(0.0) <= 4
    assert trained(0.2) > 57  # 90 %


def test_an_averaged_code_that_nobody_chooses_stays_where_it_is():
    torch.manual_seed(0)
    quantiser = VQ(3, 2, codebook="ema", decay=0.5, restart_below=0)
    quantiser.codebook.copy_(torch.tensor([[0.0, 0.0], [0.1, 0.0], [50.0, -70.0]]))
    for _ in range(100):  # 0.5^100 is beyond float32's reach for a share
        quantiser.learn(latents(quantiser), draws())
    assert torch.allclose(quantiser.codebook[2], torch.tensor([50.0, -70.0]))


def test_in_evaluation_nothing_moves():
    quantiser = VQ(16, 2, codebook="ema", restart_every=1).eval()
    before = {name: value.clone() for name, value in quantiser.state_dict().items()}
    quantiser.learn(latents(quantiser), draws())
    assert all(torch.equal(value, before[name]) for name, value in quantiser.state_dict().items())


@pytest.mark.parametrize("levels", [[8, 5, 5, 5], [2, 3], [7]])
def test_fsq_rounds_to_even_steps_and_reaches_all_of_them(levels):
    quantiser = FSQ(levels)
    ramp = torch.linspace(-6, 6, 2001).expand(1, len(levels), 1, -1)
    words = quantiser.quantise(quantiser.bounded(ramp))
    for channel, count in enumerate(levels):
        values = words[0, channel].unique()
        assert len(values) == count
        assert torch.allclose(values.diff(), torch.full((count - 1,), 1 / (count // 2)), atol=1e-6)
    assert quantiser.bounded(torch.zeros(1, len(levels), 1, 1)).abs().max() < 1e-6
    assert list(quantiser.parameters()) == []


def test_lfq_is_the_sign():
    quantiser = LFQ(7)
    z = latents(quantiser)
    assert torch.equal(quantiser.quantise(z), torch.where(z > 0, 1.0, -1.0))


def test_lfqs_entropies_are_those_of_the_softmax_over_all_words():
    quantiser = LFQ(5, temperature=0.7)
    z = latents(quantiser).double()
    words = quantiser.words(torch.arange(32).reshape(1, 1, -1))[0, :, 0].T.double()  # (32, 5)
    chosen = (2 * z.permute(0, 2, 3, 1).reshape(-1, 5) @ words.T / 0.7).softmax(1)
    of_a_choice = torch.special.entr(chosen).sum(1).mean()
    in_use = torch.special.entr(chosen.mean(0)).sum()
    assert torch.allclose(quantiser.entropy_penalty(z), of_a_choice - in_use, atol=1e-6)
    ups = torch.sigmoid(4 * z.permute(0, 2, 3, 1).reshape(-1, 5) / 0.7)
    assert torch.allclose(joint(ups), chosen.mean(0), atol=1e-9)


def test_lfqs_penalty_is_least_for_sure_choices_of_all_words():
    quantiser = LFQ(3)
    each = quantiser.words(torch.arange(8).reshape(1, 2, 4))
    assert quantiser.entropy_penalty(10 * each) == pytest.approx(-math.log(8), abs=1e-4)
    assert quantiser.entropy_penalty(torch.zeros_like(each)) == pytest.approx(
        0.0, abs=1e-5
    )  # all unsure: 3 bits - 3 bits
    assert quantiser.entropy_penalty(10 * torch.ones_like(each)) == pytest.approx(0.0, abs=1e-4)  # one word
    assert entropy(torch.full((8,), 1 / 8)) == pytest.approx(math.log(8), abs=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VQ(0), "must be at least 1"),
        (lambda: VQ(8, codebook="kmeans"), 'choose "gradient" or "ema"'),
        (lambda: VQ(8, restart_below=1.5), r"both must lie in \[0, 1\)"),
        (lambda: FSQ([]), "at least 2"),
        (lambda: FSQ([8, 1]), "at least 2"),
        (lambda: LFQ(0), "1 to 62"),
        (lambda: LFQ(3, temperature=0), "must be positive"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
