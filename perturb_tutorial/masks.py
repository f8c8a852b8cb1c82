"""Masks: from the grid that is optimized to the image that it covers.

A mask m on the grid Λ of h×w mask px becomes a mask M on the image of H×W image px by nearest-neighbor
upsampling and a Gaussian g of σ_m image px, truncated at 4σ, with replicated edges (§1). Both steps are linear
and separable, so they are two small matrices:

    M = U_h m U_wᵀ,   U = G(σ_m) · S,   S: image px × mask px (nearest),   G: image px × image px (Gaussian)

Each row of U sums to 1: a mask of ones stays ones up to the last border pixel. A matrix product is also
deterministic on every device, which bilinear upsampling's backward on CUDA is not. H and W may differ; then U_h and
U_w do, and the grid has square cells (``MaskSettings.grid_shape``).
A mask is 1 where a pixel is kept and 0 where it is perturbed. Masks know nothing of networks.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from perturb_tutorial.sizes import Size, scaled, sides

TRUNCATE = 4.0
"""A Gaussian ends at this many σ."""

TV_EPSILON = 1e-12
"""Added to the squared gradient, so that its root has a derivative in flat areas (0, not NaN)."""

INITIAL_DISC_SIGMA = 10.0
"""Softening of the initial disc's edge, image px of a 224 px input (§2: g with σ = 10)."""


# Kept for later callers, who may want gradients: not made in the mode of the first one.
@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _gaussian(size: int, sigma: float) -> Tensor:
    if sigma == 0:
        return torch.eye(size, dtype=torch.float64, device="cpu")
    reach = int(TRUNCATE * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((size, size))
    for offset, weight in zip(offsets, weights, strict=True):
        # Clipping the column index is what "replicated edges" means.
        np.add.at(matrix, (np.arange(size), np.clip(np.arange(size) + offset, 0, size - 1)), weight)
    return torch.from_numpy(matrix)


def gaussian_matrix(size: int, sigma: float) -> Tensor:
    """Matrix G (size×size, float64) that blurs a column of ``size`` px by σ = ``sigma`` px."""
    return _gaussian(int(size), float(sigma))


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _upsampling(size: int, cells: int, sigma: float) -> Tensor:
    nearest = torch.zeros(size, cells, dtype=torch.float64, device="cpu")
    nearest[torch.arange(size, device="cpu"), torch.arange(size, device="cpu") * cells // size] = 1.0
    return _gaussian(size, sigma) @ nearest


def upsampling_matrix(size: int, cells: int, sigma: float) -> Tensor:
    """Matrix U (size×cells, float64): nearest upsampling of ``cells`` mask px, then σ = ``sigma`` image px."""
    return _upsampling(int(size), int(cells), float(sigma))


def upsampling_matrices(
    size: Size, cells: tuple[int, int], sigma: float, like: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """U_h and U_w (module docstring) for ``cells`` = (h, w), one tensor for both in a square.

    ``size``: H = W, or (H, W), in image px. ``sigma``: σ_m in image px of this size. ``like``: a tensor whose type and
    device they get; None leaves float64 on the CPU.
    """
    (height, width), (rows, columns) = sides(size), cells
    like = torch.empty(0, dtype=torch.float64, device="cpu") if like is None else like
    left = upsampling_matrix(height, rows, sigma).to(like)
    same = (height, rows) == (width, columns)
    return left, left if same else upsampling_matrix(width, columns, sigma).to(like)


def upsample(grid: Tensor, size: Size, sigma: float) -> Tensor:
    """Mask N×1×H×W on the image from the grid N×1×h×w (module docstring).

    ``size``: H = W, or (H, W), in image px. ``sigma``: σ_m in image px of this size. Differentiable.
    """
    left, right = upsampling_matrices(size, (grid.shape[-2], grid.shape[-1]), sigma, grid)
    with torch.autocast(grid.device.type, enabled=False):  # which would round the products
        return left @ grid @ right.T


def blur(images: Tensor, sigma: float) -> Tensor:
    """Images …×H×W blurred by σ = ``sigma`` image px, truncated at 4σ, edges replicated."""
    left = gaussian_matrix(images.shape[-2], sigma).to(images)
    right = gaussian_matrix(images.shape[-1], sigma).to(images)
    with torch.autocast(images.device.type, enabled=False):
        return left @ images @ right.T


def discs(size: Size, radii: Tensor, centers: Tensor | None = None) -> Tensor:
    """Hard discs R×1×H×W, 1 inside, from R radii and R×2 centers (x, y), all in image px.

    ``size``: H = W, or (H, W). Pixel (y, x) has its center at (x + 0.5, y + 0.5); without ``centers`` discs are
    centered on the image, at (W/2, H/2).
    """
    radii = torch.as_tensor(radii, dtype=torch.float64, device="cpu")
    height, width = sides(size)
    if centers is None:
        centers = torch.tensor([width / 2, height / 2], dtype=torch.float64, device="cpu").expand(
            len(radii), 2
        )
    y, x = (torch.arange(side, dtype=torch.float64, device="cpu") + 0.5 for side in (height, width))
    squared = (x[None, None, :] - centers[:, 0, None, None]) ** 2 + (
        y[None, :, None] - centers[:, 1, None, None]
    ) ** 2
    return (squared < radii[:, None, None] ** 2).to(torch.float32)[:, None]


def disc_grids(
    size: Size, cells: int | tuple[int, int], radii: Tensor, centers: Tensor | None = None
) -> Tensor:
    """Softened discs on the grid, R×1×h×w, 1 inside (§2).

    ``cells``: (h, w), or the side of a square grid. ``radii`` in image px of an input of ``size`` px, a side or
    (height, width). ``centers``: as in :func:`discs`. The disc is blurred by σ = 10 px (of 224) and then averaged over
    each mask px.
    """
    soft = blur(discs(size, radii, centers), scaled(INITIAL_DISC_SIGMA, size))
    return torch.nn.functional.adaptive_avg_pool2d(soft, cells)


def total_variation(grid: Tensor, exponent: float) -> Tensor:
    """TV_β of each mask, N values: Σ_u (d₁(u)² + d₂(u)²)^(β/2) over the grid N×1×h×w (eq. 6).

    d₁ and d₂ are forward differences, 0 in the last row and the last column.
    """
    down = torch.nn.functional.pad(grid[..., 1:, :] - grid[..., :-1, :], (0, 0, 0, 1))
    right = torch.nn.functional.pad(grid[..., :, 1:] - grid[..., :, :-1], (0, 1))
    return (down.square() + right.square() + TV_EPSILON).pow(exponent / 2).sum((1, 2, 3))
