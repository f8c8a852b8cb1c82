"""The same photographs seen by several networks (§6.3, fig. 7), and how far their masks agree.

Each network gets the photographs at its own input size and a mask by its own preset (AlexNet a grid of
30×30). Two networks a, b agree on an image by the Pearson correlation of their saliency maps, both resized to
a common size:

    ρ = Σ_p (h_a(p) − h̄_a) (h_b(p) − h̄_b) / √(Σ_p (h_a(p) − h̄_a)² · Σ_p (h_b(p) − h̄_b)²).

A network whose weights are missing and cannot be downloaded is reported in a sentence; the others continue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from perturb_tutorial.images import load_images
from perturb_tutorial.metrics.heatmaps import resize_map
from perturb_tutorial.networks import Network, WeightsUnavailable, load_network
from perturb_tutorial.optimizer import learn_masks
from perturb_tutorial.results import Masks
from perturb_tutorial.settings import MaskSettings, check_seed

ARCHITECTURES = (
    "alexnet",
    "vgg16",
    "googlenet",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
)
"""The paper's three networks (§6.3), then those whose weights need no download."""

COMMON_SIZE = 224
"""Side, in px, to which saliency maps are resized before they are compared."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Architectures:
    """Masks of the same N photographs by several networks, by name, and a sentence for each that is missing.

    ``images``: by network, N×C×H×W with its own H and W; ``masks``: the same keys.
    """

    images: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[str, Masks] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The networks that have masks, in the given order."""
        return list(self.masks)


def learn_by_architecture(
    paths: Sequence[str | Path],
    targets: Any,
    networks: Sequence[str | Network] = ARCHITECTURES,
    *,
    preset: str = "default",
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    batch_size: int | None = None,
    report: Report | None = None,
) -> Architectures:
    """Masks of the same photographs by each network.

    Args:
        paths: the files of N photographs.
        targets: a class index, N indices, or N sets of them (as for :func:`learn_masks`).
        networks: names of the zoo, or networks of your own with the same classes.
        preset: "default" or "localization"; each network gets its own values.
        changes: settings that differ from the preset's, such as ``{"iterations": 100}``.
        seed: of the masks.
        device: where networks of the zoo run.
        batch_size: images at once, None for the device's usual number.
        report: called with one line for each network, done or missing.

    Raises:
        ValueError: for an unknown name, or a network given twice.
        ImageErrors: for bad files.
    """
    result, seed = Architectures(), check_seed(seed)
    for entry in networks:
        name = entry if isinstance(entry, str) else entry.name
        if name in result.masks or name in result.unavailable:
            raise ValueError(f"networks: expected each network once, got {name} twice")
        try:
            network = load_network(entry, device=device) if isinstance(entry, str) else entry
        except WeightsUnavailable as error:
            result.unavailable[name] = str(error)
            if report is not None:
                report(str(error))
            continue
        settings = MaskSettings.preset(preset, network=name.partition(" ")[0]).replace(**dict(changes or {}))
        images = load_images(paths, network.input_size, channels=network.channels)
        masks = learn_masks(network, images, targets, settings, seed=seed, batch_size=batch_size)
        result.images[name], result.masks[name] = images, masks
        if report is not None:
            report(f"{name}: {len(masks)} masks, {int(masks.converged.sum())} converged")
    return result


def correlation(first: Tensor, second: Tensor, size: int = COMMON_SIZE) -> float:
    """ρ of two saliency maps H×W or 1×H×W of any sizes, compared at ``size``×``size`` px; NaN where one is
    flat.
    """
    a, b = (resize_map(heat.detach().cpu().numpy(), (size, size)).ravel() for heat in (first, second))
    a, b = a - a.mean(), b - b.mean()
    # A map is flat when nothing but the rounding of its mean is left.
    if not min(np.abs(a).max(), np.abs(b).max()) > 1e-9:
        return float("nan")
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


__all__ = [
    "ARCHITECTURES",
    "COMMON_SIZE",
    "Architectures",
    "correlation",
    "learn_by_architecture",
]
