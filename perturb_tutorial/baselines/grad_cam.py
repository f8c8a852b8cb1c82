"""Grad-CAM (§3; Selvaraju et al., 2017): a layer's channels, weighted by the logit's mean gradient at each.

    S(u) = max(0, Σ_k α_k A_k(u)),   α_k = mean over u of dz_C / dA_k(u)

A is the layer's output, C×h×w (or h×w×C, in a network that keeps its channels last), z_C the mean logit of the
target classes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from perturb_tutorial.baselines.batches import Progress, maps_in_batches
from perturb_tutorial.baselines.layers import resolve_layer
from perturb_tutorial.baselines.leaf_pass import forward_pass
from perturb_tutorial.networks import Network
from perturb_tutorial.networks.layers import layer_map


def grad_cam(
    network: Network,
    images: Tensor,
    targets: Any,
    *,
    layer: str | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The class activation map of a layer (§3).

    Args:
        network: the network that is explained.
        images: N×C×H×W in [0, 1].
        targets: a class index, N indices, or N sets of them (mean logit).
        layer: the layer whose channels are combined. None is the network's own (``layers.ROLES``); for a network
            outside that table it is guessed, with a warning.
        batch_size: images at once, None for the device's usual number.
        progress: called with (done, total) images.

    Returns:
        N×1×h×w at the layer's size, at least 0. A map may be 0 everywhere; that is a valid result.

    Raises:
        ValueError: as in :func:`gradient`.
    """
    name = resolve_layer(network, layer, "grad_cam")
    form = layer_map(network, name)

    def maps(batch: Tensor, weights: Tensor) -> Tensor:
        run = forward_pass(network, batch, name)
        features = form.channels_first(run.read.detach())
        alpha = form.channels_first(run.gradient(weights)).mean((2, 3), keepdim=True)
        return (alpha * features).sum(1, keepdim=True).clamp(min=0)

    return maps_in_batches(network, images, targets, maps, batch_size=batch_size, progress=progress)
