"""A user's ``reshape``: from a layer's output to a map N×C×h×w, as pytorch-grad-cam's ``reshape_transform``.

For a transformer with a class token and 14×14 patches it is

    reshape = lambda x: x[:, 1:].transpose(1, 2).unflatten(2, (14, 14))

A mask M, N×1×h×w, lies on the map R(a) of the output a. On the output itself it is the factor

    m = 1 − Rᵀ(1 − M),

Rᵀ the adjoint, which autograd computes: an element that R takes has the mask of its position, any other has 1. That is
the mask of R(a) only if R selects elements, each at most once (:func:`check_selects`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Reshape = Callable[[Tensor], Tensor]
"""The tensor in a layer's output → N×C×h×w."""

_EXPECTED = "reshape: expected a callable from the layer's output to N×C×h×w"


def reshaped(reshape: Reshape, output: Tensor, count: int) -> Tensor:
    """``reshape`` of the output for ``count`` images.

    Raises:
        ValueError: for a result that is not N×C×h×w floating point with N = ``count``, or that does not depend on an
            output that has a gradient.
    """
    result = reshape(output)
    given = "×".join(map(str, output.shape))
    if not isinstance(result, Tensor):
        raise ValueError(f"{_EXPECTED}, got {type(result).__name__} from {given}")
    if result.dim() != 4 or len(result) != count or 0 in result.shape or not result.is_floating_point():
        shape = "×".join(map(str, result.shape))
        raise ValueError(f"{_EXPECTED} with N = {count}, got {result.dtype} of {shape} from {given}")
    if output.requires_grad and not result.requires_grad:
        raise ValueError(f"{_EXPECTED} that depends on it, got a map without a gradient by the output")
    return result


def factor(reshape: Reshape, output: Tensor, mask: Tensor) -> Tensor:
    """1 − Rᵀ(1 − M) of the shape of ``output``, for a mask M of N×1×h×w or 1×1×h×w; differentiable in M."""
    return 1 - _adjoint(reshape, torch.zeros_like(output), 1 - mask)


def check_selects(reshape: Reshape, output: Tensor) -> Tensor:
    """The map of a layer's ``output`` for one image, if ``reshape`` selects elements of it, each at most once.

    R selects if (Rᵀv)² = Rᵀv² for random v, Rᵀ1 is the same at two outputs (R is linear), and Rᵀ(R(a)) = a · Rᵀ1 (R
    adds nothing).

    Raises:
        ValueError: if it does not, and as :func:`reshaped`.
    """
    generator = torch.Generator(device="cpu").manual_seed(0)
    probe = torch.randn(output.shape, generator=generator, device="cpu").to(output)
    result = reshaped(reshape, probe.requires_grad_(), 1).detach()
    probe = probe.detach()
    ones = torch.ones_like(result)
    values = torch.randn(result.shape, generator=generator, device="cpu").to(result)
    taken = _adjoint(reshape, probe, ones)
    pairs = (
        (taken, _adjoint(reshape, -probe, ones)),
        (_adjoint(reshape, probe, values).square(), _adjoint(reshape, probe, values.square())),
        (_adjoint(reshape, probe, result), probe * taken),
    )
    if not all(torch.allclose(left, right, rtol=1e-2, atol=1e-3) for left, right in pairs):
        raise ValueError(
            "reshape: expected a callable that selects and reorders elements of the layer's output, each at most "
            "once, as a mask needs, got one that sums, scales, repeats or changes them; Grad-CAM takes any"
        )
    return result


def selected(reshape: Reshape, output: Tensor) -> Tensor:
    """Rᵀ1: 1 where an element of ``output`` is selected, else 0."""
    return _adjoint(reshape, output, output.new_ones(()))


def _adjoint(reshape: Reshape, output: Tensor, signal: Tensor) -> Tensor:
    """Rᵀ ``signal`` at ``output``; the signal is expanded to the shape of R(``output``)."""
    keep = signal.requires_grad and torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        start = output.detach().clone().requires_grad_()
        result = reshape(start)
        signal = signal.to(result.dtype).expand_as(result)
        (back,) = torch.autograd.grad(result, start, signal, create_graph=keep)
    return back


__all__ = ["Reshape", "check_selects", "factor", "reshaped", "selected"]
