"""Figures: an image, what the mask leaves of it, and where the evidence is.

Every function returns a ``matplotlib.figure.Figure`` and touches no global state. Images are C×H×W in [0, 1]: RGB, gray
(C = 1) or RGBA (C = 4), which is drawn over white. Heat maps are H×W. The color map is legible to color-blind readers;
the paper's own is ``jet``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from perturb_tutorial._outside import check_whole

HEAT_COLORMAP = "inferno"
PAPER_COLORMAP = "jet"
PIXEL_METHODS = frozenset({"gradient", "guided_backprop"})
"""Methods whose maps are speckles: one extreme pixel would leave all others black."""
PIXEL_QUANTILE = 0.99
"""The quantile of such a map's values that is drawn as the brightest."""
_PANEL = 2.2  # inches

Array = NDArray[np.float32]


def as_picture(image: Tensor | Array) -> Array:
    """H×W×3 in [0, 1] from a C×H×W image: a gray one (C = 1) three times, RGBA (C = 4) over white."""
    pixels = np.asarray(
        image.detach().cpu().float() if isinstance(image, Tensor) else image, dtype=np.float32
    )
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3, 4):
        raise ValueError(
            f"image: expected 3×H×W, 1×H×W (gray) or 4×H×W (RGBA), got {'×'.join(map(str, pixels.shape))}"
        )
    pixels = np.clip(pixels.transpose(1, 2, 0), 0, 1)
    colors, alpha = pixels[..., :3], pixels[..., 3:]
    if alpha.size:
        colors = colors * alpha + (1 - alpha)
    return colors if colors.shape[2] == 3 else colors.repeat(3, axis=2)


def as_heat(heat: Tensor | Array) -> Array:
    """H×W from a heat map H×W or 1×H×W; NaN becomes 0."""
    values = np.asarray(heat.detach().cpu().float() if isinstance(heat, Tensor) else heat, dtype=np.float32)
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2:
        raise ValueError(f"heat: expected H×W or 1×H×W, got {'×'.join(map(str, values.shape))}")
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def overlay(image: Tensor | Array, heat: Tensor | Array, *, colormap: str = HEAT_COLORMAP) -> Array:
    """The image in gray under the heat map in color, H×W×3 in [0, 1].

    ``heat``: H×W in [0, 1], of the image's size. In the paper's ``jet`` the color is equally opaque everywhere; in
    the other color maps, which begin in black, it is the more opaque the higher the heat is.
    """
    values = np.clip(as_heat(heat), 0, 1)[..., None]
    gray = as_picture(image).mean(2, keepdims=True)
    colors = mpl.colormaps[colormap](values[..., 0])[..., :3].astype(np.float32)
    cover = 0.7 if colormap == PAPER_COLORMAP else 0.75 * values
    blended: Array = gray * (1 - cover) + colors * cover
    return blended


def normalized(heat: Tensor | Array, *, method: str = "") -> Array:
    """A heat map of any scale brought to [0, 1]: negatives to 0, the largest value to 1.

    For the ``PIXEL_METHODS`` the 99th percentile and everything above it become 1.
    """
    values = np.clip(as_heat(heat), 0, None)
    top = float(values.max()) if values.size else 0.0
    if method in PIXEL_METHODS and values.size:
        top = float(np.quantile(values, PIXEL_QUANTILE)) or top
    return np.clip(values / top, 0, 1) if top > 0 else values


def panels(
    pictures: Sequence[Array], labels: Sequence[str] | None = None, *, columns: int | None = None, **show: Any
) -> Figure:
    """Pictures (H×W×3 or H×W) side by side, each with a short label underneath."""
    count = max(1, len(pictures))
    columns = count if columns is None else min(check_whole("columns", columns, 1), count)
    rows = -(-count // columns)
    figure = Figure(figsize=(_PANEL * columns, (_PANEL + 0.3) * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        bare(axis)
        axis.set_visible(False)
    for axis, picture, label in zip(axes, pictures, labels or [""] * len(pictures), strict=False):
        axis.set_visible(True)
        axis.imshow(picture, **show)
        axis.set_xlabel(label, fontsize=8, parse_math=False)  # a class may be called "$10 bill"
    return figure


def bare(axis: Axes) -> None:
    """No ticks, no frame."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def explanation(
    image: Tensor | Array,
    saliency: Tensor | Array,
    *,
    target: str,
    score_original: float | None = None,
    masked: Tensor | Array | None = None,
    score_masked: float | None = None,
    method: str = "mask",
    agreement: Tensor | Array | None = None,
) -> Figure:
    """One image explained: the photograph, what the mask leaves of it (if given), and the saliency over it; with
    ``agreement`` also where several draws of the mask agree.

    Args:
        image: the photograph, C×H×W in [0, 1].
        saliency: H×W or 1×H×W, of the image's size.
        target: the name of the class.
        score_original: of the image, shown under it.
        masked: the image under the mask, C×H×W in [0, 1].
        score_masked: of the image under the mask, shown under it.
        method: the method behind the saliency; it decides how the map is normalized.
        agreement: H×W or 1×H×W in [0, 1], ``Masks.agreement``.
    """
    pictures, labels = [as_picture(image)], [_with_score(target, score_original)]
    if masked is not None:
        pictures.append(as_picture(masked))
        labels.append(_with_score("under the mask", score_masked))
    pictures.append(overlay(image, normalized(saliency, method=method) if method != "mask" else saliency))
    labels.append(f"saliency by {method.replace('_', ' ')}")
    if agreement is not None:
        pictures.append(overlay(image, agreement))
        labels.append("share of draws that agree")
    return panels(pictures, labels)


def _with_score(label: str, score: float | None) -> str:
    return label if score is None else f"{label}: score {score:.3f}"


@dataclass(frozen=True, eq=False)
class ComparisonRow:
    """One row of the paper's fig. 3: an image, the (x0, y0, x1, y1) boxes of its object in px, a map by method."""

    image: Tensor | Array
    maps: Mapping[str, Tensor | Array]
    boxes: Sequence[Sequence[float]] = field(default_factory=list)
    label: str = ""


def comparison_grid(
    rows: Sequence[ComparisonRow], methods: Sequence[str], *, colormap: str = HEAT_COLORMAP
) -> Figure:
    """Fig. 3's arrangement: one row an image with its boxes, one column a method, each map :func:`normalized`.

    A map smaller than the image is enlarged bilinearly; where a row has no map of a method, the panel is empty.
    """
    columns = 1 + len(methods)
    figure = Figure(figsize=(1.35 * columns, 1.35 * max(1, len(rows)) + 0.35), layout="constrained")
    grid = figure.subplots(max(1, len(rows)), columns, squeeze=False)
    for axis in grid.flat:
        bare(axis)
    for axis, name in zip(grid[0], ["image", *methods], strict=True):
        axis.set_title(name.replace("_", "\n", 1).replace("_", " "), fontsize=7)
    for row, axes in zip(rows, grid, strict=False):
        picture = as_picture(row.image)
        height, width = picture.shape[:2]
        axes[0].imshow(picture)
        axes[0].set_ylabel(row.label, fontsize=7, parse_math=False)
        for x0, y0, x1, y1 in row.boxes:
            axes[0].add_patch(
                Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="white", linewidth=2.5)
            )
            axes[0].add_patch(
                Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="black", linewidth=1)
            )
        for axis, name in zip(axes[1:], methods, strict=True):
            if name in row.maps:
                heat = normalized(row.maps[name], method=name)
                axis.imshow(
                    heat,
                    cmap=colormap,
                    vmin=0,
                    vmax=1,
                    extent=(-0.5, width - 0.5, height - 0.5, -0.5),
                    interpolation="bilinear",
                )
    return figure
