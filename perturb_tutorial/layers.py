"""The layers that masks can lie on (§6.4): which have places, how large they are, and the paper's names.

A layer has places when its output is N×C×h×w with h·w > 1. A stage is a run of layers of one size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from perturb_tutorial.networks import Network
from perturb_tutorial.networks.hooks import of_this_thread


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
"""A block halves the side at most (and pads it by a px or two); what shrinks it more is several stages."""


def paper_layers(network: Network) -> tuple[LayerRow, ...]:
    """The rows of §6.4 for ``network``, empty for a network that the section does not name."""
    rows = PAPER_LAYERS.get(network.name.partition(" ")[0], ())
    return rows if all(row.layer in network.layers for row in rows) else ()


def resolve_layer(network: Network, layer: str) -> str:
    """The module's name of ``layer``: itself, or what stands for the paper's name, such as ``pool5``, in
    AlexNet and VGG-16. Errors: ``ValueError`` for an unknown name; it lists the nearest ones.
    """
    if layer not in network.layers:
        layer = next((row.layer for row in paper_layers(network) if row.paper_name == layer), layer)
    network.layer(layer)
    return layer


def spatial_sizes(network: Network) -> dict[str, tuple[int, int]]:
    """(h, w) of each layer with an output N×C×h×w, h·w > 1, in the order in which they were last done."""
    sizes: dict[str, tuple[int, int]] = {}

    def watch(name: str) -> Any:
        @of_this_thread
        def hook(_: nn.Module, inputs: Any, output: Any) -> None:
            sizes.pop(name, None)
            if is_spatial(output):
                sizes[name] = (output.shape[2], output.shape[3])

        return hook

    handles = [
        layer.register_forward_hook(watch(name)) for name, layer in network.module.named_modules() if name
    ]
    try:
        with torch.inference_mode():
            network.unfolded_logits(example_image(network))
    finally:
        for handle in handles:
            handle.remove()
    return sizes


def stage_layers(network: Network) -> dict[str, tuple[int, int]]:
    """Layers to look at, name → (h, w), from the input on: the paper's five of AlexNet and VGG-16; in another
    network one layer for each size, the last one before the size changes.

    A block that halves the size counts as a whole, so that its end is taken and not a part of it; a container
    in which the side shrinks by more than ``_STAGES_INSIDE`` is opened.
    """
    sizes = spatial_sizes(network)
    rows = paper_layers(network)
    if rows:
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


def is_spatial(output: object) -> bool:
    """Whether a layer's output is N×C×h×w with h·w > 1."""
    return isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1


def example_image(network: Network) -> Tensor:
    """A gray image with a little noise, 1×3×S×S: a flat one would leave whole layers without a signal."""
    size = network.input_size
    noise = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    return (0.3 + 0.4 * noise).to(network.device)
