"""Blur occlusion (§4.1): occlusion by soft discs that show the image blurred.

784 discs of diameter 35 image px (of a 224 px input; module ``occluders`` for others) are centered at 8i + 4, 8j + 4
(i, j = 0 … 27), their edges softened by σ = 10, and reveal the image blurred by σ = 10. The text gives a stride of
28 px; 784 places on 224 px are a stride of 8.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from perturb_tutorial.baselines.batches import Progress
from perturb_tutorial.baselines.occluders import (
    OCCLUSION_SIZE,
    SOFTENING,
    occlude,
    positions,
    reject_layer,
    soft_discs,
)
from perturb_tutorial.networks import Network
from perturb_tutorial.perturbations import fully_perturbed
from perturb_tutorial.sizes import REFERENCE_SIZE


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

    Examples:
        >>> import torch
        >>> import perturb_tutorial as pt
        >>> from perturb_tutorial import baselines
        >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
        >>> network = pt.Network(module, input_size=32, device="cpu")
        >>> baselines.blur_occlusion(network, torch.rand(1, 3, 32, 32), 2).shape
        torch.Size([1, 1, 32, 32])
    """
    reject_layer("blur_occlusion", layer)
    rows, columns = positions(network.input_size)
    index = torch.arange(rows * columns, device="cpu")
    stride = REFERENCE_SIZE / torch.tensor([columns, rows], dtype=torch.float32, device="cpu")
    centers = stride * torch.stack((index % columns, index // columns), 1) + stride / 2
    radii = torch.full((rows * columns,), OCCLUSION_SIZE / 2, dtype=torch.float32, device="cpu")

    def occluders(start: int, stop: int) -> Tensor:
        return soft_discs(network.input_size, radii[start:stop], centers[start:stop])

    def blurred(image: Tensor) -> Tensor:
        return fully_perturbed(image, "blur", color=network.mean_color, blur_sigma=SOFTENING)

    return occlude(
        network,
        images,
        targets,
        count=rows * columns,
        occluders=occluders,
        background=blurred,
        batch_size=batch_size,
        progress=progress,
    ).saliency
