"""Whether a result has a gradient by what it was computed from.

A module that computes a part of its logits under ``torch.no_grad``, detached or quantized has none. The gradient of a
loss with a mask's regularizers would then be that of the regularizers alone, so the score's own graph is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.autograd.graph import Node

NO_GRADIENT = (
    "network: expected logits with a gradient, got some that do not depend on the mask; is the module's forward, or "
    "the score, under torch.no_grad or inference_mode?"
)
REENTRANT = (
    "module: a part under torch.utils.checkpoint with use_reentrant=True has no gradient by an inner tensor; turn "
    "checkpointing off or set use_reentrant=False"
)


def graph_nodes(result: Tensor) -> Iterator[Node]:
    """Every operation that ``result`` was computed by, each once."""
    waiting = [result.grad_fn]
    seen: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(below for below, _ in node.next_functions)


def depends_on(result: Tensor, leaf: Tensor) -> bool:
    """Whether ``result`` has a gradient by ``leaf``, a tensor that was not computed from others."""
    return any(getattr(node, "variable", None) is leaf for node in graph_nodes(result))


def check_gradient(score: Tensor, leaf: Tensor) -> None:
    """Raises ``ValueError`` where ``score`` has no gradient by ``leaf``, or one that torch does not compute."""
    if not depends_on(score, leaf):
        raise ValueError(NO_GRADIENT)
    if has_reentrant_part(score):
        raise ValueError(REENTRANT)


def has_reentrant_part(result: Tensor) -> bool:
    """Whether a part of the graph is in a checkpoint that ``torch.autograd.grad`` does not go through."""
    return any(node.name() == "CheckpointFunctionBackward" for node in graph_nodes(result))
