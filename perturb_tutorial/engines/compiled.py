"""engine="compile": the network's forward and backward pass by ``torch.compile``, for many images on a GPU.

The compiler merges elementwise operations, poolings and concatenations that PyTorch otherwise runs one by one. It
takes a minute or so for each network and batch size, once a process, so it pays from some hundreds of images on.

The first gradient of each form of input is compared with the one that PyTorch computes without the compiler.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from perturb_tutorial.batches import out_of_memory
from perturb_tutorial.networks import Network
from perturb_tutorial.networks.gradients import check_gradient

ALIKE, ALIKE_ROUNDED = 0.99, 0.5
"""The least cosine of the two gradients, the median over the images: in float32, where only units that round to the
other side of a clip make a difference, and with fewer digits. A wrong graph's is near 0."""

_compiled: WeakKeyDictionary[Network, Any] = WeakKeyDictionary()
_compared: WeakKeyDictionary[Network, set[tuple[Any, ...]]] = WeakKeyDictionary()


def compiled_logits(network: Network, inputs: Tensor) -> Tensor:
    """The same as ``network.normalized_logits``, by compiled code; differentiable in the inputs N×C×H×W.

    Errors: ``ValueError`` for a network that cannot be compiled here, or whose compiled gradient is another one.
    """
    kind = inputs.device.type
    tf32 = (
        kind == "cuda" and torch.backends.cudnn.allow_tf32
    )  # which stands at True on a CPU and means nothing there
    rounded = tf32 or torch.is_autocast_enabled(kind)
    form = (tuple(inputs.shape), rounded)
    compared = _compared.setdefault(network, set())
    if form not in compared:
        _compare(network, inputs.detach(), exact=not rounded)
        compared.add(form)
    return _run(network, inputs)


def _run(network: Network, inputs: Tensor) -> Tensor:
    if network not in _compiled:
        _compiled[network] = torch.compile(network.folded_logits, dynamic=False)
    inputs = inputs.to(network.dtype)
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


def _compare(network: Network, inputs: Tensor, *, exact: bool) -> None:
    """Raises where the compiled passes have another gradient than the plain ones."""
    gradients = []
    for logits_of in (network.normalized_logits, lambda x: _run(network, x)):
        wanted = inputs.clone().requires_grad_(True)
        with torch.enable_grad():
            logits = logits_of(wanted).float()
            check_gradient(logits, wanted)
            (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), wanted)
        gradients.append(gradient.flatten(1))
    alike = float(torch.nn.functional.cosine_similarity(gradients[0], gradients[1]).median())
    if not alike >= (ALIKE if exact else ALIKE_ROUNDED):  # which NaN is not
        raise ValueError(
            f"engine: {network.name} has another gradient when it is compiled (cosine {alike:.2f} with PyTorch's); use "
            "engine='torch'"
        )
