"""The figures of §6, each a function of images and results: rows of photographs under masks.

    fig. 4   preset_comparison   default beside localization
    fig. 7   architectures       one column a network
    fig. 8   layers              one column a layer
    fig. 9   games               preservation beside deletion
    fig. 10  coco_objects        segments as blocks of color, the mask in jet

Images are 3×H×W in [0, 1], each of its own size; a mask is laid over its image at the image's size. Where a
mask is missing, its panel says so; where it did not converge, the line under it says so. (Fig. 3 is
:func:`perturb_tutorial.plotting.comparison_grid`, fig. 5 and 6 are :mod:`perturb_tutorial.study.gallery`.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from perturb_tutorial._outside import check_whole
from perturb_tutorial.datasets.records import ImageRecord
from perturb_tutorial.metrics.heatmaps import resize_map
from perturb_tutorial.metrics.segments import segment_mask
from perturb_tutorial.plotting import HEAT_COLORMAP, PAPER_COLORMAP, Array, as_heat, as_picture, bare, overlay
from perturb_tutorial.results import Masks
from perturb_tutorial.study.architectures import Architectures

Images = Tensor | Sequence[Tensor | Array]
MaskRows = Masks | Sequence[Masks | None]
"""N masks, or one :class:`Masks` of one row (None: no mask) for each of N images."""

INSTANCE_COLORMAP = "tab10"
SEGMENT_COVER = 0.55
"""How much of a segment's pixels is its color."""
MISSING = "no mask"
NOT_CONVERGED = "did not converge"

_PANEL = 1.6  # inches


@dataclass(frozen=True, eq=False)
class Panel:
    """One panel of a figure: a picture H×W×3 or nothing, and the line under it."""

    picture: Array | None = None
    note: str = ""


def panel_grid(
    rows: Sequence[Sequence[Panel]],
    columns: Sequence[str],
    labels: Sequence[str] | None = None,
    *,
    note: str = "",
) -> Figure:
    """A grid of panels.

    Args:
        rows: the panels, row by row.
        columns: the names above the columns.
        labels: one at the left of each row.
        note: a text below everything.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"rows: expected {len(columns)} panels in each, got {len(row)}")
    labels = _labels(labels, len(rows))
    count = max(1, len(rows))
    extra = 0.4 + 0.2 * note.count("\n") + (0.2 if note else 0)
    figure = Figure(
        figsize=(_PANEL * len(columns) + 0.3, (_PANEL + 0.15) * count + extra), layout="constrained"
    )
    grid = figure.subplots(count, len(columns), squeeze=False)
    for axis in grid.flat:
        bare(axis)
    for axis, name in zip(grid[0], columns, strict=True):
        axis.set_title(name, fontsize=8, parse_math=False)
    for axes, row, label in zip(grid, rows, labels, strict=False):
        axes[0].set_ylabel(label, fontsize=7, parse_math=False)
        for axis, panel in zip(axes, row, strict=True):
            if panel.picture is not None:
                axis.imshow(panel.picture)
                axis.set_xlabel(panel.note, fontsize=7, parse_math=False)
            else:
                axis.text(
                    0.5, 0.5, panel.note, fontsize=7, ha="center", va="center", transform=axis.transAxes
                )
    if note:
        figure.supxlabel(note, fontsize=7)
    return figure


def preset_comparison(
    images: Images,
    default: MaskRows,
    localization: MaskRows,
    labels: Sequence[str] | None = None,
    *,
    colormap: str = HEAT_COLORMAP,
) -> Figure:
    """Fig. 4: each photograph, its default mask and its localization mask (§6.2).

    Args:
        images: N photographs, 3×H×W in [0, 1].
        default: their masks under the default preset.
        localization: their masks under the localization preset.
        labels: one for each row.
        colormap: of the saliency.
    """
    return _mask_columns(images, {"default": default, "localization": localization}, labels, colormap)


def games(
    images: Images,
    preservation: MaskRows,
    deletion: MaskRows,
    labels: Sequence[str] | None = None,
    *,
    colormap: str = HEAT_COLORMAP,
) -> Figure:
    """Fig. 9: each photograph, its mask of the preservation game and the saliency of the deletion game (1 − mask).

    Args:
        images: N photographs, 3×H×W in [0, 1].
        preservation: their masks of the preservation game.
        deletion: their masks of the deletion game.
        labels: one for each row.
        colormap: of the saliency.
    """
    return _mask_columns(images, {"preservation": preservation, "deletion": deletion}, labels, colormap)


def layers(
    images: Images,
    masks: Mapping[str, MaskRows],
    labels: Sequence[str] | None = None,
    *,
    names: Mapping[str, str] | None = None,
    colormap: str = HEAT_COLORMAP,
) -> Figure:
    """Fig. 8: each photograph and its masks on layers; the size of the mask is under the layer's name.

    Args:
        images: N photographs, 3×H×W in [0, 1].
        masks: by layer, N each.
        labels: one for each row.
        names: what to call each layer; its own name if not given.
        colormap: of the saliency.
    """
    titled = {}
    for layer, rows in masks.items():
        one = rows if isinstance(rows, Masks) else next((row for row in rows if row is not None), None)
        size = "" if one is None else "\n{}×{}".format(*one.grid.shape[-2:])
        titled[f"{(names or {}).get(layer, layer)}{size}"] = rows
    return _mask_columns(images, titled, labels, colormap)


def architectures(
    result: Architectures, labels: Sequence[str] | None = None, *, colormap: str = HEAT_COLORMAP
) -> Figure:
    """Fig. 7: each photograph and its masks by several networks; a note below the figure names missing networks."""
    note = "\n".join(f"not here: {sentence}" for sentence in result.unavailable.values())
    images: Images = next(iter(result.images.values()), [])
    return _mask_columns(images, result.masks, labels, colormap, note=note)


@dataclass(frozen=True, eq=False)
class CocoCase:
    """One row of fig. 10: an image 3×H×W with its annotations, one category of it, and the saliency for that.

    ``record``: sizes and segments; ``saliency``: H×W or 1×H×W of any size, None where there is no mask.
    ``label``: the category's name. ``converged``: as in :class:`Masks`.
    """

    image: Tensor | Array
    record: ImageRecord
    category: int
    saliency: Tensor | Array | None = None
    label: str = ""
    converged: bool = True
    notes: tuple[str, ...] = field(default_factory=tuple)


def coco_objects(cases: Sequence[CocoCase], *, columns: int = 2, colormap: str = PAPER_COLORMAP) -> Figure:
    """Fig. 10: the segments of the category, each instance a block of its own color, and beside it the mask
    in jet.

    ``columns``: pairs of panels in a row, so that several classes of one image can be side by side. A
    crowd is gray. ``case.notes`` are under the mask.
    """
    columns = max(1, min(check_whole("columns", columns, 1), len(cases)))
    pairs = [
        (Panel(segment_blocks(c.image, c.record, c.category), c.label), _case_panel(c, colormap))
        for c in cases
    ]
    pairs += [(Panel(), Panel())] * (-len(pairs) % columns)
    rows = [
        [panel for pair in pairs[start : start + columns] for panel in pair]
        for start in range(0, len(pairs), columns)
    ]
    return panel_grid(rows, ["segments", "mask"] * columns)


def segment_blocks(image: Tensor | Array, record: ImageRecord, category: int | None = None) -> Array:
    """The image H×W×3 with each instance of ``category`` (None: of every category) as a block of color.

    Instances take the colors of ``tab10`` in turn, smaller ones lie on larger ones, and a crowd is gray. An
    image whose size is not the record's, squashed for a network for instance, has its segments squashed with
    it.
    """
    picture = as_picture(image).copy()
    height, width = picture.shape[:2]
    palette = mpl.colormaps[INSTANCE_COLORMAP]
    chosen = [instance for instance in record.instances if category in (None, instance.category)]
    for order, instance in sorted(enumerate(chosen), key=lambda item: -item[1].area):
        if instance.segmentation is None:
            continue
        mask = segment_mask(instance.segmentation, record.size)
        if mask.shape != (height, width):
            mask = resize_map(mask.astype(np.float64), (height, width)) >= 0.5
        color = np.array(
            (0.5, 0.5, 0.5) if instance.crowd else palette(order % palette.N)[:3], dtype=np.float32
        )
        picture[mask] = (1 - SEGMENT_COVER) * picture[mask] + SEGMENT_COVER * color
    return picture


def _case_panel(case: CocoCase, colormap: str) -> Panel:
    if case.saliency is None:
        return Panel(None, MISSING)
    notes = (*case.notes, *(() if case.converged else (NOT_CONVERGED,)))
    return Panel(_on_image(case.image, case.saliency, colormap), ", ".join(notes))


def _mask_columns(
    images: Images,
    masks: Mapping[str, MaskRows],
    labels: Sequence[str] | None,
    colormap: str,
    *,
    note: str = "",
) -> Figure:
    """A row for each image: the image, then its saliency by each column's masks laid over it.

    Args:
        images: N photographs, 3×H×W in [0, 1].
        masks: by the name of the column, N each.
        labels: one for each row.
        colormap: of the saliency.
        note: a text below everything.
    """
    pictures = list(images)
    columns = {name: _one_each(rows, len(pictures), name) for name, rows in masks.items()}
    rows = [
        [
            Panel(as_picture(image)),
            *(_mask_panel(image, column[row], colormap) for column in columns.values()),
        ]
        for row, image in enumerate(pictures)
    ]
    return panel_grid(rows, ["image", *columns], labels, note=note)


def _mask_panel(image: Tensor | Array, mask: Masks | None, colormap: str) -> Panel:
    if mask is None:
        return Panel(None, MISSING)
    scores = f"{float(mask.score_original[0]):.2f} → {float(mask.score_masked[0]):.2f}"
    note = scores if bool(mask.converged[0]) else f"{scores}, {NOT_CONVERGED}"
    return Panel(_on_image(image, mask.saliency[0], colormap), note)


def _on_image(image: Tensor | Array, saliency: Tensor | Array, colormap: str) -> Array:
    """The saliency over its image, at the image's own size."""
    size = as_picture(image).shape[:2]
    heat: NDArray[Any] = resize_map(as_heat(saliency), (size[0], size[1]))
    return overlay(image, heat.astype(np.float32), colormap=colormap)


def _one_each(masks: MaskRows, count: int, name: str) -> list[Masks | None]:
    rows: list[Masks | None] = (
        [*(masks[row] for row in range(len(masks)))] if isinstance(masks, Masks) else [*masks]
    )
    if len(rows) != count or any(row is not None and len(row) != 1 for row in rows):
        raise ValueError(f"{name}: expected one mask, or None, for each of {count} images, got {len(rows)}")
    return rows


def _labels(labels: Sequence[str] | None, count: int) -> list[str]:
    chosen = [""] * count if labels is None else list(labels)
    if len(chosen) != count:
        raise ValueError(f"labels: expected one for each of {count} rows, got {len(chosen)}")
    return chosen
