"""Sizes of inputs, square or not, and lengths that are given for a square of 224 px."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

REFERENCE_SIZE = 224
"""The input size, in image px, for which every length of the paper is given (§4)."""

SMALLEST_INPUT = 8
"""The smallest side of an input, image px."""

Size = int | tuple[int, int]
"""Of an input in image px: the side of a square, or (height, width)."""

_Length = TypeVar("_Length", float, "Tensor")


def sides(size: Size) -> tuple[int, int]:
    """``size`` as (height, width)."""
    return (size[0], size[1]) if isinstance(size, tuple) else (size, size)


def mean_side(size: Size) -> float:
    """√(H·W): the side of a square with as many px, by which lengths scale."""
    return math.sqrt(math.prod(sides(size)))


def scaled(length: _Length, size: Size) -> _Length:
    """A length given in image px of a 224 px input, in px of an input of ``size`` px: times √(H·W) / 224."""
    return length * mean_side(size) / REFERENCE_SIZE


def square_cells(across: int, size: Size) -> tuple[int, int]:
    """(rows, columns) of about ``across``² cells that divide an input into squares, as nearly as whole numbers can.

    They are ``across`` · √(H/W) and ``across`` · √(W/H), rounded, at least 1; both are ``across`` in a square.
    """
    height, width = sides(size)
    return max(1, round(across * math.sqrt(height / width))), max(
        1, round(across * math.sqrt(width / height))
    )


def check_size(name: str, size: Any) -> Size:
    """``size`` as an int for a square, else as (height, width). Errors: ``ValueError`` that calls it ``name``."""
    pair = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(pair) != 2 or any(type(side) is not int or side < SMALLEST_INPUT for side in pair):
        raise ValueError(
            f"{name}: expected a whole number of at least {SMALLEST_INPUT} image px, or (height, width) of two such "
            f"numbers, got {size!r}"
        )
    return pair[0] if pair[0] == pair[1] else (pair[0], pair[1])
