"""Deletion and insertion curves (Petsiuk et al., BMVC 2018): does the score follow the saliency?

Pixels are ordered from the most to the least salient. The deletion curve is the score while more and more of
them are perturbed, the insertion curve while more and more of them are revealed on the fully perturbed image.
With scores s_0 … s_K at equal steps of the share of pixels, the area is the trapezoid rule's on [0, 1]:

    A = (1/K) Σ_{k=1…K} (s_{k−1} + s_k) / 2.

A small area under deletion and a large one under insertion are good. A mask is 1 where a pixel is kept and 0 where it
is perturbed, as everywhere in the package.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from perturb_tutorial._outside import check_whole
from perturb_tutorial.metrics.heatmaps import Bool, Float, Int, as_floats, as_map


def pixel_order(saliency: ArrayLike) -> Int:
    """Flat pixel indices of ``saliency`` (H×W) from most to least salient; equal values in reading order."""
    array = as_map(saliency, "saliency")
    if not np.isfinite(array).all():
        raise ValueError("saliency: expected finite values")
    return np.argsort(-array, axis=None, kind="stable").astype(np.int64)


def _taken(pixels: int, steps: int) -> Int:
    steps = check_whole("steps", steps, 1, pixels)
    return np.array([round(k * pixels / steps) for k in range(steps + 1)], dtype=np.int64)


def insertion_masks(saliency: ArrayLike, steps: int) -> Iterator[Bool]:
    """The ``steps`` + 1 masks (H×W, True = kept) of the insertion curve, from nothing to everything kept."""
    array = as_map(saliency, "saliency")
    order = pixel_order(array)
    taken = _taken(array.size, steps)
    rank = np.empty(array.size, dtype=np.int64)
    rank[order] = np.arange(array.size)
    ranks = rank.reshape(array.shape)
    return (ranks < count for count in taken)


def deletion_masks(saliency: ArrayLike, steps: int) -> Iterator[Bool]:
    """The ``steps`` + 1 masks (H×W, True = kept) of the deletion curve, from everything to nothing kept."""
    return (~mask for mask in insertion_masks(saliency, steps))


def curve_area(scores: ArrayLike) -> Float:
    """Area on [0, 1] under curves of ``scores`` (…×(K+1), K ≥ 1) at equal steps, by the trapezoid rule.

    >>> curve_area([1.0, 1.0, 0.0])
    array(0.75)
    """
    array = as_floats(scores, "scores")
    if array.ndim == 0 or array.shape[-1] < 2:
        raise ValueError(f"scores: expected at least 2 along the curve, got shape {array.shape}")
    return np.asarray((array[..., :-1] + array[..., 1:]).mean(axis=-1) / 2)


def normalized_curve(scores: ArrayLike, original: ArrayLike, perturbed: ArrayLike) -> Float:
    """(s − perturbed) / (original − perturbed) of ``scores`` (…×(K+1)): 1 on the image, 0 fully perturbed.

    ``original`` and ``perturbed`` (…) are the scores of the two ends; NaN where they do not differ by more
    than 1e-6, for then there is nothing to measure.
    """
    array = as_floats(scores, "scores")
    top = as_floats(original, "original")[..., None]
    bottom = as_floats(perturbed, "perturbed")[..., None]
    span = top - bottom
    usable = np.abs(span) > 1e-6
    return np.where(usable, (array - bottom) / np.where(usable, span, 1.0), np.nan)
