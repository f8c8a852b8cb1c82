"""Masks and heat maps as other programs read them: a gray PNG, polygons, or COCO's run-length code.

All are of the photograph's own size (height, width), to which the map h is resized bilinearly. The picture has 255
where h is largest and 0 where it is smallest. Polygons and run lengths hold a region,

    R = {p : h(p) > 0 and h⁺(p) − min h⁺ ≥ level · (max h⁺ − min h⁺)},    h⁺ = max(h, 0),

the value threshold of weak localization (§5) at α = ``level``. A map without a pixel above 0 has an empty region.

Points are (x, y) in image px with the first pixel's *corner* at (0, 0), as COCO's are: a polygon runs along the edges
of pixels, so that it holds exactly the pixels of the region.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from perturb_tutorial.metrics.heatmaps import Bool, Float, as_array, as_map, resize_map
from perturb_tutorial.metrics.localization import kept_pixels

LEVEL = 0.5
"""The default level: half of the map's range."""

Ring = list[list[int]]
"""Corners [x, y] of a closed way, the first not repeated."""


def gray(saliency: ArrayLike, size: tuple[int, int]) -> bytes:
    """An 8-bit gray PNG of the map at ``size``; a map with one value only is black.

    Examples:
        >>> import io
        >>> from PIL import Image
        >>> picture = Image.open(io.BytesIO(gray([[0.0, 0.5], [0.5, 1.0]], (2, 2))))
        >>> list(picture.tobytes())
        [0, 128, 128, 255]
    """
    heat = _finite(saliency, size)
    low, high = heat.min(), heat.max()
    levels = (heat - low) / (high - low) * 255 if high > low else np.zeros_like(heat)
    file = io.BytesIO()
    Image.fromarray(np.rint(levels).astype(np.uint8)).save(file, format="png")
    return file.getvalue()


def region(saliency: ArrayLike, size: tuple[int, int], level: float = LEVEL) -> Bool:
    """Pixels (height×width, bool) of the photograph that belong to the map's high part R.

    Args:
        saliency: a map h×w, high where the evidence is, such as a row of ``masks.saliency[:, 0]``.
        size: the photograph's (height, width) in px.
        level: the share of the map's range from which a pixel belongs to it, above 0 and at most 1.

    Raises:
        ValueError: where the level is another number, or the map is not finite.

    Examples:
        >>> region([[0.0, 0.2], [0.6, 1.0]], (2, 2)).tolist()
        [[False, False], [True, True]]
    """
    if not isinstance(level, int | float) or isinstance(level, bool) or not 0 < level <= 1:
        raise ValueError(f"level: expected a number above 0 and at most 1, got {level!r}")
    heat = _finite(saliency, size)
    return kept_pixels(heat, "value", level) & (heat > 0)


def _finite(saliency: ArrayLike, size: tuple[int, int]) -> Float:
    """The map at ``size``; ``ValueError`` where it is not finite."""
    heat = as_map(saliency, "saliency")
    if not np.isfinite(heat).all():
        raise ValueError("saliency: expected finite numbers")
    return resize_map(heat, size)


def run_length_code(mask: Bool) -> dict[str, Any]:
    """COCO's compressed run-length code of a mask, height×width: ``{"size": [height, width], "counts": text}``.

    Runs go down the columns, the first counts pixels that are off. From the fourth number on it is the difference to
    the last but one; each character holds five bits and whether more follow. ``pycocotools.mask.decode`` reads it.

    Examples:
        >>> import numpy as np
        >>> run_length_code(np.array([[False, True], [False, True]]))
        {'size': [2, 2], 'counts': '22'}
    """
    on = as_array(mask, "mask").astype(bool)
    flat = np.concatenate([[False], on.ravel(order="F"), [not on.ravel(order="F")[-1]]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    lengths = np.diff(ends, prepend=0).tolist()
    text = []
    for index, length in enumerate(lengths):
        value = length - lengths[index - 2] if index > 2 else length
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text.append(chr(48 + bits + 32 * more))
    return {"size": list(on.shape), "counts": "".join(text)}


def polygons(mask: Bool) -> list[list[Ring]]:
    """A mask, height×width, as GeoJSON's ``coordinates`` of a MultiPolygon: for each part of it (pixels that share an
    edge) the ring around it, then the rings of its holes.

    Corners [x, y] in image px; rings are closed by their first corner, which is not repeated. On the screen, with y
    down, the outer rings run clockwise and those of holes the other way. A point of the plane belongs to the mask
    where the rings around it are an odd number.

    Examples:
        >>> import numpy as np
        >>> polygons(np.array([[False, True, True]]))
        [[[[1, 0], [3, 0], [3, 1], [1, 1]]]]
    """
    on = as_array(mask, "mask").astype(bool)
    rings = _rings(on)
    outer = [ring for ring in rings if _signed_area(ring) > 0]
    holes = [ring for ring in rings if _signed_area(ring) < 0]
    if not holes:
        return [[ring] for ring in outer]
    parts = _parts(on)
    found: dict[int, list[Ring]] = {int(parts[_inside(ring)]): [ring] for ring in outer}
    for ring in holes:
        found[int(parts[_inside(ring)])].append(ring)
    return list(found.values())


def _rings(on: Bool) -> list[Ring]:
    """The ways along the edges between on and off, with pixels that are on to the right.

    Where two pixels touch at a corner each way turns right, so that pixels are joined by their edges only.
    """
    padded = np.pad(on, 1)
    ahead: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def edges(edge: Bool, start: tuple[int, int], step: tuple[int, int]) -> None:
        for y, x in np.argwhere(edge).tolist():
            ahead.setdefault((x + start[0], y + start[1]), []).append(step)

    inner = padded[1:-1, 1:-1]
    edges(inner & ~padded[:-2, 1:-1], (0, 0), (1, 0))  # along the top, to the right
    edges(inner & ~padded[1:-1, 2:], (1, 0), (0, 1))  # down the right side
    edges(inner & ~padded[2:, 1:-1], (1, 1), (-1, 0))
    edges(inner & ~padded[1:-1, :-2], (0, 1), (0, -1))
    rings = []
    while ahead:
        first = min(ahead, key=lambda corner: (corner[1], corner[0]))
        corner, step, ring = first, (0, 0), list[list[int]]()
        # A way may pass its first corner, where two pixels touch, before it ends there.
        while not ring or corner != first or _right(step) in ahead.get(first, ()):
            steps = ahead[corner]
            new = _right(step) if _right(step) in steps else steps[0]
            if new != step:
                ring.append(list(corner))
            steps.remove(new)
            if not steps:
                del ahead[corner]
            step, corner = new, (corner[0] + new[0], corner[1] + new[1])
        rings.append(ring)
    return rings


def _right(step: tuple[int, int]) -> tuple[int, int]:
    return -step[1], step[0]


def _signed_area(ring: Ring) -> float:
    """Positive where the ring runs clockwise on a screen."""
    x, y = np.array(ring).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _inside(ring: Ring) -> tuple[int, int]:
    """(row, column) of a pixel of the mask at the ring's first edge, which lies to the right of it."""
    (x0, y0), (x1, y1) = ring[0], ring[1]
    if y0 == y1:
        return (y0, x0) if x1 > x0 else (y0 - 1, x0 - 1)
    return (y0, x0 - 1) if y1 > y0 else (y0 - 1, x0)


def _parts(on: Bool) -> Any:
    """The number of each pixel's part, from 1 on; 0 off the mask."""
    parts = np.zeros(on.shape, dtype=np.int64)
    count = 0
    for start in zip(*np.nonzero(on), strict=True):
        if parts[start]:
            continue
        count += 1
        parts[start] = count
        waiting = [start]
        while waiting:
            y, x = waiting.pop()
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                within = 0 <= near[0] < on.shape[0] and 0 <= near[1] < on.shape[1]
                if within and on[near] and not parts[near]:
                    parts[near] = count
                    waiting.append(near)
    return parts


def _as_polygons(mask: Bool) -> dict[str, Any]:
    return {"size": list(mask.shape), "type": "MultiPolygon", "coordinates": polygons(mask)}


CODES: dict[str, Callable[[Bool], dict[str, Any]]] = {"polygon": _as_polygons, "rle": run_length_code}
SUFFIXES = {"png": ".png", **{name: f".{name}.json" for name in CODES}}
"""What ``explain --export`` offers, and the end of each file's name."""


def exported(kind: str, saliency: ArrayLike, size: tuple[int, int], about: Mapping[str, Any]) -> bytes:
    """The content of one file of ``explain --export``; ``about`` stands in front of the region in a JSON file."""
    if kind == "png":
        return gray(saliency, size)
    mask = region(saliency, size)
    content = {**about, "level": LEVEL, "area": int(mask.sum()), "segmentation": CODES[kind](mask)}
    return (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode()
