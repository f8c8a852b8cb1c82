"""How exactly a device multiplies.

By default PyTorch lets NVIDIA's GPUs round the factors of a convolution to 11 binary digits (TF32), and under
``torch.autocast`` every device rounds them to 8 or 11. That is enough for 300 steps of Adam to arrive at another mask,
so in this package float32 means float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def arithmetic(device: torch.device, precision: str = "float32") -> Iterator[None]:
    """Within the block there is no autocast, and convolutions on an NVIDIA GPU are exact float32, or TF32 where
    ``precision`` is "tf32".

    Linear layers and other matrix products stay as the caller has set them (``torch.set_float32_matmul_precision``,
    exact by default). The setting of TF32 is PyTorch's own and applies to all threads.
    """
    with torch.autocast(device.type, enabled=False), _convolutions(device, precision):
        yield


@contextmanager
def _convolutions(device: torch.device, precision: str) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    settings = torch.backends.cudnn
    before = settings.allow_tf32
    settings.allow_tf32 = precision != "float32"
    try:
        yield
    finally:
        settings.allow_tf32 = before
