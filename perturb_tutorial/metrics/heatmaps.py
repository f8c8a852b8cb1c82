"""Heat maps on another pixel grid, and the point at which a heat map peaks.

A heat map h of H×W px is resized to H'×W' px bilinearly, pixel centers on pixel centers of the same picture:
output pixel i reads the input at (i + ½)·H/H' − ½, clipped to the border pixels, as
``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`` does. It is written as a + t·(b −
a), so that a flat part keeps its value to the last bit: masks saturate at 1, and the pointing game takes the
mean of all maxima (§4), which a rounding error would separate.

Arrays are [y, x], points (x, y), both in px with the center of the first pixel at (0, 0).
"""

from __future__ import annotations

import warnings
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perturb_tutorial._outside import short

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int = NDArray[np.int64]
Maximum = Literal["mean", "first"]


def as_array(values: Any, name: str) -> NDArray[Any]:
    """``values`` as an array of real numbers.

    A tensor may need a gradient, be of any format such as bfloat16 and lie on any device; its numbers are copied. Lists
    of tensors are read as well. Errors: ``ValueError`` that calls the values ``name`` for anything else.
    """
    try:
        array = np.asarray(_plain(values))
    except (TypeError, ValueError, RuntimeError):  # rows of different lengths; a tensor without numbers
        array = np.asarray(None, dtype=object)
    if array.dtype.kind == "O" and all(isinstance(value, Real | np.bool_) for value in array.flat):
        array = array.astype(np.float64)  # such as a column of a table
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected real numbers, got {short(values)}")
    return array


def _plain(values: Any) -> Any:
    """Lists of lists and arrays, without tensors, which NumPy cannot read in every state."""
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    if not hasattr(values, "detach"):
        return values
    values = values.detach().cpu()
    return (values.double() if values.is_floating_point() else values).resolve_neg().numpy()


def as_floats(values: Any, name: str) -> Float:
    """:func:`as_array` in float64."""
    return as_array(values, name).astype(np.float64, copy=False)


def as_whole(values: Any, name: str) -> Int:
    """:func:`as_array` in int64; ``ValueError`` for numbers that are not whole."""
    array = as_array(values, name)
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.round(array)).all()):
        raise ValueError(f"{name}: expected whole numbers, got {short(values)}")
    return array.astype(np.int64, copy=False)


def as_names(values: Any) -> NDArray[Any]:
    """What names rows, such as their images: numbers or text, one for each, as a flat array."""
    return np.asarray(_plain(values)).reshape(-1)


def as_map(heat: ArrayLike, name: str = "heat") -> Float:
    """``heat`` as one H×W float64 array; leading axes of length 1 are dropped."""
    array = as_floats(heat, name)
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name}: expected one map of H×W values, got shape {array.shape}")
    return array


def as_size(size: tuple[int, int], name: str = "size") -> tuple[int, int]:
    """``size`` as (height, width), both at least 1 px."""
    pair = as_array(size, name).reshape(-1)
    if (
        len(pair) != 2
        or pair.dtype.kind == "b"
        or not ((pair == np.floor(pair)) & (pair >= 1) & (pair < np.inf)).all()
    ):
        raise ValueError(f"{name}: expected (height, width) in px, got {short(size)}")
    return int(pair[0]), int(pair[1])


def is_usable(heat: ArrayLike) -> bool:
    """Whether a map is finite everywhere and not all zero (§4: otherwise it is a miss)."""
    array = as_map(heat)
    return bool(np.isfinite(array).all() and array.any())


def _lerp_indices(new: int, old: int) -> tuple[Int, Int, Float]:
    positions = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0.0, old - 1.0)
    low = np.floor(positions).astype(np.int64)
    return low, np.minimum(low + 1, old - 1), positions - low


def resize_map(heat: ArrayLike, size: tuple[int, int]) -> Float:
    """``heat`` (H×W) resized bilinearly to ``size`` = (height, width) px."""
    array = as_map(heat)
    height, width = as_size(size)
    if (height, width) == array.shape:
        return array.copy()
    low, high, share = _lerp_indices(height, array.shape[0])
    array = array[low] + share[:, None] * (array[high] - array[low])
    low, high, share = _lerp_indices(width, array.shape[1])
    left = array[:, low]
    return np.asarray(left + share * (array[:, high] - left))


def maximum_point(heat: ArrayLike, which: Maximum = "mean") -> tuple[float, float] | None:
    """Point (x, y) in px at which ``heat`` (H×W) peaks; None, with a warning, when the map is not usable.

    ``which="mean"`` is the mean of all pixels that hold the maximum (§4), ``"first"`` the first of them in
    reading order. A map that is not finite, or zero everywhere, has no point and counts as a miss.

    >>> maximum_point([[0, 1, 1], [0, 0, 0]])
    (1.5, 0.0)
    """
    if which not in ("mean", "first"):
        raise ValueError(f'which: expected "mean" or "first", got {which!r}')
    array = as_map(heat)
    if not is_usable(array):
        what = "not finite" if not np.isfinite(array).all() else "zero everywhere"
        warnings.warn(f"a heat map is {what}: it has no maximum and counts as a miss", stacklevel=2)
        return None
    if which == "first":
        row, column = np.unravel_index(int(array.argmax()), array.shape)
        return float(column), float(row)
    rows, columns = np.nonzero(array == array.max())
    return float(columns.mean()), float(rows.mean())
