"""What the three occlusion methods share: how much the logit falls under each of K occluding masks.

    d_k = z_C(x) − z_C(x · (1 − O_k) + x′ · O_k),   S(u) = Σ_k d_k O_k(u) / Σ_k O_k(u)

O_k (H×W, in [0, 1]) is 1 where occlusion k hides the image x and shows x′ instead; z_C is the mean logit of
the target classes. A pixel that no occlusion touches has S = 0. All lengths are image px of a 224 px input
and scale with √(H·W)/224; positions scale with H/224 and W/224. On an input that is not square the occlusions are
as many and as far apart as on a square, in :func:`positions` rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perturb_tutorial.baselines.batches import Progress, check, exact_gradients, number_format
from perturb_tutorial.batches import in_batches
from perturb_tutorial.masks import blur, discs
from perturb_tutorial.networks import Network
from perturb_tutorial.sizes import REFERENCE_SIZE, Size, mean_side, sides, square_cells

POSITIONS = 28
"""Occlusions along each side of a square: 784 in all (§3: stride 8 on 224 px; §4.1)."""
OCCLUSION_SIZE = 35.0
"""Side of the occluding square (§3) and diameter of the occluding disc (§4.1), image px."""
SOFTENING = 10.0
"""σ of the disc's edge and of the blurred image, image px (§4.1)."""

OCCLUSIONS_AT_ONCE = {"cpu": 4, "mps": 28, "cuda": 392}
"""Occlusions of one image at once, as a first try: few on a CPU, where a batch should stay in its cache."""


class Occlusions(NamedTuple):
    """``drops`` d N×K and ``saliency`` S N×1×H×W, on the images' device."""

    drops: Tensor
    saliency: Tensor


def occlude(
    network: Network,
    images: Tensor,
    targets: Any,
    *,
    count: int,
    occluders: Callable[[int, int], Tensor],
    background: Callable[[Tensor], Tensor],
    batch_size: int | None,
    progress: Progress | None,
) -> Occlusions:
    """The drops in logit and the maps of N images under K occlusions.

    The folded copy of the network runs, without a graph. Where successive rows are the same image with other targets,
    they share its passes: only the classes that are read differ.

    Args:
        network: the network that is explained.
        images: N×C×H×W in [0, 1].
        targets: a class index, N indices, or N sets of them (mean logit).
        count: K, the number of occlusions.
        occluders: (start, stop) → O_start … O_(stop−1), B×1×H×W in [0, 1].
        background: x → x′, both 1×C×H×W, in pixels.
        batch_size: occlusions at once, None for the device's usual number.
        progress: called with (done, total), images times occlusions.

    Returns:
        The drops N×K and the maps N×1×H×W.

    Raises:
        ValueError: for arguments of the wrong form.
    """
    weights = check(network, images, targets, batch_size)
    device, dtype, (height, width) = network.device, number_format(network), images.shape[-2:]
    with torch.inference_mode(False):
        drops = torch.zeros(len(images), count, dtype=dtype, device=device)
        weighted = torch.zeros(len(images), height * width, dtype=dtype, device=device)
        coverage = torch.zeros(height * width, dtype=dtype, device=device)

    rows = weights.to(device, dtype)
    groups = same_in_a_row(images)

    def run(start: int, stop: int) -> None:
        with exact_gradients(device), torch.inference_mode():
            masks = occluders(start, stop).to(device, dtype)
            for group in groups:
                image = images[group.start : group.start + 1].to(device, dtype)
                difference = background(image) - image
                whole = network.logits(image) if start == 0 else None
                occluded = network.logits(image + difference * masks)
                for index in group:
                    if whole is not None:
                        before[index] = (whole[0] * rows[index]).sum()
                    drops[index, start:stop] = before[index] - (occluded * rows[index]).sum(1)
                if progress is not None:
                    progress(start * len(images) + group.stop * (stop - start), count * len(images))
            covered = masks.flatten(1)
            coverage.add_(covered.sum(0))
            weighted.addmm_(drops[:, start:stop], covered)

    before = torch.zeros(len(images), dtype=dtype, device=device)
    in_batches(count, batch_size or OCCLUSIONS_AT_ONCE.get(device.type, 8), run)
    saliency = torch.where(coverage > 0, weighted / coverage.where(coverage > 0, 1), 0)
    return Occlusions(drops.to(images.device), saliency.view(-1, 1, height, width).to(images.device))


def same_in_a_row(images: Tensor) -> list[range]:
    """The indices of N images in runs of equal ones."""
    starts = [i for i in range(len(images)) if i == 0 or not torch.equal(images[i], images[i - 1])]
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(images)], strict=True)]


def reject_layer(method: str, layer: str | None) -> None:
    """Raises ``ValueError`` where a layer is given to a method that works on pixels."""
    if layer is not None:
        raise ValueError(f"layer: {method} works on the pixels, expected None, got {layer!r}")


def positions(size: Size) -> tuple[int, int]:
    """Rows and columns in which occlusions stand on an input of ``size`` px: 28 and 28 on a square."""
    return square_cells(POSITIONS, size)


def soft_discs(size: Size, radii: Tensor, centers: Tensor) -> Tensor:
    """Occluding discs K×1×H×W with softened edges, cut at the border, from image px of a 224 px input.

    ``size``: the input's side, or (H, W). ``radii``: K. ``centers``: K×2, as in :func:`moved`.
    """
    scale = mean_side(size) / REFERENCE_SIZE
    return blur(discs(size, radii * scale, moved(centers, size)), SOFTENING * scale)


def moved(centers: Tensor, size: Size) -> Tensor:
    """Points K×2, (x, y) with the first pixel's outer corner at (0, 0), from a 224 px input to one of ``size`` px."""
    height, width = sides(size)
    return centers * torch.tensor(
        [width / REFERENCE_SIZE, height / REFERENCE_SIZE], dtype=centers.dtype, device="cpu"
    )
