"""The loop that tests of data share hides no row behind another."""

from __future__ import annotations

import pytest
from data_rows import check_rows


def check(row: float | None) -> None:
    if row is None:
        pytest.skip("its package is missing")
    assert 1 / row > 0


def test_every_wrong_row_is_named_also_one_after_a_skipped_one() -> None:
    with pytest.raises(AssertionError) as caught:
        check_rows({"good": 1, "below": -2, "absent": None, "zero": 0, "last": -1}, check)
    first, *lines = str(caught.value).splitlines()
    assert first == "3 of 5 rows are wrong:"
    assert [line.split(": ")[:2] for line in lines] == [
        ["below", "AssertionError"],
        ["zero", "ZeroDivisionError"],
        ["last", "AssertionError"],
    ]


def test_what_could_not_be_checked_is_told() -> None:
    check_rows({"one": 1, "two": 2}, check)
    with pytest.raises(pytest.skip.Exception, match="2 of 3 rows: its package is missing"):
        check_rows({"one": 1, "absent": None, "gone": None}, check)
    with pytest.raises(AssertionError, match="no rows"):
        check_rows({}, check)
