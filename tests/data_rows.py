"""A test of data is one test: it looks at every row and names all those that are wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import pytest

Row = TypeVar("Row")
SHOWN = 400
"""Characters of what is said of a row: a comparison of arrays fills pages."""


def check_rows(rows: Mapping[str, Row], check: Callable[[Row], None]) -> None:
    """Calls ``check`` with every row, and fails with a line for each whose assertions do not hold.

    A row may skip itself. The others are checked all the same, and the test then counts as skipped, not as passed.
    """
    __tracebackhide__ = True
    assert rows, "no rows to check"
    wrong: list[str] = []
    skipped: list[str] = []
    for name, row in rows.items():
        try:
            check(row)
        except pytest.skip.Exception as reason:
            skipped.append(str(reason))
        except Exception as error:  # a row of another form is as wrong as one of another value
            wrong.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:SHOWN]}")
    assert not wrong, f"{len(wrong)} of {len(rows)} rows are wrong:\n" + "\n".join(wrong)
    if skipped:
        pytest.skip(f"{len(skipped)} of {len(rows)} rows: {'; '.join(dict.fromkeys(skipped))}")
