"""The form of a file of masks: its fields, its checksum, and what is wrong with one that is not so."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perturb_tutorial.reading import read_bytes

LARGEST = 4_000
"""MB of the largest file that is read."""
FORMAT = "perturb_tutorial masks 4"
OLDER = ("perturb_tutorial masks 1", "perturb_tutorial masks 2", "perturb_tutorial masks 3")
"""All without ``draws``, the first two without ``iterations``, the first without a checksum, and without what the masks
were made by."""
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


def read_content(path: str | Path) -> dict[str, Any]:
    """The content of a file of masks, its format known and nothing else checked; no code in the file is run.

    Errors: ``ValueError`` for another file, one that is damaged, and one of a later format.
    """
    try:
        read = io.BytesIO(read_bytes(path, LARGEST))
    except OSError as error:
        raise ValueError(f"masks: {path} cannot be read ({error.strerror})") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whatever a damaged file makes torch say
            content = torch.load(read, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what the pickle and zip readers raise
        raise ValueError(f"masks: {path} is damaged, or not a file that Masks.save wrote") from error
    form = content.get("format") if isinstance(content, dict) else None
    if form not in (FORMAT, *OLDER):
        raise ValueError(f"masks: {path} is not a file that Masks.save wrote ({FORMAT}, or one before)")
    return dict(content)


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
    if (draws := content["draws"]) is not None:
        if draws.ndim != 4 or draws.shape[1] < 2:
            return f"draws: expected N×k×h×w with k of at least 2, got {'×'.join(map(str, draws.shape))}"
        shapes["draws"] = (count, draws.shape[1], *grid.shape[2:])
    for name, shape in shapes.items():
        value, dtype = content[name], _TYPES.get(name, torch.float32)
        if value.shape != shape or value.dtype != dtype:
            expected, got = ("×".join(map(str, sides)) for sides in (shape, value.shape))
            return f"{name}: expected {expected} of {dtype}, got {got} of {value.dtype}"
    for name in ("grid", "draws"):
        value = content[name]
        if value is not None and not bool(((value >= 0) & (value <= 1)).all()):  # nor NaN
            return f"{name}: expected values from 0 to 1"
    if bool((content["radius"] < 0).any()):
        return "radius: expected image px of at least 0, or NaN"
    if not bool(((content["iterations"] >= 0) & (content["iterations"] <= steps)).all()):
        return f"iterations: expected 0 to {steps}, the columns of history"
    return None
