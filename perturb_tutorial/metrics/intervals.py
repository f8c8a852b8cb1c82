"""Bootstrap intervals: how much could a figure change with other images of the same kind?

Images, not rows, are drawn with replacement, since the rows (classes, key points) of one image are not independent:
a resample gives image i the integer weight w_i ~ Multinomial(I; 1/I, …), its rows get the same weight, and
the statistic is computed with the weights. The interval goes from the 2.5th to the 97.5th percentile of 2,000
resamples. Two methods are compared by the same resamples of their differences on the same rows (paired).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perturb_tutorial._outside import check_whole
from perturb_tutorial.metrics.heatmaps import Float, as_floats, as_names
from perturb_tutorial.settings import check_seed

RESAMPLES = 2_000
LEVEL = 0.95
_CELLS_AT_ONCE = 2**22

Statistic = Callable[[Float], Float]
"""From weights (R×rows) to the statistic of each resample (R); NaN where a resample has nothing to measure.
"""


class Interval(NamedTuple):
    """A figure with its interval, and the numbers of rows and of images that it is computed from."""

    estimate: float
    low: float
    high: float
    rows: int
    images: int


def row_weights(images: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[Float]:
    """Weights (R×rows) of the rows in blocks of resamples; ``images`` (rows) names the image of each row."""
    _, position = np.unique(as_names(images), return_inverse=True)
    count = int(position.max()) + 1
    rng = np.random.default_rng(check_seed(seed))
    block = max(1, _CELLS_AT_ONCE // max(count, position.size))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.integers(0, count, size=(size, count)) + np.arange(size)[:, None] * count
        weights = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        yield weights[:, position].astype(np.float64)


def mean_of(values: ArrayLike) -> Statistic:
    """Statistic: the weighted mean of ``values`` (rows)."""
    array = as_floats(values, "values").reshape(-1)

    def statistic(weights: Float) -> Float:
        total = weights.sum(axis=1)
        return np.where(total > 0, weights @ array / np.where(total > 0, total, 1.0), np.nan)

    return statistic


def class_mean_of(values: ArrayLike, classes: ArrayLike) -> Statistic:
    """Statistic: the mean over classes of each class's weighted mean; a class absent from a resample is
    skipped.
    """
    array = as_floats(values, "values").reshape(-1)
    _, position = np.unique(as_names(classes), return_inverse=True)
    if len(position) != len(array):
        raise ValueError(f"classes: expected one for each of {len(array)} rows, got {len(position)}")
    order = np.argsort(position, kind="stable")
    starts: NDArray[np.int64] = np.searchsorted(position[order], np.arange(position.max() + 1))

    def statistic(weights: Float) -> Float:
        ordered = weights[:, order]
        counts = np.add.reduceat(ordered, starts, axis=1)
        sums = np.add.reduceat(ordered * array[order], starts, axis=1)
        present = counts > 0
        rates = np.where(present, sums / np.where(present, counts, 1.0), 0.0)
        return np.asarray(rates.sum(axis=1) / present.sum(axis=1))

    return statistic


def ratio_of_means(numerator: ArrayLike, denominator: ArrayLike) -> Statistic:
    """Statistic: mean of the finite ``numerator`` over mean of the finite ``denominator`` (rows each; NaN
    elsewhere).
    """
    parts = [as_floats(values, "values").reshape(-1) for values in (numerator, denominator)]
    present = [np.isfinite(part).astype(np.float64) for part in parts]
    filled = [np.where(np.isfinite(part), part, 0.0) for part in parts]

    def statistic(weights: Float) -> Float:
        with np.errstate(divide="ignore", invalid="ignore"):
            top, bottom = (
                weights @ part / (weights @ finite) for part, finite in zip(filled, present, strict=True)
            )
            return np.asarray(top / bottom)

    return statistic


def interval(
    statistic: Statistic,
    images: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Estimate and percentile interval of a statistic over rows.

    Args:
        statistic: from weights (R×rows) to R values.
        images: the image of each row.
        resamples: R, the number of resamples.
        seed: of the resamples.
        level: the share of resamples inside the interval, between 0 and 1.

    Returns:
        NaN in all figures where there is no row. Resamples with nothing to measure (NaN, ∞) are left out.

    Raises:
        ValueError: for a level or number of resamples out of range.
    """
    names, resamples = as_names(images), check_whole("resamples", resamples, 1)
    if not 0 < level < 1:
        raise ValueError(f"level: expected a share between 0 and 1, got {level}")
    if names.size == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0, 0)
    estimate = float(statistic(np.ones((1, names.size)))[0])
    drawn = np.concatenate([statistic(weights) for weights in row_weights(names, resamples, seed)])
    drawn = drawn[np.isfinite(drawn)]
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]) if drawn.size else (float("nan"), float("nan"))
    return Interval(estimate, float(low), float(high), int(names.size), int(np.unique(names).size))


def _rows(name: str, values: ArrayLike, images: ArrayLike) -> Float:
    array, rows = as_floats(values, name).reshape(-1), as_names(images).size
    if array.size != rows:
        raise ValueError(f"{name}: expected one value for each of {rows} rows, got {array.size}")
    if not np.isfinite(array).all():
        raise ValueError(
            f"{name}: expected finite values; leave failed images out of both methods and count them"
        )
    return array


def bootstrap(
    values: ArrayLike,
    images: ArrayLike,
    classes: ArrayLike | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Mean with its interval.

    Args:
        values: one for each row, finite.
        images: the image of each row.
        classes: the class of each row; the figure is then the mean over classes of the class means.
        resamples: the number of resamples.
        seed: of the resamples.
        level: the share of resamples inside the interval, between 0 and 1.

    Raises:
        ValueError: for values that are not finite, or not one for each row.
    """
    array = _rows("values", values, images)
    if array.size == 0:
        return interval(mean_of(array), images, resamples=resamples, seed=seed, level=level)
    statistic = mean_of(array) if classes is None else class_mean_of(array, classes)
    return interval(statistic, images, resamples=resamples, seed=seed, level=level)


def bootstrap_difference(
    first: ArrayLike,
    second: ArrayLike,
    images: ArrayLike,
    classes: ArrayLike | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Paired difference ``first`` − ``second`` with its interval.

    Args:
        first: one value for each row, finite.
        second: the same for the other method, on the same rows.
        images: the image of each row.
        classes: the class of each row; the figure is then the mean over classes of the class means.
        resamples: the number of resamples.
        seed: of the resamples.
        level: the share of resamples inside the interval, between 0 and 1.

    Raises:
        ValueError: for values that are not finite, or not one for each row.
    """
    difference = _rows("first", first, images) - _rows("second", second, images)
    return bootstrap(difference, images, classes, resamples=resamples, seed=seed, level=level)
