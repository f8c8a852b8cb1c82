"""The loop that learns the masks of a batch, whatever they lie on (a ``Canvas``).

An image whose score or gradient is not finite gets no step in that iteration and is not ``converged``; its
neighbors in the batch do not notice. ``converged`` is: all scores finite and score_masked < score_original
(deletion) or score_masked > score_perturbed (preservation).

Nothing in an iteration waits for the device, so that a GPU can replay one that was recorded once (``recording``). Where
the settings let an image end when it is done, this is looked at every few iterations, and the batch goes on without it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from perturb_tutorial.canvas import Canvas, Step
from perturb_tutorial.engines.recording import repeat
from perturb_tutorial.initialization import InitialMasks, evidence_masks
from perturb_tutorial.masks import total_variation
from perturb_tutorial.networks.arithmetic import arithmetic
from perturb_tutorial.networks.gradients import check_gradient
from perturb_tutorial.objectives import objective, probability, scaled_score
from perturb_tutorial.results import History, Masks
from perturb_tutorial.settings import MaskSettings
from perturb_tutorial.steps import LOOK_EVERY, Plateau, steps_from

Report = Callable[[float], bool]
"""Called with the number of iterations that a batch has done, the mean over its images, of which one that has ended
counts as if it had done them all; whether the batch goes on."""


def learn_on(canvas: Canvas, settings: MaskSettings, report: Report, precision: str = "float32") -> Masks:
    """The masks of the images of ``canvas``; ``precision`` as in :func:`~perturb_tutorial.learn_masks`."""
    with arithmetic(canvas.device):
        with torch.inference_mode():
            original, perturbed = canvas.original(), canvas.perturbed()
        original, perturbed = original.clone(), perturbed.clone()  # which autograd may keep
        start = _start(canvas, original, perturbed, settings)
        batch = _Batch(canvas, start.grid, original, perturbed, settings)
        checked = False

        def iterate(step: Step) -> None:
            nonlocal checked
            grid = batch.steps.grid
            with (
                torch.enable_grad(),
                arithmetic(canvas.device, precision),
            ):  # whatever the caller has switched off
                score = batch.canvas.score(grid, step)  # E_τ Σ f_c(Φ(x; M))
                if not checked:
                    check_gradient(score, grid)
                    checked = True
                loss = objective(grid, batch.scaled(score), settings)  # eq. 6 | eq. 1
                (gradient,) = torch.autograd.grad(loss.sum(), grid)
            with torch.no_grad():
                usable = torch.isfinite(score) & torch.isfinite(gradient).flatten(1).all(1)
                batch.note(step, score, usable)
                batch.steps.step(gradient, usable)

        def goes_on(done: int) -> bool:
            if settings.tolerance and done % LOOK_EVERY == 0:
                batch.look(done)
            batch.stopped = not report(batch.mean_iterations(done))
            return not (batch.stopped or batch.shrinks)

        done = 0
        while done < settings.iterations and not batch.stopped and batch.ended < len(batch.grid):
            done = repeat(iterate, done, settings.iterations, canvas.device, goes_on)
            batch.shrink()
        batch.end(torch.ones_like(batch.over), done)
        with torch.inference_mode():
            masked = canvas.masked(batch.grid).clone()
    finite = batch.finite
    for value in (original, perturbed, masked):
        finite &= torch.isfinite(value)
    return Masks(
        grid=batch.grid,
        size=canvas.size,
        score_original=original,
        score_perturbed=perturbed,
        score_masked=masked,
        converged=finite & settings.rules.reached(masked, original, perturbed),
        radius=start.radius,
        iterations=batch.iterations,
        history=batch.history,
        settings=settings,
    )


def _start(canvas: Canvas, original: Tensor, perturbed: Tensor, settings: MaskSettings) -> InitialMasks:
    if settings.initialization != "gradient":
        return canvas.start(original, perturbed)

    def gradient(grid: Tensor, step: int) -> Tensor:
        with torch.enable_grad():
            score = canvas.score(grid.requires_grad_(True), step)
            check_gradient(score, grid)
            return torch.autograd.grad(score.sum(), grid)[0]

    def masked(grid: Tensor) -> Tensor:
        with torch.inference_mode():
            return probability(canvas.masked(grid), settings.score_scale).clone()

    p_original, p_perturbed = (probability(score, settings.score_scale) for score in (original, perturbed))
    factors = canvas.draws.factors
    return evidence_masks(gradient, masked, p_original, p_perturbed, canvas.cells, settings, factors)


class _Batch:
    """N images: those that are still being learned, and what each of them ends with.

    ``canvas``, ``steps``, ``noted``, ``usable`` and the scores are of the images ``rows``, all of them until the batch
    shrinks; ``over`` marks those of them that have ended since then.
    """

    def __init__(
        self, canvas: Canvas, start: Tensor, original: Tensor, perturbed: Tensor, settings: MaskSettings
    ) -> None:
        self.canvas, self.settings, self.original, self.perturbed = canvas, settings, original, perturbed
        self.steps, self.plateau = steps_from(start, settings), Plateau(start, settings.tolerance)
        self.rows = torch.arange(len(start), device=canvas.device)
        self.usable = torch.ones_like(self.rows, dtype=torch.bool)
        self.over = torch.zeros_like(self.usable)
        self.noted, self.history = (_history(len(start), settings, canvas.device) for _ in range(2))
        self.grid, self.finite = start.clone(), self.usable.clone()
        self.iterations = torch.zeros_like(self.rows)
        self.ended = 0
        """Images that have ended, of all N."""
        self.stopped = False
        """Whether the caller has ended the run."""

    def scaled(self, score: Tensor) -> Tensor:
        """N values: what λ₁ weighs the area against."""
        return scaled_score(score, self.original, self.perturbed, self.settings.score_scale)

    def note(self, step: Step, score: Tensor, usable: Tensor) -> None:
        """Keeps what an iteration saw."""
        self.usable.logical_and_(usable)
        grid = self.steps.grid
        area = self.settings.rules.salient(self.canvas.kept(grid))
        seen = {"score": score, "area": area, "tv": total_variation(grid, self.settings.tv_exponent)}
        for name, value in seen.items():
            noted = getattr(self.noted, name)
            if isinstance(step, int):
                noted[:, step] = value
            else:
                noted.index_copy_(1, step, value[:, None])

    def mean_iterations(self, done: int) -> float:
        """Iterations done, the mean over N images, when those that have not ended have done ``done``."""
        return done + (self.settings.iterations - done) * self.ended / len(self.grid)

    def look(self, done: int) -> None:
        """Ends the images whose objective has stopped falling."""
        with torch.inference_mode():
            value = objective(
                self.steps.mask, self.scaled(self.canvas.masked(self.steps.mask)), self.settings
            )
        self.end(self.plateau.reached(self.rows, value), done)

    def end(self, images: Tensor, done: int) -> None:
        """Ends some of ``rows``, a boolean each, after ``done`` iterations."""
        new = images & ~self.over
        numbers = self.rows[new]
        self.grid[numbers], self.finite[numbers] = self.steps.mask[new], self.usable[new]
        self.iterations[numbers] = done
        for name in ("score", "area", "tv"):
            getattr(self.history, name)[numbers, :done] = getattr(self.noted, name)[new, :done]
        self.over |= images
        self.ended += len(numbers)

    @property
    def shrinks(self) -> bool:
        """Whether it is time to go on with fewer images."""
        left, now = len(self.grid) - self.ended, len(self.rows)
        if left == 0 or self.canvas.fixed_batch:
            return left == 0
        # A GPU records an iteration anew, and needs nearly as long for a few images as for one.
        return 2 * left <= now if self.canvas.device.type == "cuda" else left < now

    def shrink(self) -> None:
        """Goes on with the images that have not ended."""
        kept = (~self.over).nonzero().flatten()
        if len(kept) in (0, len(self.rows)):
            return
        self.canvas, self.steps = self.canvas.rows(kept), self.steps.rows(kept)
        self.rows, self.usable, self.over = self.rows[kept], self.usable[kept], self.over[kept]
        self.original, self.perturbed = self.original[kept], self.perturbed[kept]
        self.noted = History(*(getattr(self.noted, name)[kept] for name in ("score", "area", "tv")))


def _history(count: int, settings: MaskSettings, device: torch.device) -> History:
    shape = (count, settings.iterations)
    return History(*(torch.full(shape, torch.nan, dtype=torch.float32, device=device) for _ in range(3)))


__all__ = ["Report", "learn_on"]
