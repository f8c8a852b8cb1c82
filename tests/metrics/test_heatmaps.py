"""Resizing and peaks: the point of the pointing game must be where the map says, on the original image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perturb_tutorial.metrics import is_usable, maximum_point, resize_map


@pytest.mark.parametrize(
    ("old", "new"), [((28, 28), (333, 500)), ((7, 7), (480, 640)), ((224, 224), (97, 31)), ((1, 5), (4, 9))]
)
def test_resizing_is_torchs_bilinear_interpolation(old: tuple[int, int], new: tuple[int, int]) -> None:
    heat = np.random.default_rng(0).normal(size=old)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(heat)[None, None], size=new, mode="bilinear", align_corners=False
    )[0, 0].numpy()
    # Both are float64; the order of four products differs.
    np.testing.assert_allclose(resize_map(heat, new), expected, atol=1e-12)


def test_resizing_to_the_same_size_gives_an_equal_copy() -> None:
    heat = np.arange(6.0).reshape(2, 3)
    resized = resize_map(heat, (2, 3))
    np.testing.assert_array_equal(resized, heat)
    resized[0, 0] = 9
    assert heat[0, 0] == 0


def test_a_flat_top_stays_flat_to_the_last_bit() -> None:
    # 0.1 is not a binary fraction: weights that sum to 1 only nearly would tear the plateau apart.
    heat = np.zeros((28, 28))
    heat[8:12, 4:20] = 0.1
    resized = resize_map(heat, (375, 500))
    assert resized.max() == 0.1
    rows, columns = np.nonzero(resized == 0.1)
    assert rows.size == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)


def test_the_point_is_the_mean_of_all_maxima_or_the_first() -> None:
    heat = np.zeros((5, 7))
    heat[1, 2] = heat[3, 6] = heat[1, 4] = 1.0
    assert maximum_point(heat) == ((2 + 4 + 6) / 3, (1 + 1 + 3) / 3)
    assert maximum_point(heat, "first") == (2.0, 1.0)
    heat[2, 2] = 1.0 - 1e-12  # nearly the maximum is not the maximum
    assert maximum_point(heat) == ((2 + 4 + 6) / 3, (1 + 1 + 3) / 3)
    heat[3, 0] = 1.5
    assert maximum_point(heat) == maximum_point(heat, "first") == (0.0, 3.0)


def test_a_saturated_disc_points_at_its_center() -> None:
    y, x = np.mgrid[:28, :28]
    disc = (((x - 10) ** 2 + (y - 17) ** 2) <= 25).astype(float)
    point = maximum_point(resize_map(disc, (280, 560)))
    assert point is not None
    # Grid px (10, 17) spans image px 200…219 and 170…179: its center is 209.5, 174.5.
    assert point == pytest.approx((209.5, 174.5), abs=1e-9)


def test_negative_maps_still_have_a_peak() -> None:
    assert maximum_point(np.array([[-3.0, -1.0], [-2.0, -4.0]])) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("heat", "reason"),
    [
        (np.zeros((3, 3)), "zero everywhere"),
        (np.full((3, 3), np.nan), "not finite"),
        (np.array([[0.0, np.inf], [1.0, 2.0]]), "not finite"),
        (np.array([[0.0, np.nan], [1.0, 2.0]]), "not finite"),
    ],
)
def test_a_map_that_says_nothing_has_no_point_and_warns(heat: np.ndarray, reason: str) -> None:
    assert not is_usable(heat)
    with pytest.warns(UserWarning, match=reason):
        assert maximum_point(heat) is None


def test_a_constant_map_points_at_the_middle() -> None:
    assert maximum_point(np.full((4, 6), 0.3)) == (2.5, 1.5)


def test_leading_axes_of_one_are_dropped_and_others_refused() -> None:
    assert maximum_point(np.eye(3)[None, None] * np.array([1, 2, 3])) == (2.0, 2.0)
    with pytest.raises(ValueError, match=r"heat: expected one map of H×W values, got shape \(2, 3, 3\)"):
        maximum_point(np.ones((2, 3, 3)))
    with pytest.raises(ValueError, match="size: expected"):
        resize_map(np.ones((3, 3)), (0, 4))
    with pytest.raises(ValueError, match="which: expected"):
        maximum_point(np.ones((3, 3)), "median")  # type: ignore[arg-type]
