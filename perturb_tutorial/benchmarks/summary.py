"""Figures with their intervals, and the paired differences between methods, from the same resamples.

What the data cannot carry is left out, None, with the ``reason`` beside it: an interval of fewer than ``LEAST_IMAGES``
images, any figure without a row.

A resample gives each image a weight (:mod:`perturb_tutorial.metrics.intervals`); one seed gives the same weights to
every method, so the difference of two methods' statistics in each resample is the paired difference's statistic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from perturb_tutorial.metrics.heatmaps import Bool, Float
from perturb_tutorial.metrics.intervals import LEVEL, Statistic, class_mean_of, mean_of, row_weights

if TYPE_CHECKING:
    import pandas as pd

LEAST_IMAGES = 2
"""An interval needs this many: every resample of one image is this image."""

MakeStatistic = Callable[[str, Bool], Statistic]
"""From a method and a choice of rows (bool) to its statistic of the weights of those rows."""


class Figures:
    """The lists of figures and of differences in summary.json."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.figures: list[dict[str, Any]] = []
        self.differences: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        present: Mapping[str, Bool],
        images: ArrayLike,
        make: MakeStatistic,
        *,
        differences: bool = True,
        labels: Mapping[str, Any] | None = None,
        by_method: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Adds a figure of each method, and the difference of every two.

        Args:
            name: the figure's name.
            present: for each method the rows (bool) that it has a value for.
            images: the image of each row.
            make: from a method and a choice of rows to its statistic.
            differences: whether to add the differences.
            labels: further columns of the figure, such as its subset.
            by_method: further columns of one method's figure.
        """
        names, about = np.asarray(images), dict(labels or {})
        drawn: dict[str, tuple[float, Float]] = {}
        for rows, methods in _groups(present):
            drawn |= _draw({m: make(m, rows) for m in methods}, names[rows], self.seed)
        for method in present:
            own = {**about, "method": method, **dict((by_method or {}).get(method, {}))}
            self.figures.append({"name": name, **own, **_interval(drawn[method], names[present[method]])})
        for first, second in combinations(present, 2) if differences else ():
            rows = present[first] & present[second]
            pair = drawn
            if not (np.array_equal(rows, present[first]) and np.array_equal(rows, present[second])):
                pair = _draw({m: make(m, rows) for m in (first, second)}, names[rows], self.seed)
            both = (pair[first][0] - pair[second][0], pair[first][1] - pair[second][1])
            labeled = {"name": name, **about, "method": first, "minus": second}
            self.differences.append({**labeled, **_interval(both, names[rows])})

    def add_means(
        self,
        name: str,
        table: Mapping[str, Float],
        images: ArrayLike,
        classes: ArrayLike | None = None,
        *,
        rows: Bool | None = None,
        **options: Any,
    ) -> None:
        """Adds a mean of each method's values.

        Args:
            name: the figure's name.
            table: each method's values, one for each row; NaN where it was not measured.
            images: the image of each row.
            classes: the class of each row; the figure is then the mean over classes of the class means.
            rows: which rows (bool) count; None is all.
            options: those of :meth:`add`.
        """
        groups = None if classes is None else np.asarray(classes)
        chosen = np.ones(len(np.asarray(images)), dtype=np.bool_) if rows is None else rows

        def make(method: str, these: Bool) -> Statistic:
            values = table[method][these]
            if groups is None or not values.size:
                return mean_of(values)
            return class_mean_of(values, groups[these])

        present = {method: np.isfinite(values) & chosen for method, values in table.items()}
        self.add(name, present, images, make, **options)

    def to_dict(self) -> dict[str, Any]:
        """Both lists by name."""
        return {"figures": self.figures, "differences": self.differences}


def _groups(present: Mapping[str, Bool]) -> Iterable[tuple[Bool, list[str]]]:
    """Methods with the same rows together, so that weights are drawn once for them."""
    groups: dict[bytes, list[str]] = {}
    for method, rows in present.items():
        groups.setdefault(rows.tobytes(), []).append(method)
    return [(present[methods[0]], methods) for methods in groups.values()]


def _draw(statistics: Mapping[str, Statistic], images: Any, seed: int) -> dict[str, tuple[float, Float]]:
    """Estimate and resamples of each statistic; NaN where there is no row."""
    if not len(images):
        return {name: (float("nan"), np.full(1, np.nan)) for name in statistics}
    whole = np.ones((1, len(images)))
    estimates = {name: float(statistic(whole)[0]) for name, statistic in statistics.items()}
    parts: dict[str, list[Float]] = {name: [] for name in statistics}
    for weights in row_weights(images, seed=seed):
        for name, statistic in statistics.items():
            parts[name].append(statistic(weights))
    return {name: (estimates[name], np.concatenate(parts[name])) for name in statistics}


def _interval(drawn: tuple[float, Float], images: Any) -> dict[str, Any]:
    estimate, resamples = drawn
    counts: dict[str, Any] = {"rows": len(images), "images": len(np.unique(images))}
    if not counts["images"]:
        return without("nothing to measure", **counts)
    if counts["images"] < LEAST_IMAGES:
        return without(f"no interval: it needs {LEAST_IMAGES} images", **counts) | {"estimate": estimate}
    finite = resamples[np.isfinite(resamples)]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(finite, [tail, 1 - tail]) if finite.size else (np.nan, np.nan)
    return {"estimate": estimate, "low": float(low), "high": float(high), **counts}


def without(reason: str, *, rows: int, images: int) -> dict[str, Any]:
    """The numbers of a figure that is left out, with the ``reason``; ``rows`` of ``images`` it would have been of."""
    return {
        **dict.fromkeys(("estimate", "low", "high"), np.nan),
        "rows": rows,
        "images": images,
        "reason": reason,
    }


def wide(records: pd.DataFrame, column: str) -> dict[str, Float]:
    """``column`` of each method as numbers, one row for each image and class, in the order of :func:`keys`."""
    table = records.pivot(index=["image_id", "category_id"], columns="method", values=column)
    return {
        str(method): np.asarray(table[method].astype("float64"), dtype=np.float64) for method in table.columns
    }


def keys(records: pd.DataFrame) -> tuple[Any, Any]:
    """The image and the class (rows each) of the rows that :func:`wide` gives."""
    pairs = records[["image_id", "category_id"]].drop_duplicates().sort_values(["image_id", "category_id"])
    return pairs["image_id"].to_numpy(), pairs["category_id"].to_numpy()
