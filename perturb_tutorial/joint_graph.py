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
turned weight where the stride is 1 and a transposed one elsewhere; max pooling finds its maxima again by comparing.
A clipped unit (ReLU6) takes its gradient from its output, so that a runtime can merge the clip into the
convolution before it.
"""

from __future__ import annotations

import copy
import math
import operator
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
    _pools_without_indices(graph)
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


def _max_pool_backward(
    gradient: Tensor,
    inputs: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil: bool,
    indices: Tensor,
) -> Tensor:
    """Each output's gradient goes to the first input of its window that equals it, row by row.

    Runtimes are slow at the indices of maxima and at scattering, so neither is used. A maximum over a rectangle is
    one over its rows' maxima, and so is the way back: down the columns of windows, then along their rows.
    """
    kernel, stride, padding, dilation = (_pair(v) for v in (kernel, stride or kernel, padding, dilation))
    rows = aten.max_pool2d_with_indices(
        inputs, [1, kernel[1]], [1, stride[1]], [0, padding[1]], [1, dilation[1]], ceil
    )[0]
    output = aten.max_pool2d_with_indices(inputs, kernel, stride, padding, dilation, ceil)[0]
    for axis, source, result in ((2, rows, output), (3, inputs, rows)):
        at = axis - 2
        gradient = _max_backward(
            gradient, source, result, axis, kernel[at], stride[at], padding[at], dilation[at]
        )
    return gradient


def _max_backward(
    gradient: Tensor,
    inputs: Tensor,
    output: Tensor,
    axis: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
) -> Tensor:
    """The same along one axis: the k-th inputs of all windows are taken at once and compared with the outputs."""
    size, count = inputs.shape[axis], output.shape[axis]
    windows, places = np.arange(count), np.arange(size)
    lowest = torch.finfo(inputs.dtype).min
    left, zero = gradient, gradient.new_zeros(())
    parts: list[Tensor] = []
    for first in range(-padding, kernel * dilation - padding, dilation):
        hit = _take(inputs, axis, windows * stride + first, lowest) == output
        part, left = torch.where(hit, left, zero), torch.where(hit, zero, left)
        window, between = np.divmod(places - first, stride)
        parts.append(_take(part, axis, np.where(between == 0, window, -1), 0.0))
    return sum(parts[1:], start=parts[0])


def _take(values: Tensor, axis: int, places: NDArray[np.int64], outside: float) -> Tensor:
    """``values`` at ``places`` along an axis of four, and ``outside`` where a place is none of theirs."""
    size = values.shape[axis]

    def padded(before: int, after: int) -> Tensor:
        if before == after == 0:
            return values
        around = [0, 0] * (3 - axis) + [before, after]  # the last axis comes first
        result: Tensor = aten.constant_pad_nd(values, around, outside)
        return result

    first, last = int(places[0]), int(places[-1])
    if bool((np.diff(places) == 1).all()):  # a slice, which is cheaper than a gather
        before = max(0, -first)
        return padded(before, max(0, last + 1 - size)).narrow(axis, first + before, len(places))
    inside = (places >= 0) & (places < size)
    return padded(0, 1).index_select(axis, torch.from_numpy(np.where(inside, places, size)))


def _pair(value: Sequence[int]) -> tuple[int, int]:
    return (value[0], value[-1])


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


def _pools_without_indices(graph: fx.GraphModule) -> None:
    """In place: one max pooling where forward and backward ask for the same, and no indices, for nobody reads them."""
    pools: dict[Any, fx.Node] = {}
    for node in list(graph.graph.nodes):
        if node.target != aten.max_pool2d_with_indices.default:
            continue
        key = repr(node.args)
        if key not in pools:
            with graph.graph.inserting_before(node):
                pools[key] = graph.graph.call_function(aten.max_pool2d.default, node.args)
            pools[key].meta = {"val": node.meta["val"][0]}
        for value in list(node.users):
            if value.target is operator.getitem and value.args[1] == 0:
                value.replace_all_uses_with(pools[key])
                graph.graph.erase_node(value)
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
