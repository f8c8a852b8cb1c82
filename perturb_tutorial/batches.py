"""How N images become batches that fit the device's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from perturb_tutorial._outside import check_whole

BATCH_SIZES = {"cpu": 8, "mps": 16, "cuda": 64}
"""Images at once to begin with, by device; halved when the device runs out of memory."""
LARGE_GPU, LARGE_BATCH = 32e9, 256
"""Bytes of memory from which a GPU gets more images at once. On an H200 256 take 10 % less time an image than 64."""


def usual_batch_size(device: torch.device) -> int:
    """Images at once to begin with on ``device``."""
    if device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory >= LARGE_GPU:
        return LARGE_BATCH
    return BATCH_SIZES.get(device.type, 8)


def check_batch_size(batch_size: Any) -> int | None:
    """``batch_size`` as an int, or None for the device's usual number. Errors: ``ValueError``."""
    return None if batch_size is None else check_whole("batch_size", batch_size, 1)


def in_batches(count: int, size: int, run: Callable[[int, int], object]) -> None:
    """Calls ``run(start, stop)`` over 0 … ``count``, at most ``size`` at once, until one returns False.

    A part that runs out of memory is tried again at half the size, down to a single one.
    """
    start = 0
    while start < count:
        stop = min(start + size, count)
        try:
            if run(start, stop) is False:
                return
        except RuntimeError as error:
            if not out_of_memory(error) or size == 1:
                raise
            size = max(1, (stop - start) // 2)
        else:
            start = stop
            continue
        # Outside the except block: the error's traceback holds the batch's tensors.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        elif torch.backends.mps.is_available():
            torch.mps.empty_cache()


def out_of_memory(error: RuntimeError) -> bool:
    """Whether ``error`` says that a device's memory is full."""
    kinds = tuple(
        kind for kind in (getattr(torch, "OutOfMemoryError", None), torch.cuda.OutOfMemoryError) if kind
    )
    # On the CPU and on Apple's GPUs it is a plain RuntimeError.
    phrases = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, kinds) or any(phrase in str(error) for phrase in phrases)
