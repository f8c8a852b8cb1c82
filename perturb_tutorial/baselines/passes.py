"""One forward pass whose graph begins at the layer to be read, and signals sent back to it.

Where a method reads a layer, the pass stops there and starts again: the layer's output becomes the leaf A of
the graph, N×C×h×w. What lies below costs no gradient, and an in-place operation that follows works on a copy.
A layer that is used several times is read at its last use. Without a layer the leaf is the image itself, in
pixels.

The hook sits on the shared module for the length of one pass and only acts in the thread that set it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from perturb_tutorial.networks import Network
from perturb_tutorial.networks.hooks import of_this_thread


@dataclass
class Layer:
    """A layer's output in the pass under way, N×C×h×w; None until it is reached."""

    name: str
    output: Tensor | None = None

    def value(self) -> Tensor:
        """The output; ``ValueError`` if the pass never reached the layer."""
        if self.output is None:
            raise ValueError(f"layer: {self.name!r} is not used in the network's forward pass; name another")
        return self.output


@dataclass(frozen=True)
class Pass:
    """``logits`` N×K and the leaf ``read`` N×C×h×w that they depend on."""

    logits: Tensor
    read: Tensor

    def gradient(self, weights: Tensor) -> Tensor:
        """d(Σ_c w_c z_c)/dA for ``weights`` w N×K, of the shape of ``read``."""
        return send_back(self.logits, weights, self.read)


def send_back(start: Tensor, signal: Tensor, end: Tensor, *, keep_graph: bool = False) -> Tensor:
    """``signal`` of the shape of ``start``, sent back to ``end`` through the graph between them."""
    reached: Tensor | None = None
    if start.requires_grad and end.requires_grad:
        (reached,) = torch.autograd.grad(start, end, signal, retain_graph=keep_graph, allow_unused=True)
    if reached is None:
        raise ValueError(
            "layer: the logits do not depend on its output; name one between the image and the logits"
        )
    return reached


def forward_pass(
    network: Network,
    images: Tensor,
    layer: str | None,
    *,
    folded: bool = False,
    around: AbstractContextManager[Any] | None = None,
) -> Pass:
    """The pass of ``images`` B×3×S×S, read at ``layer`` (None: at the pixels), inside the context ``around``.

    ``folded``: by the copy whose BatchNorms are folded into the convolutions.
    Errors: ``ValueError`` for a layer that is unknown, unused, or without spatial features.
    """
    logits_of = network.logits if folded else network.unfolded_logits
    if layer is None:
        leaf = images.detach().clone().requires_grad_()
        with around or nullcontext():
            return Pass(logits_of(leaf), leaf)
    network.layer(layer)
    with reading(network.folded if folded else network.module, layer) as read, around or nullcontext():
        logits = logits_of(images)
    return Pass(logits, read.value())


def reading(module: nn.Module, name: str) -> AbstractContextManager[Layer]:
    """While it lasts, the output of ``module``'s layer ``name`` in this thread becomes a new leaf, which is
    kept.
    """

    def as_leaf(output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.dim() != 4 or output.shape[2] * output.shape[3] == 1:
            raise ValueError(
                f"layer: {name!r} has no spatial features (expected N×C×h×w, h·w > 1, got {_form(output)})"
            )
        return output.detach().clone().requires_grad_()

    return _kept(module, Layer(name), as_leaf)


def watching(module: nn.Module, name: str) -> AbstractContextManager[Layer]:
    """While it lasts, the output of ``module``'s layer ``name`` in this thread is kept; the graph goes on
    through it.
    """

    def as_it_is(output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise ValueError(f"layer: expected {name!r} to have one tensor as output, got {_form(output)}")
        return output

    return _kept(module, Layer(name), as_it_is)


@contextmanager
def _kept(module: nn.Module, layer: Layer, keep: Callable[[Any], Tensor]) -> Iterator[Layer]:
    @of_this_thread
    def hook(_: nn.Module, inputs: Any, output: Any) -> Tensor | None:
        layer.output = keep(output)
        return layer.output.clone()  # what follows may write into it

    handle = module.get_submodule(layer.name).register_forward_hook(hook)
    try:
        yield layer
    finally:
        handle.remove()


def _form(output: Any) -> str:
    return "×".join(map(str, output.shape)) if isinstance(output, Tensor) else type(output).__name__


def operation_name(node: Node) -> str:
    """What a node of the graph undoes: ``Relu`` for ``ReluBackward0``."""
    return re.sub(r"Backward\d*$", "", node.name())


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
