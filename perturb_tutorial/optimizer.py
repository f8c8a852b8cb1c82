"""learn_masks: one batched loop for both games.

For each image x and set of classes C it minimizes over the grid m ∈ [0, 1]^(h×w), by Adam with a clip to
[0, 1] after each step, the objective of module ``objectives`` with E_τ taken by one random shift an iteration:

    deletion  min λ₁ ‖1 − m‖₁ + λ₂ TV_β(m) + E_τ Σ_{c∈C} f_c(Φ(x(· − τ); M))      (eq. 6; eq. 2)

The loss of a batch is the sum over its images, so each has the gradient it would have alone; the shifts are
one sequence a seed, the same for every image. The network is frozen: the only gradient is the mask's. Nothing
in the loop waits for the device.

An image whose score or gradient is not finite gets no step in that iteration and is not ``converged``; its
neighbors in the batch do not notice. ``converged`` is: all scores finite and score_masked < score_original
(deletion) or score_masked > score_perturbed (preservation).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from perturb_tutorial.initialization import InitialMasks, initial_masks
from perturb_tutorial.masks import upsampling_matrix
from perturb_tutorial.networks import Network, pick_device
from perturb_tutorial.networks.steady import steady_rows
from perturb_tutorial.objectives import class_sets, class_weights, regularizer, target_score
from perturb_tutorial.perturbations import fully_perturbed, perturb
from perturb_tutorial.results import History, Masks
from perturb_tutorial.settings import ENGINES, PRECISIONS, REFERENCE_SIZE, MaskSettings

if TYPE_CHECKING:
    from perturb_tutorial.onnx_engine import JointRuntime

BATCH_SIZES = {"cpu": 8, "mps": 16, "cuda": 64}
"""Images at once to begin with; halved when the device runs out of memory."""

Progress = Callable[[int, int], None]
"""Called as (iterations done, iterations in all), summed over the images."""
Report = Callable[[int], None]
"""Called with the number of iterations that a batch has done."""


def learn_masks(
    network: Network,
    images: Tensor,
    targets: Any,
    settings: MaskSettings | None = None,
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    engine: str = "torch",
    precision: str = "float32",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Masks:
    """A mask for each of N images.

    ``images``: N×3×S×S in [0, 1], S = ``network.input_size``. ``targets``: a class index, N indices, or N
    sets of indices whose scores are summed (eq. 2). ``seed`` fixes jitter, noise and random starts; the same
    seed gives the same mask, alone or in a batch (within float rounding). ``device``: None is the network's.
    ``engine``: one of ``ENGINES``; "onnx" needs ``pip install 'perturb_tutorial[onnx]'``, is faster on a CPU for
    most networks (not for GoogLeNet and VGG-16) and gives the same masks within rounding. ``precision``: one of
    ``PRECISIONS``, of the network's two passes in an iteration; "bfloat16" is for devices that multiply it faster
    (engine "torch" only), and rounds so coarsely that masks differ. Masks, regularizers, the disc search and the
    scores before and after are float32 in any case.
    ``batch_size``: images at once, None to begin with the device's usual number; halved and tried again when
    the device runs out of memory. ``progress``: called with (done, total) image-iterations. Returns
    :class:`Masks` on the images' device. Errors: ``ValueError`` for arguments of the wrong form, or a network
    that the engine cannot run; ``ImportError`` for an engine whose packages are not installed.
    """
    settings = settings or MaskSettings()
    if engine not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "float32" and engine != "torch":
        raise ValueError(
            f"precision: expected float32 with engine {engine!r}, got {precision!r}; use engine='torch'"
        )
    network.check_images(images)
    if len(images) == 0:
        raise ValueError("images: expected at least one image, got none")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    sets = class_sets(targets, len(images), network.class_count)
    network = network if device is None else network.to(pick_device(device))

    def learn(start: int, stop: int, report: Report) -> Masks:
        weights = class_weights(sets[start:stop], network.class_count)
        part = _learn_batch(network, images[start:stop], weights, settings, seed, report, engine, precision)
        return part.to(images.device)

    return learn_in_batches(learn, len(images), settings.iterations, network.device, batch_size, progress)


def learn_in_batches(
    learn: Callable[[int, int, Report], Masks],
    count: int,
    iterations: int,
    device: torch.device,
    batch_size: int | None,
    progress: Progress | None,
) -> Masks:
    """``learn(start, stop, report)`` over ``count`` images, as many at once as the device's memory holds.

    ``report`` takes the iterations done in a batch; ``progress`` gets (done, total) image-iterations.
    """
    size = min(batch_size or BATCH_SIZES.get(device.type, 8), count)
    parts: list[Masks] = []
    start = 0
    while start < count:
        stop = min(start + size, count)

        def report(iteration: int, start: int = start, stop: int = stop) -> None:
            if progress is not None:
                progress(start * iterations + (stop - start) * iteration, count * iterations)

        try:
            with torch.inference_mode(False):
                part = learn(start, stop, report)
        except RuntimeError as error:
            if not out_of_memory(error) or size == 1:
                raise
            size = max(1, size // 2)
        else:
            parts.append(part)
            start = stop
            continue
        # Outside the except block: the error's traceback holds the batch's tensors.
        if device.type == "cuda":
            torch.cuda.empty_cache()
        elif device.type == "mps":
            torch.mps.empty_cache()
    return Masks.concatenate(parts)


def out_of_memory(error: RuntimeError) -> bool:
    kinds = tuple(
        kind for kind in (getattr(torch, "OutOfMemoryError", None), torch.cuda.OutOfMemoryError) if kind
    )
    # On the CPU and on Apple's GPUs it is a plain RuntimeError.
    told = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, kinds) or any(words in str(error) for words in told)


def jitter_shifts(settings: MaskSettings, size: int, seed: int) -> list[tuple[int, int]]:
    """The (dx, dy) of each iteration, whole image px uniform in 0 … τ − 1, for an input of ``size`` px."""
    reach = jitter_reach(settings, size)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, reach, (settings.iterations, 2), generator=generator)
    return [(dx, dy) for dx, dy in drawn.tolist()]


def jitter_reach(settings: MaskSettings, size: int) -> int:
    """τ for an input of ``size`` px, at least 1 (no jitter)."""
    return max(1, round(settings.jitter * size / REFERENCE_SIZE))


def shift(padded: Tensor, dx: int, dy: int, size: int) -> Tensor:
    """The size×size window in which the image stands ``dx`` px further right and ``dy`` further down.

    ``padded`` has the image's edges replicated at its left and top.
    """
    top, left = padded.shape[-2] - size - dy, padded.shape[-1] - size - dx
    return padded[..., top : top + size, left : left + size]


class Canvas(Protocol):
    """What the masks of a batch lie on: N images here, the output of a layer in module ``activations``.

    Its methods give logits N×K; a ``grid`` is N×1×h×w. ``device`` is where all of it happens.
    """

    @property
    def device(self) -> torch.device: ...

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the images, px."""

    def original(self) -> Tensor:
        """With nothing perturbed."""

    def perturbed(self) -> Tensor:
        """With everything perturbed."""

    def start(self, original_score: Tensor, perturbed_score: Tensor) -> InitialMasks:
        """The masks at the start."""

    def jittered(self, grid: Tensor, iteration: int) -> tuple[Tensor, Tensor]:
        """Under the mask in one iteration, differentiable in ``grid``, and the mask as it lies, N×1×H×W."""

    def masked(self, grid: Tensor) -> Tensor:
        """Under the mask without jitter."""


class _ImageCanvas:
    """Masks on images: upsampled, softened and, against a jittered image, fixed."""

    def __init__(
        self,
        network: Network,
        images: Tensor,
        weights: Tensor,
        settings: MaskSettings,
        seed: int,
        precision: str = "float32",
    ) -> None:
        self.low_precision = precision != "float32"
        self.network, self.settings, self.seed, self.weights = network, settings, seed, weights
        self.device, self.images = network.device, images
        size = images.shape[-1]
        self.size = (size, size)
        self.background = fully_perturbed(
            images, settings.perturbation, color=network.mean_color, blur_sigma=settings.blur_sigma, seed=seed
        )
        self.up = upsampling_matrix(size, settings.grid_size, settings.mask_sigma * size / REFERENCE_SIZE).to(
            images
        )
        # Normalization is affine and M + (1 − M) = 1: it commutes with Φ, so it is done once.
        self.padded_background = network.normalize(self.padded(self.background))
        self.padded_evidence = network.normalize(self.padded(images)) - self.padded_background
        self.shifts = jitter_shifts(settings, size, seed)

    def padded(self, images: Tensor) -> Tensor:
        """``images`` with their left and upper edges replicated as far as the jitter reaches."""
        reach = jitter_reach(self.settings, self.size[0])
        return torch.nn.functional.pad(images, (reach - 1, 0, reach - 1, 0), mode="replicate")

    def _upsampled(self, grid: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):  # masks stay float32 under a caller's autocast
            return self.up @ grid @ self.up.T

    def original(self) -> Tensor:
        return self.network.logits(self.images)

    def perturbed(self) -> Tensor:
        return self.network.logits(self.background)

    def start(self, original_score: Tensor, perturbed_score: Tensor) -> InitialMasks:
        return initial_masks(
            self.network,
            self.images,
            self.background,
            self.weights,
            self.settings,
            original_score=original_score,
            perturbed_score=perturbed_score,
            seed=self.seed,
        )

    def jittered(self, grid: Tensor, iteration: int) -> tuple[Tensor, Tensor]:
        mask = self._upsampled(grid)
        background, evidence = (
            shift(padded, *self.shifts[iteration], self.size[0])
            for padded in (self.padded_background, self.padded_evidence)
        )
        inputs = torch.addcmul(background, evidence, mask)
        if not self.low_precision:  # then a caller's autocast holds
            return self.network.normalized_logits(inputs), mask
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            return self.network.normalized_logits(inputs), mask

    def masked(self, grid: Tensor) -> Tensor:
        return self.network.logits(perturb(self.images, self.background, self._upsampled(grid)))


def _learn_batch(
    network: Network,
    images: Tensor,
    weights: Tensor,
    settings: MaskSettings,
    seed: int,
    report: Report,
    engine: str = "torch",
    precision: str = "float32",
) -> Masks:
    images, weights = images.to(network.device, torch.float32), weights.to(network.device)
    runtime = _onnx_runtime(network, settings, len(images)) if engine == "onnx" else None
    with steady_rows(network.folded):
        canvas = _ImageCanvas(network, images, weights, settings, seed, precision)
        step = None if runtime is None else _onnx_step(runtime, canvas)
        return learn_on(canvas, weights, settings, report, step)


class Step(NamedTuple):
    """What one iteration sees of N masks, N values each and the gradient of the loss, N×1×h×w.

    ``kept``: the mean of the mask as it lies.
    """

    score: Tensor
    kept: Tensor
    tv: Tensor
    gradient: Tensor


def _torch_step(canvas: Canvas, weights: Tensor, settings: MaskSettings) -> Callable[[Tensor, int], Step]:
    """Score, regularizers and gradient in one backward pass."""

    def step(grid: Tensor, iteration: int) -> Step:
        with torch.enable_grad():  # whatever the caller has switched off
            logits, mask = canvas.jittered(grid, iteration)
            if not logits.requires_grad:
                raise ValueError(
                    "network: expected logits with a gradient, got some that do not depend on the mask; "
                    "is the module's forward under torch.no_grad or inference_mode?"
                )
            score = target_score(logits, weights)
            penalty, tv = regularizer(grid, settings)
            loss = penalty + score if settings.game == "deletion" else penalty - score
            (gradient,) = torch.autograd.grad(loss.sum(), grid)
        return Step(score.detach(), mask.detach().mean((1, 2, 3)), tv.detach(), gradient)

    return step


def _onnx_runtime(network: Network, settings: MaskSettings, count: int) -> JointRuntime:
    from perturb_tutorial.onnx_engine import JointRuntime

    return JointRuntime(network, settings, count)


def _onnx_step(runtime: JointRuntime, canvas: _ImageCanvas) -> Callable[[Tensor, int], Step]:
    """The score's gradient by the exported graph, that of the regularizers by PyTorch."""
    settings, size = canvas.settings, canvas.size[0]
    images, backgrounds = canvas.padded(canvas.images), canvas.padded(canvas.background)
    columns = canvas.up.sum(0) / size  # the mean of U m Uᵀ is this vector's product with m from both sides

    def step(grid: Tensor, iteration: int) -> Step:
        image, background = (
            shift(pictures, *canvas.shifts[iteration], size) for pictures in (images, backgrounds)
        )
        score, slope = runtime(grid.detach(), image, background, canvas.weights)
        with torch.enable_grad():
            penalty, tv = regularizer(grid, settings)
            (gradient,) = torch.autograd.grad(penalty.sum(), grid)
        gradient = gradient + slope if settings.game == "deletion" else gradient - slope
        return Step(score, columns @ grid.detach()[:, 0] @ columns, tv.detach(), gradient)

    return step


def learn_on(
    canvas: Canvas,
    weights: Tensor,
    settings: MaskSettings,
    report: Report,
    step: Callable[[Tensor, int], Step] | None = None,
) -> Masks:
    """The loop of the module's docstring on any canvas; ``weights``: N×K, 1 for each target class.

    ``step`` takes a grid that asks for gradients and an iteration; None is PyTorch's on the canvas.
    """

    def score_of(logits: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
        with torch.inference_mode():
            return target_score(logits(*arguments), weights).clone()

    count, device = len(weights), canvas.device
    step = step or _torch_step(canvas, weights, settings)
    original_score, perturbed_score = score_of(canvas.original), score_of(canvas.perturbed)
    start = canvas.start(original_score, perturbed_score)
    grid = start.grid.clone().requires_grad_(True)
    finite = torch.ones(count, dtype=torch.bool, device=device)
    history = {
        name: torch.zeros(count, settings.iterations, device=device) for name in ("score", "area", "tv")
    }
    adam = torch.optim.Adam([grid], lr=settings.learning_rate, betas=(0.9, 0.999), eps=1e-8)
    for iteration in range(settings.iterations):
        score, kept, tv, gradient = step(grid, iteration)
        with torch.no_grad():
            usable = torch.isfinite(score) & torch.isfinite(gradient).flatten(1).all(1)
            finite &= usable
            # An image that fails keeps its mask: gradient 0 and, by the where below, no momentum either.
            grid.grad = torch.where(usable.view(-1, 1, 1, 1), gradient, 0.0)
            history["score"][:, iteration] = score
            history["area"][:, iteration] = 1 - kept if settings.game == "deletion" else kept
            history["tv"][:, iteration] = tv
            before = grid.detach().clone()
            adam.step()
            grid.copy_(torch.where(usable.view(-1, 1, 1, 1), grid.clamp(0, 1), before))
        report(iteration + 1)

    final = grid.detach()
    masked_score = score_of(canvas.masked, final)
    for value in (original_score, perturbed_score, masked_score):
        finite &= torch.isfinite(value)
    reached = masked_score < original_score if settings.game == "deletion" else masked_score > perturbed_score
    return Masks(
        grid=final,
        size=canvas.size,
        score_original=original_score,
        score_perturbed=perturbed_score,
        score_masked=masked_score,
        converged=finite & reached,
        radius=start.radius,
        history=History(**history),
        settings=settings,
    )


__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Canvas",
    "Progress",
    "Report",
    "jitter_reach",
    "jitter_shifts",
    "learn_in_batches",
    "learn_masks",
    "learn_on",
    "shift",
]
