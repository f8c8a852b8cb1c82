"""One forward pass whose graph begins at the layer to be read, and signals sent back to it.

Where a method reads a layer, the graph is cut there: the map in the layer's output becomes the leaf A of the graph,
N×C×h×w, and the output goes on as it was, made from A and from what does not belong to the map (class tokens). No
gradient is computed for what lies below, and an in-place operation that follows works on a copy.
A layer that is used several times is read at its last use. Without a layer the leaf is the image itself, in
pixels.

The hook is on the shared module for the length of one pass and only acts in the thread that set it.
Code that the user compiled with ``torch.compile`` runs eagerly during the pass: in compiled code the operations are
merged into one node of the graph, and hooks are not called.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from perturb_tutorial.networks import Network
from perturb_tutorial.networks.forms import LayerMap
from perturb_tutorial.networks.gradients import REENTRANT, depends_on, has_reentrant_part
from perturb_tutorial.networks.influence import check_influence
from perturb_tutorial.networks.layers import layer_map
from perturb_tutorial.networks.outputs import replacing


@dataclass
class Layer:
    """A layer's output in the current pass, N×C×h×w; None until the pass reaches it."""

    name: str
    output: Tensor | None = None

    def value(self) -> Tensor:
        """The output; ``ValueError`` if the pass never reached the layer."""
        if self.output is None:
            raise ValueError(f"layer: {self.name!r} is not used in the network's forward pass; name another")
        return self.output


_LAYER_NOT_REACHED = (
    "layer: the logits do not depend on its output, or without a gradient, as after quantized layers, detach() or "
    "torch.no_grad(); name one between the image and the logits, or use occlusion, blur_occlusion or variable_occlusion"
)
_PIXELS_NOT_REACHED = (
    "module: its logits have no gradient by the pixels, as after quantized layers, detach() or torch.no_grad(); use "
    "occlusion, blur_occlusion or variable_occlusion"
)


@dataclass(frozen=True)
class Pass:
    """``logits`` N×K and the leaf ``read`` N×C×h×w that they depend on: a layer's map (or whole output) or the
    pixels.
    """

    logits: Tensor
    read: Tensor
    not_reached: str = _LAYER_NOT_REACHED

    def check_reached(self) -> None:
        """Raises ``ValueError`` where the logits have no gradient by the leaf."""
        if not depends_on(self.logits, self.read):
            raise ValueError(self.not_reached)

    def gradient(self, weights: Tensor) -> Tensor:
        """d(Σ_c w_c z_c)/dA for ``weights`` w N×K, of the shape of ``read``."""
        return send_back(self.logits, weights, self.read, not_reached=self.not_reached)


def send_back(
    start: Tensor,
    signal: Tensor,
    end: Tensor,
    *,
    keep_graph: bool = False,
    not_reached: str = _LAYER_NOT_REACHED,
) -> Tensor:
    """Sends a signal back through the graph between two tensors.

    Args:
        start: the tensor where the signal starts.
        signal: of the shape of ``start``.
        end: a tensor that ``start`` was computed from.
        keep_graph: whether the graph is needed again.
        not_reached: the message of the error where ``start`` does not depend on ``end``.

    Returns:
        The signal at ``end``, of its shape.

    Raises:
        ValueError: with ``not_reached``, and where a part under ``torch.utils.checkpoint`` cannot be run again as it
            was.
    """
    reached: Tensor | None = None
    if start.requires_grad and end.requires_grad:
        if has_reentrant_part(start):
            raise ValueError(REENTRANT)
        try:
            signal = signal.to(start.dtype)
            (reached,) = torch.autograd.grad(start, end, signal, retain_graph=keep_graph, allow_unused=True)
        except (
            CheckpointError
        ) as error:  # the layer's hook acted in the first run of the part, not in the second
            raise ValueError(
                "layer: it is read inside a part under torch.utils.checkpoint; turn checkpointing off, or name a "
                "layer outside of that part"
            ) from error
    if reached is None:
        raise ValueError(not_reached)
    return reached


def forward_pass(
    network: Network,
    images: Tensor,
    layer: str | None,
    *,
    whole: bool = False,
    folded: bool = False,
    around: AbstractContextManager[Any] | None = None,
) -> Pass:
    """One forward pass whose graph begins at a layer.

    Args:
        network: the network that runs.
        images: B×C×H×W in [0, 1].
        layer: where the graph begins; None is at the pixels.
        whole: the leaf is the tensor in the layer's output as it is, be it a map or not.
        folded: whether the copy runs whose BatchNorms are folded into the convolutions.
        around: a context that the pass runs in.

    Raises:
        ValueError: for a layer that is unknown, unused, or without spatial features, and for tokens at whose
            positions the logits do not depend on them.
    """
    logits_of = network.logits if folded else network.unfolded_logits
    if layer is None:
        leaf = images.detach().clone().requires_grad_()
        with running_eagerly(), around or nullcontext():
            return Pass(logits_of(leaf), leaf, _PIXELS_NOT_REACHED)
    form = None
    if whole:
        network.layer(layer)
    else:
        form = layer_map(network, layer)
        if form.extra:
            check_influence(network, layer, form)
    module = network.folded if folded else network.module
    with reading(module, layer, form) as read, running_eagerly(), around or nullcontext():
        logits = logits_of(images)
    return Pass(logits, read.value())


_eager_lock = threading.Lock()
_eager_passes = 0
_eager_stance: AbstractContextManager[Any] = nullcontext()


@contextmanager
def running_eagerly() -> Iterator[None]:
    """Within the block code compiled with ``torch.compile`` runs eagerly.

    The switch is global to the process, so the passes of several threads are counted: the first sets it, the last
    restores it. Before torch 2.6 there is no such switch, and compiled nodes remain in the graph.
    """
    global _eager_passes, _eager_stance
    with _eager_lock:
        # Importing torch._dynamo takes seconds; until it is imported nothing has been compiled.
        if _eager_passes == 0 and "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            _eager_stance = torch.compiler.set_stance("force_eager")
            _eager_stance.__enter__()
        _eager_passes += 1
    try:
        yield
    finally:
        with _eager_lock:
            _eager_passes -= 1
            if _eager_passes == 0:
                stance, _eager_stance = _eager_stance, nullcontext()
                stance.__exit__(None, None, None)


@contextmanager
def reading(module: nn.Module, name: str, form: LayerMap | None = None) -> Iterator[Layer]:
    """Within the block the map of ``form`` in the output of ``module``'s layer ``name`` in this thread becomes a new
    leaf of the graph, which is kept; without a form the whole tensor does.
    """
    layer = Layer(name)

    def as_leaf(output: Tensor) -> Tensor:
        if not output.is_floating_point():
            raise ValueError(
                f"layer: {name!r} has no gradient (expected floating point, got {output.dtype}); use occlusion, "
                "blur_occlusion or variable_occlusion"
            )
        output = output.detach()
        values = output if form is None else form.channels_first(output)
        layer.output = values.clone().requires_grad_()
        after = layer.output.clone()  # what follows may write into it
        return after if form is None else form.as_output(after, output)

    with replacing(module, name, as_leaf, None if form is None else form.runs):
        yield layer


@contextmanager
def watching(module: nn.Module, name: str) -> Iterator[Layer]:
    """Within the block the output of ``module``'s layer ``name`` in this thread is kept; the graph continues
    through it.
    """
    layer = Layer(name)

    def keep(output: Tensor) -> Tensor:
        layer.output = output
        return output.clone()  # what follows may write into it

    with replacing(module, name, keep):
        yield layer
