"""Figures: what is drawn where, and on what is missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perturb_tutorial import plotting


@pytest.fixture
def image():
    return torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))


def test_overlay_shows_gray_where_nothing_is_salient_and_color_where_it_is(image):
    heat = torch.zeros(20, 30)
    heat[:, 15:] = 1
    blended = plotting.overlay(image, heat)
    assert blended.shape == (20, 30, 3)
    gray = image.mean(0).numpy()
    np.testing.assert_allclose(blended[:, :15, 0], gray[:, :15], atol=1e-6)
    assert np.ptp(blended[:, :15], axis=2).max() < 1e-6
    assert np.ptp(blended[:, 15:], axis=2).min() > 0.05
    assert plotting.overlay(image, heat, colormap="jet")[..., 2].mean() > 0.2


def test_normalized_clips_negatives_and_survives_nothing():
    heat = torch.tensor([[-3.0, 1.0], [2.0, torch.nan]])
    np.testing.assert_allclose(plotting.normalized(heat), [[0, 0.5], [1, 0]])
    assert (plotting.normalized(torch.zeros(4, 4)) == 0).all()
    assert (plotting.normalized(-torch.ones(4, 4)) == 0).all()


def test_one_extreme_pixel_does_not_blacken_a_speckled_map():
    heat = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(100, 100)
    heat[50, 50] = 1000
    for method in ("gradient", "guided_backprop"):
        shown = plotting.normalized(heat, method=method)
        # The 99th percentile of equal steps from 0 to 1 is 0.99.
        np.testing.assert_allclose(
            np.delete(shown, 5050), np.delete(np.clip(heat / 0.99, 0, 1), 5050), atol=2e-4
        )
        assert shown.max() == 1
    assert np.median(plotting.normalized(heat, method="grad_cam")) < 0.001
    # Fewer than one pixel in a hundred: the percentile is 0 and the maximum counts.
    lonely = np.zeros((100, 100), dtype=np.float32)
    lonely[3, 4] = 5
    assert plotting.normalized(lonely, method="gradient")[3, 4] == 1


def test_explanation_has_a_panel_for_each_thing_given(image):
    heat = torch.rand(1, 20, 30)
    two = plotting.explanation(image, heat, target="cat", method="grad_cam")
    three = plotting.explanation(
        image, heat, target="cat", score_original=0.5, masked=image, score_masked=0.125
    )
    four = plotting.explanation(image, heat, target="cat", masked=image, agreement=torch.ones(1, 20, 30))
    assert [len(figure.axes) for figure in (two, three, four)] == [2, 3, 4]
    assert four.axes[3].get_xlabel() == "share of draws that agree"
    shown = four.axes[3].images[0].get_array()
    np.testing.assert_allclose(shown, plotting.overlay(image, np.ones((20, 30))), atol=1e-6)
    assert [axis.get_xlabel() for axis in three.axes] == [
        "cat: score 0.500",
        "under the mask: score 0.125",
        "saliency by mask",
    ]


def test_a_class_with_dollars_is_no_formula(image, tmp_path):
    figure = plotting.explanation(image, torch.rand(20, 30), target=r"$\frac$ bill")
    figure.savefig(tmp_path / "bill.png")
    assert figure.axes[0].get_xlabel() == r"$\frac$ bill"


def test_comparison_grid_is_arranged_as_fig_3(image):
    rows = [
        plotting.ComparisonRow(
            image, {"mask": torch.rand(20, 30), "grad_cam": torch.rand(1, 7, 7)}, [(2, 3, 9, 12)], "cat"
        ),
        plotting.ComparisonRow(torch.rand(3, 64, 64), {"mask": torch.rand(64, 64)}),
    ]
    figure = plotting.comparison_grid(rows, ["mask", "grad_cam"])
    assert len(figure.axes) == 6
    assert [axis.get_title() for axis in figure.axes[:3]] == ["image", "mask", "grad\ncam"]
    box = figure.axes[0].patches[0].get_bbox()
    assert (box.x0, box.y0, box.x1, box.y1) == (2, 3, 9, 12)
    # A small map is stretched over the image's own pixels.
    assert figure.axes[2].images[0].get_extent() == [-0.5, 29.5, 19.5, -0.5]
    assert not figure.axes[5].images
    figure.canvas.draw()


@pytest.mark.parametrize("count", [0, 1, 5])
def test_panels_of_any_number(count, image):
    figure = plotting.panels([plotting.as_picture(image)] * count, columns=3)
    assert sum(axis.get_visible() for axis in figure.axes) == count
    figure.canvas.draw()
    plotting.comparison_grid([], ["mask"]).canvas.draw()


def test_wrong_shapes_are_named():
    with pytest.raises(
        ValueError, match=r"image: expected 3×H×W, 1×H×W \(gray\) or 4×H×W \(RGBA\), got 20×30"
    ):
        plotting.as_picture(torch.zeros(20, 30))
    with pytest.raises(ValueError, match="heat: expected H×W or 1×H×W, got 2×3×4"):
        plotting.as_heat(torch.zeros(2, 3, 4))
