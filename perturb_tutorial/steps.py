"""How the masks of a batch move from one iteration to the next, and when an image is done (``MaskSettings.optimizer``).

``adam`` is the paper's: Adam with a clip of the grid to [0, 1] after each step.

``averaged`` needs fewer steps, t = 0, 1, …, by four changes. The mask is a running mean of the iterates mₜ,

    m̄ₜ = wₜ m̄ₜ₋₁ + (1 − wₜ) mₜ,   wₜ = min(0.9, 1 − 1/(t/4 + 2)),

in which the noise of the jitter and of long steps cancels (Polyak and Juditsky, 1992). The gradient is softened over
the grid by the Gaussian of σ_m image px that softens the mask, since neighbors share their evidence and the noise of
a single cell is not worth a step. Adam forgets sooner, β = (0.9, 0.95). And since the pull of the area, λ₁, is small
beside the noise of the scores, so that cells without evidence are slow to come back, λ₁ counts four times at first
and falls to its own value within 30 steps.

An image is done when the objective of its mask, without jitter, has stopped falling (:class:`Plateau`).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from perturb_tutorial.masks import gaussian_matrix
from perturb_tutorial.settings import MaskSettings

ADAM_BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8
"""Of the paper's Adam (its defaults)."""
AVERAGED_BETAS = (0.9, 0.95)
FIRST_AREA_FACTOR, AREA_STEPS = 4, 30
"""What λ₁ is multiplied by at first, and the steps after which it is itself."""

LOOK_EVERY = 10
"""Iterations between two looks at whether an image is done, each of which costs a forward pass."""


class Steps(Protocol):
    """The grids of N images while they are learned."""

    grid: Tensor
    """N×1×h×w, where the next gradient is taken."""

    @property
    def mask(self) -> Tensor:
        """N×1×h×w, what the masks would be if this were the end."""

    def step(self, gradient: Tensor, usable: Tensor) -> None:
        """One step. ``gradient``: N×1×h×w. ``usable``: N booleans; the other images keep their masks."""

    def rows(self, kept: Tensor) -> Steps:
        """The same for some of the images, whose numbers are ``kept``."""


class ClippedAdam:
    """Adam on the grid N×1×h×w, with a clip to [0, 1] after each step.

    An image that is not usable in a step keeps its mask: gradient 0 and no momentum either.
    """

    def __init__(self, grid: Tensor, learning_rate: float) -> None:
        self.grid = grid
        on_gpu = grid.device.type == "cuda"
        self.adam = torch.optim.Adam(
            [grid], lr=learning_rate, betas=ADAM_BETAS, eps=ADAM_EPSILON, capturable=on_gpu, fused=on_gpu
        )

    @property
    def mask(self) -> Tensor:
        return self.grid.detach()

    def step(self, gradient: Tensor, usable: Tensor) -> None:
        """``gradient``: N×1×h×w. ``usable``: N booleans."""
        rows = usable.view(-1, 1, 1, 1)
        before = self.grid.detach().clone()
        self.grid.grad = torch.where(rows, gradient, 0.0)
        self.adam.step()
        self.grid.copy_(torch.where(rows, self.grid.clamp(0, 1), before))

    def rows(self, kept: Tensor) -> ClippedAdam:
        grid = self.grid.detach()[kept].requires_grad_(True)
        some = ClippedAdam(grid, self.adam.param_groups[0]["lr"])
        some.adam.state[grid] = {
            name: value[kept] if value.dim() else value.clone()
            for name, value in self.adam.state[self.grid].items()
        }
        return some


class AveragedAdam:
    """Adam on softened gradients, and the running mean of its iterates (module docstring)."""

    def __init__(self, grid: Tensor, settings: MaskSettings) -> None:
        self.grid, self.settings = grid, settings
        self.mean, self.first, self.second = (
            grid.detach().clone(),
            *torch.zeros(2, *grid.shape, dtype=grid.dtype, device=grid.device),
        )
        self.done = torch.zeros((), dtype=torch.float32, device=grid.device)
        """Steps done, on the device, so that a recorded step counts on."""
        sigma = settings.mask_sigma / settings.mask_scale  # mask px
        self.soften = [gaussian_matrix(side, sigma).to(grid) for side in grid.shape[-2:]]

    @property
    def mask(self) -> Tensor:
        return self.mean

    def step(self, gradient: Tensor, usable: Tensor) -> None:
        """``gradient``: N×1×h×w. ``usable``: N booleans."""
        rows = usable.view(-1, 1, 1, 1)
        down, right = self.soften
        gradient = down @ torch.where(rows, gradient, 0.0) @ right.T
        # The area's own gradient is λ₁ in preservation and −λ₁ in deletion.
        more_area = (FIRST_AREA_FACTOR - 1) * (1 - self.done / AREA_STEPS).clamp(min=0)
        gradient = gradient - self.settings.rules.sign * self.settings.area_weight * more_area
        weight = (1 - 1 / (self.done / 4 + 2)).clamp(max=0.9)
        self.done += 1
        first, second = AVERAGED_BETAS
        self.first.lerp_(gradient, 1 - first)
        self.second.lerp_(gradient.square(), 1 - second)
        scale = (self.second / (1 - second**self.done)).sqrt() + ADAM_EPSILON
        moved = self.grid - self.settings.learning_rate * self.first / (1 - first**self.done) / scale
        self.grid.copy_(torch.where(rows, moved.clamp(0, 1), self.grid))
        self.mean.copy_(torch.lerp(self.grid, self.mean, weight))

    def rows(self, kept: Tensor) -> AveragedAdam:
        some = AveragedAdam(self.grid.detach()[kept].requires_grad_(True), self.settings)
        some.mean, some.first, some.second = (x[kept] for x in (self.mean, self.first, self.second))
        some.done = self.done.clone()
        return some


class Plateau:
    """Which of N images are done: those whose objective F fell by less than ``tolerance`` since the last look.

    F is that of the mask as it would be returned, without jitter, so it is free of the noise of the iterations.
    """

    def __init__(self, start: Tensor, tolerance: float) -> None:
        self.tolerance = tolerance
        self.last = torch.full((len(start),), torch.inf, dtype=torch.float32, device=start.device)

    def reached(self, rows: Tensor, value: Tensor) -> Tensor:
        """A boolean for each of the images ``rows``, whose objective is ``value`` now; NaN does not fall."""
        fell = self.last[rows] - value >= self.tolerance
        self.last[rows] = value
        return ~fell


def steps_from(start: Tensor, settings: MaskSettings) -> Steps:
    """The optimizer of ``settings`` on the grids ``start``, N×1×h×w."""
    grid = start.clone().requires_grad_(True)
    adam = settings.optimizer == "adam"
    return ClippedAdam(grid, settings.learning_rate) if adam else AveragedAdam(grid, settings)


__all__ = ["AveragedAdam", "ClippedAdam", "Plateau", "Steps", "steps_from"]
