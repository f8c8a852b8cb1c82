"""Weak localization (§5): thresholds, boxes, IoU, α*, against slow references and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from perturb_tutorial.metrics import (
    ALPHAS,
    choose_alpha,
    held_out,
    iou,
    is_right,
    kept_pixels,
    right_by_alpha,
    scale_boxes,
    search_alpha,
    threshold_boxes,
)


def slow_kept(heat: np.ndarray, threshold: str, alpha: float) -> np.ndarray:
    h = heat.clip(min=0)
    kept = np.zeros(h.shape, dtype=bool)
    if threshold == "energy":
        budget, taken = alpha * h.sum(), 0.0
        for index in sorted(range(h.size), key=lambda k: -h.flat[k]):
            if taken >= budget:
                break
            taken += h.flat[index]
            kept.flat[index] = True
        return kept
    for row in range(h.shape[0]):
        for column in range(h.shape[1]):
            value = h[row, column]
            kept[row, column] = (
                value - h.min() >= alpha * (h.max() - h.min())
                if threshold == "value"
                else value >= alpha * h.mean()
            )
    return kept


def slow_box(kept: np.ndarray) -> list[float]:
    rows, columns = np.nonzero(kept)
    if rows.size == 0:
        return [0, 0, kept.shape[1] - 1, kept.shape[0] - 1]
    return [columns.min(), rows.min(), columns.max(), rows.max()]


@pytest.mark.parametrize("threshold", ["value", "energy", "mean"])
@pytest.mark.parametrize("seed", range(4))
def test_thresholds_and_boxes_equal_a_slow_reference(threshold: str, seed: int) -> None:
    heat = np.random.default_rng(seed).normal(size=(11, 9)) ** 3
    boxes = threshold_boxes(heat, threshold, ALPHAS[threshold])  # type: ignore[arg-type, index]
    for alpha, box in zip(ALPHAS[threshold], boxes, strict=True):  # type: ignore[index]
        expected = slow_kept(heat, threshold, alpha)
        np.testing.assert_array_equal(kept_pixels(heat, threshold, alpha), expected)  # type: ignore[arg-type]
        assert box.tolist() == slow_box(expected)


def test_the_grids_are_the_protocols() -> None:
    for name, step, last in (("value", 0.05, 0.95), ("energy", 0.05, 0.95), ("mean", 0.5, 10.0)):
        grid = ALPHAS[name]  # type: ignore[index]
        assert grid[0] == 0.0
        assert grid[-1] == last
        np.testing.assert_allclose(np.diff(grid), step, atol=1e-12)


def test_energy_keeps_the_pixel_that_reaches_the_share_and_its_equals() -> None:
    heat = np.array([[5.0, 3.0, 1.0, 1.0]])
    assert kept_pixels(heat, "energy", 0.5).tolist() == [[True, False, False, False]]
    assert kept_pixels(heat, "energy", 0.51).tolist() == [[True, True, False, False]]
    assert kept_pixels(heat, "energy", 0.8).tolist() == [[True, True, False, False]]
    # The last pixel needed has an equal: both stay, whatever the order.
    assert kept_pixels(heat, "energy", 0.85).tolist() == [[True, True, True, True]]


def test_negative_values_are_clipped_before_the_mean_and_the_minimum() -> None:
    heat = np.array([[-10.0, 1.0, 2.0, 3.0]])
    # Mean of 0, 1, 2, 3 is 1.5; with −10 it would be −1.
    assert kept_pixels(heat, "mean", 1.0).tolist() == [[False, False, True, True]]
    assert kept_pixels(heat, "value", 0.5).tolist() == [[False, False, True, True]]


def test_the_box_goes_around_all_kept_pixels() -> None:
    heat = np.zeros((20, 30))
    heat[2, 3] = heat[15, 27] = 1.0
    assert threshold_boxes(heat, "value", 0.5)[0].tolist() == [3, 2, 27, 15]


@pytest.mark.parametrize("threshold", ["value", "energy", "mean"])
def test_nothing_left_is_the_whole_image(threshold: str) -> None:
    whole = [0, 0, 29, 19]
    assert threshold_boxes(np.zeros((20, 30)), threshold, 0.5)[0].tolist() == whole  # type: ignore[arg-type]
    assert threshold_boxes(-np.ones((20, 30)), threshold, 0.5)[0].tolist() == whole  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="not finite"):
        assert threshold_boxes(np.full((20, 30), np.nan), threshold, 0.5)[0].tolist() == whole  # type: ignore[arg-type]
    heat = np.zeros((20, 30))
    heat[4, 4] = 1
    assert threshold_boxes(heat, "mean", 1000.0)[0].tolist() == whole
    assert threshold_boxes(heat, "energy", 0.0)[0].tolist() == whole


def test_alpha_one_keeps_the_maximum_in_spite_of_rounding() -> None:
    assert 0.3 + 1.0 * (0.9 - 0.3) > 0.9  # what a threshold computed naively comes to
    assert kept_pixels([[0.3, 0.9, 0.5]], "value", 1.0).tolist() == [[False, True, False]]


def test_iou_has_inclusive_corners() -> None:
    # One pixel each; the same pixel is 1, neighbors are 0.
    assert iou([0, 0, 0, 0], [[0, 0, 0, 0], [1, 0, 1, 0]]).tolist() == [[1.0, 0.0]]
    # 10×10 and 10×10, shifted by 5: 50 / 150.
    assert iou([0, 0, 9, 9], [5, 0, 14, 9])[0, 0] == 50 / 150
    # By exclusive corners this would be 45/105.
    a, b = np.zeros((30, 30), dtype=bool), np.zeros((30, 30), dtype=bool)
    a[3:12, 4:20], b[5:25, 10:14] = True, True
    assert iou([4, 3, 19, 11], [10, 5, 13, 24])[0, 0] == (a & b).sum() / (a | b).sum()
    for box in ([5, 0, 3, 9], [0, 5, 9, 3], [0, 0, np.nan, 9]):
        with pytest.raises(ValueError, match="x0 ≤ x1"):
            iou(box, [0, 0, 1, 1])


def test_boxes_narrower_than_a_pixel() -> None:
    # Half a pixel wide, 2 high, inside a box of 2×2: 1 of 4 px².
    assert iou([0.5, 0, 0.0, 1], [0, 0, 1, 1])[0, 0] == 1 / 4
    # Without any width there is no area, with itself neither.
    line = [3, 0, 2, 9]
    assert iou(line, [line, [0, 0, 9, 9]]).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("size", [(7, 11), (40, 23), (300, 411)])
def test_iou_is_the_same_on_the_image_at_any_size(size: tuple[int, int]) -> None:
    # Areas scale with the image, whatever becomes of the corners; 224 px onto 7 makes boxes thinner than a pixel.
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 224, (2, 30, 2)), axis=0)
    boxes = np.concatenate((corners[0], corners[1]), axis=1).astype(float)
    scaled = scale_boxes(boxes, (224, 224), size)
    assert bool((scaled[:, 2:] < scaled[:, :2]).any()) == (max(size) < 224)
    np.testing.assert_allclose(iou(scaled, scaled[:10]), iou(boxes, boxes[:10]), atol=1e-9)


def test_right_from_one_half_on_with_any_true_box() -> None:
    truth = [[0, 0, 9, 9], [50, 50, 59, 59]]
    assert is_right([[50, 50, 59, 54], [50, 50, 59, 53], [20, 20, 29, 29]], truth).tolist() == [
        True,
        False,
        False,
    ]
    with pytest.raises(ValueError, match="at least one box"):
        is_right([0, 0, 1, 1], np.empty((0, 4)))


def test_scaling_keeps_the_whole_image_whole_and_areas_in_proportion() -> None:
    assert scale_boxes([0, 0, 223, 223], (224, 224), (375, 500)).tolist() == [0, 0, 499, 374]
    box = scale_boxes([10, 20, 29, 49], (100, 100), (300, 200))
    # Outer edges 10, 30 × 2 and 20, 50 × 3.
    assert box.tolist() == [20, 60, 59, 149]
    back = scale_boxes(box, (300, 200), (100, 100))
    np.testing.assert_allclose(back, [10, 20, 29, 49], atol=1e-12)


def test_alpha_star_is_where_the_boxes_fit() -> None:
    # A core of 1, a ring of 0.6, the rest 0.2: only thresholds between 0.2 and 0.6 give the ring's box.
    heats, truths, sizes = [], [], []
    for shift in range(6):
        heat = np.full((40, 40), 0.2)
        heat[5 + shift : 25 + shift, 10:30] = 0.6
        heat[13 + shift : 17 + shift, 18:22] = 1.0
        heats.append(heat)
        truths.append(np.array([[20.0, 10 + 2 * shift, 59, 49 + 2 * shift]]))
        sizes.append((80, 80))
    found = search_alpha(heats, truths, sizes, "value")
    # (0.6 − 0.2) / 0.8 = 0.5: every α in (0, 0.5] is perfect, and the smallest is taken.
    assert found.alpha == pytest.approx(0.05)
    assert found.error == 0.0
    assert found.images == 6
    assert [bool(error == 0) for error in found.errors] == [0 < k <= 10 for k in range(20)]
    with pytest.raises(ValueError, match="at least one image"):
        search_alpha([], [], [], "value")
    with pytest.raises(ValueError, match="threshold: expected"):
        search_alpha(heats, truths, sizes, "median")  # type: ignore[arg-type]


def test_a_generator_of_maps_and_stored_rows_give_the_same() -> None:
    rng = np.random.default_rng(0)
    heats, sizes = rng.random((12, 20, 20)) ** 4, [(40, 60)] * 12
    truths = [
        [[rng.integers(0, 20), rng.integers(0, 10), rng.integers(30, 60), rng.integers(20, 40)]]
        for _ in heats
    ]
    found = search_alpha((heat for heat in heats), truths, sizes, "energy")
    rows = [
        right_by_alpha(heat, truth, size, "energy")
        for heat, truth, size in zip(heats, truths, sizes, strict=True)
    ]
    stored = choose_alpha(rows, ALPHAS["energy"])
    assert stored[:2] == found[:2]
    np.testing.assert_array_equal(stored.errors, found.errors)
    # By hand at one α.
    wrong = [
        iou(scale_boxes(threshold_boxes(heat, "energy", 0.5), (20, 20), (40, 60)), truth)[0, 0] < 0.5
        for heat, truth in zip(heats, truths, strict=True)
    ]
    assert found.errors[10] == pytest.approx(np.mean(wrong))
    with pytest.raises(ValueError, match="right: expected images × 21"):
        choose_alpha(rows, ALPHAS["mean"])


def test_the_held_out_part_is_drawn_by_seed_and_never_everything() -> None:
    part = held_out(100, 0.2, seed=3)
    assert part.sum() == 20
    np.testing.assert_array_equal(part, held_out(100, 0.2, seed=3))
    assert (part != held_out(100, 0.2, seed=4)).any()
    assert [int(held_out(2, share).sum()) for share in (0.01, 0.99)] == [1, 1]
    with pytest.raises(ValueError, match="count: expected a whole number of at least 2"):
        held_out(1)
