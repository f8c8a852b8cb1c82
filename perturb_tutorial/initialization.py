"""The mask at the start (§2): the smallest disc that does the job, and four rivals.

A centered disc of radius r = 0, 5, …, 175 image px (of 224) is tried: in the deletion game it is perturbed,
in the preservation game it is what is kept. With s₀ the score of the image and s∞ that of the fully perturbed
one, the normalized score is

    ŝ(r) = (s(r) − s∞) / (s₀ − s∞)

and the smallest r with ŝ ≤ 0.01 (deletion) or ŝ ≥ 0.99 (preservation) is taken; without one the mask perturbs
everything. ŝ need not be monotone in r, so the search is a scan from below, not a bisection. It tries the
disc that is then used: softened by σ = 10 image px and brought to the grid. On an input that is not square the discs
are round all the same, and their radii go on until they reach as far beyond the corners (:func:`disc_radii`).

With ``optimizer="averaged"`` the search is a bisection after all, of six scores at most: it ends with a disc that does
the job while the next smaller one does not, which is the smallest where ŝ is monotone.

A disc lies in the center, wherever the evidence is, and many cells of a large one have nothing to do with it. The
start "gradient", which is ours, asks the network instead: the gradients ∂s/∂m at four masks that are the same
everywhere, m = 0.8, 0.6, 0.4 and 0.2, are summed (a coarse integrated gradient, as in I-GOS) and softened, and the
smallest number of cells in their order is found, by bisection, with ŝ ≤ 0.3 (deletion) or ŝ ≥ 0.7 (preservation):
most of the work, and not yet much that has to be taken back. It takes four gradients and five scores. In preservation
it saves iterations; in deletion it can lead to a worse minimum than the disc.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perturb_tutorial.games import GAMES
from perturb_tutorial.masks import INITIAL_DISC_SIGMA, blur, disc_grids, upsample
from perturb_tutorial.networks import Network
from perturb_tutorial.objectives import class_sets, class_weights
from perturb_tutorial.perturbations import background_for, perturb
from perturb_tutorial.settings import MaskSettings, check_seed
from perturb_tutorial.sizes import Size, scaled, sides

RADIUS_STEP, LAST_RADIUS = 5, 175
"""Of the radii that are tried, image px of a 224 px input (§2: [0:5:175])."""
DISC_RADII = tuple(range(0, LAST_RADIUS + 1, RADIUS_STEP))
"""The radii that are tried on a square input, image px of a 224 px input."""
SUPPRESSED = GAMES["deletion"].threshold
"""Normalized score at which a deleted target counts as suppressed "by at least 99 %" (§2)."""
PRESERVED = GAMES["preservation"].threshold
"""Normalized score at which a target counts as preserved (§2)."""
LEVELS = (0.8, 0.6, 0.4, 0.2)
"""Of the masks that are the same everywhere, at which the start "gradient" asks where the evidence is."""
EVIDENCE_SIGMA = 16.0
"""Softening of that evidence, image px of a 224 px input."""
EVIDENCE_SHARES = tuple(0.01 ** (1 - step / 23) for step in range(24))
"""Of the cells that are tried, from 1 % to all of them."""
_RADII_AT_ONCE = 6
_IMAGES_AT_ONCE = {"cpu": 8, "mps": 8, "cuda": 64}
_RANDOM_STREAM = 0x6D30  # keeps this draw apart from the jitter's and the noise's of the same seed


class InitialMasks(NamedTuple):
    """Grids N×1×h×w at the start, and the N chosen radii, image px of a 224 px input, NaN without one."""

    grid: Tensor
    radius: Tensor


Gradient = Callable[[Tensor, int], Tensor]
"""From grids N×1×h×w and the number of an iteration, whose jitter is taken, to ∂s/∂m, N×1×h×w."""


class _Images(NamedTuple):
    """What the search needs of N images: everything has N rows."""

    images: Tensor
    perturbed: Tensor
    weights: Tensor
    original_score: Tensor
    perturbed_score: Tensor


def initial_masks(
    network: Network,
    images: Tensor,
    perturbed: Tensor,
    weights: Tensor,
    settings: MaskSettings,
    *,
    original_score: Tensor,
    perturbed_score: Tensor,
    seed: int = 0,
) -> InitialMasks:
    """The masks that ``settings.initialization`` asks for.

    ``images``, ``perturbed``: N×C×H×W. ``weights``: N×K, 1 for each target class. The two scores: N values,
    of the image and of the fully perturbed one. ``random`` draws one grid a seed, the same for every image.
    """
    if settings.initialization == "disc":
        searched = _Images(images, perturbed, weights, original_score, perturbed_score)
        grids = disc_candidates(settings, _size(images)).to(images)

        def normalized(rows: Tensor, tried: Tensor) -> Tensor:
            return _disc_row(network, searched, settings, rows, tried)

        return smallest_discs(normalized, grids, original_score > perturbed_score, settings)
    cells = settings.grid_shape(_size(images))
    return rival_masks((len(images), 1, *cells), settings, seed, images.device)


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def rival_masks(
    shape: tuple[int, int, int, int], settings: MaskSettings, seed: int, device: torch.device
) -> InitialMasks:
    """The start without a disc: a constant grid, or one random draw a seed; ``shape``: N×1×h×w."""
    none = torch.full((shape[0],), torch.nan, dtype=torch.float32, device="cpu")
    if settings.initialization == "random":
        generator = torch.Generator(device="cpu").manual_seed(check_seed(seed) ^ _RANDOM_STREAM)
        drawn = torch.rand(shape[1:], generator=generator, dtype=torch.float32, device="cpu")
        return InitialMasks(drawn.to(device).expand(shape).clone(), none)
    value = {"half": 0.5, "zeros": 0.0, "ones": 1.0}[settings.initialization]
    return InitialMasks(torch.full(shape, value, dtype=torch.float32, device=device), none)


def disc_radii(size: Size) -> tuple[int, ...]:
    """The radii that are tried on an input of ``size`` px, image px of a 224 px input (whose side is √(H·W)).

    They end at 175 · √((H/W + W/H) / 2), rounded up to a multiple of 5: its share of the distance from center to corner
    is that of 175 px on a square.
    """
    height, width = sides(size)
    farther = math.sqrt((height / width + width / height) / 2)
    last = math.ceil(LAST_RADIUS * farther / RADIUS_STEP) * RADIUS_STEP
    return tuple(range(0, last + 1, RADIUS_STEP))


def disc_candidates(settings: MaskSettings, size: Size, cells: tuple[int, int] | None = None) -> Tensor:
    """Grids R×1×h×w of all radii, for an input of ``size`` px: the disc is 0 in deletion, 1 in preservation.

    ``cells``: (h, w); None is the settings' own grid.
    """
    radii = scaled(torch.tensor(disc_radii(size), dtype=torch.float64, device="cpu"), size)
    return settings.rules.disc(disc_grids(size, cells or settings.grid_shape(size), radii))


def normalized_score(score: Tensor, original: Tensor, perturbed: Tensor) -> Tensor:
    """ŝ = (s − s∞) / (s₀ − s∞); NaN where s₀ ≤ s∞, since nothing is there to suppress or to preserve."""
    span = original - perturbed
    return torch.where(span > 0, (score - perturbed) / span, torch.nan)


def disc_scores(
    network: Network, images: Tensor, targets: Any, settings: MaskSettings | None = None
) -> tuple[Tensor, Tensor]:
    """Normalized score ŝ of every disc, N×R, and the R radii in image px of a 224 px input (§2).

    ``images``: N×C×H×W in [0, 1]; ``targets`` and ``settings`` as in :func:`learn_masks`.
    """
    settings = settings or MaskSettings()
    images = network.check_images(images).to(network.device)
    sets = class_sets(targets, len(images), network.class_count)
    weights = class_weights(sets, network.class_count).to(images.device)
    perturbed = background_for(settings, images, color=network.mean_color)
    score = _scorer(network)
    grids = disc_candidates(settings, _size(images)).to(images)
    with torch.inference_mode():
        searched = _Images(images, perturbed, weights, score(images, weights), score(perturbed, weights))
        every = torch.arange(len(images), device="cpu")
        rows = [_disc_row(network, searched, settings, every[part], grids) for part in every.split(1)]
    radii = torch.tensor(disc_radii(_size(images)), device="cpu")
    none = torch.empty(0, len(grids), dtype=torch.float32, device="cpu")
    return torch.cat(rows).cpu() if rows else none, radii


def _scorer(network: Network) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda pixels, weights: network.target_scores(network.logits(pixels), weights)


def _disc_row(
    network: Network, searched: _Images, settings: MaskSettings, rows: Tensor, grids: Tensor
) -> Tensor:
    """ŝ of some grids (r×1×h×w) on some images: len(rows)×r."""
    size = _size(searched.images)
    masks = upsample(grids, size, settings.lengths(size).mask_sigma)
    images, perturbed = searched.images[rows], searched.perturbed[rows]
    pixels = perturb(images[:, None], perturbed[:, None], masks[None]).flatten(0, 1)
    weights = searched.weights[rows].repeat_interleave(len(grids), 0)
    score = network.target_scores(network.logits(pixels), weights).view(len(rows), len(grids))
    return normalized_score(score, searched.original_score[rows, None], searched.perturbed_score[rows, None])


def evidence_masks(
    gradient: Gradient,
    masked: Callable[[Tensor], Tensor],
    original: Tensor,
    perturbed: Tensor,
    cells: tuple[int, int],
    settings: MaskSettings,
    factors: Tensor | None = None,
) -> InitialMasks:
    """The start "gradient": the smallest set of cells, in the order of the evidence, that nearly does the job.

    Args:
        gradient: see :data:`Gradient`.
        masked: from grids N×1×h×w to p, N values.
        original: p₀, N values.
        perturbed: p∞, N values.
        cells: (h, w).
        settings: of the masks; they say which game it is, and how large a cell is.
        factors: N numbers by which the number of cells is larger in the end than the one that was found; None: 1.
    """
    shape = (len(original), 1, *cells)
    evidence = torch.zeros(shape, dtype=torch.float32, device=original.device)
    for number, level in enumerate(LEVELS):
        evidence += gradient(torch.full_like(evidence, level), number)
    evidence = blur(evidence.nan_to_num(0, 0, 0), EVIDENCE_SIGMA / settings.mask_scale)
    rank = evidence.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1).view(shape)
    count = math.prod(cells)
    sizes = torch.tensor([round(count * share) for share in EVIDENCE_SHARES], device=original.device)

    def grids(counts: Tensor) -> Tensor:
        inside = (rank < counts.view(-1, 1, 1, 1)).to(torch.float32)
        return settings.rules.disc(blur(inside, INITIAL_DISC_SIGMA / settings.mask_scale)).clamp(0, 1)

    low = torch.full((len(original),), -1, device=original.device)
    high = torch.full_like(low, len(sizes) - 1)  # all cells, whether or not they suffice
    while int((high - low).max()) > 1:
        middle = ((low + high) // 2).clamp(min=0)
        fits = settings.rules.mostly_suffices(
            normalized_score(masked(grids(sizes[middle])), original, perturbed)
        )
        high, low = torch.where(fits, middle, high), torch.where(fits, low, middle)
    found = sizes[high] if factors is None else (sizes[high] * factors.to(original)).round()
    return InitialMasks(grids(found), torch.full_like(original, torch.nan).cpu())


def smallest_discs(
    normalized: Callable[[Tensor, Tensor], Tensor], grids: Tensor, usable: Tensor, settings: MaskSettings
) -> InitialMasks:
    """The smallest disc for each of N images, a few radii at a time for the images that have none yet.

    ``normalized``: (row numbers, grids r×1×h×w) → ŝ, rows×r. ``grids``: R×1×h×w, one a radius.
    ``usable``: N booleans; where s₀ ≤ s∞ no disc is searched for. Without a disc the grid is 0.
    """
    if settings.optimizer == "averaged":
        return _bisected_discs(normalized, grids, usable, settings)
    found = torch.zeros(len(usable), 1, *grids.shape[2:], dtype=torch.float32, device=grids.device)
    radius = torch.full((len(usable),), torch.nan, dtype=torch.float32, device="cpu")
    open_rows = usable.nonzero().flatten().cpu()
    at_once = _IMAGES_AT_ONCE.get(grids.device.type, 8)
    with torch.inference_mode():
        for start in range(0, len(grids), _RADII_AT_ONCE):
            tried = grids[start : start + _RADII_AT_ONCE]
            left = []
            for rows in open_rows.split(at_once) if len(open_rows) else ():
                fits = settings.rules.suffices(normalized(rows, tried))
                first = fits.int().argmax(1).cpu()  # the first radius that fits; 0 too where none does
                hit = fits.any(1).cpu()
                found[rows[hit]] = tried[first[hit]]
                radius[rows[hit]] = (RADIUS_STEP * (start + first[hit])).to(radius)
                left.append(rows[~hit])
            open_rows = torch.cat(left) if left else open_rows[:0]
    return InitialMasks(found, radius)


def _bisected_discs(
    normalized: Callable[[Tensor, Tensor], Tensor], grids: Tensor, usable: Tensor, settings: MaskSettings
) -> InitialMasks:
    """:func:`smallest_discs` by bisection; images that try the same radius are tried together."""
    rows = usable.nonzero().flatten().cpu()
    low = torch.full((len(usable),), -1, device="cpu")
    high = torch.full_like(low, len(grids))
    at_once = _RADII_AT_ONCE * _IMAGES_AT_ONCE.get(grids.device.type, 8)
    with torch.inference_mode():
        while len(rows := rows[high[rows] - low[rows] > 1]):
            middle = (low + high) // 2
            for number in middle[rows].unique().tolist():
                for part in rows[middle[rows] == number].split(at_once):
                    tried = normalized(part, grids[number : number + 1])[:, 0]
                    fits = settings.rules.suffices(tried).cpu()
                    high[part[fits]], low[part[~fits]] = number, number
    hit = high < len(grids)
    found = torch.zeros(len(usable), 1, *grids.shape[2:], dtype=torch.float32, device=grids.device)
    found[hit] = grids[high[hit]]
    return InitialMasks(found, torch.where(hit, RADIUS_STEP * high, torch.nan))
