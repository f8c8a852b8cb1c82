"""Contrastive excitation backprop (§3; Zhang et al., ECCV 2016): what speaks for the class, less what speaks
against it.

    c = p(W) − p(−W) at the contrast layer,   S(u) = max(0, Σ_k (c sent down)_k(u))

p(W) is excitation backprop's mass at the contrast layer, p(−W) the same with the classifier's weights
negated. Both come out of one forward pass; the negated weights are a copy, so the network's own are never
touched.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from perturb_tutorial.baselines.batches import Progress, maps_in_batches
from perturb_tutorial.baselines.excitation_backprop import check_batchnorm, excite
from perturb_tutorial.baselines.layers import resolve_layer
from perturb_tutorial.baselines.leaf_pass import send_back
from perturb_tutorial.networks import Network

METHOD = "contrastive_excitation_backprop"
"""As messages name it."""


def contrastive_excitation_backprop(
    network: Network,
    images: Tensor,
    targets: Any,
    *,
    layer: str | None = None,
    contrast_layer: str | None = None,
    batchnorm: str = "fold",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The positive part of the contrast that reaches each position of a layer (§3).

    Args:
        network: the network that is explained.
        images: N×C×H×W in [0, 1].
        targets: a class index, N indices, or N sets of them (mean logit).
        layer: the layer whose positions are scored, as in :func:`excitation_backprop`.
        contrast_layer: where the contrast is taken, above ``layer``. None is the input of the classifier, the last
            linear or convolutional layer: GoogLeNet's average pool (§3), relu7 of VGG-16 and AlexNet.
        batchnorm: "fold" or "pass", as in :func:`excitation_backprop`.
        batch_size: images at once, None for the device's usual number.
        progress: called with (done, total) images.

    Returns:
        N×1×h×w at the layer's size, at least 0. A map may be 0 everywhere; that is a valid result.

    Raises:
        ValueError: as in :func:`excitation_backprop`.

    Examples:
        >>> import perturb_tutorial as pt
        >>> from perturb_tutorial import baselines
        >>> network = pt.load_network(device="cpu")
        >>> images = pt.load_samples(network.input_size, names=["chelsea"]).images
        >>> heat = baselines.contrastive_excitation_backprop(network, images, 285)
        >>> heat.shape[:2], bool(heat.isfinite().all())
        (torch.Size([1, 1]), True)
    """
    name = resolve_layer(network, layer, "excitation_backprop", METHOD)
    check_batchnorm(batchnorm)
    if contrast_layer is not None:
        network.layer(contrast_layer)

    def maps(batch: Tensor, weights: Tensor) -> Tensor:
        run = excite(network, batch, name, batchnorm, contrast_layer, method=METHOD)
        contrast = send_back(run.logits, weights, run.contrast, keep_graph=True)
        with run.negated_classifier():
            contrast = contrast - send_back(run.logits, weights, run.contrast, keep_graph=True)
        return send_back(run.contrast, contrast, run.read).sum(1, keepdim=True).clamp(min=0)

    return maps_in_batches(network, images, targets, maps, batch_size=batch_size, progress=progress)
