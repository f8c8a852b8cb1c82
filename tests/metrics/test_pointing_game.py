"""The pointing game's rules (§4), each edge by hand."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from perturb_tutorial.metrics import (
    TOLERANCE,
    center_point,
    distance_to_mask,
    is_difficult,
    is_hit,
    point_on_image,
    precision,
    precision_by_class,
)


def dot(x: int, y: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[y, x] = True
    return mask


def test_a_distance_of_exactly_15_px_is_a_hit() -> None:
    mask = dot(30, 30)
    assert is_hit((45, 30), mask)
    assert is_hit((30 + 9, 30 + 12), mask)  # 9² + 12² = 15²
    assert not is_hit((46, 30), mask)
    assert not is_hit((30 + 11, 30 + 11), mask)  # √242 = 15.56
    assert not is_hit((45.001, 30), mask)


def test_points_are_x_y_and_arrays_y_x() -> None:
    mask = dot(70, 10)
    assert is_hit((70, 10), mask, tolerance=0)
    assert not is_hit((10, 70), mask, tolerance=0)


def test_a_point_outside_of_the_image_can_hit_within_the_tolerance() -> None:
    assert is_hit((-10, 5), dot(0, 5))
    assert not is_hit((-16, 5), dot(0, 5))


def test_no_point_and_no_segment_are_misses() -> None:
    assert not is_hit(None, dot(1, 1))
    assert not is_hit((math.nan, 1), dot(1, 1))
    assert not is_hit((1, 1), np.zeros((60, 80), dtype=bool))


def test_a_dead_map_is_a_miss_with_a_warning() -> None:
    everything = np.ones((60, 80), dtype=bool)
    for dead in (np.zeros((7, 7)), np.full((7, 7), np.nan)):
        with pytest.warns(UserWarning, match="counts as a miss"):
            assert not is_hit(point_on_image(dead, (60, 80)), everything)


def test_the_heat_map_is_read_at_the_original_size() -> None:
    heat = np.zeros((7, 7))
    heat[3, 6] = 1.0
    # The cell's center is at x = 324.5; right of it the border repeats it, up to 349: the mean is 337.
    assert point_on_image(heat, (70, 350)) == pytest.approx((337, 34.5), abs=0.5)


def test_the_mean_of_two_maxima_may_miss_what_the_first_hits() -> None:
    heat = np.zeros((60, 80))
    heat[30, 5] = heat[30, 75] = 1.0
    assert is_hit(point_on_image(heat, (60, 80), "first"), dot(5, 30))
    assert not is_hit(point_on_image(heat, (60, 80), "mean"), dot(5, 30))


def test_the_center_is_between_the_middle_pixels() -> None:
    assert center_point((480, 640)) == (319.5, 239.5)
    assert center_point((3, 5)) == (2.0, 1.0)
    mask = np.zeros((480, 640), dtype=bool)
    mask[:, :320] = True
    other = ~mask
    assert distance_to_mask(mask, center_point((480, 640))) == distance_to_mask(
        other, center_point((480, 640))
    )


SIZE = (100, 100)
"""10,000 px²: a quarter is 2,500."""


def difficult(
    target: int, categories: list[int], areas: list[float], sides: list[int], definition: str
) -> bool:
    boxes = [[0, 0, side, side] for side in sides]
    return is_difficult(SIZE, target, categories, areas, boxes, definition)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "categories", "areas", "sides", "segments", "boxes"),
    [
        # Small things of two categories: difficult by both.
        (1, [1, 2], [100, 100], [10, 10], True, True),
        # One category only: easy by both, however small.
        (1, [1, 1], [10, 10], [4, 4], False, False),
        # A large distractor: all segments cover more than a quarter, the target's boxes do not.
        (1, [1, 2], [100, 5000], [10, 80], False, True),
        # A thin target in a large box: its segments are small, its box is not.
        (1, [1, 2], [100, 100], [60, 10], True, False),
        # Exactly a quarter is not less than a quarter.
        (1, [1, 2], [2400, 100], [50, 10], False, False),
        (1, [1, 2], [2399, 100], [49, 10], True, True),
        # Several boxes of the target add up: 2 × 40² = 3,200.
        (1, [1, 1, 2], [10, 10, 10], [40, 40, 5], True, False),
    ],
)
def test_both_definitions_of_difficult(
    target: int, categories: list[int], areas: list[float], sides: list[int], segments: bool, boxes: bool
) -> None:
    assert difficult(target, categories, areas, sides, "segments") is segments
    assert difficult(target, categories, areas, sides, "boxes") is boxes


def test_segments_is_the_default_definition() -> None:
    arguments = (SIZE, 1, [1, 2], [100, 5000], [[0, 0, 10, 10], [0, 0, 80, 80]])
    assert is_difficult(*arguments) is is_difficult(*arguments, "segments") is False


def test_difficult_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="target: expected a category of the image, got 3"):
        difficult(3, [1, 2], [1, 1], [1, 1], "segments")
    with pytest.raises(ValueError, match="expected one for each of 2"):
        difficult(1, [1, 2], [1], [1, 1], "segments")
    with pytest.raises(ValueError, match="definition"):
        difficult(1, [1, 2], [1, 1], [1, 1], "hard")


def test_precision_is_the_mean_over_classes_with_samples() -> None:
    # Class 7: 1 of 4; class 9: 1 of 1; no other class has a sample. Over pairs it would be 2/5.
    hits, classes = [1, 0, 0, 0, 1], [7, 7, 7, 7, 9]
    assert precision_by_class(hits, classes) == {7: (0.25, 4), 9: (1.0, 1)}
    assert precision(hits, classes) == (0.25 + 1.0) / 2
    assert math.isnan(precision([], []))
    with pytest.raises(ValueError, match="hits: expected 0 or 1"):
        precision([2], [1])
    with pytest.raises(ValueError, match="same length"):
        precision([1], [1, 2])


def test_the_pairs_of_the_papers_size_are_played_in_minutes() -> None:
    # 30,989 pairs shall take minutes beside the hours of the masks: 40 ms a pair are 21 minutes.
    heat = np.random.default_rng(0).random((224, 224))
    mask = dot(600, 400, (480, 640))
    start = time.perf_counter()
    for _ in range(10):
        is_hit(point_on_image(heat, (480, 640)), mask, TOLERANCE)
    assert (time.perf_counter() - start) / 10 < 0.04
