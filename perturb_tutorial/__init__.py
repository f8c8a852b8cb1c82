"""Masks by meaningful perturbation: learn them, compare them with other methods, measure them.

The package implements the supplementary material of Fong and Vedaldi, "Interpretable Explanations of Black Boxes
by Meaningful Perturbation" (ICCV 2017). Its modules load when they are first used, so ``import perturb_tutorial``
costs next to nothing and reads nothing from the network.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from perturb_tutorial import _forks as _forks  # watches from the first import on

__version__ = "0.1.0"

_EXPORTS = {
    "ClassTable": "networks",
    "ImageError": "images",
    "ImageErrors": "images",
    "MaskSettings": "settings",
    "Masks": "results",
    "Network": "networks",
    "WeightsUnavailable": "networks",
    "image_sizes": "images",
    "learn_activation_masks": "activations",
    "learn_masks": "optimizer",
    "load_images": "images",
    "load_network": "networks",
    "load_samples": "datasets.samples",
    "saliency": "baselines",
    "seeded_network": "networks",
    "settings_table": "settings",
    "top_classes": "networks",
}
_MODULES = {
    "activations",
    "baselines",
    "benchmarks",
    "datasets",
    "engines",
    "images",
    "initialization",
    "masks",
    "metrics",
    "networks",
    "objectives",
    "optimizer",
    "perturbations",
    "plotting",
    "results",
    "settings",
    "study",
}

__all__ = [
    "ClassTable",
    "ImageError",
    "ImageErrors",
    "MaskSettings",
    "Masks",
    "Network",
    "WeightsUnavailable",
    "image_sizes",
    "learn_activation_masks",
    "learn_masks",
    "load_images",
    "load_network",
    "load_samples",
    "saliency",
    "seeded_network",
    "settings_table",
    "top_classes",
]

if TYPE_CHECKING:
    from perturb_tutorial.activations import learn_activation_masks
    from perturb_tutorial.baselines import saliency
    from perturb_tutorial.datasets.samples import load_samples
    from perturb_tutorial.images import ImageError, ImageErrors, image_sizes, load_images
    from perturb_tutorial.networks import (
        ClassTable,
        Network,
        WeightsUnavailable,
        load_network,
        seeded_network,
        top_classes,
    )
    from perturb_tutorial.optimizer import learn_masks
    from perturb_tutorial.results import Masks
    from perturb_tutorial.settings import MaskSettings, settings_table


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS, *_MODULES})
