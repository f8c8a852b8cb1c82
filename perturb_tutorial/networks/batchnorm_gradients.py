"""A wrong gradient of PyTorch's, mended: BatchNorm in evaluation mode, on a CPU, for one image.

Where the gradient that comes back to a BatchNorm has the strides of tokens (N×T×C seen as N×C×h×w) and N is 1, torch
2.13 reads it in the wrong order. Networks that go on with tokens, such as CvT, then get wrong gradients for an image
alone and right ones for two. A contiguous gradient is read rightly, so it is made contiguous.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def with_right_batchnorm_gradients(module: nn.Module) -> nn.Module:
    """``module``, each BatchNorm of which gets its gradient contiguous where it is of one image."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.register_forward_hook(_watch)
    return module


def _watch(layer: nn.Module, inputs: Any, output: Any) -> None:
    if isinstance(output, Tensor) and output.requires_grad and len(output) == 1:
        output.register_hook(_contiguous)


def _contiguous(gradient: Tensor) -> Tensor:
    # A size of 1 has any stride: `contiguous()` may take the strides of tokens for those of an image.
    return gradient.clone(memory_format=torch.contiguous_format)
