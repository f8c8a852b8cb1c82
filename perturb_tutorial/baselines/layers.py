"""Which layer a method reads when none is named: one table of roles, and a rule for networks outside it.

The paper reads excitation backprop at GoogLeNet's pool2/3x3_s2 (28×28) and Grad-CAM at inception_5b/output
(7×7), §3. The contrast of contrastive excitation backprop is taken at the input of the classifier, the last
linear or convolutional layer: that is GoogLeNet's pool5/7x7_s1, as in §3, and relu7 in VGG-16 and AlexNet.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from perturb_tutorial.baselines.batches import number_format
from perturb_tutorial.networks import Network
from perturb_tutorial.networks.hooks import of_this_thread

Role = Literal["excitation_backprop", "grad_cam"]

EXCITATION_SCALE = 8
"""Input px for one px of the layer that excitation backprop reads: 224 / 28 (§3)."""


class Roles(NamedTuple):
    """The layers of one network by the method that reads them, and who chose them."""

    excitation_backprop: str
    grad_cam: str
    source: str


ROLES: dict[str, Roles] = {
    "googlenet": Roles("maxpool2", "inception5b", "§3: pool2/3x3_s2, inception_5b/output"),
    "vgg16": Roles("features.23", "features.29", "TorchRay's benchmark: pool4 (14×14), relu5_3 (14×14)"),
    "alexnet": Roles("features.5", "features.11", "ours, by VGG-16's sizes: pool2 (13×13), relu5 (13×13)"),
    "efficientnet_lite0": Roles(
        "_blocks.4", "_swish", "ours, by GoogLeNet's sizes: last 28×28 block, last ReLU6 (7×7)"
    ),
    "efficientnet_lite1": Roles(
        "_blocks.6", "_swish", "ours, by GoogLeNet's sizes: last 30×30 block, last ReLU6 (8×8)"
    ),
    "efficientnet_lite2": Roles(
        "_blocks.6", "_swish", "ours, by GoogLeNet's sizes: last 33×33 block, last ReLU6 (9×9)"
    ),
}


def resolve_layer(network: Network, layer: str | None, role: Role) -> str:
    """``layer`` if it is named, else the one that plays ``role`` in ``network``; a guess is told in a
    warning.

    Errors: ``ValueError`` for an unknown layer (names the nearest) and for a network without spatial
    features.
    """
    if layer is not None:
        network.layer(layer)
        return layer
    roles = ROLES.get(network.name.partition(" ")[0])
    if roles is not None and getattr(roles, role) in network.layers:
        return str(getattr(roles, role))
    name, shape = _guess(network, role)
    size = "×".join(map(str, shape))
    warnings.warn(
        f"{role}: no layer is known for {network.name}, it reads {name!r} ({size}); layer=NAME is another",
        stacklevel=4,
    )
    return name


def _guess(network: Network, role: Role) -> tuple[str, tuple[int, ...]]:
    """Grad-CAM: the last layer with spatial features. Excitation backprop: the one nearest to ⅛ of the
    input's side, the outermost and last of equals, so that a stage is taken rather than a part of it.
    """
    shapes = _spatial_shapes(network)
    if not shapes:
        raise ValueError(
            f"layer: {role} needs spatial features (C×h×w with h·w > 1), no layer of {network.name} has any"
        )
    if role == "grad_cam":
        return list(shapes.items())[-1]
    wanted = network.input_size / EXCITATION_SCALE

    def distance(item: tuple[str, tuple[int, ...]]) -> tuple[float, int]:
        name, shape = item
        return abs(math.log(math.sqrt(shape[1] * shape[2]) / wanted)), name.count(".")

    return min(reversed(list(shapes.items())), key=distance)


def _spatial_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """C×h×w of every layer that has spatial features, in the order in which they were last done."""
    shapes: dict[str, tuple[int, ...]] = {}

    def watch(name: str) -> Any:
        @of_this_thread
        def hook(_: nn.Module, inputs: Any, output: Any) -> None:
            shapes.pop(name, None)
            if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1:
                shapes[name] = tuple(output.shape[1:])

        return hook

    handles = [
        layer.register_forward_hook(watch(name)) for name, layer in network.module.named_modules() if name
    ]
    try:
        with torch.inference_mode():
            gray = torch.full((1, 3, network.input_size, network.input_size), 0.5, device=network.device)
            gray = gray.to(number_format(network))
            network.unfolded_logits(gray)
    finally:
        for handle in handles:
            handle.remove()
    return shapes
