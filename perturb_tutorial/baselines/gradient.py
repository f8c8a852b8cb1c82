"""Gradient (§3; Simonyan et al., 2014): how fast the logit changes with a pixel.

    S(u) = max_k |dz_C / dx_k(u)|

x_k(u) is color k of pixel u in [0, 1], z_C the mean logit of the target classes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from perturb_tutorial.baselines.batches import Progress, maps_in_batches
from perturb_tutorial.baselines.leaf_pass import forward_pass
from perturb_tutorial.networks import Network


def gradient(
    network: Network,
    images: Tensor,
    targets: Any,
    *,
    layer: str | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The largest absolute gradient over the colors (§3).

    Args:
        network: the network that is explained.
        images: N×C×H×W in [0, 1].
        targets: a class index, N indices, or N sets of them (mean logit).
        layer: None takes the gradient at the pixels; a name takes it at that layer's output, with the largest value
            over its channels.
        batch_size: images at once, None for the device's usual number.
        progress: called with (done, total) images.

    Returns:
        N×1×H×W (with ``layer`` N×1×h×w), at least 0.

    Raises:
        ValueError: for arguments of the wrong form, an unknown layer, or one without spatial features.

    Examples:
        >>> import torch
        >>> import perturb_tutorial as pt
        >>> from perturb_tutorial import baselines
        >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
        >>> network = pt.Network(module, input_size=32, device="cpu")
        >>> baselines.gradient(network, torch.rand(1, 3, 32, 32), 2).shape
        torch.Size([1, 1, 32, 32])
    """

    def maps(batch: Tensor, weights: Tensor) -> Tensor:
        return forward_pass(network, batch, layer).gradient(weights).abs().amax(1, keepdim=True)

    return maps_in_batches(network, images, targets, maps, batch_size=batch_size, progress=progress)
