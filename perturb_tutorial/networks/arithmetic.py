"""How exactly a GPU multiplies.

By default PyTorch lets NVIDIA's GPUs round the factors of a convolution to 11 binary digits (TF32). That is enough for
300 steps of Adam to arrive at another mask, so in this package float32 means float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def arithmetic(device: torch.device, precision: str = "float32") -> Iterator[None]:
    """Within the block convolutions on an NVIDIA GPU are exact float32, or TF32 where ``precision`` is "tf32".

    Linear layers and other matrix products stay as the caller has set them (``torch.set_float32_matmul_precision``,
    exact by default). On other devices nothing changes. The setting is PyTorch's own and applies to all threads.
    """
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
