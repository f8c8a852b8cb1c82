"""Where objects are and how large: the statistics of fig. 1 and fig. 2, and the distributions fitted to them
(§4.1).

Images are squashed to 224×224 px. For a pair of an image and a class, A is the mean area of the class's
instances (px² of the squashed image); (x, y) are the centers of all boxes. The paper used 100 training images
of each of COCO's 80 classes (N = 8,000) and fitted

    ln A ~ N(μ = 7.5060, σ = 1.2848),   y ~ N(116.0759, 47.5054),   x ~ uniform.

A log-normal can be fitted in two ways, which differ for these data, since log-areas are skewed to the left:

- by the logs: μ = mean(ln A), σ = SD(ln A), the maximum of the likelihood;
- by matching moments: with mean a and variance v of A, σ² = ln(1 + v/a²), μ = ln a − σ²/2.

The paper's values come out near the second.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from perturb_tutorial.datasets.records import Dataset, Pair, first_images
from perturb_tutorial.metrics.heatmaps import Float

SIDE = 224
"""Side in px that images are squashed to (§4)."""

IMAGES_PER_CLASS = 100
"""Training images of each class that the paper measured (§4.1)."""


class ObjectStatistics(NamedTuple):
    """``areas`` (P pairs, px²), ``x`` and ``y`` (B boxes, px) at ``side`` px, and the number of
    images.
    """

    areas: Float
    x: Float
    y: Float
    side: int
    images: int


class Normal(NamedTuple):
    """A normal distribution: of y, or of ln A for a log-normal."""

    mean: float
    deviation: float


class Uniform(NamedTuple):
    """A uniform distribution from ``low`` to ``high``."""

    low: float
    high: float


def sample_pairs(dataset: Dataset, per_class: int = IMAGES_PER_CLASS) -> list[Pair]:
    """Pairs of the first ``per_class`` images of each class, by ascending id."""
    return first_images(dataset.images, per_class)


def object_statistics(pairs: Iterable[Pair], *, side: int = SIDE, crowds: bool = False) -> ObjectStatistics:
    """Mean instance area of each pair, and the centers of all boxes in the pairs' images.

    Crowds are a region, not an instance, so they are left out unless ``crowds``; a pair with crowds only then has no
    area. A box is counted once, however many pairs its image is in.
    """
    areas, centers, seen = [], [], set()
    for pair in pairs:
        height, width = pair.image.size
        sx, sy = side / width, side / height
        own = [i.area * sx * sy for i in pair.image.of(pair.category) if crowds or not i.crowd]
        if own:
            areas.append(sum(own) / len(own))
        if pair.image.id not in seen:
            seen.add(pair.image.id)
            for instance in pair.image.instances:
                if crowds or not instance.crowd:
                    x, y, w, h = instance.box
                    centers.append(((x + w / 2) * sx, (y + h / 2) * sy))
    xy = np.array(centers, dtype=np.float64).reshape(-1, 2)
    return ObjectStatistics(np.array(areas, dtype=np.float64), xy[:, 0], xy[:, 1], side, len(seen))


def _samples(values: ArrayLike, name: str, *, positive: bool = False) -> Float:
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if array.size < 2 or not np.isfinite(array).all():
        raise ValueError(f"{name}: expected at least 2 finite values, got {array.size}")
    if positive and (array <= 0).any():
        raise ValueError(f"{name}: expected values > 0, got {array.min()}")
    return array


def fit_normal(values: ArrayLike) -> Normal:
    """Normal distribution with the mean and the deviation (over N) of ``values``: the maximum of the
    likelihood.
    """
    array = _samples(values, "values")
    return Normal(float(array.mean()), float(array.std()))


def fit_lognormal_by_logs(areas: ArrayLike) -> Normal:
    """μ and σ of a log-normal as mean and deviation of the logs of ``areas``."""
    return fit_normal(np.log(_samples(areas, "areas", positive=True)))


def fit_lognormal_by_moments(areas: ArrayLike) -> Normal:
    """μ and σ of the log-normal that has the mean and the variance of ``areas``."""
    array = _samples(areas, "areas", positive=True)
    variance = float(np.log1p(array.var() / array.mean() ** 2))
    return Normal(float(np.log(array.mean()) - variance / 2), float(np.sqrt(variance)))


def fit_uniform(side: int = SIDE) -> Uniform:
    """The uniform distribution of x over the image: the paper's choice against a bias to the center."""
    return Uniform(0.0, float(side))
