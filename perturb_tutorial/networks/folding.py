"""BatchNorm folded into the convolution (or linear layer) before it.

In evaluation a BatchNorm is y = γ (x − μ) / √(v + ε) + β for each channel, and the layer before it is linear in
its weight: one layer with a scaled weight and a shifted bias does the work of both.

A convolution that first copies its input into a larger one with zeros around it (EfficientNet's "same" padding) gets
that padding as its own where it is equal on both sides: the same numbers, without the copies.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from perturb_tutorial.networks.hooks import first_input

FOLDED_TOLERANCE = 1e-4
"""Largest difference of the folded copy's logits, relative to the largest logit, before it is refused."""

_LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_batchnorm(module: nn.Module, example: Tensor) -> nn.Module:
    """A copy of ``module`` (in evaluation mode) without the BatchNorms that directly follow a linear layer.

    Which layer feeds which BatchNorm is observed in one forward pass of ``example``, so any ``forward`` works, also
    one that cannot be traced. ``module`` itself is returned where there is nothing to fold, and where the logits of
    the copy differ from the module's.
    """
    expected, pairs = _watch(module, example)
    if not pairs or not torch.isfinite(expected).all():
        return module
    folded = copy.deepcopy(module)
    for linear_name, norm_name in pairs:
        _fold_pair(folded, linear_name, norm_name)
    for layer in folded.modules():
        _absorb_padding(layer)
    with torch.inference_mode():
        difference = (folded(example) - expected).abs().max()
    return folded if difference <= FOLDED_TOLERANCE * expected.abs().max().clamp(min=1) else module


def _absorb_padding(layer: nn.Module) -> None:
    """In place: a ``static_padding`` (efficientnet-lite-pytorch's name) becomes the convolution's own padding."""
    zeros = getattr(layer, "static_padding", None)
    if not isinstance(layer, nn.Conv2d) or not isinstance(zeros, nn.ZeroPad2d) or any(layer.padding):
        return
    left, right, top, bottom = zeros.padding
    if (left, top) == (right, bottom):
        layer.padding = (top, left)
        layer.static_padding = nn.Identity()


def _watch(module: nn.Module, example: Tensor) -> tuple[Tensor, list[tuple[str, str]]]:
    """The output, and the names (linear, norm) of each pair in which the norm's input is the linear layer's output."""
    made_by: dict[tuple[int, int], str] = {}  # by id and version: an in-place ReLU in between counts
    kept: list[Tensor] = []  # keeps every output alive, so that no id() is used twice
    calls: dict[str, int] = {}
    pairs: list[tuple[str, str]] = []

    def hook(name: str, layer: nn.Module) -> Callable[[nn.Module, Any, Any, Tensor], None]:
        def watch(_: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Any], output: Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            if output.is_inference():
                return  # it has no version
            if isinstance(layer, _LINEAR):
                kept.append(output)
                made_by[_state(output)] = name
            elif (source := made_by.get(_state(first_input(inputs, named)))) is not None:
                pairs.append((source, name))

        return watch

    handles = [
        layer.register_forward_hook(hook(name, layer), with_kwargs=True)
        for name, layer in module.named_modules()
        if (isinstance(layer, _LINEAR) and _plain(layer))
        or (isinstance(layer, _NORMS) and layer.running_mean is not None)
    ]
    try:
        with torch.no_grad():  # inference tensors have no version
            output = module(example)
    finally:
        for handle in handles:
            handle.remove()
    return output, [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == 1]


def _state(value: Tensor) -> tuple[int, int]:
    return id(value), -1 if value.is_inference() else value._version


def _fold_pair(module: nn.Module, linear_name: str, norm_name: str) -> None:
    """In place, in float64 on the CPU: Apple's GPUs have no float64, and every device gets the same weights."""
    linear, norm = module.get_submodule(linear_name), module.get_submodule(norm_name)
    running_mean, running_var = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    weight = cast(Tensor, linear.weight)
    scale = (_exact(running_var) + cast(float, norm.eps)).rsqrt()
    if isinstance(norm.weight, Tensor):
        scale = scale * _exact(norm.weight)
    bias = _exact(linear.bias) if isinstance(linear.bias, Tensor) else torch.zeros_like(scale)
    shift = (bias - _exact(running_mean)) * scale
    if isinstance(norm.bias, Tensor):
        shift = shift + _exact(norm.bias)
    shape = (-1,) + (1,) * (weight.dim() - 1)
    linear.weight = nn.Parameter((_exact(weight) * scale.view(shape)).to(weight), requires_grad=False)
    linear.bias = nn.Parameter(shift.to(weight), requires_grad=False)
    parent, _, child = norm_name.rpartition(".")
    setattr(module.get_submodule(parent), child, nn.Identity())


def _plain(layer: nn.Module) -> bool:
    """Whether the weight is a parameter of the layer itself, not computed by a parametrization or a hook."""
    return "weight" in layer._parameters


def _exact(value: Tensor) -> Tensor:
    return value.cpu().double()
