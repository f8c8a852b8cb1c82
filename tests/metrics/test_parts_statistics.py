"""Eyes and feet (§7): windows, ratios and standard errors by hand."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from perturb_tutorial.metrics import class_parts, group_parts, window_means


@pytest.mark.parametrize("window", [1, 3, 5])
def test_windows_are_cut_at_the_border(window: int) -> None:
    mask = np.random.default_rng(0).random((12, 15))
    points = [(x, y) for x in range(15) for y in range(12)]
    reach = window // 2
    expected = [
        statistics.fmean(
            mask[row, column]
            for row in range(y - reach, y + reach + 1)
            for column in range(x - reach, x + reach + 1)
            if 0 <= row < 12 and 0 <= column < 15
        )
        for x, y in points
    ]
    np.testing.assert_allclose(window_means(mask, points, window), expected, atol=1e-12)


def test_a_mask_of_ones_is_one_in_the_corner_too() -> None:
    # Dividing a cut window by 25, as the authors did, would give 9/25 here.
    assert window_means(np.ones((20, 20)), [(0, 0), (19.9, 19.9), (10, 10)]).tolist() == [1.0, 1.0, 1.0]


def test_a_point_belongs_to_the_pixel_below_it_and_outside_is_nan() -> None:
    mask = np.zeros((9, 9))
    mask[4, 6] = 1.0
    assert window_means(mask, [(6.9, 4.9)], 1)[0] == 1.0
    assert window_means(mask, [(7.0, 4.0)], 1)[0] == 0.0
    outside = window_means(np.ones((9, 9)), [(-1, 4), (-3, 4), (4, 11), (100, 4)])
    assert outside[0] == 1.0
    assert np.isnan(outside[1:]).all()
    with pytest.raises(ValueError, match="odd"):
        window_means(mask, [(1, 1)], 4)
    with pytest.raises(ValueError, match="finite"):
        window_means(mask, [(math.nan, 1)])


def test_class_statistics_by_hand() -> None:
    parts = class_parts([0.1, 0.3, math.nan], [0.2, 0.4, 0.6, 0.8])
    assert (parts.eyes, parts.feet) == (2, 4)
    assert parts.mean_eyes == pytest.approx(0.2)
    assert parts.mean_feet == pytest.approx(0.5)
    assert parts.stderr_eyes == pytest.approx(0.1 / math.sqrt(2))
    assert parts.stderr_feet == pytest.approx(math.sqrt(0.05) / 2)
    assert parts.ratio == pytest.approx(2.5)


def test_ratios_at_their_ends() -> None:
    assert class_parts([0.0], [0.5]).ratio == math.inf
    assert math.isnan(class_parts([0.0], [0.0]).ratio)
    empty = class_parts([], [0.5])
    assert math.isnan(empty.ratio)
    assert math.isnan(empty.mean_eyes)
    assert empty.eyes == 0


def test_group_rows_by_hand() -> None:
    rows = group_parts(
        {"a": 2.0, "b": 4.0, "c": 6.0, "d": math.inf, "e": 1.5},
        {"a": "bird", "b": "bird", "c": "bird", "d": "bird", "e": "dog"},
    )
    bird = rows["bird"]
    assert (bird.classes, bird.left_out) == (3, 1)
    assert bird.mean == 4.0
    assert bird.stderr == pytest.approx(statistics.stdev([2, 4, 6]) / math.sqrt(3))
    assert bird.variance_over_n == pytest.approx(statistics.variance([2, 4, 6]) / 3)
    assert rows["dog"].mean == 1.5
    assert math.isnan(rows["dog"].stderr)
    with pytest.raises(ValueError, match="no group for the class 'z'"):
        group_parts({"z": 1.0}, {})
