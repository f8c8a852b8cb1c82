"""Does a layer respond to position: does a change in one quadrant of the image change that quadrant of the layer most?

The image x is noise, and in x_q the quadrant q is replaced by other noise of the same kind. With the layer's output a,

    Δ_q(c, u) = a(x_q) − a(x), less its mean over the positions u,
    E_qp = mean over channels c and over u in quadrant p of |Δ_q(c, u)| / (its mean over q and p),
    L = log(E / max E), at least log 0.02.

The mean is subtracted because attention, squeeze-and-excitation and normalization change all positions alike. L is
split into the 16 Hadamard contrasts of the quadrants' vertical sign y and horizontal sign x, (1, y, x, xy) of the
change by (1, y, x, xy) of the response. How much a quadrant was changed, and how sensitive a position is, drop out. A
map has the contrasts y·y and x·x. A matrix of tokens has y·y, as its rows go down the image, but not x·x. The six that
mix two signs are 0 in a map except by chance, so they measure the size of chance. With several rounds, each of other
noise, L is the mean over the rounds, and chance shrinks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from perturb_tutorial.networks.forms import LayerMap

CHANCE = 3.0
"""A contrast counts when it is this many times the root mean square of the six that a map does not have: by Student's
t with 6 degrees of freedom chance exceeds it in 1.2% of contrasts, and two have to exceed it."""
LEAST_CONTRAST = 0.01
"""Below it a quadrant's change is 4% larger in its own quadrant than in the opposite one (e^(4 · 0.01)), or less."""
_LEAST_SHARE = 0.02
"""E below this share of the largest counts as this share: how close to 0 it is says nothing about position."""
_SIGNS = torch.tensor(
    [[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], dtype=torch.float64, device="cpu"
)
"""1, y, x and xy at the quadrants top left, top right, bottom left, bottom right."""


def quadrant_images(sides: tuple[int, int], round_: int, channels: int = 3) -> Tensor:
    """x and the four x_q, 5×C×H×W; each round has other noise."""
    generator = torch.Generator(device="cpu").manual_seed(round_)
    noise = torch.rand(5, channels, *sides, generator=generator, dtype=torch.float32, device="cpu")
    images = noise[:1].repeat(5, 1, 1, 1)
    for number, (rows, columns) in enumerate(_quadrants(*sides), start=1):
        images[number, :, rows, columns] = noise[number, :, rows, columns]
    return images


def _quadrants(height: int, width: int) -> list[tuple[slice, slice]]:
    """Top left, top right, bottom left, bottom right; a middle row or column belongs to none."""
    rows = slice(0, height // 2), slice(height - height // 2, height)
    columns = slice(0, width // 2), slice(width - width // 2, width)
    return [(row, column) for row in rows for column in columns]


def quadrant_changes(output: Tensor) -> tuple[Tensor, float]:
    """E, 4×4, of an output 5×C×h×w, and the typical change as a share of a channel's largest value."""
    output = output.detach().to(torch.promote_types(output.dtype, torch.float32))
    change = output[1:] - output[:1]
    change = (change - change.mean((2, 3), keepdim=True)).abs()
    parts = [change[:, :, rows, columns].mean((2, 3)) for rows, columns in _quadrants(*output.shape[2:])]
    by_channel = torch.stack(parts, -1).cpu().double().nan_to_num(0, 0, 0)  # 4×C×4
    typical = by_channel.mean((0, 2))
    largest = output.abs().amax((0, 2, 3)).cpu().double().nan_to_num(0, 0, 0)
    # A channel that changes by no more than its rounding does not count.
    floor = (8 * torch.finfo(output.dtype).eps * largest).clamp(min=1e-300)
    share = (typical / largest.clamp(min=1e-300)).median()
    return (by_channel / torch.maximum(typical, floor)[:, None]).mean(1), float(share)


class Contrast(NamedTuple):
    """``contrast``: the smaller of y·y and x·x. ``chance``: the root mean square of the six that mix signs.
    ``own``: every quadrant responds most to its own change.
    """

    contrast: float
    chance: float
    own: bool

    @property
    def is_clear(self) -> bool:
        """Whether the layer clearly responds to position."""
        return self.own and self.contrast > max(LEAST_CONTRAST, CHANCE * self.chance)

    @property
    def is_open(self) -> bool:
        """Whether more rounds may decide."""
        return not self.is_clear and self.contrast > max(LEAST_CONTRAST / 2, self.chance)


def contrast_of(rounds: Sequence[Tensor]) -> Contrast:
    """The contrasts of a layer with these E, one for each round."""
    logs = torch.stack([(e / e.max().clamp(min=1e-300)).clamp(min=_LEAST_SHARE).log() for e in rounds]).mean(
        0
    )
    contrasts = _SIGNS @ logs @ _SIGNS.T / 16
    mixed = contrasts[1:, 1:][~torch.eye(3, dtype=torch.bool, device="cpu")]
    centered = logs - logs.mean(0) - logs.mean(1, keepdim=True)
    own = all(torch.equal(centered.argmax(axis), torch.arange(4, device="cpu")) for axis in (0, 1))
    return Contrast(float(contrasts.diagonal()[1:3].min()), float(mixed.square().mean().sqrt()), own)


class Response(NamedTuple):
    """A layer's last run on five images: its shape, E of each round in each form that the output may have, and the
    typical change of a channel as a share of its largest value.
    """

    shape: tuple[int, ...]
    changes: dict[LayerMap, list[Tensor]]
    share: float

    @property
    def contrasts(self) -> dict[LayerMap, Contrast]:
        """How the layer responds to position, by the form of its output."""
        return {form: contrast_of(rounds) for form, rounds in self.changes.items()}

    @property
    def clear(self) -> dict[LayerMap, float]:
        """The forms in which the layer clearly responds to position, with the contrast of each."""
        return {form: found.contrast for form, found in self.contrasts.items() if found.is_clear}

    def is_open(self, few: int) -> bool:
        """Whether more rounds may show the layer to be a map; with fewer than ``few`` values one is not enough."""
        contrasts = self.contrasts.values()
        if any(each.is_clear for each in contrasts) or not self.share > 0:
            return False
        first = max((len(rounds) for rounds in self.changes.values()), default=0) == 1
        return (first and math.prod(self.shape[1:]) < few) or any(each.is_open for each in contrasts)


__all__ = ["Contrast", "Response", "contrast_of", "quadrant_changes", "quadrant_images"]
