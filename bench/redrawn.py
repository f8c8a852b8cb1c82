"""Weights that hide no fault: every parameter and statistic of a network is drawn again, and set so that it speaks.

The initialization that a library gives a network is made for the start of a training. torchvision's ViT has a head of
zeros, so every map of it is 0; ConvNeXt's layer scales of 1e-6 let nothing through its blocks; a BatchNorm has mean 0
and variance 1 and leaves folding nothing to do. Here

    matrices        normal with variance 2 / fan-in (He et al., 2015)
    norms           weights 1 ± 0.2, biases ± 0.1; running mean and variance those of noise, changed at random
    layer scales    uniform in ½ … 1
    tokens, tables  normal, ± 0.1
    other numbers   as they were, ± 20 %

Then one pass over noise scales each layer, in the order in which they run, to outputs of standard deviation 1
(Mishkin and Matas, 2016), and the head is scaled until the top class of each image is likely but not certain.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

LEAST_TOP, MOST_TOP = 0.5, 1 - 1e-6
"""The score of the top class: below it no class stands out, above it a softmax has no gradient in float32."""
WANTED_TOP = 0.6
"""To which the head is scaled on the image where the top class stands out least."""
HEADS = 8
"""How often a head is drawn before a network is given up."""
_SCALE = re.compile(r"gamma|layer_?scale|(^|[._])ls\d?([._]|$)|lambda")
_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
_BATCHNORM = nn.modules.batchnorm._BatchNorm


class Mute(Exception):
    """A network that cannot be brought to speak; the message says what is the matter."""


def noise(count: int, sides: tuple[int, int], seed: int) -> Tensor:
    """Images count×3×H×W in [0, 1] with something at every scale, as photographs have."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.full((count, 3, *sides), 0.5)
    cells = 2
    while cells <= min(sides):
        octave = torch.rand(count, 3, cells, cells, generator=generator) - 0.5
        images += 0.35 * nn.functional.interpolate(octave, size=sides, mode="bilinear")
        cells *= 2
    return images.clamp(0, 1)


def logits_of(output: Any) -> Tensor:
    """A module's logits: its output, or the output's attribute ``logits``."""
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits


@torch.no_grad()
def redraw(module: nn.Module, inputs: Tensor, seed: int = 0) -> None:
    """Draws all numbers of ``module`` again, in place, and scales them so that it speaks on ``inputs``.

    Args:
        module: a classifier; it is left in evaluation mode.
        inputs: what it takes, N×3×H×W: the images of which each shall have a likely top class.
        seed: of the numbers.

    Raises:
        Mute: where the logits are not finite, or no head gives each image a top score of ``LEAST_TOP`` to ``MOST_TOP``.
    """
    module.eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point():
            owner = module.get_submodule(name.rpartition(".")[0])
            parameter.copy_(_drawn(name, parameter, owner, generator))
    logits, order = _calibrated(module, inputs, generator)
    heads = _heads(order, logits.shape[1])
    if not heads:
        raise Mute("no layer gives the logits")
    for _ in range(HEADS):
        if not logits.isfinite().all():
            raise Mute("the logits are not finite")
        factor = _factor(logits)
        for head in heads:
            for parameter in head.parameters():
                parameter *= factor
        top = logits_of(module(inputs)).float().softmax(1).amax(1)
        if top.min() >= LEAST_TOP and top.max() < MOST_TOP:
            return
        for (
            head
        ) in heads:  # by chance the classes of one image are much closer together than those of another
            head.weight.copy_(_drawn("weight", head.weight, head, generator))
        logits = logits_of(module(inputs))
    raise Mute(f"the top score is {float(top.min()):.2g} to {float(top.max()):.7g}")


def _drawn(name: str, value: Tensor, owner: nn.Module, generator: torch.Generator) -> Tensor:
    """Other numbers in place of ``value``, by the kind of the parameter."""
    leaf = name.rpartition(".")[2]
    normal = torch.randn(value.shape, generator=generator)
    if _SCALE.search(name) and value.numel() == max(value.shape, default=1):
        return 0.5 + 0.5 * torch.rand(value.shape, generator=generator)
    if value.dim() >= 2 and (isinstance(owner, _MATRICES) or leaf.endswith("weight")):
        fan_in = value[0].numel() * (value.shape[0] / value.shape[1] if _transposed(owner) else 1)
        return normal * math.sqrt(2 / fan_in)
    norm = re.search(r"norm|bn", f"{type(owner).__name__} {name}".lower()) is not None
    if norm and leaf in ("weight", "gamma"):
        return 1 + 0.2 * normal
    if leaf.endswith("bias") and value.dim() == 1:
        return 0.1 * normal
    if value.dim() >= 2 and re.search(r"token|embed|table|bias|pos", name):
        return 0.1 * normal
    return value * (1 + 0.2 * normal.clamp(-2, 2)) if bool((value != 0).any()) else 0.1 * normal


def _transposed(owner: nn.Module) -> bool:
    return isinstance(owner, nn.ConvTranspose2d)


def _calibrated(
    module: nn.Module, inputs: Tensor, generator: torch.Generator
) -> tuple[Tensor, list[nn.Module]]:
    """The logits of a pass that scales each layer as it runs, and the layers with matrices in their order."""
    order: list[nn.Module] = []

    def scale(layer: nn.Module, _: Any, output: Any) -> Any:
        if layer in order or not isinstance(output, Tensor):
            return None
        order.append(layer)
        spread = float(output.float().std())
        if not 0 < spread < math.inf:
            return None
        for parameter in layer.parameters(recurse=False):
            parameter /= spread
        return output / spread

    def measure(layer: nn.Module, received: tuple[Any, ...]) -> None:
        if layer.running_mean is None or not isinstance(received[0], Tensor):
            return
        x = received[0].transpose(0, 1).flatten(1).float()
        drawn = torch.rand(2, len(x), generator=generator)
        variance = x.var(1) if x.shape[1] > 1 else torch.zeros(len(x))
        variance = variance + 0.01 * variance.mean().clamp(min=1e-6)
        layer.running_mean.copy_(x.mean(1) + (0.4 * drawn[0] - 0.2) * variance.sqrt())
        layer.running_var.copy_(variance * (0.8 + 0.4 * drawn[1]))

    handles = [
        layer.register_forward_hook(scale) for layer in module.modules() if isinstance(layer, _MATRICES)
    ]
    handles += [
        layer.register_forward_pre_hook(measure)
        for layer in module.modules()
        if isinstance(layer, _BATCHNORM)
    ]
    try:
        module(inputs)  # outputs that were scaled by a hook are used again by the next layer
    finally:
        for handle in handles:
            handle.remove()
    return logits_of(module(inputs)), order


def _heads(order: list[nn.Module], classes: int) -> list[Any]:
    """The last layers that run, as far as they give ``classes`` numbers: a distilled network has two."""
    heads: list[Any] = []
    for layer in reversed(order):
        if layer.weight.shape[0] != classes:
            break
        heads.append(layer)
    return heads


def _factor(logits: Tensor) -> float:
    """By how much logits are multiplied for a top score of ``WANTED_TOP`` where it is lowest."""
    low, high = 1e-6, 1e6
    for _ in range(60):
        middle = math.sqrt(low * high)
        top = (middle * logits.double()).softmax(1).amax(1).min()
        low, high = (middle, high) if top < WANTED_TOP else (low, middle)
    return high


def silent_blocks(module: nn.Module, loss: Callable[[], Tensor]) -> list[str]:
    """The blocks that ran without any parameter having a gradient of ``loss()``: the children of sequences and lists,
    and of the module itself, that hold parameters.
    """
    ran: set[nn.Module] = set()
    handles = [layer.register_forward_hook(lambda layer, *_: ran.add(layer)) for layer in module.modules()]
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    try:
        value = loss()
    finally:
        for handle in handles:
            handle.remove()
    named = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
    gradients = torch.autograd.grad(value, [parameter for _, parameter in named], allow_unused=True)
    speaking = {
        name
        for (name, _), gradient in zip(named, gradients, strict=True)
        if gradient is not None and bool((gradient != 0).any())
    }
    module.requires_grad_(False)
    blocks = [
        f"{above}.{name}".lstrip(".")
        for above, holder in module.named_modules()
        if not above or isinstance(holder, nn.Sequential | nn.ModuleList)
        for name, child in holder.named_children()
        if child in ran and any(True for _ in child.parameters())
    ]
    return [block for block in blocks if not any(name.startswith(f"{block}.") for name in speaking)]
