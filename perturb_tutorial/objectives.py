"""The objectives of the two games, for one image and a set C of classes.

    deletion      λ₁ ‖1 − m‖₁ + λ₂ TV_β(m) + Σ_{c∈C} f_c(Φ(x; M))     (eq. 6 of the main text; eq. 2)
    preservation  λ₁ ‖m‖₁     + λ₂ TV_β(m) − Σ_{c∈C} f_c(Φ(x; M))     (eq. 1)

m is the mask on the grid, both norms are sums over the grid, f_c is the softmax probability of class c.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perturb_tutorial.masks import total_variation
from perturb_tutorial.settings import MaskSettings


def class_sets(targets: Any, count: int, classes: int) -> list[list[int]]:
    """``targets`` as one sorted list of class indices an image.

    ``targets``: an int (for all images), N ints, or N sets of ints; NumPy and torch integers too.
    Errors: ``ValueError`` for another number than ``count``, for an empty set, for an index outside
    0 … ``classes`` − 1.
    """
    if isinstance(targets, Tensor | np.ndarray):
        targets = targets.tolist()
    if _is_index(targets):
        targets = [targets] * count
    if isinstance(targets, str) or not isinstance(targets, Iterable):
        raise ValueError(f"targets: expected an int, {count} ints or {count} sets of ints, got {targets!r}")
    if isinstance(targets, set | frozenset):
        raise ValueError(
            f"targets: expected an int, {count} ints or {count} sets of ints in a list, got one set, which has no "
            "order; give [{…}] for one image"
        )
    items = list(targets)
    if len(items) != count:
        raise ValueError(
            f"targets: expected one class or set of classes for each of {count} images, got {len(items)}"
        )
    return [_class_set(item, classes) for item in items]


def _class_set(item: Any, classes: int) -> list[int]:
    if isinstance(item, Tensor | np.ndarray):
        item = item.tolist()
    members = [item] if _is_index(item) else item
    if isinstance(members, str) or not isinstance(members, Iterable):
        raise ValueError(f"targets: expected a class index or a set of them, got {item!r}")
    members = list(members)
    if not members or not all(_is_index(member) for member in members):
        raise ValueError(f"targets: expected at least one class index, got {item!r}")
    outside = [int(member) for member in members if not 0 <= member < classes]
    if outside:
        raise ValueError(f"targets: expected class indices from 0 to {classes - 1}, got {outside[0]}")
    return sorted({int(member) for member in members})


def _is_index(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def class_weights(sets: Sequence[Sequence[int]], classes: int) -> Tensor:
    """N×K float32: 1 for each class in an image's set, 0 elsewhere."""
    weights = torch.zeros(len(sets), classes)
    for row, members in zip(weights, sets, strict=True):
        row[list(members)] = 1.0
    return weights


def target_score(logits: Tensor, weights: Tensor) -> Tensor:
    """Σ_{c∈C} f_c: the softmax probabilities (float32) of each image's classes, N values."""
    return (logits.float().softmax(1) * weights).sum(1)


def objective(grid: Tensor, score: Tensor, settings: MaskSettings) -> Tensor:
    """The loss of each image, N values, from its grid N×1×h×w (in [0, 1]) and its target score."""
    deletion = settings.game == "deletion"
    counted = 1 - grid if deletion else grid
    tv = total_variation(grid, settings.tv_exponent)
    penalty = settings.area_weight * counted.sum((1, 2, 3)) + settings.tv_weight * tv
    return penalty + score if deletion else penalty - score
