"""A canvas: what the masks of a batch lie on, and so what the optimizer asks for scores.

Here it is N images; in module ``activations`` it is the output of a layer. A score is Σ_{c∈C} f_c, the summed
softmax probability of an image's classes, or its log-odds (``objectives.class_score``), N values. A grid is N×1×h×w.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from perturb_tutorial.draws import Draws, varied_starts
from perturb_tutorial.initialization import LEVELS, InitialMasks, initial_masks
from perturb_tutorial.masks import upsampling_matrices
from perturb_tutorial.networks import Network
from perturb_tutorial.objectives import probability
from perturb_tutorial.perturbations import background_for, perturb
from perturb_tutorial.settings import MaskSettings
from perturb_tutorial.sizes import Size, sides

Step = int | Tensor
"""The number of an iteration: an int, or a tensor of one integer on the device, which a recorded iteration reads."""
Shifts = list[tuple[int, int]]
"""The (dx, dy) of each iteration, image px."""


class Canvas(Protocol):
    """What the loop needs. ``device`` is where all of it happens."""

    fixed_batch: ClassVar[bool]
    """Whether code is made for one number of images, and takes long for another."""

    draws: Draws
    """Which draw each image is, at the start."""

    @property
    def device(self) -> torch.device: ...

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the images, px."""

    @property
    def cells(self) -> tuple[int, int]:
        """(h, w) of the grid."""

    def original(self) -> Tensor:
        """The score with nothing perturbed."""

    def perturbed(self) -> Tensor:
        """The score with everything perturbed."""

    def start(self, original_score: Tensor, perturbed_score: Tensor) -> InitialMasks:
        """The masks at the start."""

    def score(self, grid: Tensor, step: Step) -> Tensor:
        """The score under the mask in one iteration, with its jitter; differentiable in ``grid``."""

    def kept(self, grid: Tensor) -> Tensor:
        """The mean of each mask as it lies on the images, N values."""

    def masked(self, grid: Tensor) -> Tensor:
        """The score under the mask without jitter."""

    def rows(self, kept: Tensor) -> Canvas:
        """The same for some of the images, whose numbers are ``kept``."""


class ImageCanvas:
    """Masks on images: upsampled and softened; the image and its perturbed version are shifted under the mask.

    ``images``: N×C×H×W on the network's device. ``weights``: N×K, 1 for each target class. ``precision``: of the
    network's two passes in an iteration. ``draws``: the number of the draw that each of the images is; None: 0, of all.
    """

    fixed_batch: ClassVar[bool] = False
    own_scores: ClassVar[bool] = True
    """Whether the score may be the user's own (module ``networks.scored``)."""

    def __init__(
        self,
        network: Network,
        images: Tensor,
        weights: Tensor,
        settings: MaskSettings,
        seed: int,
        precision: str = "float32",
        draws: Sequence[int] | None = None,
    ) -> None:
        self.network, self.settings, self.seed, self.weights = network, settings, seed, weights
        self.draws = Draws.first(seed, len(images)) if draws is None else Draws(seed, tuple(draws))
        self.device, self.images, self.precision = network.device, images, precision
        self.size = height, width = images.shape[-2], images.shape[-1]
        self.background = background_for(settings, images, color=network.mean_color, seed=seed)
        lengths, self.cells = settings.lengths(self.size), settings.grid_shape(self.size)
        self.up_rows, self.up_columns = upsampling_matrices(self.size, self.cells, lengths.mask_sigma, images)
        self.row_means, self.column_means = self.up_rows.sum(0) / height, self.up_columns.sum(0) / width
        seeds = self.draws.seeds
        shifts = {each: jitter_shifts(settings, self.size, each) for each in dict.fromkeys(seeds)}
        sequences = [shifts[each] for each in (seeds if len(shifts) > 1 else shifts)]
        self.windows = _Windows(sequences, self.size, lengths.jitter, self.device)
        self._prepare()

    def _prepare(self) -> None:
        # Normalization is affine and M + (1 − M) = 1: it commutes with Φ, so it is done once.
        background = self.network.normalize(self.padded(self.background))
        evidence = self.network.normalize(self.padded(self.images)) - background
        self.pictures = torch.stack([background, evidence])

    def padded(self, images: Tensor) -> Tensor:
        """``images`` with their left and upper edges replicated as far as the jitter reaches."""
        reach = self.settings.lengths(self.size).jitter
        return torch.nn.functional.pad(images, (reach - 1, 0, reach - 1, 0), mode="replicate")

    def upsampled(self, grid: Tensor) -> Tensor:
        """The masks on the images, N×1×H×W."""
        return self.up_rows @ grid @ self.up_columns.T

    def kept(self, grid: Tensor) -> Tensor:
        # The mean of U_h m U_wᵀ is the product of m with the means of their columns.
        return self.row_means @ grid[:, 0] @ self.column_means

    def score(self, grid: Tensor, step: Step) -> Tensor:
        background, evidence = self.windows(self.pictures, step)
        inputs = torch.addcmul(background, evidence, self.upsampled(grid))
        if self.precision != "bfloat16":
            return self.read(self.logits(inputs))
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            logits = self.logits(inputs)
        return self.read(logits)

    def read(self, logits: Tensor) -> Tensor:
        """The score of each image, N values, in the scale of the settings."""
        return self.network.target_scores(logits, self.weights, self.settings.score_scale)

    def logits(self, inputs: Tensor) -> Tensor:
        """N×K from normalized inputs, in the loop."""
        return self.network.normalized_logits(inputs)

    def original(self) -> Tensor:
        return self.read(self.network.logits(self.images))

    def perturbed(self) -> Tensor:
        return self.read(self.network.logits(self.background))

    def masked(self, grid: Tensor) -> Tensor:
        pixels = perturb(self.images, self.background, self.upsampled(grid))
        return self.read(self.network.logits(pixels))

    def rows(self, kept: Tensor) -> ImageCanvas:
        some = copy(self)
        some.images, some.background, some.weights = (
            x[kept] for x in (self.images, self.background, self.weights)
        )
        some.pictures, some.windows = self.pictures[:, kept], self.windows.rows(kept)
        return some

    def start(self, original_score: Tensor, perturbed_score: Tensor) -> InitialMasks:
        start = initial_masks(
            self.network,
            self.images,
            self.background,
            self.weights,
            self.settings,
            original_score=probability(original_score, self.settings.score_scale),
            perturbed_score=probability(perturbed_score, self.settings.score_scale),
            seed=self.seed,
        )
        return varied_starts(start, self.draws, self.settings, self.size)


class ExportedCanvas(ImageCanvas):
    """The same with score and gradient from the exported graph (``engine="onnx"``)."""

    own_scores = False

    def _prepare(self) -> None:
        from perturb_tutorial.engines.openvino import JointRuntime

        self.runtime = JointRuntime(self.network, self.settings, len(self.images), self.precision)
        self.pictures = torch.stack([self.padded(self.images), self.padded(self.background)])

    def score(self, grid: Tensor, step: Step) -> Tensor:
        image, background = self.windows(self.pictures, step)
        inputs = (self.runtime, image, background, self.weights)
        score: Tensor = _Joint.apply(grid, *inputs)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
        return score

    def original(self) -> Tensor:
        return self.masked(self._everywhere(1.0))

    def perturbed(self) -> Tensor:
        return self.masked(self._everywhere(0.0))

    def masked(self, grid: Tensor) -> Tensor:
        return self.runtime.scores(grid, self.images, self.background, self.weights)

    def _everywhere(self, value: float) -> Tensor:
        return torch.full((len(self.images), 1, *self.cells), value, dtype=torch.float32, device="cpu")


class CompiledCanvas(ImageCanvas):
    """The same with the network's passes by compiled code (``engine="compile"``)."""

    fixed_batch = True
    own_scores = False

    def logits(self, inputs: Tensor) -> Tensor:
        from perturb_tutorial.engines.compiled import compiled_logits

        return compiled_logits(self.network, inputs)


CANVASES: dict[str, type[ImageCanvas]] = {
    "torch": ImageCanvas,
    "onnx": ExportedCanvas,
    "compile": CompiledCanvas,
}
"""The canvas of each of ``settings.ENGINES``."""


class _Joint(torch.autograd.Function):
    """A score whose gradient was computed with it."""

    @staticmethod
    def forward(ctx: Any, grid: Tensor, runtime: Any, *inputs: Tensor) -> Tensor:
        scores: tuple[Tensor, Tensor] = runtime(grid, *inputs)
        score, gradient = scores
        ctx.save_for_backward(gradient)
        return score

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * above[0].view(-1, 1, 1, 1), None, None, None, None


class _Windows:
    """The part of padded pictures …×N×C×(H + reach − 1)×(W + reach − 1) that lies under each mask in an iteration.

    ``shifts``: one sequence for all N images, or one for each.
    """

    def __init__(self, shifts: list[Shifts], size: tuple[int, int], reach: int, device: torch.device) -> None:
        self.shifts, self.size, self.reach, self.device = shifts, size, reach, device

    def __call__(self, pictures: Tensor, step: Step) -> Tensor:
        """…×N×C×H×W."""
        one = len(self.shifts) == 1
        if isinstance(step, int):
            if one:
                return shift(pictures, *self.shifts[0][step], self.size)
            parts = pictures.split(1, dim=-4)
            moved = [
                shift(part, *mine[step], self.size) for part, mine in zip(parts, self.shifts, strict=True)
            ]
            return torch.cat(moved, dim=-4)
        pixels, flat = self._pixels + self._corners.index_select(1, step), pictures.flatten(-2)
        if one:
            chosen = flat.index_select(-1, pixels[0])
        else:
            chosen = flat.gather(-1, pixels[:, None].expand(*flat.shape[:-1], -1))
        return chosen.view(*pictures.shape[:-2], *self.size)

    def rows(self, kept: Tensor) -> _Windows:
        """The same for some of the images, whose numbers are ``kept``."""
        if len(self.shifts) == 1:
            return self
        return _Windows([self.shifts[row] for row in kept.tolist()], self.size, self.reach, self.device)

    @cached_property
    def _pixels(self) -> Tensor:
        """The numbers of the pixels in the window at the upper left of a padded picture, H·W."""
        height, width = (side + self.reach - 1 for side in self.size)
        numbers = torch.arange(height * width, device=self.device).view(height, width)
        return numbers[: self.size[0], : self.size[1]].flatten()

    @cached_property
    def _corners(self) -> Tensor:
        """The number of the first pixel of each window, one row a sequence."""
        width, last = self.size[1] + self.reach - 1, self.reach - 1
        corners = [[(last - dy) * width + last - dx for dx, dy in mine] for mine in self.shifts]
        return torch.tensor(corners, device=self.device)


def jitter_shifts(settings: MaskSettings, size: Size, seed: int) -> Shifts:
    """The (dx, dy) of each iteration, whole image px uniform in 0 … τ − 1, for an input of ``size`` px."""
    reach = settings.lengths(size).jitter
    generator = torch.Generator(device="cpu").manual_seed(seed)
    count = max(
        settings.iterations, len(LEVELS)
    )  # the start "gradient" needs some before the first iteration
    drawn = torch.randint(0, reach, (count, 2), generator=generator, device="cpu")
    return [(dx, dy) for dx, dy in drawn.tolist()]


def shift(padded: Tensor, dx: int, dy: int, size: Size) -> Tensor:
    """The window of ``size`` px in which the image stands ``dx`` px further right and ``dy`` further down.

    ``padded`` has the image's edges replicated at its left and top.
    """
    height, width = sides(size)
    top, left = padded.shape[-2] - height - dy, padded.shape[-1] - width - dx
    return padded[..., top : top + height, left : left + width]
