"""Variable occlusion (§4.1): blur occlusion by 784 discs of random position and size, and the point that they choose.

    A ~ log-normal(μ 7.5060, σ 1.2848),  R = √(A/π),  x ~ uniform(0, 224),  y ~ normal(116.0759, 47.5054)

in image px of a 224 px input, fitted to the areas and boxes of COCO's objects (fig. 1, 2); on an input of H×W px x
scales with W, y with H and A with H·W. Of the 10 % of
discs under which the logit falls most, the smallest one is taken: its center is the point. The same discs, drawn by the
seed, are used for every image, so that an image alone and in a batch has the same result.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perturb_tutorial.baselines.batches import Progress
from perturb_tutorial.baselines.occluders import (
    POSITIONS,
    SOFTENING,
    Occlusions,
    moved,
    occlude,
    reject_layer,
    soft_discs,
)
from perturb_tutorial.networks import Network
from perturb_tutorial.perturbations import fully_perturbed
from perturb_tutorial.settings import check_seed
from perturb_tutorial.sizes import REFERENCE_SIZE

DISC_COUNT = POSITIONS**2
"""Discs that are drawn: as many as standard occlusion has squares (§4.1)."""
LOG_AREA_MEAN, LOG_AREA_SD = 7.5060, 1.2848
"""μ and σ of the logarithm of a disc's area in px² (§4.1, fig. 1)."""
CENTER_Y_MEAN, CENTER_Y_SD = 116.0759, 47.5054
"""Mean and standard deviation of a disc's y, px (§4.1, fig. 2)."""
SUPPRESSING_SHARE = 0.10
"""Share of the discs, most suppressive first, among which the smallest is taken (§4.1)."""


class Discs(NamedTuple):
    """``radii`` K and ``centers`` K×2 (x, y), image px of a 224 px input; the first pixel's outer corner is (0, 0)."""

    radii: Tensor
    centers: Tensor


def draw_discs(seed: int = 0, count: int = DISC_COUNT) -> Discs:
    """``count`` discs of the three distributions; a center may lie outside the image, since y is normal."""
    generator = torch.Generator(device="cpu").manual_seed(check_seed(seed))

    def normal(mean: float, sd: float) -> Tensor:
        return mean + sd * torch.randn(count, generator=generator, dtype=torch.float64, device="cpu")

    area = normal(LOG_AREA_MEAN, LOG_AREA_SD).exp()
    x = REFERENCE_SIZE * torch.rand(count, generator=generator, dtype=torch.float64, device="cpu")
    return Discs((area / math.pi).sqrt(), torch.stack((x, normal(CENTER_Y_MEAN, CENTER_Y_SD)), 1))


def variable_occlusion(
    network: Network,
    images: Tensor,
    targets: Any,
    *,
    layer: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The mean drop in logit under the discs that cover each pixel (§4.1).

        The other arguments are those of :func:`occlusion`.

    Args:
        seed: of the discs.

    Returns:
        N×1×H×W in units of the logit, of either sign; 0 where no disc reaches.

    Raises:
        ValueError: as in :func:`occlusion`.

    Examples:
        >>> import torch
        >>> import perturb_tutorial as pt
        >>> from perturb_tutorial import baselines
        >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
        >>> network = pt.Network(module, input_size=32, device="cpu")
        >>> baselines.variable_occlusion(network, torch.rand(1, 3, 32, 32), 2).shape
        torch.Size([1, 1, 32, 32])
    """
    reject_layer("variable_occlusion", layer)
    return _occlude(network, images, targets, draw_discs(seed), batch_size, progress).saliency


def variable_occlusion_points(
    network: Network,
    images: Tensor,
    targets: Any,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The point that variable occlusion chooses in each image (§4.1): the center of the smallest of the 78 discs under
        which the logit falls most. A center outside the image is moved to the nearest point inside.

    The arguments are those of :func:`variable_occlusion`.

    Returns:
        N×2 (x, y) float64 on the CPU, in px of the input with the center of the first pixel at (0, 0); NaN where a
        logit is not finite.

    Raises:
        ValueError: as in :func:`variable_occlusion`.

    Examples:
        >>> import torch
        >>> import perturb_tutorial as pt
        >>> from perturb_tutorial import baselines
        >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
        >>> network = pt.Network(module, input_size=32, device="cpu")
        >>> baselines.variable_occlusion_points(network, torch.rand(2, 3, 32, 32), 2).shape
        torch.Size([2, 2])
    """
    drawn = draw_discs(seed)
    drops = _occlude(network, images, targets, drawn, batch_size, progress).drops
    best = drops.topk(int(SUPPRESSING_SHARE * DISC_COUNT), dim=1).indices.cpu()
    smallest = best.gather(1, drawn.radii[best].argmin(1, keepdim=True))[:, 0]
    height, width = network.input_shape
    last = torch.tensor([width - 1, height - 1], dtype=torch.float64, device="cpu")
    points = (moved(drawn.centers[smallest], network.input_size) - 0.5).clamp(min=0).minimum(last)
    points[~drops.isfinite().all(1).cpu()] = math.nan
    return points


def _occlude(
    network: Network,
    images: Tensor,
    targets: Any,
    drawn: Discs,
    batch_size: int | None,
    progress: Progress | None,
) -> Occlusions:
    def occluders(start: int, stop: int) -> Tensor:
        return soft_discs(network.input_size, drawn.radii[start:stop], drawn.centers[start:stop])

    def blurred(image: Tensor) -> Tensor:
        return fully_perturbed(image, "blur", color=network.mean_color, blur_sigma=SOFTENING)

    return occlude(
        network,
        images,
        targets,
        count=DISC_COUNT,
        occluders=occluders,
        background=blurred,
        batch_size=batch_size,
        progress=progress,
    )
