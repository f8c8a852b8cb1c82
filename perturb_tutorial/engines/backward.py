"""The joint graph's backward pass in operations that every runtime has.

PyTorch's tracer records a backward pass in operations such as ``convolution_backward`` that a file format for
forward passes lacks. This module expresses each by other operations: the gradient of a convolution is a convolution
with the flipped weight where the stride is 1 and a transposed one elsewhere; max pooling finds its maxima again by
comparing; average pooling is a product with a matrix for each axis. A clipped unit (ReLU6) takes its gradient from its
output, so that a runtime can merge the clip into the convolution before it.

Activations are N×C×H×W; a gradient has the shape of its activation. The functions have the arguments of the ATen
operators that they replace.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch._decomp import get_decompositions

aten = torch.ops.aten


class NoRuleError(Exception):
    """An operation whose backward pass has no rule here; the message is a phrase that names it."""


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
        raise NoRuleError("a transposed convolution or a trainable one")
    sizes = weight.shape[2:]
    # One number stands for all sides, as with padding="valid".
    stride, padding, dilation = (
        list(values) * len(sizes) if len(values) == 1 else values for values in (stride, padding, dilation)
    )
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
    """Each output's gradient goes to the first input of its window that equals it, in reading order.

    Runtimes are slow at the indices of maxima and at scattering, so neither is used. A maximum over a rectangle is
    the maximum of its rows' maxima, and the backward pass has the same two steps: down the columns of windows, then
    along their rows.
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
    """The same along one axis: the k-th inputs of all windows are read at once and compared with the outputs.

    Args:
        gradient: with respect to the output.
        inputs: of the pooling.
        output: the maxima.
        axis: 2 (y) or 3 (x).
        kernel: the window's length in px.
        stride: between windows in px.
        padding: on each side in px.
        dilation: between the inputs of a window in px.

    Returns:
        The gradient with respect to the inputs.
    """
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
    """``values`` at ``places`` along one of their four axes, and ``outside`` where a place is out of range."""
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
        raise NoRuleError("an average pooling with a divisor of its own")
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


def _upsampling_backward(forward: Any) -> Callable[..., Tensor]:
    """The same for an enlargement of N×C×H×W, whose matrices are what ``forward`` makes of the unit vectors."""

    def backward(
        gradient: Tensor, output_size: Sequence[int], input_size: Sequence[int], *options: Any
    ) -> Tensor:
        corners = [option for option in options if isinstance(option, bool)]  # "nearest" has no such option
        scales = [*options[len(corners) :], None, None][:2]  # the tracer leaves None at the end out
        matrices = []
        for places, size, scale in zip(output_size, input_size[2:], scales, strict=True):
            units = torch.eye(size, dtype=torch.float32, device="cpu").view(1, size, size, 1)
            matrices.append(forward(units, [places, 1], *corners, scale, None)[0, :, :, 0])
        result: Tensor = matrices[0] @ gradient @ matrices[1].T
        return result

    return backward


BACKWARD: dict[Any, Callable[..., Any]] = {
    **get_decompositions(
        [
            aten._fused_rms_norm_backward,
            aten._prelu_kernel_backward,
            aten.elu_backward,
            aten.gelu_backward,
            aten.glu_backward,
            aten.hardsigmoid_backward,
            aten.hardswish_backward,
            aten.leaky_relu_backward,
            aten.log_sigmoid_backward,
            aten.mish_backward,
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
    aten.upsample_bicubic2d_backward.default: _upsampling_backward(aten.upsample_bicubic2d.default),
    aten.upsample_bilinear2d_backward.default: _upsampling_backward(aten.upsample_bilinear2d.default),
    aten.upsample_nearest2d_backward.default: _upsampling_backward(aten.upsample_nearest2d.default),
}


def clips_from_outputs(graph: fx.GraphModule) -> None:
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


def pools_without_indices(graph: fx.GraphModule) -> None:
    """In place: one max pooling where forward and backward pass compute the same one, without indices, which are
    unused.
    """
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


__all__ = ["BACKWARD", "NoRuleError", "clips_from_outputs", "pools_without_indices"]
