"""Every printed number has one of ours beside it, or a reason why not; what is called reproduced is."""

from __future__ import annotations

import re
from importlib import import_module

import pytest
from data_rows import check_rows

from perturb_tutorial.datasets.paper import paper_numbers
from perturb_tutorial.study.measured import measured_names
from perturb_tutorial.study.ours import LABELS, OurNumber, our_number, our_numbers

ROWS = our_numbers()
PAPER = paper_numbers()
SLIPS = {"mask.alexnet.side", "blur_occlusion.stride", "layer.vgg16.pool4.side", "animal_parts.bird.stderr"}
"""Printed values that cannot be meant; the held-out errors are named wrongly, their values stand."""


def half_a_digit(key: str) -> float:
    """Half a unit of the last printed digit: 36.4 → 0.05, 1e-4 → 0.00005."""
    value = PAPER[key].value
    digits = f"{value:.10f}".rstrip("0").partition(".")[2]
    # A ratio printed as 3.7 stands in a column of two decimals.
    places = max(len(digits), 2 if key.startswith("animal_parts") and "classes" not in key else 0)
    return 0.5 * 10.0**-places if places else 0.5


def test_every_printed_number_has_a_row_in_the_papers_order() -> None:
    assert list(ROWS) == list(PAPER)
    assert len(ROWS) > 100


def test_every_row_is_honest() -> None:
    def check(row: OurNumber) -> None:
        assert row.label in LABELS
        if row.label == "not measured":
            assert row.value is None
            assert row.note, "says why"
            return
        assert row.value is not None
        assert row.command
        assert row.on
        assert not re.search(r"/(work|tmp|home|root)/", row.command)
        if row.label == "reproduced":
            assert abs(row.value - PAPER[row.key].value) <= half_a_digit(row.key) + 1e-12
        if row.low is not None and row.high is not None:
            assert row.low <= row.value <= row.high

    check_rows(ROWS, check)


def test_slips_are_those_that_the_argument_leads_to() -> None:
    assert {key for key, row in ROWS.items() if row.label == "slip"} == SLIPS
    # By hand: 227 px / (7 + 17/30) px; 224 px / 28 positions; 224 px halved four times; 0.948 / √21.
    by_hand = {
        "mask.alexnet.side": 227 / (7 + 17 / 30),
        "blur_occlusion.stride": 224 / 28,
        "layer.vgg16.pool4.side": 224 / 2**4,
        "animal_parts.bird.stderr": 0.948 / 21**0.5,
    }
    for key, value in by_hand.items():
        assert ROWS[key].value == pytest.approx(value, abs=5e-4)


def test_a_stored_run_is_read() -> None:
    assert "object_statistics" in measured_names()
    row = our_number("variable_occlusion.y.mean")
    assert row.label == "scaled down"
    assert row.value == pytest.approx(PAPER[row.key].value, rel=0.1)
    assert "COCO" in row.command


def test_a_command_gives_the_number() -> None:
    """A reader who types ``module: expression`` gets what the book prints."""
    typed = [row for row in ROWS.values() if row.command.startswith("perturb_tutorial.")]
    assert len(typed) > 70
    for row in typed:
        module, _, expression = row.command.partition(": ")
        assert eval(expression, dict(vars(import_module(module)))) == row.value, row.key


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(ValueError, match=r"key: no printed number 'mask.hat'; there are mask.iterations"):
        our_number("mask.hat")
