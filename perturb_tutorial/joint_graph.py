"""The joint graph: score, gradient and probabilities of a masked image as one ONNX file.

A runtime without automatic differentiation can optimize a mask once the gradient is part of the graph:

    mask m (N×1×h×w), image x, background x′ (N×3×S×S), weights w (N×K)
      → score  s = Σ_c w_c f_c(x · M + x′ · (1 − M)),  M = U m Uᵀ     N values
      → gradient  ∂s/∂m                                               N×1×h×w
      → probabilities  f                                              N×K

x and x′ are pixels in [0, 1]; normalization and upsampling are in the graph, the regularizers, Adam and the
jitter (both pictures shifted) are the caller's. w is 1 for each target class.

The network is the folded copy. Its backward pass is recorded by running ``torch.autograd.grad`` under a tracer
and is written in operations that every runtime has: the gradient of a convolution is a convolution with the
turned weight where the stride is 1 and a transposed one elsewhere, that of max pooling a scatter. A clipped unit
(ReLU6) takes its gradient from its output, so that a runtime can merge the clip into the convolution before it.
"""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from perturb_tutorial.files import whole_file
from perturb_tutorial.masks import upsampling_matrix
from perturb_tutorial.networks import Network
from perturb_tutorial.settings import REFERENCE_SIZE, MaskSettings

INPUTS = ("mask", "image", "background", "weights")
OUTPUTS = ("score", "gradient", "probabilities")
OPSET = 18
HALVED_FROM = 100
"""Numbers from which a layer's weight is halved; the mean and deviation of the normalization have three."""
_MISSING = "the joint graph needs the packages onnx and onnxscript: run: pip install 'perturb_tutorial[onnx]'"
_UNKNOWN = "network: {name} has {what}; engine='torch' works with it"

aten = torch.ops.aten


def export_joint_graph(
    network: Network,
    path: str | Path,
    *,
    settings: MaskSettings | None = None,
    batch_size: int = 1,
    half_weights: bool = False,
    external_weights: str | None = None,
) -> None:
    """Writes the joint graph of ``network`` (module docstring) to ``path``, whole or not at all.

    ``settings``: their grid and softening are built in, nothing else. ``batch_size``: N. ``half_weights``: the
    weights of layers are stored as float16 and cast back, which halves the file; the arithmetic stays float32
    (:func:`with_half_weights` is the same network here). ``external_weights``: the name of a file beside
    ``path`` that takes the weights.
    Errors: ``ImportError`` without the packages onnx and onnxscript; ``ValueError`` for a network whose backward
    pass needs an operation that the format cannot express.
    """
    if external_weights is not None and Path(external_weights).name != external_weights:
        raise ValueError(f"external_weights: expected a file name without a folder, got {external_weights!r}")
    path = Path(path)
    settings = settings or MaskSettings()
    model = joint_model(trace_joint(network, settings, batch_size), network.name)
    import onnx

    if half_weights:
        _halve(model, upsampling={network.input_size, settings.grid_size})
    if external_weights is None:
        with whole_file(path) as file:
            file.write(model.SerializeToString())
        return
    (path.parent / external_weights).unlink(missing_ok=True)  # onnx would append to it
    onnx.save_model(model, path, save_as_external_data=True, location=external_weights, size_threshold=1024)


def trace_joint(network: Network, settings: MaskSettings, batch_size: int) -> fx.GraphModule:
    """The joint function of ``INPUTS`` to ``OUTPUTS`` as a graph of plain tensor operations, on the CPU."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size: expected a whole number of at least 1, got {batch_size!r}")
    example = _example(network, settings, batch_size)
    function = joint_function(network, settings)
    try:
        graph = make_fx(function, decomposition_table=_BACKWARD)(*example)
    except NotImplementedError as error:
        raise ValueError(_UNKNOWN.format(name=network.name, what=error)) from error
    _clip_from_output(graph)
    return graph


def joint_function(
    network: Network, settings: MaskSettings
) -> Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """The joint function by automatic differentiation, on the CPU: what the graph is recorded from."""
    size = network.input_size
    up = upsampling_matrix(size, settings.grid_size, settings.mask_sigma * size / REFERENCE_SIZE).float()
    # Contiguous weights: a file has no memory layout, and a copy for its sake would stay in the graph.
    module = copy.deepcopy(network.to("cpu").folded).float()
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def joint(mask: Tensor, image: Tensor, background: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            grid = mask.detach().requires_grad_(True)
            upsampled = up @ grid @ up.T
            pixels = background + (image - background) * upsampled
            output = module(network.normalize(pixels))
            probabilities = (output if isinstance(output, Tensor) else output.logits).softmax(1)
            score = (probabilities * weights).sum(1)
            (gradient,) = torch.autograd.grad(score.sum(), grid)
        return score.detach(), gradient, probabilities.detach()

    return joint  # type: ignore[return-value]


def joint_model(graph: fx.GraphModule, name: str) -> Any:
    """The traced graph as an ``onnx.ModelProto``."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(_MISSING) from error
    example = tuple(node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own use of old names
            program = torch.onnx.export(
                graph,
                tuple(torch.zeros(value.shape, dtype=value.dtype) for value in example),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        operation = re.search(r"op='([\w.]+)'", str(error))
        what = operation[1] if operation else "an operation"
        raise ValueError(_UNKNOWN.format(name=name, what=f"{what}, which ONNX lacks")) from error
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model: Any = program.model_proto
    model.graph.name = name
    # The exporter notes this machine's paths at every node.
    for item in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    return model


def with_half_weights(network: Network) -> Network:
    """A network whose folded weights are rounded to float16 and back: what ``half_weights`` stores."""
    module = copy.deepcopy(network.folded)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.dim() > 1 and weight.numel() >= HALVED_FROM:
                weight.copy_(weight.half().to(weight))
    return Network(
        module,
        mean=network.mean,
        std=network.std,
        input_size=network.input_size,
        categories=network.labels,
        name=network.name,
        device=network.device,
        channels_last=network.channels_last,
    )


def _example(network: Network, settings: MaskSettings, count: int) -> tuple[Tensor, ...]:
    size, cells = network.input_size, settings.grid_size
    generator = torch.Generator().manual_seed(0)
    mask, image, background = (
        torch.rand(count, channels, side, side, generator=generator)
        for channels, side in ((1, cells), (3, size), (3, size))
    )
    return mask, image, background, torch.zeros(count, network.class_count)


def _convolution_backward(
    gradient: Tensor,
    inputs: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor, None, None]:
    """The gradient of a convolution with respect to its input, itself a convolution."""
    if transposed or wanted[1] or wanted[2]:
        raise NotImplementedError("a transposed convolution or a trainable one")
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if all(step == 1 for step in stride) and all(r >= p for r, p in zip(reach, padding, strict=True)):
        turned = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
        if any(reach):
            turned = turned.flip(list(range(2, weight.dim())))
        around = [r - p for r, p in zip(reach, padding, strict=True)]
        none = [0] * len(around)
        return (
            aten.convolution(gradient, turned, None, stride, around, dilation, False, none, groups),
            None,
            None,
        )
    whole = [
        (n - 1) * s - 2 * p + r + 1
        for n, s, p, r in zip(gradient.shape[2:], stride, padding, reach, strict=True)
    ]
    extra = [n - w for n, w in zip(inputs.shape[2:], whole, strict=True)]
    return (
        aten.convolution(gradient, weight, None, stride, padding, dilation, True, extra, groups),
        None,
        None,
    )


def _max_pool_backward(gradient: Tensor, inputs: Tensor, *settings: Any) -> Tensor:
    """Each output's gradient goes to the input that was its maximum; ``settings`` end with its indices."""
    indices: Tensor = settings[-1]
    flat = gradient.new_zeros(*inputs.shape[:2], inputs.shape[2:].numel())
    return flat.scatter_add(2, indices.flatten(2), gradient.flatten(2)).view(inputs.shape)


def _average_pool_backward(
    gradient: Tensor,
    inputs: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil: bool,
    padding_counts: bool,
    divisor: int | None,
) -> Tensor:
    """Average pooling is y = P x Qᵀ with a matrix for each axis, and its gradient Pᵀ g Q."""
    if divisor is not None:
        raise NotImplementedError("an average pooling with a divisor of its own")
    matrices = []
    for axis in (0, 1):
        size, pad = inputs.shape[2 + axis], padding[axis % len(padding)]
        step = (stride or kernel)[axis % len(stride or kernel)]
        window = kernel[axis % len(kernel)]
        matrix = np.zeros((gradient.shape[2 + axis], size), np.float32)
        for row in range(len(matrix)):
            first, last = row * step - pad, min(row * step - pad + window, size + pad)
            inside = slice(max(first, 0), min(last, size))
            matrix[row, inside] = 1 / (last - first if padding_counts else inside.stop - inside.start)
        matrices.append(torch.from_numpy(matrix))
    return matrices[0].T @ gradient @ matrices[1]


def _adaptive_pool_backward(gradient: Tensor, inputs: Tensor) -> Tensor:
    """The same for windows from ⌊o n / k⌋ to ⌈(o + 1) n / k⌉, n places averaged to k."""
    matrices = []
    for size, places in zip(inputs.shape[2:], gradient.shape[2:], strict=True):
        matrix = np.zeros((places, size), np.float32)
        for row in range(places):
            first, last = row * size // places, -(-(row + 1) * size // places)
            matrix[row, first:last] = 1 / (last - first)
        matrices.append(torch.from_numpy(matrix))
    return matrices[0].T @ gradient @ matrices[1]


_BACKWARD: dict[Any, Callable[..., Any]] = {
    **get_decompositions(
        [
            aten.elu_backward,
            aten.gelu_backward,
            aten.hardsigmoid_backward,
            aten.hardswish_backward,
            aten.leaky_relu_backward,
            aten.native_batch_norm_backward,
            aten.native_group_norm_backward,
            aten.native_layer_norm_backward,
            aten.sigmoid_backward,
            aten.silu_backward,
            aten.softplus_backward,
            aten.tanh_backward,
        ]
    ),
    aten.convolution_backward.default: _convolution_backward,
    aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
    aten.avg_pool2d_backward.default: _average_pool_backward,
    aten._adaptive_avg_pool2d_backward.default: _adaptive_pool_backward,
}


def _clip_from_output(graph: fx.GraphModule) -> None:
    """In place: gradients of clips (ReLU6) read the clip's output, low < y < high, instead of its input."""
    clips = {node.args: node for node in graph.graph.nodes if node.target == aten.hardtanh.default}
    for node in list(graph.graph.nodes):
        if node.target != aten.hardtanh_backward.default:
            continue
        gradient, inputs, low, high = node.args
        output = clips.get((inputs, low, high), inputs)
        call = graph.graph.call_function
        with graph.graph.inserting_before(node):
            above, below = call(aten.gt.Scalar, (output, low)), call(aten.lt.Scalar, (output, high))
            inside = call(aten.logical_and.default, (above, below))
            zero = call(aten.scalar_tensor.default, (0.0,))
            node.replace_all_uses_with(call(aten.where.self, (inside, gradient, zero)))
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _halve(model: Any, upsampling: set[int]) -> None:
    """In place: float32 weights of layers become float16 and a cast back; ``upsampling``: the sides of U."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for item in list(model.graph.initializer):
        kept = len(item.dims) < 2 or math.prod(item.dims) < HALVED_FROM or set(item.dims) - {1} == upsampling
        if kept or item.data_type != TensorProto.FLOAT:
            continue
        half = numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float16), f"{item.name}_half")
        casts.append(helper.make_node("Cast", [half.name], [item.name], to=TensorProto.FLOAT))
        model.graph.initializer.remove(item)
        model.graph.initializer.append(half)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


__all__ = [
    "INPUTS",
    "OUTPUTS",
    "export_joint_graph",
    "joint_function",
    "joint_model",
    "trace_joint",
    "with_half_weights",
]
