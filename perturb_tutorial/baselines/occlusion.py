"""Occlusion (§3; Zeiler and Fergus, 2014): how much the logit falls when a square hides a part of the image.

784 squares of 35×35 image px (of a 224 px input; module ``occluders`` for others) in the network's mean color begin at
8i, 8j (i, j = 0 … 27) and are cut at the border. The drop in logit of each is spread over its pixels and divided by how
many squares covered each pixel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from perturb_tutorial.baselines.batches import Progress
from perturb_tutorial.baselines.occluders import OCCLUSION_SIZE, occlude, positions, reject_layer
from perturb_tutorial.networks import Network
from perturb_tutorial.sizes import scaled


def occlusion(
    network: Network,
    images: Tensor,
    targets: Any,
    *,
    layer: str | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The mean drop in logit under the squares that cover each pixel (§3).

    Args:
        network: the network that is explained.
        images: N×C×H×W in [0, 1].
        targets: a class index, N indices, or N sets of them (mean logit).
        layer: must be None; the method works on the pixels.
        batch_size: occlusions at once, None for the device's usual number.
        progress: called with (done, total), images times occlusions.

    Returns:
        N×1×H×W in units of the logit, of either sign.

    Raises:
        ValueError: for arguments of the wrong form.

    Examples:
        >>> import torch
        >>> import perturb_tutorial as pt
        >>> from perturb_tutorial import baselines
        >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
        >>> network = pt.Network(module, input_size=32, device="cpu")
        >>> baselines.occlusion(network, torch.rand(1, 3, 32, 32), 2).shape
        torch.Size([1, 1, 32, 32])
    """
    reject_layer("occlusion", layer)
    rows, columns = positions(network.input_size)
    side = round(scaled(OCCLUSION_SIZE, network.input_size))
    down, across = (
        occluded(count, px, side) for count, px in zip((rows, columns), network.input_shape, strict=True)
    )

    def squares(start: int, stop: int) -> Tensor:
        index = torch.arange(start, stop, device="cpu")
        return (down[index // columns, :, None] * across[index % columns, None, :])[:, None]

    def mean_color(image: Tensor) -> Tensor:
        return network.mean_color.to(image).view(1, -1, 1, 1).expand_as(image)

    return occlude(
        network,
        images,
        targets,
        count=rows * columns,
        occluders=squares,
        background=mean_color,
        batch_size=batch_size,
        progress=progress,
    ).saliency


def occluded(count: int, size: int, side: int) -> Tensor:
    """count×size: 1 where a row (or column) of image px lies in the squares that begin at the i-th position, else 0.

    ``count``: of positions along ``size`` px. ``side``: of a square, px.
    """
    begin = torch.arange(count, device="cpu") * size // count
    pixel = torch.arange(size, device="cpu")
    return ((pixel >= begin[:, None]) & (pixel < begin[:, None] + side)).to(torch.float32)
