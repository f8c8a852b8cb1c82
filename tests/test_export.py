"""Masks as other programs read them: decoded by others, or by the plainest rule, they are the same pixels."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math

import numpy as np
import pytest
from PIL import Image

from perturb_tutorial.export import CODES, SUFFIXES, exported, gray, polygons, region, run_length_code
from perturb_tutorial.metrics.heatmaps import resize_map
from perturb_tutorial.metrics.segments import segment_mask
from perturb_tutorial.result_file import table


def random_masks() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (1, 7), (6, 1), (5, 6), (9, 8), (20, 17)]
    masks = [rng.random(shape) < share for shape in shapes for share in (0.1, 0.5, 0.9)]
    corner = np.array([[0, 1], [1, 0]], dtype=bool)
    ring = np.ones((5, 5), dtype=bool)
    ring[1:4, 1:4] = False
    island, notch = ring.copy(), ring.copy()
    island[2, 2] = True
    notch[1, 1] = True  # touches nothing across the corner
    spiral = np.array([[1, 1, 1, 0], [1, 0, 0, 1], [1, 1, 1, 1]], dtype=bool)  # touches itself at a corner
    return [
        *masks,
        corner,
        ~corner,
        ring,
        island,
        notch,
        spiral,
        np.zeros((3, 4), bool),
        np.ones((3, 4), bool),
    ]


def every_small_mask() -> list[np.ndarray]:
    return [np.array(bits, dtype=bool).reshape(3, 3) for bits in itertools.product((False, True), repeat=9)]


def filled(rings: list[list[list[int]]], size: tuple[int, int]) -> np.ndarray:
    """Pixels whose center sees an odd number of vertical edges to its right, counted one by one."""
    on = np.zeros(size, dtype=bool)
    for y in range(size[0]):
        for x in range(size[1]):
            crossed = 0
            for ring in rings:
                for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
                    crossed += x0 == x1 and x0 > x + 0.5 and min(y0, y1) < y + 0.5 < max(y0, y1)
            on[y, x] = crossed % 2 == 1
    return on


@pytest.mark.parametrize("masks", [random_masks(), every_small_mask()], ids=["random", "3x3"])
def test_polygons_hold_exactly_the_pixels_of_the_mask(masks: list[np.ndarray]) -> None:
    for mask in masks:
        parts = polygons(mask)
        np.testing.assert_array_equal(filled([ring for part in parts for ring in part], mask.shape), mask)
        for part in parts:
            areas = [area(ring) for ring in part]
            assert areas[0] > 0
            assert all(hole < 0 for hole in areas[1:])
        assert sum(area(ring) for part in parts for ring in part) == mask.sum()


def area(ring: list[list[int]]) -> float:
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)) / 2


def test_parts_are_joined_by_edges_as_scipy_joins_them() -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="needs the extra tests")
    for mask in [*random_masks(), *every_small_mask()]:
        labels, count = ndimage.label(mask)
        parts = polygons(mask)
        assert len(parts) == count
        for part in parts:
            (label,) = set(labels[filled(part, mask.shape)].tolist())
            np.testing.assert_array_equal(filled(part, mask.shape), labels == label)


def test_rings_turn_at_every_corner() -> None:
    for mask in random_masks():
        for ring in (ring for part in polygons(mask) for ring in part):
            steps = [np.sign(np.subtract(b, a)) for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)]
            for one, two in itertools.pairwise([*steps, steps[0]]):
                assert one @ two == 0


def test_run_lengths_are_pycocotools_to_the_letter() -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="needs the extra coco")
    large = np.zeros((700, 900), dtype=bool)
    large[100:650, 37:880] = True
    large[300, 300] = False
    for mask in [*random_masks(), large]:
        code = run_length_code(mask)
        assert code["counts"] == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        np.testing.assert_array_equal(coco.decode(code).astype(bool), mask)
        np.testing.assert_array_equal(segment_mask(code, mask.shape), mask)


def test_the_picture_has_the_size_of_the_photograph_and_the_whole_range() -> None:
    heat = np.random.default_rng(1).normal(size=(6, 9))
    with Image.open(io.BytesIO(gray(heat, (31, 40)))) as picture:
        assert (picture.mode, picture.size, picture.format) == ("L", (40, 31), "PNG")
        levels = np.asarray(picture).astype(float)
    expected = resize_map(heat, (31, 40))
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(levels / 255, expected, atol=0.5 / 255)  # rounded to a level
    with Image.open(io.BytesIO(gray(np.full((2, 2), 0.7), (3, 3)))) as picture:
        assert not np.asarray(picture).any()


def test_the_region_is_the_high_half_of_the_map() -> None:
    heat = np.array([[-4.0, 0.0, 0.4], [0.5, 0.6, 1.0]])
    assert region(heat, (2, 3)).tolist() == [[False, False, False], [True, True, True]]
    assert region(heat, (2, 3), level=0.6).tolist() == [[False] * 3, [False, True, True]]
    assert not region(np.zeros((2, 2)), (5, 5)).any(), "a mask that deletes nothing has no region"
    assert not region(np.full((2, 2), -1.0), (5, 5)).any()
    assert region(np.full((2, 2), 1.0), (5, 5)).all(), "a mask that deletes everything is all region"


@pytest.mark.parametrize(
    ("values", "level", "wrong"),
    [
        ([[0.0, math.nan]], 0.5, "saliency: expected finite numbers"),
        ([[0.0, 1.0]], 0, "level: expected a number above 0 and at most 1, got 0"),
        ([[0.0, 1.0]], True, "level: expected a number above 0 and at most 1, got True"),
        ([0.0, 1.0], 0.5, "saliency: expected one map"),
    ],
)
def test_what_has_no_region_is_refused(values: list[object], level: float, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        region(np.array(values), (2, 2), level)


def test_files_say_what_they_are_of() -> None:
    about = {"image": "cat.jpg", "target": {"index": [285], "name": ["Egyptian cat"]}, "method": "mask"}
    assert list(SUFFIXES) == ["png", *CODES]
    for kind in CODES:
        content = json.loads(exported(kind, np.eye(4), (8, 6), about))
        assert {key: content[key] for key in about} == about
        assert content["segmentation"]["size"] == [8, 6]
        assert content["area"] == region(np.eye(4), (8, 6)).sum()


def test_the_table_has_a_column_for_each_value() -> None:
    entries = [
        {"image": 'a,"b".jpg', "target": {"index": [1, 2], "name": ["x, y", "z"]}, "area": 0.1 + 0.2, "seed": None},
        {"image": "ü\nline", "target": {"index": [3], "name": ["w"]}, "settings": {"iterations": 300, "color": [0.5]},
         "converged": True},
    ]  # fmt: skip
    first, second = csv.DictReader(io.StringIO(table(entries)))
    assert list(first) == [
        "image", "target.index", "target.name", "area", "seed", "settings.iterations", "settings.color", "converged",
    ]  # fmt: skip
    assert (first["image"], first["target.name"], first["seed"]) == ('a,"b".jpg', "x, y; z", "")
    assert float(first["area"]) == 0.1 + 0.2
    assert (second["image"], second["settings.iterations"], second["converged"]) == ("ü\nline", "300", "true")
    assert table([]) == ""
