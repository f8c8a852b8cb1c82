"""The grid pointing game (Böhle et al., CVPR 2021)."""

from __future__ import annotations

import numpy as np
import pytest

from perturb_tutorial.metrics import cell_shares, grid_pointing_score, mosaic, plan_mosaics


def test_a_mosaic_puts_images_in_reading_order() -> None:
    images = np.arange(4)[:, None, None, None] * np.ones((4, 3, 2, 5))
    grid = mosaic(images, 2)
    assert grid.shape == (3, 4, 10)
    assert [grid[0, 0, 0], grid[0, 0, 9], grid[0, 3, 0], grid[2, 3, 9]] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="expected 9 images"):
        mosaic(images, 3)


def test_the_score_is_the_positive_share_in_the_cell() -> None:
    heat = np.zeros((4, 4))
    heat[0, 0], heat[0, 3], heat[3, 3], heat[3, 0] = 1.0, 2.0, 5.0, -100.0
    assert [grid_pointing_score(heat, 2, cell) for cell in range(4)] == [1 / 8, 2 / 8, 0.0, 5 / 8]


def test_a_border_that_cuts_a_pixel_shares_it() -> None:
    # 4 px in 3 cells: borders at 4/3 and 8/3; the second pixel lies ⅓ in the first cell, ⅔ in the second.
    heat = np.zeros((4, 4))
    heat[0, 1] = 1.0
    expected = np.array([[1 / 3, 2 / 3, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(cell_shares(heat, 3), expected, atol=1e-15)


@pytest.mark.parametrize("size", [(224, 224), (17, 31)])
@pytest.mark.parametrize("cells", [1, 2, 3, 5])
def test_shares_sum_to_one_and_are_even_for_an_even_map(size: tuple[int, int], cells: int) -> None:
    heat = np.random.default_rng(0).normal(size=size)
    assert cell_shares(heat, cells).sum() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(cell_shares(np.ones(size), cells), 1 / cells**2, atol=1e-12)


def test_no_positive_mass_scores_zero() -> None:
    assert grid_pointing_score(-np.ones((4, 4)), 2, 0) == 0.0
    assert grid_pointing_score(np.zeros((4, 4)), 2, 0) == 0.0
    with pytest.warns(UserWarning, match="not finite"):
        assert grid_pointing_score(np.full((4, 4), np.nan), 2, 0) == 0.0
    with pytest.raises(ValueError, match="cell: expected a whole number from 0 to 3"):
        grid_pointing_score(np.ones((4, 4)), 2, 4)


def test_mosaics_hold_distinct_classes_classified_right_the_best_first() -> None:
    rng = np.random.default_rng(3)
    classes = rng.integers(0, 12, 200)
    scores = rng.random(200)
    right = rng.random(200) > 0.3
    plan = plan_mosaics(classes, scores, right, cells=3, count=8, seed=5)
    assert plan.shape == (8, 9)
    assert right[plan].all()
    assert all(len(set(row)) == 9 for row in classes[plan])
    # 72 places over 12 classes are 6 each, and each class gave its 6 best images.
    for name in range(12):
        best = sorted(scores[(classes == name) & right], reverse=True)[:6]
        assert sorted(scores[plan[classes[plan] == name]], reverse=True) == best
    np.testing.assert_array_equal(plan, plan_mosaics(classes, scores, right, cells=3, count=8, seed=5))
    assert (plan != plan_mosaics(classes, scores, right, cells=3, count=8, seed=6)).any()


def test_mosaics_are_filled_in_the_order_of_the_scores() -> None:
    # One image a class: 3 mosaics of 4 take the 12 best that are right, the best 4 first, whatever the seed.
    rng = np.random.default_rng(1)
    scores, right = rng.random(30), rng.random(30) > 0.2
    order = [i for i in np.argsort(-scores) if right[i]]
    for seed in range(3):
        plan = plan_mosaics(np.arange(30), scores, right, cells=2, count=3, seed=seed)
        assert [set(row) for row in plan] == [set(order[k : k + 4]) for k in (0, 4, 8)]


def test_too_few_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="2×2 mosaic needs 4 classes with an image classified right, got 3"):
        plan_mosaics([0, 1, 2, 3], [1, 1, 1, 1], [1, 1, 1, 0], cells=2, count=1)
