"""The form of a file of masks: its fields, its checksum, and what is wrong with one that is not so."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

FORMAT = "perturb_tutorial masks 3"
OLDER = ("perturb_tutorial masks 1", "perturb_tutorial masks 2")
"""Both without ``iterations``; the first without a checksum, and without what the masks were made by."""
ROWS = ("grid", "score_original", "score_perturbed", "score_masked", "converged", "radius", "iterations")
_TYPES = {"converged": torch.bool, "iterations": torch.int64}
HISTORY = ("score", "area", "tv")
MADE = ("seed", "engine", "precision", "version")


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of all values and tensors of a file, by name."""
    sha = hashlib.sha256()
    for name in sorted(content):
        value = content[name]
        if isinstance(value, Tensor):
            sha.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            sha.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            sha.update(f"{name} {value!r} ".encode("utf-8", "backslashreplace"))
    return sha.hexdigest()


def wrong_form(content: Mapping[str, Any]) -> str | None:
    """What is wrong with the form of a file's content, "field: expected …, got …"; None where nothing is."""
    size, grid = content["size"], content["grid"]
    if len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
        return f"size: expected [height, width] of the images in px, got {size!r}"
    if grid.ndim != 4 or grid.shape[1] != 1 or not all(grid.shape[2:]):
        return f"grid: expected N×1×h×w, got {'×'.join(map(str, grid.shape))}"
    count, steps = len(grid), content["history.score"].shape[-1]
    shapes = {"grid": grid.shape} | dict.fromkeys(ROWS[1:], (count,))
    shapes |= {f"history.{name}": (count, steps) for name in HISTORY}
    for name, shape in shapes.items():
        value, dtype = content[name], _TYPES.get(name, torch.float32)
        if value.shape != shape or value.dtype != dtype:
            expected, got = ("×".join(map(str, sides)) for sides in (shape, value.shape))
            return f"{name}: expected {expected} of {dtype}, got {got} of {value.dtype}"
    if not bool(((grid >= 0) & (grid <= 1)).all()):  # nor NaN
        return "grid: expected values from 0 to 1"
    if bool((content["radius"] < 0).any()):
        return "radius: expected image px of at least 0, or NaN"
    if not bool(((content["iterations"] >= 0) & (content["iterations"] <= steps)).all()):
        return f"iterations: expected 0 to {steps}, the columns of history"
    return None
