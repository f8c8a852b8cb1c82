"""A module that returns logits and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from perturb_tutorial.networks.checks import as_logits


class LogitsOnly(nn.Module):
    """The module with nothing but its logits as output; ``read`` finds them there."""

    def __init__(self, module: nn.Module, read: Callable[[Any], Tensor] = as_logits) -> None:
        super().__init__()
        self.module, self.read = module, read

    def forward(self, inputs: Tensor) -> Tensor:
        """N×K from N images."""
        return self.read(self.module(inputs))
