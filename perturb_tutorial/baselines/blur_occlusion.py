"""Blur occlusion (§4.1): occlusion by soft discs that show the image blurred.

784 discs of diameter 35 image px are centered at 8i + 4, 8j + 4 (i, j = 0 … 27), their edges softened by σ =
10, and reveal the image blurred by σ = 10. The text gives a stride of 28 px; 784 places on 224 px are a
stride of 8.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from perturb_tutorial.baselines.batches import Progress
from perturb_tutorial.baselines.occluders import (
    OCCLUSION_SIZE,
    POSITIONS,
    SOFTENING,
    occlude,
    reject_layer,
    soft_discs,
)
from perturb_tutorial.networks import Network
from perturb_tutorial.perturbations import fully_perturbed
from perturb_tutorial.settings import REFERENCE_SIZE


def blur_occlusion(
    network: Network,
    images: Tensor,
    targets: Any,
    *,
    layer: str | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The mean drop in logit under the discs that cover each pixel (§4.1).

    Arguments and errors as in :func:`occlusion`.

    Returns:
        N×1×H×W in units of the logit, of either sign.
    """
    reject_layer("blur_occlusion", layer)
    index = torch.arange(POSITIONS**2)
    stride = REFERENCE_SIZE / POSITIONS
    centers = stride * torch.stack((index % POSITIONS, index // POSITIONS), 1).float() + stride / 2
    radii = torch.full((POSITIONS**2,), OCCLUSION_SIZE / 2, dtype=torch.float32)

    def occluders(start: int, stop: int) -> Tensor:
        return soft_discs(network.input_size, radii[start:stop], centers[start:stop])

    def blurred(image: Tensor) -> Tensor:
        return fully_perturbed(image, "blur", color=network.mean_color, blur_sigma=SOFTENING)

    return occlude(
        network,
        images,
        targets,
        count=POSITIONS**2,
        occluders=occluders,
        background=blurred,
        batch_size=batch_size,
        progress=progress,
    ).saliency
