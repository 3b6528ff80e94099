"""k-NN precision and recall against their definition, spelled out."""

import numpy as np
import pytest

from ldm.evaluation import precision_recall


def by_definition(real, fake, k):
    """Kynkäänniemi et al. 2019, equations 1 and 2, one point at a time."""

    def inside(point, manifold):
        for centre in manifold:
            others = sorted(np.linalg.norm(centre - other) for other in manifold)
            if np.linalg.norm(point - centre) <= others[k] + 1e-12:  # others[0] is the centre itself
                return True
        return False

    return np.mean([inside(x, real) for x in fake]), np.mean([inside(x, fake) for x in real])


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_it_is_the_papers_definition(k, shift):
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(40, 3)), rng.normal(shift, 0.7, size=(30, 3))
    assert precision_recall(real, fake, k) == pytest.approx(by_definition(real, fake, k))


def test_identical_sets_are_perfect_and_disjoint_ones_share_nothing():
    points = np.random.default_rng(1).normal(size=(50, 4))
    assert precision_recall(points, points) == (1.0, 1.0)
    assert precision_recall(points, points + 1000) == (0.0, 0.0)


def test_a_model_that_repeats_one_good_image_has_no_recall():
    real = np.random.default_rng(2).normal(size=(60, 4))
    fake = np.repeat(real[:1], 60, axis=0)
    precision, recall = precision_recall(real, fake)
    assert precision == 1.0
    assert recall == pytest.approx(1 / 60)


def test_a_model_of_one_mode_of_two():
    rng = np.random.default_rng(3)
    modes = rng.normal(size=(200, 2))
    modes[100:] += 50
    precision, recall = precision_recall(modes, rng.normal(size=(100, 2)))
    assert precision > 0.9
    assert 0.4 < recall <= 0.5


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="more than 3 points, not 3 and 10"):
        precision_recall(np.zeros((3, 2)), np.zeros((10, 2)))
