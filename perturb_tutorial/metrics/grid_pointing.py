"""The grid pointing game (Böhle et al., CVPR 2021): which cell of a mosaic does the attribution fall in?

n² images of distinct classes, each classified right with a high score, are put together to an n×n mosaic; it
is squashed to the network's input. For the class of cell i, an attribution A has the score

    L_i = Σ over pixels p in cell i of A⁺(p) / Σ over all p of A⁺(p),     A⁺ = max(A, 0),

1/n² by chance. No positive mass scores 0. The game needs no annotation: the mosaic's maker knows where each
class is.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perturb_tutorial._outside import check_whole
from perturb_tutorial.metrics.heatmaps import Bool, Float, Int, as_array, as_floats, as_map, as_whole
from perturb_tutorial.settings import check_seed


def mosaic(images: ArrayLike, cells: int) -> NDArray[np.generic]:
    """``cells``² images (n²×C×H×W) as one mosaic (C×nH×nW), in reading order."""
    array, cells = as_array(images, "images"), check_whole("cells", cells, 1)
    if array.ndim != 4 or array.shape[0] != cells * cells:
        raise ValueError(f"images: expected {cells * cells} images of C×H×W, got shape {array.shape}")
    _, channels, height, width = array.shape
    grid = array.reshape(cells, cells, channels, height, width)
    rows = grid.transpose(2, 0, 3, 1, 4)
    return rows.reshape(channels, cells * height, cells * width)


def _cell_weights(size: int, cells: int) -> Float:
    """Share (cells×size) of each pixel that lies in each cell: 0, 1, or between where a border cuts the
    pixel.
    """
    edges = np.arange(cells + 1) * size / cells
    pixels = np.arange(size)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    return np.asarray(np.clip(high - low, 0.0, 1.0), dtype=np.float64)


def cell_shares(heat: ArrayLike, cells: int) -> Float:
    """Share (cells×cells) of the positive attribution of ``heat`` (H×W) in each cell; all 0 without any.

    A map that is not finite gives zeros and a warning: it never scores.

    >>> cell_shares([[1, 0], [-5, 3]], cells=2)
    array([[0.25, 0.  ],
           [0.  , 0.75]])
    """
    cells, array = check_whole("cells", cells, 1), as_map(heat)
    if not np.isfinite(array).all():
        warnings.warn("a heat map is not finite: it scores 0 in the grid pointing game", stacklevel=2)
        return np.zeros((cells, cells))
    positive = np.maximum(array, 0.0)
    total = positive.sum()
    if total == 0:
        return np.zeros((cells, cells))
    rows, columns = _cell_weights(array.shape[0], cells), _cell_weights(array.shape[1], cells)
    return np.asarray(rows @ positive @ columns.T / total)


def grid_pointing_score(heat: ArrayLike, cells: int, cell: int) -> float:
    """Score L of ``heat`` (H×W) for the class in ``cell`` (0 … cells²−1, reading order), between 0 and 1."""
    cells = check_whole("cells", cells, 1)
    cell = check_whole("cell", cell, 0, cells * cells - 1)
    return float(cell_shares(heat, cells).flat[cell])


def plan_mosaics(
    classes: ArrayLike, scores: ArrayLike, right: ArrayLike, *, cells: int, count: int, seed: int = 0
) -> Int:
    """Chooses the images of mosaics of distinct classes, those with the highest scores first.

    Images that the network classified wrong take no part. A class gives its images from the highest score down, then
    from the top again; the classes used least go first, and among equals those whose next image has the highest score,
    so the mosaics are filled in the order of the scores.

    Args:
        classes: the target of each of N images.
        scores: its score, N values.
        right: whether the network classified it right, N booleans.
        cells: cells along each side of a mosaic.
        count: the number of mosaics.
        seed: places the images in the cells.

    Returns:
        Image indices, count×cells².

    Raises:
        ValueError: where fewer than cells² classes have an image.
    """
    cells, count = check_whole("cells", cells, 1), check_whole("count", count, 0)
    label = as_whole(classes, "classes").reshape(-1)
    score = as_floats(scores, "scores").reshape(-1)
    usable: Bool = as_array(right, "right").astype(np.bool_).reshape(-1) & np.isfinite(score)
    if not len(label) == len(score) == len(usable):
        raise ValueError("classes, scores, right: expected the same length")
    rng = np.random.default_rng(check_seed(seed))
    order = np.lexsort((np.arange(len(label)), -score))
    ranked = {
        int(c): [int(i) for i in order if label[i] == c and usable[i]] for c in np.unique(label[usable])
    }
    if len(ranked) < cells * cells:
        raise ValueError(
            f"cells: a {cells}×{cells} mosaic needs {cells * cells} classes with an image classified right, "
            f"got {len(ranked)}"
        )
    used = dict.fromkeys(ranked, 0)
    plan: list[list[int]] = []
    for _ in range(count):
        turn = {c: images[used[c] % len(images)] for c, images in ranked.items()}
        chosen = sorted(ranked, key=lambda c: (used[c], -score[turn[c]], c))[: cells * cells]
        plan.append([turn[chosen[i]] for i in rng.permutation(cells * cells)])
        for c in chosen:
            used[c] += 1
    return np.array(plan, dtype=np.int64).reshape(count, cells * cells)
