"""Are eyes more salient than feet? Mask values around key points (§7, fig. 11, table 2).

For a key point (x, y) the value is the mean of the mask over the 5×5 px of the original image around the
pixel that holds it, cut at the border. Per class, over all its key points,

    mean_eyes = mean of the eyes' values,   SE = SD / √n,   ratio = mean_feet / mean_eyes,

and per group of classes the mean of the ratios ± SD / √N over its N classes. In a mask lower is more salient,
so a ratio above 1 says that eyes are more salient than feet.

SD over key points is the population's, as in the authors' code; over classes it is the sample's (N − 1),
which gives their table. The authors divided by 25 even where a window was cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from perturb_tutorial._outside import check_whole
from perturb_tutorial.metrics.heatmaps import Float, as_floats, as_map

WINDOW = 5
"""Side of the window around a key point, px of the original image (authors' code)."""


def window_means(mask: ArrayLike, points: ArrayLike, window: int = WINDOW) -> Float:
    """Mean (K) of ``mask`` (H×W, the original image's size) around each of ``points`` (K×2: x, y).

    The window is centered on the pixel ⌊x⌋, ⌊y⌋ and cut at the border; a window that is wholly outside gives
    NaN.

    >>> window_means([[0, 0, 1], [0, 0, 1], [0, 0, 1]], [(2, 0)], window=3)
    array([0.5])
    """
    array = as_map(mask, "mask")
    where = as_floats(points, "points").reshape(-1, 2)
    if check_whole("window", window, 1) % 2 == 0:
        raise ValueError(f"window: expected an odd number of px, got {window}")
    if not np.isfinite(where).all():
        raise ValueError("points: expected finite x, y")
    reach = window // 2
    means = np.full(len(where), np.nan)
    for k, (column, row) in enumerate(np.floor(where).astype(np.int64)):
        part = array[
            max(row - reach, 0) : max(row + reach + 1, 0), max(column - reach, 0) : max(column + reach + 1, 0)
        ]
        if part.size:
            means[k] = part.mean()
    return means


class ClassParts(NamedTuple):
    """Mask values at one class's eyes and feet (fig. 11): means, standard errors over key points, counts,
    ratio.
    """

    mean_eyes: float
    mean_feet: float
    stderr_eyes: float
    stderr_feet: float
    eyes: int
    feet: int
    ratio: float


def mean_and_error(values: ArrayLike, ddof: int = 0) -> tuple[float, float, int]:
    """Mean, SD / √n and n of the finite ``values``; NaN where n is too small for the SD (n ≤ ``ddof``)."""
    array = as_floats(values, "values").reshape(-1)
    array = array[np.isfinite(array)]
    count = array.size
    mean = float(array.mean()) if count else float("nan")
    error = float(array.std(ddof=ddof) / np.sqrt(count)) if count > ddof else float("nan")
    return mean, error, count


def class_parts(eyes: ArrayLike, feet: ArrayLike) -> ClassParts:
    """Statistics of one class from the window means of all its eyes and of all its feet (NaN are left out).

    The ratio is NaN where a part has no key point, ∞ where the mask is 0 at all eyes and not at all feet.
    """
    mean_eyes, error_eyes, count_eyes = mean_and_error(eyes)
    mean_feet, error_feet, count_feet = mean_and_error(feet)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.divide(mean_feet, mean_eyes))
    return ClassParts(mean_eyes, mean_feet, error_eyes, error_feet, count_eyes, count_feet, ratio)


class GroupParts(NamedTuple):
    """A row of table 2: number of classes, mean feet:eyes ratio, its SE, the ratios' variance over N, classes
    left out.
    """

    classes: int
    mean: float
    stderr: float
    variance_over_n: float
    left_out: int


def group_parts(ratios: Mapping[str, float], groups: Mapping[str, str]) -> dict[str, GroupParts]:
    """Table 2 from the ``ratios`` of classes and the group of each class, in the order in which groups
    appear.

    A ratio that is not finite is left out and counted. Raises ``ValueError`` for a class without a group.
    """
    members: dict[str, list[float]] = {}
    for name, ratio in ratios.items():
        if name not in groups:
            raise ValueError(f"groups: no group for the class {name!r}")
        members.setdefault(groups[name], []).append(ratio)
    rows = {}
    for group, values in members.items():
        mean, error, count = mean_and_error(values, ddof=1)
        rows[group] = GroupParts(count, mean, error, error**2, len(values) - count)
    return rows
