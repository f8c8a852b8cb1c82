"""The number format that a module computes in, and that of its input.

Weights in float16 or bfloat16 are converted to float32, which holds each of them exactly. A gradient in float16 would
be 0 below 6e-8, where those of a score by the pixels may lie, and on a CPU half precision is slow or missing. Passes in
bfloat16 are a choice of ``learn_masks(precision=…)``. float64 stays float64.

A module that asks for half precision in its own forward pass cannot be converted. With bfloat16, whose range is that of
float32, it runs as it is, with a warning; with float16 it is refused.

The input has the format with which the module runs: in a module of several formats not always that of the first weight.
"""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from perturb_tutorial.batches import out_of_memory

HALF = (torch.float16, torch.bfloat16)


def in_own_format(module: nn.Module, example: Tensor) -> tuple[nn.Module, torch.dtype]:
    """``module``, converted to float32 where its weights are in half precision, and the format of its input.

    Args:
        module: in evaluation mode; it stays as it is.
        example: an input, in any format.

    Raises:
        ValueError: for a module with float16 weights that runs in float16 and not in float32.
    """
    values = (*module.parameters(), *module.buffers())
    formats = {value.dtype for value in values if value.is_floating_point()}
    if formats <= {torch.float32}:
        return module, torch.float32
    if not formats & set(HALF):
        return module, _input_format(module, example)[0]
    converted = _without_halves(copy.deepcopy(module))
    format_, error = _input_format(converted, example)
    if error is None:
        return converted, format_
    own, own_error = _input_format(module, example)
    if own_error is not None:
        return converted, format_
    reason = f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    if torch.float16 in formats:
        raise ValueError(
            "module: expected weights in float32, bfloat16 or float64, got float16, whose gradients round to 0, in a "
            f"forward pass that does not run in float32 {reason}; convert it by module.bfloat16(), or let the forward "
            "pass take its format from its weights"
        ) from error
    warnings.warn(
        f"module: its forward pass does not run in float32 {reason}, so scores are rounded to bfloat16, 0.4 %, and "
        "small differences between them are noise; let the forward pass take its format from its weights",
        stacklevel=4,
    )
    return module, own


def _without_halves(module: nn.Module) -> nn.Module:
    """In place: weights and buffers in half precision become float32."""
    for value in (*module.parameters(), *module.buffers()):
        if value.dtype in HALF:
            value.data = value.data.float()
    return module


def _input_format(module: nn.Module, example: Tensor) -> tuple[torch.dtype, Exception | None]:
    """The first of the module's formats in which it runs; if it runs in none, the first of all and its error.

    The formats are tried in this order: of convolutions and linear layers, of other weights, of buffers; float32.
    """
    layers = (layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    weights = [getattr(layer, "weight", None) for layer in layers]
    values = [*weights, *module.parameters(), *module.buffers()]
    floats = [value.dtype for value in values if isinstance(value, Tensor) and value.is_floating_point()] or [
        torch.float32
    ]
    errors: list[Exception] = []
    for format_ in dict.fromkeys([*floats, torch.float32]):
        try:
            with torch.inference_mode():
                module(example.to(format_))
            return format_, None
        except Exception as error:  # a module may raise anything
            if isinstance(error, RuntimeError) and out_of_memory(error):
                raise
            errors.append(error)
    return floats[0], errors[0]
