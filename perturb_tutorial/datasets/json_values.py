"""Values of annotation files as what they are: no text that looks like a number, no true for 1, no NaN."""

from __future__ import annotations

from perturb_tutorial._outside import is_number


def is_flag(value: object) -> bool:
    """Whether it is 0 or 1, also as false or true."""
    return isinstance(value, int | float) and value in (0, 1)


def read_whole(value: object) -> int:
    """A whole number, also as 480.0; ``ValueError`` for anything else."""
    if not isinstance(value, int | float) or not is_number(value) or value != int(value):
        raise ValueError(value)
    return int(value)


def text(value: object) -> str:
    """A text; ``TypeError`` for anything else."""
    if not isinstance(value, str):
        raise TypeError(value)
    return value
