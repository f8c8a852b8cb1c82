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
from typing import NamedTuple

from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

_KNOWN = {
    "NativeLayerNorm": "LayerNorm",
    "NativeGroupNorm": "GroupNorm",
    "NativeBatchNorm": "BatchNorm",
    "CudnnBatchNorm": "BatchNorm",
    "MiopenBatchNorm": "BatchNorm",
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
    "torch::autograd::CopySlices": "in-place operation on a view",
}
_KNOWN_START = {"ScaledDotProduct": "scaled_dot_product_attention", "Upsample": "interpolate"}


def operation_name(node: Node) -> str:
    """Torch's name of the operation that a node of the graph differentiates: ``Relu`` for ``ReluBackward0``."""
    return re.sub(r"Backward\d*$", "", node.name())


def known_name(node: Node) -> str:
    """The name of the same operation that users know: ``LayerNorm`` for ``NativeLayerNormBackward0``."""
    name = operation_name(node)
    for start, known in _KNOWN_START.items():
        if name.startswith(start):
            return known
    return _KNOWN.get(name, name)


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
