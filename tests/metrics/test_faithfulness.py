"""Deletion and insertion curves: the order of pixels, the masks, the area."""

from __future__ import annotations

import numpy as np
import pytest

from perturb_tutorial.metrics import (
    curve_area,
    deletion_masks,
    insertion_masks,
    normalized_curve,
    pixel_order,
)


def test_pixels_go_from_most_to_least_salient_equals_in_reading_order() -> None:
    assert pixel_order(np.array([[0.2, 0.9], [0.9, -1.0]])).tolist() == [1, 2, 0, 3]
    plateaus = np.repeat([0.0, 1.0], 500).reshape(20, 50)
    assert pixel_order(plateaus).tolist() == [*range(500, 1000), *range(500)]
    with pytest.raises(ValueError, match="finite"):
        pixel_order(np.array([[np.nan, 1.0]]))


def test_insertion_reveals_and_deletion_hides_the_same_pixels() -> None:
    saliency = np.array([[1.0, 4.0], [3.0, 2.0]])
    revealed = [mask.tolist() for mask in insertion_masks(saliency, 4)]
    assert revealed == [
        [[False, False], [False, False]],
        [[False, True], [False, False]],
        [[False, True], [True, False]],
        [[False, True], [True, True]],
        [[True, True], [True, True]],
    ]
    for hidden, shown in zip(deletion_masks(saliency, 4), revealed, strict=True):
        np.testing.assert_array_equal(hidden, ~np.array(shown))


def test_steps_are_even_and_end_at_everything() -> None:
    counts = [int(mask.sum()) for mask in insertion_masks(np.random.default_rng(0).random((7, 9)), 10)]
    assert counts[0] == 0
    assert counts[-1] == 63
    assert all(abs(count - 6.3 * k) <= 0.5 for k, count in enumerate(counts))
    with pytest.raises(ValueError, match="steps: expected a whole number from 1 to 4"):
        insertion_masks(np.ones((2, 2)), 5)


def test_area_is_the_trapezoid_rules() -> None:
    assert curve_area([1.0, 0.0]) == 0.5
    assert curve_area([1.0, 1.0, 0.0]) == 0.75
    scores = np.random.default_rng(0).random((4, 3, 21))
    x = np.linspace(0, 1, 21)
    expected = ((scores[..., 1:] + scores[..., :-1]) / 2 * np.diff(x)).sum(-1)
    np.testing.assert_allclose(curve_area(scores), expected, atol=1e-12)
    with pytest.raises(ValueError, match="at least 2"):
        curve_area([1.0])


def test_a_perfect_order_has_the_least_area_under_deletion() -> None:
    # The score is the share of evidence still kept: deleting the largest first is the best order.
    evidence = np.random.default_rng(1).random((6, 6))

    def area(saliency: np.ndarray) -> float:
        return float(
            curve_area([(evidence * mask).sum() / evidence.sum() for mask in deletion_masks(saliency, 36)])
        )

    best = area(evidence)
    assert all(best < area(np.random.default_rng(seed).random((6, 6))) for seed in range(100, 120))
    assert best + area(-evidence) == pytest.approx(1.0, abs=1e-12)


def test_normalized_curves_run_from_one_to_zero_and_flat_ones_are_nan() -> None:
    curve = normalized_curve([[0.9, 0.5, 0.1], [0.2, 0.2, 0.2]], [0.9, 0.2], [0.1, 0.2])
    np.testing.assert_allclose(curve[0], [1.0, 0.5, 0.0], atol=1e-12)
    assert np.isnan(curve[1]).all()
