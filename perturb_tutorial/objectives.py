"""The objectives of the two games, for one image and a set C of classes.

    deletion      λ₁ ‖1 − m‖₁ + λ₂ TV_β(m) + Σ_{c∈C} f_c(Φ(x; M))     (eq. 6 of the main text; eq. 2)
    preservation  λ₁ ‖m‖₁     + λ₂ TV_β(m) − Σ_{c∈C} f_c(Φ(x; M))     (eq. 1)

m is the mask on the grid, both norms are sums over the grid, f_c is the softmax probability of class c.

What λ₁ weighs the area against is the setting ``score_scale``. With p = Σ_{c∈C} f_c under the mask, p₀ on the image,
p∞ on the fully perturbed image, and log-odds ℓ = ln p/(1 − p), the last term is, up to its sign,

    softmax   p                               (the paper's)
    relative  p / p₀
    logit     (ℓ − ℓ∞) / max(ℓ₀ − ℓ∞, 1)

A cell costs λ₁ whatever p is, so where p₀ is small the cheapest mask of the paper's objective is empty. ``relative``
begins at 1 for every image. ``logit`` does too, and where p is near 0 or 1, and its gradient with it, ℓ still moves.
ℓ is the logit itself up to what all logits have in common, which a softmax does not see, and is defined for a set of
classes as for one. Divided by the way from ℓ₀ to ℓ∞ it goes from 1 to 0, as a probability does, for which λ₁ was
made. Where that way is shorter than 1, blurring hardly touches the class, and 1 stands in its place.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perturb_tutorial.masks import total_variation
from perturb_tutorial.settings import MaskSettings


def class_sets(targets: Any, count: int, classes: int) -> list[list[int]]:
    """``targets`` as one sorted list of class indices an image.

    ``targets``: an int (for all images), N ints, or N sets of ints; NumPy and torch integers too. A class that stands
    twice in a set counts once.
    Errors: ``ValueError`` for another number than ``count``, for an empty set, for an index outside
    0 … ``classes`` − 1, and for rows of 0 and 1 that mark classes (one-hot).
    """
    targets = _plain(targets)
    if _is_index(targets):
        targets = [targets] * count
    if not _is_collection(targets):
        raise ValueError(
            f"targets: expected an int, {count} ints or {count} sets of ints, got {_short(targets)}"
        )
    if isinstance(targets, set | frozenset):
        raise ValueError(
            f"targets: expected an int, {count} ints or {count} sets of ints in a list, got one set, which has no "
            "order; give [{…}] for one image"
        )
    items = [_plain(item) for item in targets]
    _refuse_marks([items] if len(items) != count else items, classes)
    if len(items) != count:
        raise ValueError(
            f"targets: expected one class or set of classes for each of {count} images, got {len(items)}"
        )
    return [_class_set(item, classes) for item in items]


def _class_set(item: Any, classes: int) -> list[int]:
    members = [item] if _is_index(item) else item
    if not _is_collection(members):
        raise ValueError(f"targets: expected a class index or a set of them, got {_short(item)}")
    members = [_plain(member) for member in members]
    if not members or not all(_is_index(member) for member in members):
        raise ValueError(f"targets: expected at least one class index, all whole numbers, got {_short(item)}")
    outside = [int(member) for member in members if not 0 <= member < classes]
    if outside:
        raise ValueError(f"targets: expected class indices from 0 to {classes - 1}, got {outside[0]}")
    return sorted({int(member) for member in members})


def mask_sets(targets: Any, count: int, classes: int) -> list[list[int]]:
    """:func:`class_sets` for an objective of softmax scores: no set may hold all classes, whose scores sum to 1."""
    sets = class_sets(targets, count, classes)
    if any(len(members) == classes for members in sets):
        raise ValueError(
            f"targets: expected fewer than all {classes} classes in a set, got all, whose scores always sum to 1"
        )
    return sets


def _refuse_marks(items: list[Any], classes: int) -> None:
    """Raises for rows that mark classes by 0 and 1 instead of naming them.

    A row as long as there are classes is one: as a set of indices it would name 0 and 1 over and over. (Of two classes
    [0, 1] could be meant either way; the set {0, 1} cannot.) Rows of any other length are, where each of them has
    one 1 among at least two 0.
    """
    rows = [[_plain(mark) for mark in item] for item in items if isinstance(item, list | tuple)]
    marks = [row for row in rows if len(row) > 1 and all(_is_mark(mark) for mark in row)]
    one_hot = 0 < len(marks) == len(items) and all(len(row) > 2 and sum(row) == 1 for row in marks)
    if one_hot or any(len(row) == classes or not all(map(_is_index, row)) for row in marks):
        raise ValueError(
            f"targets: expected class indices, got rows of 0 and 1 such as {_short(marks[0])}; of one-hot rows give "
            "torch.as_tensor(targets).int().argmax(1), of rows that mark several classes the sets of their indices, "
            "such as {0, 1}"
        )


def _plain(value: Any) -> Any:
    """Lists and numbers in place of arrays and tensors."""
    return value.tolist() if isinstance(value, Tensor | np.ndarray | np.generic) else value


def _is_collection(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_mark(value: object) -> bool:
    return isinstance(value, bool | int | float) and value in (0, 1)


def _short(value: object) -> str:
    return " ".join(reprlib.repr(value).split())


def class_weights(sets: Sequence[Sequence[int]], classes: int) -> Tensor:
    """N×K float32: 1 for each class in an image's set, 0 elsewhere."""
    weights = torch.zeros(len(sets), classes, dtype=torch.float32, device="cpu")
    for row, members in zip(weights, sets, strict=True):
        row[list(members)] = 1.0
    return weights


def target_score(logits: Tensor, weights: Tensor) -> Tensor:
    """Σ_{c∈C} f_c: the softmax probabilities (float32) of each image's classes, N values."""
    return (logits.float().softmax(1) * weights).sum(1)


def log_odds(logits: Tensor, weights: Tensor) -> Tensor:
    """ln p/(1 − p) of p = :func:`target_score`, N values, from the logits, so that p may round to 0 or to 1.

    ``weights``: N×K, above 0 for each class in the set, which is neither empty nor all classes.
    """
    logits, lowest = logits.float(), torch.finfo(torch.float32).min
    inside, outside = (
        torch.where(members, logits, lowest).logsumexp(1) for members in (weights > 0, weights == 0)
    )
    return inside - outside


def class_score(logits: Tensor, weights: Tensor, scale: str) -> Tensor:
    """The score that ``scale``, a value of ``MaskSettings.score_scale``, reads from N×K logits: p or ℓ, N values."""
    return log_odds(logits, weights) if scale == "logit" else target_score(logits, weights)


def probability(score: Tensor, scale: str) -> Tensor:
    """p of a :func:`class_score`, N values."""
    return score.sigmoid() if scale == "logit" else score


def scaled_score(score: Tensor, original: Tensor, perturbed: Tensor, scale: str) -> Tensor:
    """What λ₁ weighs the area against (module docstring), N values.

    ``score``, ``original``, ``perturbed``: :func:`class_score` under the mask, of the image, and fully perturbed.
    """
    if scale == "relative":
        return score / original
    if scale == "logit":
        return (score - perturbed) / (original - perturbed).clamp(min=1)
    return score


def objective(grid: Tensor, score: Tensor, settings: MaskSettings) -> Tensor:
    """The loss of each image, N values, from its grid N×1×h×w (in [0, 1]) and its :func:`scaled_score`."""
    game = settings.rules
    counted = game.salient(grid)
    tv = total_variation(grid, settings.tv_exponent)
    penalty = settings.area_weight * counted.sum((1, 2, 3)) + settings.tv_weight * tv
    return penalty + game.sign * score
