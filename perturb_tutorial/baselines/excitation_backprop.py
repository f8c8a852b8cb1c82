"""Excitation backprop (§3; Zhang et al., ECCV 2016): the winner of a layer is drawn from the layer above.

    p_in = a⁺ · (W⁺)ᵀ (p_out / (W⁺ a⁺)),   S(u) = Σ_k p_k(u)

p starts as 1/|C| on each target logit and sums to 1; a are a layer's activations, W⁺ the positive weights.
The other rules are in the module ``excitation_rules``.

Two treatments of BatchNorm y = γ(x − μ)/σ + β:

- ``fold`` (default): W becomes γW/σ before its positive part is taken, as if the network had been written
  without BatchNorm, as the paper's GoogLeNet was. Two networks that compute the same then have the same map.
- ``pass``: the mass goes through BatchNorm unchanged and W is the convolution's own (Zhang et al.'s code,
  TorchRay).

They differ exactly at channels with γ ≤ 0: a positive factor cancels in the rule, a negative one changes
which weights speak for a unit. EfficientNet-Lite0 has 9 such channels of 21,008.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from perturb_tutorial.baselines.batches import Progress, maps_in_batches
from perturb_tutorial.baselines.excitation_rules import (
    ExcitationRules,
    Sum,
    check_graph,
    without_second_runs,
)
from perturb_tutorial.baselines.graphs import LayersOfOperations
from perturb_tutorial.baselines.layers import resolve_layer
from perturb_tutorial.baselines.leaf_pass import Layer, forward_pass, send_back, watching
from perturb_tutorial.networks import Network

BATCHNORMS = ("fold", "pass")


def excitation_backprop(
    network: Network,
    images: Tensor,
    targets: Any,
    *,
    layer: str | None = None,
    batchnorm: str = "fold",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The mass that reaches each position of a layer (§3).

    The rule presumes activations of at least 0. Where a layer's are signed, as in EfficientNet-Lite's linear
    bottlenecks, their positive parts are used: a unit with a ≤ 0 wins nothing.

    Args:
        network: the network that is explained.
        images: N×C×H×W in [0, 1].
        targets: a class index, N indices, or N sets of them (mean logit).
        layer: the layer whose positions are scored. None is the network's own (``layers.ROLES``); for a network
            outside that table it is guessed, with a warning.
        batchnorm: "fold" or "pass", see the module. A BatchNorm that follows no convolution cannot be folded, and the
            mass goes through it unchanged.
        batch_size: images at once, None for the device's usual number.
        progress: called with (done, total) images.

    Returns:
        N×1×h×w at the layer's size, at least 0, with a sum of at most 1.

    Raises:
        ValueError: for arguments of the wrong form, for an operation without a rule, or for one that cannot be read
            (module ``graphs``).

    Examples:
        >>> import perturb_tutorial as pt
        >>> from perturb_tutorial import baselines
        >>> network = pt.load_network(device="cpu")
        >>> images = pt.load_samples(network.input_size, names=["chelsea"]).images
        >>> heat = baselines.excitation_backprop(network, images, 285)
        >>> heat.shape[:2], bool(heat.isfinite().all())
        (torch.Size([1, 1]), True)
    """
    name = resolve_layer(network, layer, "excitation_backprop")
    check_batchnorm(batchnorm)

    def maps(batch: Tensor, weights: Tensor) -> Tensor:
        run = excite(network, batch, name, batchnorm, method="excitation_backprop")
        return send_back(run.logits, weights, run.read).sum(1, keepdim=True)

    return maps_in_batches(network, images, targets, maps, batch_size=batch_size, progress=progress)


def check_batchnorm(batchnorm: str) -> None:
    """Raises ``ValueError`` unless ``batchnorm`` is one of ``BATCHNORMS``."""
    if batchnorm not in BATCHNORMS:
        raise ValueError(f"batchnorm: expected one of {', '.join(BATCHNORMS)}, got {batchnorm!r}")


@dataclass(frozen=True)
class ExcitedPass:
    """A forward pass whose graph sends signals back by the rules: from ``logits`` N×K to ``read`` N×C×h×w."""

    logits: Tensor
    read: Tensor
    rules: ExcitationRules
    contrast_layer: Layer | None = None

    @property
    def contrast(self) -> Tensor:
        """Where the contrast is taken: the classifier's input, or the output of the layer that was named."""
        return self.rules.classifier.below if self.contrast_layer is None else self.contrast_layer.value()

    @property
    def sums(self) -> list[Sum]:
        """Every operation that shares mass, from the layer up."""
        return self.rules.sums

    @contextmanager
    def negated_classifier(self) -> Iterator[None]:
        """Within the block mass is shared as if the classifier's weights were −W; the weights themselves stay."""
        self.rules.classifier.negated = True
        try:
            yield
        finally:
            self.rules.classifier.negated = False


def excite(
    network: Network,
    images: Tensor,
    layer: str,
    batchnorm: str,
    contrast_layer: str | None = None,
    *,
    method: str = "excitation_backprop",
) -> ExcitedPass:
    """A forward pass whose operations follow the rules of excitation backprop on the way back.

    Args:
        network: the network that is explained.
        images: B×C×H×W in [0, 1].
        layer: the layer at which the mass is read.
        batchnorm: "fold" or "pass".
        contrast_layer: where the contrast is taken; None is the classifier's input.
        method: the method's name in error messages.
    """
    module = network.folded if batchnorm == "fold" else network.module
    rules = ExcitationRules(itertools.chain(module.parameters(), module.buffers()))
    watched = nullcontext() if contrast_layer is None else watching(module, contrast_layer)
    with watched as contrast, without_second_runs(method), LayersOfOperations(module) as layers:
        run = forward_pass(network, images, layer, folded=batchnorm == "fold", around=rules)
    run.check_reached()
    check_graph(run.logits, layers, method)
    return ExcitedPass(run.logits, run.read, rules, contrast)


__all__ = ["BATCHNORMS", "ExcitedPass", "check_batchnorm", "excitation_backprop", "excite"]
