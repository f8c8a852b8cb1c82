"""Does a layer that is read as a map of the image change where the image was changed?"""

from __future__ import annotations

from typing import Any

import torch
from redrawn import noise
from torch import Tensor

import perturb_tutorial as pt
from perturb_tutorial.networks.forms import LayerMap
from perturb_tutorial.networks.outputs import first_tensor

ROUNDS = (3, 12)
"""Rounds of noise, over which chance averages out: more of them where few do not show it, as on maps of 2×2."""


class Wrong(Exception):
    """A map that is wrong; the message says how."""


@torch.no_grad()
def check_places(network: pt.Network, layer: str, form: LayerMap) -> None:
    """Changes each quadrant of an image, and looks where the layer changes.

    E_qp is the energy of the layer's change in quadrant p, without what is common to all positions, when quadrant q of
    the image was changed. How much each change is worth and how sensitive each position is cancels in the ratios
    E_qq E_pp / (E_qp E_pq), which are above 1 for every two quadrants of a map.

    Raises:
        Wrong: for a ratio below 1.
    """
    kept: list[Any] = []
    sides = network.input_shape
    handle = network.layer(layer).register_forward_hook(
        lambda _, __, output: kept.append(first_tensor(output))
    )
    energies = torch.zeros(4, 4, dtype=torch.float64)
    try:
        for number in range(max(ROUNDS)):
            plain, other = noise(1, sides, 100 + number), noise(1, sides, 200 + number)
            images = plain.repeat(5, 1, 1, 1)
            for quadrant, (rows, columns) in enumerate(_quadrants(sides), start=1):
                images[quadrant, :, rows, columns] = other[0, :, rows, columns]
            network.unfolded_logits(images)
            energies += _energies(form.channels_first(kept[-1])).log()
            if number + 1 in ROUNDS and _own_most(energies):
                return
    finally:
        handle.remove()
    raise Wrong(f"layer {layer!r} does not change where the image does")


def _own_most(energies: Tensor) -> bool:
    """Whether the ratio of every two quadrants is above 1, from log E."""
    pairs = [(q, p) for q in range(4) for p in range(q)]
    return all(energies[q, q] + energies[p, p] > energies[q, p] + energies[p, q] for q, p in pairs)


def _energies(output: Tensor) -> Tensor:
    """E of a layer's output for five images, 5×C×h×w."""
    values = output.double()
    change = values[1:] - values[:1]
    change = (change - change.mean((2, 3), keepdim=True)).square()
    parts = [change[:, :, rows, columns].mean((1, 2, 3)) for rows, columns in _quadrants(values.shape[2:])]
    return torch.stack(parts, 1).clamp(min=1e-300)


def _quadrants(sides: Any) -> list[tuple[slice, slice]]:
    rows, columns = ((slice(0, side // 2), slice(side - side // 2, side)) for side in sides)
    return [(row, column) for row in rows for column in columns]
