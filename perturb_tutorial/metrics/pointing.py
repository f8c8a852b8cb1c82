"""The pointing game (§4; Zhang et al., ECCV 2016): does the peak of a heat map lie on the object?

A hit is a point whose distance to any segment of the class is at most τ = 15 px of the original image.
Precision is the mean over the classes that have samples,

    precision = mean over c of hits_c / (hits_c + misses_c),

on all pairs of an image and a class, and on the difficult ones. Two definitions of difficult, by name:

- ``"segments"`` (default; what the authors ran): more than one category in the image, and the areas of
  **all** its segments sum to less than ¼ of the image. Crowd segments count.
- ``"boxes"`` (Zhang et al.): another category is in the image, and the areas of the **target's** boxes sum to
  less than ¼ of it.

The authors' circle of radius 15 *intersects* the segment, hence ≤; TorchRay has < 15. A map that is not
finite or zero everywhere has no point: a miss. The baseline ``center`` points at the middle of the image.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from perturb_tutorial.metrics.heatmaps import (
    Bool,
    Maximum,
    as_floats,
    as_size,
    as_whole,
    maximum_point,
    resize_map,
)
from perturb_tutorial.metrics.segments import distance_to_mask

TOLERANCE = 15.0
"""Radius in px of the original image within which a point counts (§4)."""

DIFFICULT_SHARE = 0.25
"""A difficult image is covered by less than this share (§4)."""

Difficult = Literal["segments", "boxes"]


def center_point(size: tuple[int, int]) -> tuple[float, float]:
    """Middle (x, y) of an image of ``size`` = (height, width) px: between the two middle pixels if it is
    even.
    """
    height, width = as_size(size)
    return (width - 1) / 2, (height - 1) / 2


def point_on_image(
    heat: ArrayLike, size: tuple[int, int], which: Maximum = "mean"
) -> tuple[float, float] | None:
    """Peak (x, y) of ``heat`` (H×W) after resizing to the original image's ``size`` = (height, width) px.

    None, with a warning, when the map is not finite or zero everywhere.
    """
    return maximum_point(resize_map(heat, size), which)


def is_hit(point: tuple[float, float] | None, mask: Bool, tolerance: float = TOLERANCE) -> bool:
    """Whether ``point`` (x, y; None is a miss) is within ``tolerance`` px of a pixel of ``mask`` (H×W).

    >>> mask = np.zeros((40, 60), dtype=bool)
    >>> mask[20, 30] = True
    >>> is_hit((45, 20), mask), is_hit((46, 20), mask)
    (True, False)
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance: expected px ≥ 0, got {tolerance}")
    if point is None or not np.isfinite(place := as_floats(point, "point")).all():
        return False
    return distance_to_mask(mask, (place[0], place[1])) <= tolerance


def is_difficult(
    size: tuple[int, int],
    target: Hashable,
    categories: Sequence[Hashable],
    areas: ArrayLike,
    boxes: ArrayLike,
    definition: Difficult = "segments",
) -> bool:
    """Whether the pair of an image and a target category belongs to the difficult subset.

    Args:
        size: (height, width) of the image in px.
        target: the category.
        categories: those of all K instances in the image, crowds included.
        areas: of their segments, K values in px².
        boxes: K×4 (x, y, width, height) in px.
        definition: "segments" or "boxes" (see the module).

    Raises:
        ValueError: for arguments of the wrong form, or a target that is not in the image.
    """
    height, width = as_size(size)
    count = len(categories)
    area = as_floats(areas, "areas").reshape(-1)
    box = as_floats(boxes, "boxes").reshape(-1, 4)
    if len(area) != count or len(box) != count:
        raise ValueError(
            f"areas, boxes: expected one for each of {count} instances, got {len(area)} and {len(box)}"
        )
    if target not in categories:
        raise ValueError(f"target: expected a category of the image, got {target!r}")
    if len(set(categories)) < 2:
        return False
    if definition == "segments":
        covered = area.sum()
    elif definition == "boxes":
        own = np.array([category == target for category in categories])
        covered = (box[own, 2] * box[own, 3]).sum()
    else:
        raise ValueError(f'definition: expected "segments" or "boxes", got {definition!r}')
    return bool(covered < DIFFICULT_SHARE * height * width)


def precision_by_class(hits: ArrayLike, classes: ArrayLike) -> dict[int, tuple[float, int]]:
    """Precision and number of samples of every class that has any; ``hits`` (N) of 0 or 1, ``classes`` (N)
    ints.
    """
    hit = as_floats(hits, "hits").reshape(-1)
    label = as_whole(classes, "classes").reshape(-1)
    if hit.shape != label.shape:
        raise ValueError(f"hits, classes: expected the same length, got {len(hit)} and {len(label)}")
    if not np.isin(hit, (0.0, 1.0)).all():
        raise ValueError("hits: expected 0 or 1 only")
    names, positions, counts = np.unique(label, return_inverse=True, return_counts=True)
    rates = np.bincount(positions, weights=hit, minlength=len(names)) / counts
    return {
        int(name): (float(rate), int(count)) for name, rate, count in zip(names, rates, counts, strict=True)
    }


def precision(hits: ArrayLike, classes: ArrayLike) -> float:
    """Mean over the classes with samples of their precision (§4); NaN without any sample.

    >>> precision(hits=[1, 0, 0, 0, 1], classes=[7, 7, 7, 7, 9])
    0.625
    """
    rates = [rate for rate, _ in precision_by_class(hits, classes).values()]
    return float(np.mean(rates)) if rates else float("nan")
