"""Grad-CAM (§3; Selvaraju et al., 2017): a layer's channels, weighted by the logit's mean gradient at each.

    S(u) = max(0, Σ_k α_k A_k(u)),   α_k = mean over u of dz_C / dA_k(u)

A is the layer's output as C×h×w, z_C the mean logit of the target classes. In a network that keeps its channels last,
or tokens, A is what belongs to the h×w positions: a class token is left out.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from perturb_tutorial.baselines.batches import Progress, maps_in_batches
from perturb_tutorial.baselines.layers import resolve_layer
from perturb_tutorial.baselines.leaf_pass import forward_pass
from perturb_tutorial.networks import Network
from perturb_tutorial.networks.reshape import Reshape, reshaped


def grad_cam(
    network: Network,
    images: Tensor,
    targets: Any,
    *,
    layer: str | None = None,
    reshape: Reshape | None = None,
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
        reshape: from the output of ``layer`` to N×C×h×w, for a layer whose output is no map that the package
            recognizes; applied to A and to its gradient, as pytorch-grad-cam's ``reshape_transform``.
        batch_size: images at once, None for the device's usual number.
        progress: called with (done, total) images.

    Returns:
        N×1×h×w at the layer's size, at least 0. A map may be 0 everywhere; that is a valid result.

    Raises:
        ValueError: as in :func:`gradient`; for ``reshape`` without ``layer``, or with another result than N×C×h×w.

    Examples:
        >>> import perturb_tutorial as pt
        >>> from perturb_tutorial import baselines
        >>> network = pt.load_network(device="cpu")
        >>> images = pt.load_samples(network.input_size, names=["chelsea"]).images
        >>> heat = baselines.grad_cam(network, images, 285)
        >>> heat.shape[:2], bool(heat.isfinite().all())
        (torch.Size([1, 1]), True)
    """
    if reshape is None:
        name = resolve_layer(network, layer, "grad_cam")
    elif layer is None:
        raise ValueError("layer: expected the layer whose output reshape is for, got None")
    else:
        name = layer

    def maps(batch: Tensor, weights: Tensor) -> Tensor:
        run = forward_pass(network, batch, name, whole=reshape is not None)
        features, gradient = run.read, run.gradient(weights)
        if reshape is not None:
            features, gradient = (reshaped(reshape, value, len(batch)) for value in (features, gradient))
        alpha = gradient.mean((2, 3), keepdim=True)
        return (alpha * features.detach()).sum(1, keepdim=True).clamp(min=0)

    return maps_in_batches(network, images, targets, maps, batch_size=batch_size, progress=progress)
