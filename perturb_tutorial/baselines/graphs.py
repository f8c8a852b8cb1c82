"""The autograd graph behind the logits: its nodes by the names that users know, and what cannot be read in it.

Guided and excitation backprop set their rules on single operations. An operation inside a node that combines many
would silently be skipped, so this module finds such nodes, and the methods refuse them with one sentence:

- ``torch.compile``: passes run eagerly (``leaf_pass.running_eagerly``); a compiled node that remains is refused
- ``torch.autograd.Function`` of the user's own, ``torch.cond``, custom operators in Python or C++
- ``torch.utils.checkpoint`` with ``use_reentrant=True``
- TorchScript where its executor has merged operations; scripted modules whose operations run one by one can be read
- recurrent layers on a GPU whose kernel holds the ReLUs

``DataParallel``'s own nodes (scatter, gather) and torchvision's operators are known to hide no activation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from perturb_tutorial.networks.hooks import of_this_thread

_KNOWN = {
    "NativeLayerNorm": "LayerNorm",
    "NativeGroupNorm": "GroupNorm",
    "NativeBatchNorm": "BatchNorm or InstanceNorm",
    "CudnnBatchNorm": "BatchNorm or InstanceNorm",
    "MiopenBatchNorm": "BatchNorm or InstanceNorm",
    "FusedRmsNorm": "RMSNorm",
    "Relu": "ReLU",
    "Gelu": "GELU",
    "Silu": "SiLU",
    "Elu": "ELU",
    "Celu": "CELU",
    "Glu": "GLU",
    "LeakyRelu": "LeakyReLU",
    "PreluKernel": "PReLU",
    "RreluWithNoise": "RReLU",
    "LogSoftmax": "log_softmax",
    "Addmm": "Linear or matmul",
    "Mm": "matmul",
    "Bmm": "matmul",
    "Mv": "matmul",
    "Baddbmm": "matmul",
    "Rsub": "sub",
    "LinalgVectorNorm": "norm",
    "Im2Col": "Unfold",
    "Col2Im": "Fold",
    "MaxPool2DWithIndices": "MaxPool2d",
    "CompiledFunction": "torch.compile",
    "CheckpointFunction": "torch.utils.checkpoint",
    "NotImplemented": "unnamed",  # what torch puts where an operation has no derivative
    "torch::autograd::CopySlices": "in-place operation on a view",
}
_KNOWN_START = {
    "ScaledDotProduct": "scaled_dot_product_attention",
    "Upsample": "interpolate",
    "GridSampler": "grid_sample",
    "Fft": "fft",
    "MkldnnRnn": "recurrent layer",
    "CudnnRnn": "recurrent layer",
    "MiopenRnn": "recurrent layer",
    "torch::jit": "torch.jit",
}


def operation_name(node: Node) -> str:
    """Torch's name of the operation that a node of the graph differentiates: ``Relu`` for ``ReluBackward0``."""
    return re.sub(r"Backward\d*$", "", node.name())


def known_name(node: Node) -> str:
    """The name of the same operation that users know: ``LayerNorm`` for ``NativeLayerNormBackward0``, ``mul`` for
    ``MulBackward0``; the class of a user's own ``autograd.Function``.
    """
    name = operation_name(node)
    for start, known in _KNOWN_START.items():
        if name.startswith(start):
            return known
    if name in _KNOWN or function_of(node) is not None or "::" in name:
        return _KNOWN.get(name, name)
    layer = re.sub(r"(\d)D", r"\1d", name)
    return layer if hasattr(nn, layer) else re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", layer).lower()


class Hidden(NamedTuple):
    """Why a node's operations cannot be read (a phrase that follows its name), and what the user can do about it."""

    why: str
    remedy: str


_COMPILED = Hidden("compiled code whose operations cannot be read", "pass the module before it is compiled")
_CHECKPOINT = Hidden("whose operations cannot be read", "turn checkpointing off")
_SCRIPT = Hidden("scripted code whose operations cannot be read", "pass the module before torch.jit")
_RECURRENT = Hidden("whose ReLUs are inside one kernel", "run it on the CPU, or use gradient")
_NO_GRADIENT = Hidden(
    "an operation without a gradient, such as a quantized layer",
    "use occlusion, blur_occlusion or variable_occlusion",
)
_OWN = Hidden(
    "an autograd.Function or custom operator whose inside cannot be read",
    "write it with torch's own operations (nn.ReLU for a rectifier), or use gradient",
)
_BUILT_IN = re.compile(r"\w+Backward\d+|torch::autograd::(AccumulateGrad|CopyBackwards|CopySlices)")
_HARMLESS = "vision::ops::"  # torchvision's operators in C++
_RELU_MODE = 0
"""``mode`` of a recurrent kernel: 0 ReLU, 1 tanh, 2 LSTM, 3 GRU."""


def hidden(node: Node) -> Hidden | None:
    """Why the operations inside ``node`` cannot be read; None where it is a single operation of torch."""
    name = node.name()
    function = function_of(node)
    if function is not None:
        if name == "CompiledFunctionBackward":
            return _COMPILED
        if name == "CheckpointFunctionBackward":
            return _CHECKPOINT
        return None if function.__module__ == "torch.nn.parallel._functions" else _OWN
    if operation_name(node) in ("CudnnRnn", "MiopenRnn"):
        return _RECURRENT if getattr(node, "_saved_mode", _RELU_MODE) == _RELU_MODE else None
    if _BUILT_IN.fullmatch(name) or _HARMLESS in name:
        return None
    if "NotImplemented" in name:  # torch's name for what it puts where an operation has no derivative
        return _NO_GRADIENT
    return _SCRIPT if "torch::jit" in name else _OWN


def function_of(node: Node) -> type | None:
    """The Python ``autograd.Function`` that made ``node``; its name may be that of an operation of torch."""
    kind: type = type(node)
    return getattr(kind, "_forward_cls", None) if issubclass(kind, BackwardCFunction) else None


class LayersOfOperations:
    """Within this context: which layer of ``module`` runs each operation of this thread's passes.

    An operation belongs to the innermost layer between whose inputs and outputs it lies.
    """

    def __init__(self, module: nn.Module) -> None:
        layers = ((layer, name) for name, layer in module.named_modules() if name)
        self._names = {layer: name for layer, name in layers if not isinstance(layer, torch.jit.ScriptModule)}
        self._layers: dict[Node, nn.Module] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> LayersOfOperations:
        note = of_this_thread(self._note)
        self._handles = [layer.register_forward_hook(note, with_kwargs=True) for layer in self._names]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _note(self, layer: nn.Module, inputs: Any, named: dict[str, Any], output: Any) -> None:
        waiting = [value.grad_fn for value in tensors_in(output)]
        below = {value.grad_fn for value in tensors_in([inputs, list(named.values())])}
        while waiting:
            node = waiting.pop()
            if node is None or node in below or node in self._layers:
                continue
            self._layers[node] = layer
            waiting.extend(source for source, _ in node.next_functions)

    def __getitem__(self, node: Node) -> str:
        """A phrase that names the operation of ``node`` and its layer: 'mul' in layer 'norm' (RMSNorm)."""
        known, layer = known_name(node), self._layers.get(node)
        if layer is None:
            return repr(known)
        kind = type(layer).__name__
        return f"{known!r} in layer {self._names[layer]!r}" + (f" ({kind})" if kind != known else "")


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and dictionaries."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from tensors_in(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors_in(value)
