"""Guided backprop (§3; Springenberg et al., 2015): the gradient, with each rectifier clipping the way back
too.

    ReLU:   R_in = 1[a > 0] · max(R_out, 0)
    ReLU6:  R_in = 1[0 < a < 6] · max(R_out, 0)
    S(u) = max_k |R_k(u)|

a is the rectifier's input, R the signal on its way back from the mean logit of the target classes.

The rule is set on the nodes of the graph that this pass made, so every spelling of a rectifier is met: a
module, in place or not, ``F.relu``, ``torch.relu``, ``tensor.relu_()``, ``hardtanh`` and ``clamp`` from 0.
Nothing shared changes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from perturb_tutorial.baselines.batches import Progress, maps_in_batches
from perturb_tutorial.baselines.passes import forward_pass, graph_nodes, operation_name
from perturb_tutorial.networks import Network


def guided_backprop(
    network: Network,
    images: Tensor,
    targets: Any,
    *,
    layer: str | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The largest absolute guided signal over the colors, N×1×H×W, at least 0 (§3).

    Arguments and errors as in :func:`gradient`. A network without a rectifier between the pixels (or
    ``layer``) and the logits raises ``ValueError``: its guided backprop would be the plain gradient under
    another name.
    """

    def maps(batch: Tensor, weights: Tensor) -> Tensor:
        run = forward_pass(network, batch, layer)
        rectifiers = [node for node in graph_nodes(run.logits) if _is_rectifier(node)]
        if not rectifiers:
            raise ValueError(
                f"guided_backprop: expected a network with ReLU, ReLU6 or another clip at 0, {network.name} "
                "has none on the way; use gradient"
            )
        for node in rectifiers:
            node.register_hook(_clip_negative)
        return run.gradient(weights).abs().amax(1, keepdim=True)

    return maps_in_batches(network, images, targets, maps, batch_size=batch_size, progress=progress)


def _clip_negative(signals_in: tuple[Tensor | None, ...], _: Any) -> tuple[Tensor | None, ...]:
    # max(·, 0) commutes with the rectifier's own factor 0 or 1, so it may be taken after it.
    return tuple(None if signal is None else signal.clamp(min=0) for signal in signals_in)


_LOWER_BOUND = {
    "Hardtanh": "_saved_min_val",
    "Clamp": "_saved_min",
    "ClampMin": "_saved_min",
    "Threshold": "_saved_threshold",
}
"""Where a node that clips keeps its lower bound; the bound of a ReLU is 0."""


def _is_rectifier(node: Node) -> bool:
    name = operation_name(node)
    if name not in _LOWER_BOUND:
        return name == "Relu"
    lower = getattr(node, _LOWER_BOUND[name])
    return isinstance(lower, int | float) and lower == 0
