"""Which pixels a COCO segmentation covers, and how far a point is from them.

A segmentation is a list of polygons ``[[x0, y0, x1, y1, …], …]``, or a run-length code ``{"size": [h, w],
"counts": …}`` (crowds). pycocotools turns polygons into a mask, this module decodes the run lengths; the distance is
from the point to the nearest covered pixel's center:

    d(p, S) = min over pixels (x, y) in S of √((x − p_x)² + (y − p_y)²)

Pixel conventions: a point is (x, y) with the first pixel's center at (0, 0), as an arg max gives it. COCO's
polygons have the first pixel's *corner* at (0, 0); pycocotools takes care of that. Against the exact polygon
outline the distance is therefore off by less than one pixel, and masks and run-length codes are treated
alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from perturb_tutorial.metrics.heatmaps import Bool, as_array, as_floats, as_size

Segmentation = list[Any] | dict[str, Any]


def coco_masks() -> Any:
    """The module ``pycocotools.mask``; ``ImportError`` gives the command that installs it if it is missing."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ImportError(
            "COCO segmentations need the package pycocotools: pip install 'perturb_tutorial[coco]'"
        ) from error
    return mask


def _vertices(polygons: list[Any], size: tuple[int, int]) -> Bool:
    covered = np.zeros(size, dtype=np.bool_)
    for polygon in polygons:
        points = np.floor(np.asarray(polygon, dtype=np.float64).reshape(-1, 2)).astype(np.int64)
        inside = (points >= 0).all(1) & (points[:, 0] < size[1]) & (points[:, 1] < size[0])
        covered[points[inside, 1], points[inside, 0]] = True
    return covered


def run_lengths(counts: object, pixels: int) -> list[int]:
    """The run lengths of a run-length code, background first, from its list or its compressed text.

    In the text each character, less 48, holds the next 5 bits of a number; its 6th bit is set if the number continues,
    and the 5th bit of the last character is the sign. From the 4th number on it is the difference to the last but one.
    pycocotools does not check the code, and writes beyond the image where runs are too long.

    Raises:
        ValueError: where they are not whole numbers from 0 on that add up to ``pixels``.
    """
    lengths = counts if isinstance(counts, list) else _decompressed(counts)
    if not all(isinstance(length, int) and length >= 0 for length in lengths) or sum(lengths) != pixels:
        raise ValueError(f"segmentation: expected a run-length code of {pixels} px in all")
    return lengths


def _decompressed(counts: object) -> list[int]:
    """The numbers of a compressed code; empty for anything else."""
    text = counts.decode("latin-1") if isinstance(counts, bytes) else counts
    lengths: list[int] = []
    value = bits = 0
    for character in text if isinstance(text, str) else "":
        part = ord(character) - 48
        if not 0 <= part < 64 or bits > 60:
            return []
        value |= (part & 31) << bits
        bits += 5
        if part & 32:
            continue
        if part & 16:
            value -= 1 << bits
        lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
        value = bits = 0
    return [] if bits else lengths


def segment_mask(segmentation: Segmentation, size: tuple[int, int]) -> Bool:
    """Pixels (height×width, bool) that one segmentation covers in an image of ``size`` = (height, width) px.

    A sliver too thin to hold a pixel's center covers the pixels of its vertices, so that an object that
    somebody annotated never vanishes. Raises ``ValueError`` for a segmentation that is neither of the two
    forms or a run-length code of another size.
    """
    height, width = as_size(size)
    if isinstance(segmentation, dict):
        given = segmentation.get("size")
        if given not in ([height, width], (height, width)):
            raise ValueError(
                f"segmentation: expected a run-length code of size [{height}, {width}], got {given}"
            )
        lengths = run_lengths(segmentation.get("counts"), height * width)
        on = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
        return on.reshape((height, width), order="F")
    if not isinstance(segmentation, list) or not all(len(p) >= 6 and len(p) % 2 == 0 for p in segmentation):
        raise ValueError("segmentation: expected polygons of at least 3 points x, y, or a run-length code")
    if not segmentation:
        return np.zeros((height, width), dtype=np.bool_)
    mask = coco_masks()
    covered = np.asarray(
        mask.decode(mask.merge(mask.frPyObjects(segmentation, height, width))), dtype=np.bool_
    )
    return covered if covered.any() else _vertices(segmentation, (height, width))


def union_mask(segmentations: Iterable[Segmentation], size: tuple[int, int]) -> Bool:
    """Pixels (height×width, bool) that any of the segmentations covers, crowds included."""
    covered = np.zeros(as_size(size), dtype=np.bool_)
    for segmentation in segmentations:
        covered |= segment_mask(segmentation, size)
    return covered


def distance_to_mask(mask: Bool, point: tuple[float, float]) -> float:
    """Distance in px from ``point`` (x, y) to the nearest covered pixel's center; ∞ for an empty mask."""
    covered = as_array(mask, "mask").astype(np.bool_)
    if covered.ndim != 2:
        raise ValueError(f"mask: expected H×W, got shape {covered.shape}")
    x, y = as_floats(point, "point").reshape(2).tolist()
    row, column = round(y), round(x)
    # No pixel center is nearer than that of the pixel which holds the point.
    if 0 <= row < covered.shape[0] and 0 <= column < covered.shape[1] and covered[row, column]:
        return float(np.hypot(column - x, row - y))
    rows, columns = np.nonzero(covered)
    if rows.size == 0:
        return float("inf")
    return float(np.sqrt(((columns - x) ** 2 + (rows - y) ** 2).min()))
