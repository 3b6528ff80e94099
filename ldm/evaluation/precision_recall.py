"""Fidelity and variety as two numbers. Kynkäänniemi et al. 2019 (arXiv:1904.06991), equations 1 and 2."""

import numpy as np
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors


def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = 3) -> tuple[float, float]:
    """k-nearest-neighbour precision and recall of features `fake` (M, D) against `real` (N, D).

    A set's manifold is the union of balls around its points, each as wide as the distance to the point's k-th
    neighbour in the set (itself excluded; a point on the rim is inside). Precision is the share of `fake` inside the
    manifold of `real`, recall the share of `real` inside that of `fake`; a model that repeats few good images has a
    high precision and a low recall.

    Raises:
        ValueError: fewer than k + 1 points on a side.
    """
    if min(len(real), len(fake)) <= k:
        raise ValueError(
            f"Precision and recall with k = {k} need more than {k} points, not {len(real)} and {len(fake)}."
        )
    distances = pairwise_distances(real, fake)  # (N, M)
    precision = (distances <= radii(real, k)[:, None]).any(axis=0).mean()
    recall = (distances <= radii(fake, k)[None, :]).any(axis=1).mean()
    return float(precision), float(recall)


def radii(points: np.ndarray, k: int) -> np.ndarray:
    """(N,) distance from each point to its k-th neighbour, itself excluded."""
    # The nearest of k + 1 neighbours is the point itself, or a duplicate of it at the same distance 0.
    distances, _ = NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)
    return distances[:, -1]
