"""Masks and maps that take too long for a chapter: learned once by ``studies/sweeps.py``, stored in ``data/sweeps``.

``python studies/sweeps.py --list`` lists them with their photographs and settings.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perturb_tutorial.files import resource
from perturb_tutorial.results import Masks

FOLDER = "sweeps"


def stored(name: str) -> Masks:
    """The stored masks called ``name``, such as "deletion": one row a photograph, with settings and history.

    Errors: ``ValueError`` for a name that is not stored; it lists those that are.
    """
    return Masks.load(_file(name, ".pt"))


def stored_maps(name: str) -> Tensor:
    """The stored maps called ``name``, such as "occlusion", of a method that learns no mask: N×1×28×28, raw scale.

    Errors: ``ValueError`` for a name that is not stored; it lists those that are.
    """
    return torch.from_numpy(np.load(_file(name, ".npy")))


def stored_names() -> tuple[str, ...]:
    """The names that :func:`stored` knows, in alphabetical order."""
    return _names(".pt")


def _names(suffix: str) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in resource(FOLDER).glob(f"*{suffix}")))


def _file(name: str, suffix: str) -> Path:
    names = _names(suffix)
    if name not in names:
        raise ValueError(f"name: expected one of {', '.join(names)}, got {name!r}")
    return resource(f"{FOLDER}/{name}{suffix}")
