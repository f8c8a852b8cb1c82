"""learn_masks: one batched loop for both games.

For each image x and set of classes C it minimizes over the grid m ∈ [0, 1]^(h×w), by Adam with a clip to [0, 1]
after each step, the objective of module ``objectives`` with E_τ taken by one random shift an iteration:

    deletion  min λ₁ ‖1 − m‖₁ + λ₂ TV_β(m) + E_τ Σ_{c∈C} f_c(Φ(x(· − τ); M))      (eq. 6; eq. 2)

The loss of a batch is the sum over its images, so each has the gradient it would have alone; the shifts are one
sequence a seed, the same for every image. The network is frozen: the only gradient is the mask's. Nothing in the
loop waits for the device.

An image whose score or gradient is not finite gets no step in that iteration and is not ``converged``; its
neighbors in the batch do not notice. ``converged`` is: all scores finite and score_masked < score_original
(deletion) or score_masked > score_perturbed (preservation).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from perturb_tutorial.initialization import initial_masks
from perturb_tutorial.masks import upsampling_matrix
from perturb_tutorial.networks import Network, pick_device
from perturb_tutorial.objectives import class_sets, class_weights, regularizer, target_score
from perturb_tutorial.perturbations import fully_perturbed, perturb
from perturb_tutorial.results import History, Masks
from perturb_tutorial.settings import REFERENCE_SIZE, MaskSettings

ENGINES = ("torch",)
BATCH_SIZES = {"cpu": 8, "mps": 16, "cuda": 64}
"""Images at once to begin with; halved when the device runs out of memory."""

Progress = Callable[[int, int], None]
"""Called as (iterations done, iterations in all), summed over the images."""


def learn_masks(
    network: Network,
    images: Tensor,
    targets: Any,
    settings: MaskSettings | None = None,
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    engine: str = "torch",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Masks:
    """A mask for each of N images.

    ``images``: N×3×S×S in [0, 1], S = ``network.input_size``. ``targets``: a class index, N indices, or N sets of
    indices whose scores are summed (eq. 2). ``seed`` fixes jitter, noise and random starts; the same seed gives the
    same mask, alone or in a batch (within float rounding). ``device``: None is the network's.
    ``batch_size``: images at once, None to begin with the device's usual number; halved and tried again when the
    device runs out of memory. ``progress``: called with (done, total) image-iterations.
    Returns :class:`Masks` on the images' device. Errors: ``ValueError`` for arguments of the wrong form.
    """
    settings = settings or MaskSettings()
    if engine not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    network.check_images(images)
    if len(images) == 0:
        raise ValueError("images: expected at least one image, got none")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    sets = class_sets(targets, len(images), network.class_count)
    network = network if device is None else network.to(pick_device(device))

    total = len(images) * settings.iterations
    size = min(batch_size or BATCH_SIZES.get(network.device.type, 8), len(images))
    parts: list[Masks] = []
    start = 0
    while start < len(images):
        stop = min(start + size, len(images))
        weights = class_weights(sets[start:stop], network.class_count)

        def report(iteration: int, start: int = start, count: int = stop - start) -> None:
            if progress is not None:
                progress(start * settings.iterations + count * iteration, total)

        try:
            part = _learn_batch(network, images[start:stop], weights, settings, seed, report)
        except RuntimeError as error:
            if not _out_of_memory(error) or size == 1:
                raise
            size = max(1, size // 2)
        else:
            parts.append(part.to(images.device))
            start = stop
            continue
        # Outside the except block: the error's traceback holds the batch's tensors.
        if network.device.type == "cuda":
            torch.cuda.empty_cache()
    return Masks.concatenate(parts)


def _out_of_memory(error: RuntimeError) -> bool:
    kinds = tuple(kind for kind in (getattr(torch, "OutOfMemoryError", None), torch.cuda.OutOfMemoryError) if kind)
    return isinstance(error, kinds) or "not enough memory" in str(error) or "can't allocate memory" in str(error)


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


def _learn_batch(
    network: Network,
    images: Tensor,
    weights: Tensor,
    settings: MaskSettings,
    seed: int,
    report: Callable[[int], None],
) -> Masks:
    device, size, count = network.device, images.shape[-1], len(images)
    images, weights = images.to(device, torch.float32), weights.to(device)
    perturbed = fully_perturbed(
        images, settings.perturbation, color=network.mean_color, blur_sigma=settings.blur_sigma, seed=seed
    )

    def score_of(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            return target_score(network.logits(pixels), weights).clone()

    original_score, perturbed_score = score_of(images), score_of(perturbed)
    start = initial_masks(
        network,
        images,
        perturbed,
        weights,
        settings,
        original_score=original_score,
        perturbed_score=perturbed_score,
        seed=seed,
    )
    up = upsampling_matrix(size, settings.grid_size, settings.mask_sigma * size / REFERENCE_SIZE).to(start.grid)
    grid = start.grid.clone().requires_grad_(True)
    finite = torch.ones(count, dtype=torch.bool, device=device)
    history = {name: torch.zeros(count, settings.iterations, device=device) for name in ("score", "area", "tv")}

    # Normalization is affine and M + (1 − M) = 1: it commutes with Φ, so it is done once.
    reach = jitter_reach(settings, size)
    pad = torch.nn.ReplicationPad2d((reach - 1, 0, reach - 1, 0))
    background = network.normalize(pad(perturbed))
    evidence = network.normalize(pad(images)) - background
    adam = torch.optim.Adam([grid], lr=settings.learning_rate, betas=(0.9, 0.999), eps=1e-8)
    for iteration, (dx, dy) in enumerate(jitter_shifts(settings, size, seed)):
        with torch.autocast(device.type, enabled=False):  # masks stay float32 under a caller's autocast
            mask = up @ grid @ up.T
            inputs = torch.addcmul(shift(background, dx, dy, size), shift(evidence, dx, dy, size), mask)
        score = target_score(network.normalized_logits(inputs), weights)
        penalty, tv = regularizer(grid, settings)
        loss = penalty + score if settings.game == "deletion" else penalty - score
        (gradient,) = torch.autograd.grad(loss.sum(), grid)
        with torch.no_grad():
            usable = torch.isfinite(score) & torch.isfinite(gradient).flatten(1).all(1)
            finite &= usable
            # An image that fails keeps its mask: gradient 0 and, by the where below, no momentum either.
            grid.grad = torch.where(usable.view(-1, 1, 1, 1), gradient, 0.0)
            kept = mask.mean((1, 2, 3))
            history["score"][:, iteration] = score
            history["area"][:, iteration] = 1 - kept if settings.game == "deletion" else kept
            history["tv"][:, iteration] = tv
            before = grid.detach().clone()
            adam.step()
            grid.copy_(torch.where(usable.view(-1, 1, 1, 1), grid.clamp(0, 1), before))
        report(iteration + 1)

    final = grid.detach()
    masked_score = score_of(perturb(images, perturbed, (up @ final @ up.T)))
    for value in (original_score, perturbed_score, masked_score):
        finite &= torch.isfinite(value)
    reached = masked_score < original_score if settings.game == "deletion" else masked_score > perturbed_score
    return Masks(
        grid=final,
        size=(size, size),
        score_original=original_score,
        score_perturbed=perturbed_score,
        score_masked=masked_score,
        converged=finite & reached,
        radius=start.radius,
        history=History(**history),
        settings=settings,
    )


__all__ = ["ENGINES", "Progress", "jitter_reach", "jitter_shifts", "learn_masks", "shift"]
