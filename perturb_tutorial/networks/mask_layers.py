"""The layers that masks can lie on (§6.4): how large they are, stages, and the paper's names.

A mask can lie on a layer whose output is a map of the image (module ``networks.layers``) and influences the logits
(module ``networks.influence``). A stage is a run of layers of one size.
"""

from __future__ import annotations

from typing import NamedTuple

from perturb_tutorial.networks.influence import read_maps
from perturb_tutorial.networks.layers import example_image
from perturb_tutorial.networks.network import Network


class LayerRow(NamedTuple):
    """One layer of §6.4: the paper's name, torchvision's, the side of its output, λ₁ and λ₂."""

    paper_name: str
    layer: str
    side: int
    area_weight: float
    tv_weight: float


PAPER_LAYERS: dict[str, tuple[LayerRow, ...]] = {
    "alexnet": (
        LayerRow("pool1", "features.2", 27, 1e-4, 1e-2),
        LayerRow("pool2", "features.5", 13, 5e-3, 1e-2),
        LayerRow("relu3", "features.7", 13, 5e-3, 1e-2),
        LayerRow("relu4", "features.9", 13, 5e-3, 1e-2),
        LayerRow("pool5", "features.12", 6, 1e-2, 1e-3),
    ),
    "vgg16": (
        LayerRow("pool1", "features.4", 112, 5e-5, 1e-2),
        LayerRow("pool2", "features.9", 56, 1e-4, 1e-2),
        LayerRow("pool3", "features.16", 28, 1e-4, 1e-2),
        LayerRow("pool4", "features.23", 14, 5e-3, 1e-2),  # the text says 13×13, the network gives 14×14
        LayerRow("pool5", "features.30", 7, 1e-2, 1e-3),
    ),
}
"""The paper's layers and weights (§6.4) by the network's name; N, γ and β are the defaults."""

_STAGES_INSIDE = 3
"""A block at most halves the side (and pads it by a px or two); a container that shrinks it more has several stages."""


def paper_layers(network: Network) -> tuple[LayerRow, ...]:
    """The rows of §6.4 for ``network``, empty for a network that the section does not name."""
    rows = PAPER_LAYERS.get(network.name.partition(" ")[0], ())
    return rows if all(row.layer in network.layers for row in rows) else ()


def resolve_layer(network: Network, layer: str) -> str:
    """The module's name of ``layer``, which may be the paper's name, such as ``pool5``, in AlexNet and VGG-16.

    Raises:
        ValueError: for an unknown name; it lists the nearest ones.
    """
    if layer not in network.layers:
        layer = next((row.layer for row in paper_layers(network) if row.paper_name == layer), layer)
    network.layer(layer)
    return layer


def spatial_sizes(network: Network) -> dict[str, tuple[int, int]]:
    """(h, w) of each layer whose output is a map of the image, in the order in which they last ran.

    Without layers inside attention modules, and without those at whose positions the logits have no gradient.
    """
    return {name: form.size for name, form in read_maps(network).items()}


def stage_layers(network: Network) -> dict[str, tuple[int, int]]:
    """One layer for each stage, name → (h, w), from the input on: the paper's five layers of AlexNet and VGG-16; in
    another network the last layer before each change of size.

    A block that halves the size counts as a whole, so that its output is taken and not that of a part; in a container
    whose side shrinks by more than ``_STAGES_INSIDE`` the layers inside are considered.
    """
    sizes = spatial_sizes(network)
    rows = paper_layers(network)
    if rows and all(row.layer in sizes for row in rows):
        return {row.layer: sizes[row.layer] for row in rows}

    def holds_stages(name: str) -> bool:
        sides = [max(size) for other, size in sizes.items() if f"{other}.".startswith(f"{name}.")]
        return max(sides) > _STAGES_INSIDE * min(sides)

    opened = {name for name in sizes if holds_stages(name)}
    stages: dict[tuple[int, int], str] = {}
    for name, size in sizes.items():
        parts = name.split(".")
        above = {".".join(parts[:depth]) for depth in range(1, len(parts))}
        if name not in opened and above & set(sizes) <= opened:
            stages[size] = name
    return {name: size for size, name in sorted(stages.items(), reverse=True)}


__all__ = [
    "PAPER_LAYERS",
    "LayerRow",
    "example_image",
    "paper_layers",
    "resolve_layer",
    "spatial_sizes",
    "stage_layers",
]
