"""Segments as pixels, and the distance to them: the 15 px of the pointing game rest on it."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("pycocotools", reason="COCO segmentations need the extra coco")

from perturb_tutorial.metrics import distance_to_mask, segment_mask, union_mask


def box_mask(size: tuple[int, int], x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_a_rectangle_covers_the_pixels_between_its_corners() -> None:
    polygon = [[2, 3, 6, 3, 6, 8, 2, 8]]
    np.testing.assert_array_equal(segment_mask(polygon, (10, 12)), box_mask((10, 12), 2, 3, 6, 8))


def test_several_polygons_are_one_segment_and_parts_outside_are_cut() -> None:
    polygons = [[0, 0, 2, 0, 2, 2, 0, 2], [10, 8, 20, 8, 20, 30, 10, 30]]
    expected = box_mask((10, 12), 0, 0, 2, 2) | box_mask((10, 12), 10, 8, 12, 10)
    np.testing.assert_array_equal(segment_mask(polygons, (10, 12)), expected)


def test_a_run_length_code_counts_down_the_columns() -> None:
    # 3 rows, 4 columns, column by column: 2 off, 3 on, 5 off, 2 on.
    expected = np.array([0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1], dtype=bool).reshape(4, 3).T
    np.testing.assert_array_equal(segment_mask({"size": [3, 4], "counts": [2, 3, 5, 2]}, (3, 4)), expected)


@pytest.mark.parametrize(
    ("size", "share"), [((9, 7), 0.5), ((300, 200), 0.0005), ((40, 90), 0.98), ((1, 1), 1)]
)
def test_compressed_codes_are_read_too(size: tuple[int, int], share: float) -> None:
    from pycocotools import mask as coco

    expected = np.random.default_rng(1).random(size) < share
    code = coco.encode(np.asfortranarray(expected.astype(np.uint8)))
    np.testing.assert_array_equal(segment_mask(code, size), expected)
    code["counts"] = code["counts"].decode()
    np.testing.assert_array_equal(segment_mask(code, size), expected)


def test_a_sliver_does_not_vanish() -> None:
    sliver = [[3.1, 4.1, 3.3, 4.1, 3.3, 4.3, 3.1, 4.3]]
    np.testing.assert_array_equal(segment_mask(sliver, (10, 10)), box_mask((10, 10), 3, 4, 4, 5))


def test_union_of_nothing_is_empty_and_infinitely_far() -> None:
    empty = union_mask([], (4, 5))
    assert empty.shape == (4, 5)
    assert not empty.any()
    assert distance_to_mask(empty, (2, 2)) == math.inf


@pytest.mark.parametrize("seed", range(5))
def test_distance_is_to_the_nearest_covered_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((13, 17)) > 0.93
    mask[5, 5] = True
    for x, y in rng.uniform(-4, 20, size=(40, 2)):
        expected = min(
            math.hypot(column - x, row - y) for row in range(13) for column in range(17) if mask[row, column]
        )
        assert distance_to_mask(mask, (x, y)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 1, 2, 2]], "at least 3 points"),
        ([[1, 1, 2, 2, 3, 3, 4]], "at least 3 points"),
        ({"size": [4, 4], "counts": [16]}, r"size \[5, 6\], got \[4, 4\]"),
        ({"size": None, "counts": [30]}, r"size \[5, 6\], got None"),
        ({"size": [5, 6], "counts": [31]}, "a run-length code of 30 px in all"),
        # pycocotools writes beyond the image's end.
        ({"size": [5, 6], "counts": "000"}, "a run-length code of 30 px in all"),
    ],
)
def test_malformed_segments_are_refused(segmentation: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segment_mask(segmentation, (5, 6))  # type: ignore[arg-type]
