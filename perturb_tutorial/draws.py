"""Several masks for one question: how its draws differ, and the mask that is their mean (``learn_masks(…, draws=k)``).

A mask is the end of a random sequence of shifts from one start, and another sequence from another start ends in another
mask. k draws show how much: draw 0 is the mask that a run of one draw learns, the others differ from it in

* the jitter: each has a sequence of its own;
* the start: the radius of the disc that was found, or in the start "gradient" the number of cells, times a factor
  whose logarithm is uniform, from 0.8 to 1.25; the disc's center moved by up to a quarter of the found radius, right
  or left and down or up; a random start is another draw. The constant starts stay.

What a mask shows where it is 0 stays the same, noise too. Draw j depends on the seed and j alone: it is the same for
every image, alone or in a batch, and for every k > j.

The mean shows where draws agree; it is no draw itself, and may suppress or preserve the score less than each of them.
Its score is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from perturb_tutorial.initialization import InitialMasks, rival_masks
from perturb_tutorial.masks import disc_grids
from perturb_tutorial.results import Masks
from perturb_tutorial.settings import MaskSettings
from perturb_tutorial.sizes import Size, scaled, sides

LARGEST_FACTOR = 1.25
"""Of the start's size; the smallest is its inverse."""
LARGEST_MOVE = 0.25
"""Of the disc's center in x and in y, as a share of the found radius."""
_START_STREAM = 1  # keeps a start's variation apart from the jitter of the same draw


@dataclass(frozen=True)
class Draws:
    """Which draw each row of a batch is. ``numbers``: one a row, from 0 on. ``seed``: of the run."""

    seed: int
    numbers: tuple[int, ...]

    @classmethod
    def first(cls, seed: int, count: int) -> Draws:
        """``count`` rows that are all draw 0."""
        return cls(seed, (0,) * count)

    @property
    def seeds(self) -> tuple[int, ...]:
        """What each row's jitter is drawn from."""
        return tuple(draw_seed(self.seed, number) for number in self.numbers)

    @property
    def factors(self) -> Tensor:
        """By how much each row's start is larger than the one found, float32 on the CPU; 1 for draw 0."""
        found = [start_variation(self.seed, number)[0] for number in self.numbers]
        return torch.tensor(found, dtype=torch.float32, device="cpu")


def draw_seed(seed: int, draw: int) -> int:
    """The seed of a draw's jitter and random start; that of draw 0 is ``seed``."""
    return seed if draw == 0 else int(np.random.SeedSequence((seed, draw)).generate_state(1)[0])


def start_variation(seed: int, draw: int) -> tuple[float, float, float]:
    """(factor of the size, move right, move down) of a draw's start, the moves as shares of the found radius."""
    if draw == 0:
        return 1.0, 0.0, 0.0
    generator = np.random.default_rng((seed, draw, _START_STREAM))
    size, right, down = generator.uniform(-1, 1, 3).tolist()
    return math.exp(size * math.log(LARGEST_FACTOR)), right * LARGEST_MOVE, down * LARGEST_MOVE


def varied_starts(start: InitialMasks, draws: Draws, settings: MaskSettings, size: Size) -> InitialMasks:
    """The masks from which the draws start, and the radii that were found.

    ``start``: what was found for each row, as if it were draw 0. ``size``: of the images, px. Without a disc that does
    the job the start is the same in every draw.
    """
    grid = start.grid.clone()
    height, width = sides(size)
    for row, number in enumerate(draws.numbers):
        if number and settings.initialization == "random":
            shape = (1, 1, grid.shape[2], grid.shape[3])
            grid[row] = rival_masks(shape, settings, draws.seeds[row], grid.device).grid[0]
        elif number and not start.radius[row].isnan():
            factor, right, down = start_variation(draws.seed, number)
            radius = scaled(float(start.radius[row]), size)
            center = [[width / 2 + right * radius, height / 2 + down * radius]]
            centers = torch.tensor(center, dtype=torch.float64, device="cpu")
            radii = torch.tensor([factor * radius], dtype=torch.float64, device="cpu")
            disc = disc_grids(size, (grid.shape[2], grid.shape[3]), radii, centers)
            grid[row] = settings.rules.disc(disc)[0].to(grid)
    return InitialMasks(grid, start.radius)


def mean_of_draws(masks: Masks, count: int, masked: Callable[[Tensor], Tensor]) -> Masks:
    """One row an image, its mask the mean of its draws, from ``count`` rows an image, one a draw.

    ``masked``: from mean grids N×1×h×w to their scores, N values. Where a run was ended, the last image may
    lack draws; it is left out.
    """
    whole = len(masks) // count
    masks = masks[: whole * count]
    grids = masks.grid.reshape(whole, count, *masks.grid.shape[2:])
    first, mean = masks[::count], grids.mean(1, keepdim=True)
    score = masked(mean)
    reached = masks.settings.rules.reached(score, first.score_original, first.score_perturbed)
    converged = masks.converged.reshape(whole, count).all(1) & torch.isfinite(score) & reached
    return replace(first, grid=mean, score_masked=score, converged=converged, draws=grids)


def draw_numbers(rows: Sequence[int], count: int) -> tuple[list[int], tuple[int, ...]]:
    """(the image, the draw) of each row, where ``count`` rows in a row are the draws of one image."""
    return [row // count for row in rows], tuple(row % count for row in rows)


__all__ = [
    "LARGEST_FACTOR",
    "LARGEST_MOVE",
    "Draws",
    "draw_numbers",
    "draw_seed",
    "mean_of_draws",
    "start_variation",
    "varied_starts",
]
