"""engine="compile": the network's forward and backward pass by ``torch.compile``, for many images on a GPU.

The compiler merges elementwise operations, poolings and concatenations that PyTorch otherwise runs one by one. It
takes a minute or so for each network and batch size, once a process, so it pays from some hundreds of images on.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from perturb_tutorial.batches import out_of_memory
from perturb_tutorial.networks import Network

_compiled: WeakKeyDictionary[Network, Any] = WeakKeyDictionary()


def compiled_logits(network: Network, inputs: Tensor) -> Tensor:
    """The same as ``network.normalized_logits``, by compiled code; differentiable in the inputs.

    Errors: ``ValueError`` for a network that cannot be compiled here.
    """
    if network not in _compiled:
        _compiled[network] = torch.compile(network.folded_logits, dynamic=False)
    if network.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    try:
        logits: Tensor = _compiled[network](inputs)
    except Exception as error:  # the compiler and the compilers behind it may raise anything
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"engine: {network.name} cannot be compiled here ({type(error).__name__}: {reason}); use engine='torch'"
        ) from error
    return logits
