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

# Where each public name lives. The type checker needs the imports below as well; a test compares the two.
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
    "adapters",
    "baselines",
    "benchmarks",
    "datasets",
    "engines",
    "export",
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

__all__ = list(_EXPORTS)

if TYPE_CHECKING:
    from perturb_tutorial.activations import learn_activation_masks as learn_activation_masks
    from perturb_tutorial.baselines import saliency as saliency
    from perturb_tutorial.datasets.samples import load_samples as load_samples
    from perturb_tutorial.images import ImageError as ImageError
    from perturb_tutorial.images import ImageErrors as ImageErrors
    from perturb_tutorial.images import image_sizes as image_sizes
    from perturb_tutorial.images import load_images as load_images
    from perturb_tutorial.networks import ClassTable as ClassTable
    from perturb_tutorial.networks import Network as Network
    from perturb_tutorial.networks import WeightsUnavailable as WeightsUnavailable
    from perturb_tutorial.networks import load_network as load_network
    from perturb_tutorial.networks import seeded_network as seeded_network
    from perturb_tutorial.networks import top_classes as top_classes
    from perturb_tutorial.optimizer import learn_masks as learn_masks
    from perturb_tutorial.results import Masks as Masks
    from perturb_tutorial.settings import MaskSettings as MaskSettings
    from perturb_tutorial.settings import settings_table as settings_table


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
