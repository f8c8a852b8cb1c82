"""What comes from outside: text before it is shown, and numbers of whatever program."""

from __future__ import annotations

import math
import operator
import reprlib
from contextlib import ContextDecorator
from typing import Any

_BLANK = frozenset(
    [*map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0))]
    + [chr(code) for low, high in ((0x180B, 0x180F), (0xFE00, 0xFE0F)) for code in range(low, high + 1)]
    + [chr(code) for code in range(0xE0100, 0xE01F0)]
)
"""Characters that Python counts as printable and nobody sees: fillers, joiners of no width, variation selectors."""


def printable(text: object) -> str:
    r"""``text`` as one line that a terminal or a message can show.

    Whatever is no visible character or space stands as Python's ``repr`` writes it: control characters (``\x1b``, which
    a terminal would obey, ``\n``), those that turn the direction of writing or have no width (``\u202e``, ``\u200b``),
    and bytes of a file's name that are no UTF-8 (``\udce9``). What is printable already stays as it is.
    """
    return "".join(c if _is_seen(c) else c.encode("unicode_escape").decode() for c in str(text))


def _is_seen(character: str) -> bool:
    # str.isprintable is False for spaces other than " ", which file names of many languages have.
    return (character.isprintable() or (character.isspace() and character > "\x9f")) and (
        character not in _BLANK and character not in "\u2028\u2029"
    )


class PrintableErrors(ContextDecorator):
    """Decorates what reads files, folders and names: the messages of its errors become :func:`printable`."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        ours = type(error).__module__.startswith(__package__ or "")
        if error is not None and (ours or isinstance(error, ValueError | ImportError)):
            error.args = tuple(printable(part) if isinstance(part, str) else part for part in error.args)
            if isinstance(error, ImportError):  # which shows this in place of its arguments
                error.msg = printable(error.msg)


printable_errors = PrintableErrors()


def whole_number(value: Any) -> int | None:
    """``value`` as an int if it is a whole number of Python, NumPy or torch; None for all else, 3.0 and True too."""
    kind = str(getattr(value, "dtype", type(value).__name__))
    try:
        return None if "bool" in kind else operator.index(value)
    except Exception:  # whatever an array of several numbers raises, beside TypeError
        return None


def is_number(value: object) -> bool:
    """Whether it is a finite number; a whole number above every float is none."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def short(value: object) -> str:
    """``repr`` of a value in one line, with the middle of a long one left out."""
    return printable(" ".join(reprlib.repr(value).split()))


def check_whole(name: str, value: Any, low: int, high: int | None = None) -> int:
    """``value`` as an int from ``low`` on, or to ``high``. Errors: ``ValueError`` that calls it ``name``."""
    number = whole_number(value)
    if number is None or number < low or (high is not None and number > high):
        bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name}: expected a whole number {bounds}, got {short(value)}")
    return number
