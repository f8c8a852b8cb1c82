"""The same rounding for an image alone and in a batch.

Libraries use another routine for a matrix of one to three rows than for a larger one, and split the convolution of a
single small map among threads. The last bits differ, and 300 steps of Adam can amplify them into another mask: on one
of the sample photographs a difference of 1e-8 in the first score grew to 0.1 in the mask. So while masks are learned, a
linear layer always multiplies at least four rows, and a convolution of a small map works on at least two images; the
padding is cut off again. Large maps dominate the cost and are not padded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from perturb_tutorial.networks.hooks import first_input, of_this_thread

LINEAR_ROWS = 4
"""From this many rows on, a linear layer's routine no longer depends on their number, on the CPUs that were tested."""
SMALL_MAP = 300
"""Pixels up to which a map is small: 7×7 to 17×17, the last two stages of an ImageNet network."""


@contextmanager
def batch_invariant(module: nn.Module, *, off: bool = False) -> Iterator[None]:
    """Within the block ``module`` computes nearly the same bits for an image in a batch of any size; not if ``off``."""
    if off:
        yield
        return
    true_rows: dict[nn.Module, int] = {}

    @of_this_thread
    def pad(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        x = first_input(inputs, named)
        missing = _missing_rows(layer, x)
        if missing == 0:
            return None
        true_rows[layer] = x.shape[0]
        return (torch.cat([x, x[:1].expand(missing, *x.shape[1:])]),), {}

    @of_this_thread
    def cut(layer: nn.Module, _: Any, output: Tensor) -> Tensor | None:
        rows = true_rows.pop(layer, None)
        return None if rows is None else output[:rows]

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    handles = [layer.register_forward_pre_hook(pad, with_kwargs=True) for layer in layers]
    handles += [layer.register_forward_hook(cut) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _missing_rows(layer: nn.Module, x: Any) -> int:
    if not isinstance(x, Tensor):
        return 0
    if isinstance(layer, nn.Linear):
        return max(0, LINEAR_ROWS - x.shape[0]) if x.dim() == 2 else 0
    return 1 if x.dim() == 4 and x.shape[0] == 1 and x.shape[2] * x.shape[3] <= SMALL_MAP else 0
