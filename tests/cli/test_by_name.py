"""Objects by name: each class is found, made from what describes it, and described again."""

import pytest

from ldm.cli.by_name import describe, first_sentence, known, listing, make
from ldm.diffusion.guidance import Guidance
from ldm.diffusion.likelihood import Likelihood
from ldm.diffusion.paths import NoisePath
from ldm.diffusion.samplers import Sampler
from ldm.diffusion.spacings import Karras, Spacing
from ldm.errors import UserError

SEAMS = [Sampler, Spacing, Guidance, Likelihood, NoisePath]


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.__name__)
def test_every_class_is_made_by_its_name_and_described(seam):
    for name, leaf in known(seam).items():
        made = make(seam, name, "thing")
        assert type(made) is leaf
        assert describe(made).startswith(f"{leaf.__name__}(")


@pytest.mark.parametrize("seam", [Sampler, Guidance], ids=lambda seam: seam.__name__)
def test_the_list_says_in_a_line_when_to_pick_each(seam):
    lines = listing(seam, "things").splitlines()
    assert len(lines) == 1 + len(known(seam))
    assert max(map(len, lines)) <= 120
    assert all(len(first_sentence(leaf)) > 20 for leaf in known(seam).values())


def test_settings_are_read_and_may_be_objects_themselves():
    made = make(Sampler, "Heun:s_churn=40,spacing=karras:rho=5", "sampler", num_steps=7)
    assert (made.num_steps, made.s_churn) == (7, 40)
    assert isinstance(made.spacing, Karras)
    assert made.spacing.rho == 5
    assert describe(made).startswith("Heun(num_steps=7, s_churn=40.0, s_tmin=0.0")
    assert "spacing=Karras(rho=5.0)" in describe(made)


def test_values_have_the_type_of_their_argument():
    assert make(Sampler, "dormandprince:rtol=1e-6", "sampler").rtol == 1e-6
    assert make(Sampler, "dpmsolverpp:multistep=false", "sampler").multistep is False
    assert make(NoisePath, "betas:betas=[0.1,0.2]", "path").num_steps == 2
    assert make(Likelihood, "ode:start=none", "method").start is None
    with pytest.raises(UserError, match="knows scale"):
        make(Guidance, "classifierguidance:classifier=os.system", "rule")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("huen", "no sampler 'huen': choose one of"),
        ("heun:churn=3", "knows num_steps, s_churn"),
        ("heun:s_churn", "takes KEY=VALUE"),
        ("heun:s_churn=-1", "refuses its settings: s_churn=-1"),
        ("heun:spacing=even", "no spacing 'even': choose one of"),
        ("heun:s_churn=[", "s_churn=[ is not a number"),
        ("heun:s_churn=1,s_churn=2", "given s_churn twice"),
        ("ddim:eta=true", "eta=true is not a number"),
        ("dpmsolverpp:order=2.5", "order=2.5 is not a whole number"),
        ("dpmsolverpp:multistep=maybe", "multistep=maybe is not true or false"),
    ],
)
def test_a_wrong_word_is_named(text, told):
    with pytest.raises(UserError, match=told.replace("[", r"\[")):
        make(Sampler, text, "sampler")
