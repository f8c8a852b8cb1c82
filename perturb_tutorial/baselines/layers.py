"""Which layer a method reads when none is given: one table of roles, and a rule for networks outside it.

The paper reads excitation backprop at GoogLeNet's pool2/3x3_s2 (28×28) and Grad-CAM at inception_5b/output
(7×7), §3. The contrast of contrastive excitation backprop is taken at the input of the classifier, the last
linear or convolutional layer: that is GoogLeNet's pool5/7x7_s1, as in §3, and relu7 in VGG-16 and AlexNet.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal, NamedTuple

from perturb_tutorial.networks import Network
from perturb_tutorial.networks.forms import LayerMap
from perturb_tutorial.networks.influence import read_maps
from perturb_tutorial.networks.layers import later_tokens, layer_map, layer_maps
from perturb_tutorial.sizes import mean_side

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


def resolve_layer(network: Network, layer: str | None, role: Role, method: str | None = None) -> str:
    """``layer`` if it is given, else the layer that has ``role`` in ``network``; a guess is reported in a warning.

    ``method``: the method to name in messages; None is the one that gave the role its name.

    Raises:
        ValueError: for a layer that is unknown (names the nearest), not run, or no map of the image, and for a network
            that has no such layer.
    """
    method = method or role
    if layer is not None:
        form = layer_map(network, layer)
        if role == "excitation_backprop" and not form.is_channels_first:
            kept = "keeps tokens" if form.tokens else "keeps its channels last"
            raise ValueError(f"layer: {method} reads maps N×C×h×w, {layer!r} {kept} ({form}); name another")
        return layer
    roles = ROLES.get(network.name.partition(" ")[0])
    if roles is not None and getattr(roles, role) in network.layers:
        return str(getattr(roles, role))
    name, form = _guess(network, role, method)
    tokens = later_tokens(network, name, maps=role == "excitation_backprop")
    after = (
        f"; layers after it give tokens ({'×'.join(map(str, tokens))}), which are not read" if tokens else ""
    )
    warnings.warn(
        f"{method}: no layer is known for {network.name}, it reads {name!r} ({form}){after}; layer=NAME is another",
        stacklevel=4,
    )
    return name


def _guess(network: Network, role: Role, method: str) -> tuple[str, LayerMap]:
    """Grad-CAM: the last layer whose output is a map with a gradient (module ``networks.influence``): of a transformer
    that classifies by its class token, the tokens that its last attention reads. Excitation backprop: the one nearest
    to ⅛ of the input's side, the outermost and last of equals, so that a stage is taken rather than a part of it; its
    rules are of networks whose channels come first.
    """
    maps = read_maps(network) if role == "grad_cam" else layer_maps(network)
    if role == "excitation_backprop":
        maps = {name: form for name, form in maps.items() if form.is_channels_first}
    if not maps:
        raise ValueError(
            f"layer: {method} needs spatial features (C×h×w with h, w ≥ 2), no layer of {network.name} has any"
        )
    if role == "grad_cam":
        return list(maps.items())[-1]
    wanted = mean_side(network.input_size) / EXCITATION_SCALE

    def distance(item: tuple[str, LayerMap]) -> tuple[float, int]:
        name, form = item
        return abs(math.log(math.sqrt(form.height * form.width) / wanted)), name.count(".")

    return min(reversed(list(maps.items())), key=distance)
