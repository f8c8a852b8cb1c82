"""Slow references in float64: every operation's rule written out, on the graph that torch.fx traces.

A linear operation is a dense matrix, found by giving it the unit vectors; weights have no other form here.
``lite_masses`` writes EfficientNet-Lite's blocks out by hand.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

LINEAR = (nn.Conv2d, nn.Linear, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
RELU = (functional.relu, torch.relu, "relu", "relu_")
RELU6 = (functional.relu6, functional.hardtanh)
ADD = (operator.add, operator.iadd, torch.add)
RESHAPE = (torch.flatten, "flatten", "view", "reshape")


class _Values(fx.Interpreter):
    """The value of every node; operations in place get a copy."""

    def run_node(self, node: fx.Node) -> Any:
        with torch.no_grad():
            args, kwargs = self.fetch_args_kwargs_from_env(node)
            fresh = fx.node.map_aggregate(
                args, lambda item: item.clone() if isinstance(item, Tensor) else item
            )
            value = getattr(self, node.op)(node.target, fresh, kwargs)
        self.values[node] = value.clone() if isinstance(value, Tensor) else value
        return value


def reference_signal(
    module: nn.Module, images: Tensor, signal: Tensor, rules: str, layer: str | None
) -> Tensor:
    """The ``signal`` N×K at the logits, sent down to the output of the leaf ``layer`` or to the images.

    ``rules``: gradient, guided or excitation.
    """
    graph = fx.symbolic_trace(module.double().eval())
    interpreter = _Values(graph)
    interpreter.values = {}
    interpreter.run(images.double())
    rows = []
    for row in range(len(images)):
        values = {
            node: value[row : row + 1] if isinstance(value, Tensor) and node.op != "get_attr" else value
            for node, value in interpreter.values.items()
        }
        rows.append(_send_down(graph, values, signal[row : row + 1].double(), rules, layer))
    return torch.cat(rows)


def _send_down(graph: fx.GraphModule, values: Any, signal: Tensor, rules: str, layer: str | None) -> Tensor:
    signals: dict[fx.Node, Tensor] = {}
    for node in reversed(graph.graph.nodes):
        if node.op == "output":
            signals[node.args[0]] = signal
            continue
        if node not in signals:
            continue
        if (node.op == "placeholder" and layer is None) or (
            node.op == "call_module" and node.target == layer
        ):
            return signals[node]
        for below, part in _rule(graph, node, values, signals[node], rules):
            signals[below] = signals.get(below, 0) + part
    raise AssertionError(f"{layer} was not met")


def _rule(graph: fx.GraphModule, node: fx.Node, values: Any, out: Tensor, rules: str) -> list[Any]:
    """(node below, its signal) for each input of ``node``."""
    below = node.args[0]
    target = graph.get_submodule(node.target) if node.op == "call_module" else node.target
    if target is torch.cat:
        sizes = [values[part].shape[node.args[1]] for part in below]
        return list(zip(below, out.split(sizes, node.args[1]), strict=True))
    if target is operator.mul:
        below, factor = node.args[::-1] if not isinstance(below, fx.Node) else node.args
        return [(below, out if rules == "excitation" else out * factor)]
    a = values[below]
    if target in ADD:
        parts = [values[part] for part in node.args]
        if rules != "excitation":
            return [(part, out) for part in node.args]
        total = sum(part.clamp(min=0) for part in parts)
        return [(node.args[i], _divide(out * part.clamp(min=0), total)) for i, part in enumerate(parts)]
    if isinstance(target, nn.ReLU) or target in RELU:
        return [(below, _rectify(out, a > 0, rules))]
    if isinstance(target, nn.Hardtanh) or target in RELU6:
        return [(below, _rectify(out, (a > 0) & (a < 6), rules))]
    if isinstance(target, nn.MaxPool2d):
        options = (target.kernel_size, target.stride, target.padding)
        where = functional.max_pool2d(a, *options, return_indices=True)[1]
        result = torch.zeros_like(a).flatten(2)
        for channel in range(a.shape[1]):
            for place, share in zip(where[0, channel].flatten(), out[0, channel].flatten(), strict=True):
                result[0, channel, place] += share
        return [(below, result.view_as(a))]
    if isinstance(target, nn.BatchNorm2d):
        factor = target.weight / (target.running_var + target.eps).sqrt()
        return [(below, out if rules == "excitation" else out * factor.view(1, -1, 1, 1))]
    if target in RESHAPE or isinstance(target, nn.Flatten | nn.Dropout) or target is functional.dropout:
        return [(below, out.reshape(a.shape))]
    if target == "mean":
        return [(below, _linear(lambda unit: unit.mean(node.args[1]), a, out, rules))]
    if isinstance(target, LINEAR):
        bias = getattr(target, "bias", None)

        def without_bias(unit: Tensor) -> Tensor:
            zero = target(torch.zeros_like(unit[:1])) if bias is not None else 0.0
            return target(unit) - zero

        return [(below, _linear(without_bias, a, out, rules))]
    raise AssertionError(f"no reference for {target}")


def _linear(function: Any, a: Tensor, out: Tensor, rules: str) -> Tensor:
    units = torch.eye(a.numel(), dtype=torch.float64).view(-1, *a.shape[1:])
    with torch.no_grad():
        matrix = function(units).flatten(1).T
    if rules != "excitation":
        return (matrix.T @ out.flatten()).view_as(a)
    # A difference of two convolutions leaves rounding where the weight is 0.
    matrix = torch.where(matrix > 1e-12, matrix, 0.0)
    positive = a.flatten().clamp(min=0)
    return (positive * (matrix.T @ _divide(out.flatten(), matrix @ positive))).view_as(a)


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator, 0.0)


def _rectify(out: Tensor, passes: Tensor, rules: str) -> Tensor:
    if rules == "excitation":
        return out
    return passes * (out.clamp(min=0) if rules == "guided" else out)


def fold_by_hand(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """The convolution's weight times γ/σ, float64."""
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return conv.weight.detach().double() * factor.detach().view(-1, 1, 1, 1)


def lite_masses(module: nn.Module, inputs: Tensor, signal: Tensor) -> list[Tensor]:
    """Excitation backprop's mass at the output of every block of an EfficientNet-Lite, BatchNorms folded."""
    module = module.double().eval()
    with torch.no_grad():
        x = module._swish(module._bn0(module._conv_stem(inputs.double())))
        tape: list[list[tuple[Tensor, nn.Module, nn.Module]]] = []
        outputs = []
        for block in module._blocks:
            steps, y = [], x
            if block._block_args.expand_ratio != 1:
                steps.append((y, block._expand_conv, block._bn0))
                y = block._bn0(block._expand_conv(y)).clamp(0, 6)
            steps.append((y, block._depthwise_conv, block._bn1))
            y = block._bn1(block._depthwise_conv(y)).clamp(0, 6)
            steps.append((y, block._project_conv, block._bn2))
            y = block._bn2(block._project_conv(y))
            tape.append(steps)
            outputs.append((x, y, x.shape == y.shape and block._block_args.stride == 1))
            x = x + y if outputs[-1][2] else y
        features = module._bn1(module._conv_head(x)).clamp(0, 6)
        pooled = features.mean((2, 3))
        weight = module._fc.weight.clamp(min=0)
        mass = pooled * (_divide(signal.double(), pooled @ weight.T) @ weight)
        mass = features * _divide(mass, features.sum((2, 3)))[:, :, None, None]
        mass = _conv_mass(x, module._conv_head, module._bn1, mass)
        masses = [mass]
        for steps, (x, y, residual) in zip(reversed(tape), reversed(outputs), strict=True):
            past = 0.0
            if residual:
                total = x.clamp(min=0) + y.clamp(min=0)
                past, mass = _divide(mass * x.clamp(min=0), total), _divide(mass * y.clamp(min=0), total)
            for activation, conv, norm in reversed(steps):
                mass = _conv_mass(activation, conv, norm, mass)
            mass = mass + past
            masses.append(mass)
    return masses[-2::-1]


def _conv_mass(a: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, mass: Tensor) -> Tensor:
    weight = fold_by_hand(conv, norm).clamp(min=0)
    pad = conv.static_padding
    padded = pad(a.clamp(min=0))
    options = {"stride": conv.stride, "groups": conv.groups}
    share = torch.nn.grad.conv2d_input(
        padded.shape, weight, _divide(mass, functional.conv2d(padded, weight, **options)), **options
    )
    left, _, top, _ = pad.padding if isinstance(pad, nn.ZeroPad2d) else (0, 0, 0, 0)
    return (padded * share)[..., top : top + a.shape[2], left : left + a.shape[3]]
