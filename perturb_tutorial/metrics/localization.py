"""Weak localization (§5, table 1): the tight box around what a threshold keeps of a heat map.

Negative values are clipped to 0, then a pixel h(p) at the network's input size is kept when

- value:  h(p) − min h ≥ α (max h − min h),
- energy: h(p) is among the largest pixels that together reach the share α of Σ h; pixels as large as the last
  of them are kept too, so that the order of equal pixels (a mask saturates) does not matter,
- mean:   h(p) ≥ α · mean h.

The box goes around **all** kept pixels. A box (x0, y0, x1, y1) has inclusive corners: it holds pixels x0 to
x1. Where no pixel is kept, it is the whole image. It is right when its IoU with any true box of the class is at least
½, where a box's sides are x1 − x0 + 1 and y1 − y0 + 1. On an image smaller than the input a pixel of the map is less
than one of the image, so a scaled box may be narrower than 1 px (x1 < x0). α* is the α with the lowest error on a
held-out part. A map that is not finite is never right.

(The authors thresholded the small map before resizing it, and their energy rule dropped the pixel that
reached the share.)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from perturb_tutorial._outside import check_whole
from perturb_tutorial.metrics.heatmaps import Bool, Float, as_array, as_floats, as_map, as_size
from perturb_tutorial.settings import check_seed

Threshold = Literal["value", "energy", "mean"]

ALPHAS: dict[Threshold, Float] = {
    "value": np.linspace(0.0, 0.95, 20),
    "energy": np.linspace(0.0, 0.95, 20),
    "mean": np.linspace(0.0, 10.0, 21),
}
"""Grids of α searched on the held-out part: 0:0.05:0.95, 0:0.05:0.95 and 0:0.5:10."""

IOU_RIGHT = 0.5
"""A box is right from this IoU on (§5)."""
_EDGE_ROUNDING = 1e-6
"""Rounding, in px, by which a side of 0 may become negative when a box is scaled."""


def _positive(heat: ArrayLike) -> Float | None:
    array = as_map(heat)
    if np.isfinite(array).all():
        return np.maximum(array, 0.0)
    warnings.warn("a heat map is not finite: its box is the whole image", stacklevel=3)
    return None


def _levels(positive: Float, threshold: Threshold, alphas: Float) -> Float:
    """The least value kept, for each α; ∞ where nothing is kept."""
    low, high = positive.min(), positive.max()
    if threshold == "value":
        levels = low + alphas * (high - low)
        # Rounding must not raise the level of α = 1 above the maximum itself.
        return np.asarray(np.where(alphas <= 1, np.minimum(levels, high), levels))
    if threshold == "mean":
        return np.asarray(alphas * positive.mean())
    if threshold != "energy":
        raise ValueError(f'threshold: expected "value", "energy" or "mean", got {threshold!r}')
    descending = np.sort(positive, axis=None)[::-1]
    reached = np.cumsum(descending)
    # The largest pixels reach a share of 0 before the first one is taken.
    last = np.searchsorted(reached, alphas * reached[-1] * (1 - 1e-12))
    levels = descending[np.minimum(last, descending.size - 1)]
    return np.where((alphas > 0) & (reached[-1] > 0), levels, np.inf)


def _alphas(alphas: ArrayLike) -> Float:
    array = np.atleast_1d(as_floats(alphas, "alphas"))
    if array.ndim != 1 or not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"alphas: expected finite values ≥ 0, got {array}")
    return array


def kept_pixels(heat: ArrayLike, threshold: Threshold, alpha: float) -> Bool:
    """Pixels (H×W, bool) of ``heat`` (H×W) that the threshold keeps; none for a map that is not finite."""
    positive = _positive(heat)
    if positive is None:
        return np.zeros(as_map(heat).shape, dtype=np.bool_)
    return np.asarray(positive >= _levels(positive, threshold, _alphas(alpha))[0])


def threshold_boxes(heat: ArrayLike, threshold: Threshold, alphas: ArrayLike) -> Float:
    """Boxes (A×4: x0, y0, x1, y1, inclusive, px of the map) of ``heat`` (H×W), one for each of A α."""
    values = _alphas(alphas)
    height, width = as_map(heat).shape
    boxes = np.tile(np.array([0.0, 0.0, width - 1, height - 1]), (len(values), 1))
    positive = _positive(heat)
    if positive is None:
        return boxes
    levels = _levels(positive, threshold, values)
    # A column is in the box exactly when its largest value is kept or it lies between two such columns.
    for axis, extent in ((0, positive.max(axis=0)), (1, positive.max(axis=1))):
        kept = extent[None, :] >= levels[:, None]
        left = kept.any(axis=1)
        boxes[left, axis] = kept[left].argmax(axis=1)
        boxes[left, axis + 2] = kept.shape[1] - 1 - kept[left, ::-1].argmax(axis=1)
    return boxes


def scale_boxes(boxes: ArrayLike, old: tuple[int, int], new: tuple[int, int]) -> Float:
    """``boxes`` (…×4, inclusive) on an image of ``old`` = (height, width) px, on the same image of ``new``
    px.

    The outer edges x0 and x1 + 1 are scaled, so the whole image stays the whole image; corners may become
    fractions.
    """
    array = as_floats(boxes, "boxes")
    if array.shape[-1:] != (4,):
        raise ValueError(f"boxes: expected …×4, got shape {array.shape}")
    (old_height, old_width), (height, width) = as_size(old, "old"), as_size(new, "new")
    factor = np.array([width / old_width, height / old_height] * 2)
    outer = np.array([0.0, 0.0, 1.0, 1.0])
    return np.asarray((array + outer) * factor - outer)


def iou(boxes: ArrayLike, truth: ArrayLike) -> Float:
    """Intersection over union (N×M) of ``boxes`` (N×4) and ``truth`` (M×4), inclusive corners (sides + 1).

    Corners may be fractions, sides down to 0 px; two boxes without area have an IoU of 0. Errors: ``ValueError``
    where a side is negative or not a number.

    >>> iou([0, 0, 9, 9], [0, 0, 9, 4])
    array([[0.5]])
    """
    a = as_floats(boxes, "boxes").reshape(-1, 1, 4)
    b = as_floats(truth, "truth").reshape(1, -1, 4)
    for name, box in (("boxes", a), ("truth", b)):
        if not (box[..., 2:] - box[..., :2] + 1 >= -_EDGE_ROUNDING).all():
            raise ValueError(f"{name}: expected x0 ≤ x1 + 1 and y0 ≤ y1 + 1 (inclusive corners)")
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1
    common = np.clip(sides, 0, None).prod(-1)
    own = (np.clip(box[..., 2:] - box[..., :2] + 1, 0, None).prod(-1) for box in (a, b))
    union = sum(own) - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))


def is_right(boxes: ArrayLike, truth: ArrayLike) -> Bool:
    """Whether each of ``boxes`` (N×4) has an IoU of at least ½ with any of ``truth`` (M×4, M ≥ 1)."""
    overlap = iou(boxes, truth)
    if overlap.shape[1] == 0:
        raise ValueError("truth: expected at least one box of the class")
    return np.asarray(overlap.max(axis=1) >= IOU_RIGHT)


class AlphaSearch(NamedTuple):
    """Outcome of a search for α*: ``alpha``, its ``error`` (share of 1), and both for the whole grid."""

    alpha: float
    error: float
    alphas: Float
    errors: Float
    images: int


def right_by_alpha(
    heat: ArrayLike,
    truth: ArrayLike,
    size: tuple[int, int],
    threshold: Threshold,
    alphas: ArrayLike | None = None,
) -> Bool:
    """Whether the box of a heat map is right, for each of A values of α.

    Args:
        heat: H×W at input size. A map that is not finite is wrong at every α.
        truth: the true boxes of the class, M×4, in px of the original image.
        size: (height, width) of the original image in px.
        threshold: "value", "energy" or "mean".
        alphas: A values of α; None is the threshold's grid.

    Returns:
        A booleans.
    """
    boxes = threshold_boxes(heat, threshold, grid_of(threshold) if alphas is None else alphas)
    array = as_map(heat)
    return is_right(scale_boxes(boxes, array.shape, size), truth) & np.isfinite(array).all()


def grid_of(threshold: Threshold) -> Float:
    """The values of α that are searched for a threshold."""
    if threshold not in ALPHAS:
        raise ValueError(f'threshold: expected "value", "energy" or "mean", got {threshold!r}')
    return ALPHAS[threshold].copy()


def choose_alpha(right: ArrayLike, alphas: ArrayLike) -> AlphaSearch:
    """α* from ``right`` (N×A, one row an image): the α with the lowest error, the smallest of equals."""
    table = as_array(right, "right").astype(np.bool_)
    grid = _alphas(alphas)
    if table.ndim != 2 or table.shape[0] == 0 or table.shape[1] != grid.size:
        raise ValueError(
            f"right: expected images × {grid.size} values of α, at least one image, got {table.shape}"
        )
    errors = 1 - table.mean(axis=0)
    best = int(errors.argmin())
    return AlphaSearch(float(grid[best]), float(errors[best]), grid, errors, table.shape[0])


def search_alpha(
    heats: Iterable[ArrayLike],
    truths: Iterable[ArrayLike],
    sizes: Iterable[tuple[int, int]],
    threshold: Threshold,
    alphas: ArrayLike | None = None,
) -> AlphaSearch:
    """α* of a held-out part of the images.

    Args:
        heats: N maps at input size; they are read one by one, so a generator is enough.
        truths: N arrays of M_i×4 true boxes in px of the original images.
        sizes: (height, width) of each original image in px.
        threshold: "value", "energy" or "mean".
        alphas: the values of α; None is the threshold's grid.
    """
    grid = grid_of(threshold) if alphas is None else _alphas(alphas)
    cases = zip(heats, truths, sizes, strict=True)
    rows = [right_by_alpha(heat, truth, size, threshold, grid) for heat, truth, size in cases]
    return choose_alpha(np.array(rows, dtype=np.bool_).reshape(-1, grid.size), grid)


def held_out(count: int, share: float = 0.1, seed: int = 0) -> Bool:
    """Which of ``count`` images (bool) are held out for the search for α*: a share drawn by seed, at least one.

    The paper held out 5,000 training images; this splits the validation images, for readers who have only those.
    """
    count = check_whole("count", count, 2)
    if not 0 < share < 1:
        raise ValueError(f"share: expected a share between 0 and 1, got {share}")
    taken = min(max(round(share * count), 1), count - 1)
    mask = np.zeros(count, dtype=np.bool_)
    mask[np.random.default_rng(check_seed(seed)).choice(count, taken, replace=False)] = True
    return mask
