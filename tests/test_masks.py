"""Masks against SciPy, torch's own nearest upsampling, geometry and numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from perturb_tutorial import masks


@pytest.mark.parametrize(
    ("size", "cells", "sigma"), [(224, 28, 5.0), (227, 30, 5.07), (33, 7, 1.3), (64, 28, 0.0)]
)
def test_upsampling_is_nearest_then_gaussian(size, cells, sigma):
    grid = torch.rand(2, 1, cells, cells, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    nearest = torch.nn.functional.interpolate(grid, size=size, mode="nearest").numpy()
    axes_sigma = (0, 0, sigma, sigma)
    expected = (
        ndimage.gaussian_filter(nearest, axes_sigma, mode="nearest", truncate=4.0) if sigma else nearest
    )
    np.testing.assert_allclose(masks.upsample(grid, size, sigma).numpy(), expected, atol=1e-12)


def test_upsampling_to_a_rectangle():
    grid = torch.rand(1, 1, 4, 6, dtype=torch.float64)
    nearest = torch.nn.functional.interpolate(grid, size=(20, 33), mode="nearest").numpy()
    expected = ndimage.gaussian_filter(nearest, (0, 0, 2, 2), mode="nearest", truncate=4.0)
    np.testing.assert_allclose(masks.upsample(grid, (20, 33), 2.0).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_flat_mask_stays_flat_up_to_the_last_border_pixel(value):
    mask = masks.upsample(torch.full((1, 1, 28, 28), value), 224, 5.0)
    torch.testing.assert_close(mask, torch.full((1, 1, 224, 224), value), atol=1e-6, rtol=0)


@pytest.mark.parametrize("sigma", [0.5, 10.0, 60.0])  # at 60 the kernel is wider than the image
def test_blur_is_scipys(sigma):
    image = torch.rand(1, 3, 50, 41, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = ndimage.gaussian_filter(image.numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4.0)
    np.testing.assert_allclose(masks.blur(image, sigma).numpy(), expected, atol=1e-12)


def test_total_variation_by_hand():
    # Forward differences down (d1) and right (d2); the last row and column have none.
    grid = torch.tensor([[0.0, 1.0], [0.5, 0.5]]).view(1, 1, 2, 2)
    # (0,0): d1 .5, d2 1; (0,1): d1 -.5; (1,0): d2 0; (1,1): none
    for exponent in (1.0, 2.0, 3.0):
        expected = 1.25 ** (exponent / 2) + 0.5**exponent
        assert masks.total_variation(grid, exponent).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("exponent", [1.0, 1.5, 2.0, 3.0])
def test_total_variation_has_a_finite_gradient_where_the_mask_is_flat(exponent):
    grid = torch.ones(1, 1, 28, 28)
    grid[..., 5, 5] = 0.0
    grid.requires_grad_(True)
    (gradient,) = torch.autograd.grad(masks.total_variation(grid, exponent).sum(), grid)
    assert torch.isfinite(gradient).all()
    assert gradient[0, 0, 20, 20] == 0
    assert gradient[0, 0, 5, 5] != 0


def test_total_variation_of_each_mask_is_its_own():
    grid = torch.rand(4, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([masks.total_variation(row[None], 3.0) for row in grid])
    torch.testing.assert_close(masks.total_variation(grid, 3.0), alone)


def test_discs_have_the_area_of_a_circle_and_stand_where_they_should():
    radii = torch.tensor([0.0, 5.0, 40.0, 175.0])
    drawn = masks.discs(224, radii)
    areas = drawn.sum((1, 2, 3))
    assert areas[0] == 0
    assert areas[1].item() == pytest.approx(np.pi * 25, rel=0.03)
    assert areas[2].item() == pytest.approx(np.pi * 1600, rel=0.005)
    assert areas[3] == 224 * 224  # the corner is 158.4 px from the center
    torch.testing.assert_close(drawn, drawn.flip(-1))
    torch.testing.assert_close(drawn, drawn.transpose(-1, -2))
    off_center = masks.discs(100, torch.tensor([3.0]), torch.tensor([[20.5, 60.5]]))[0, 0]
    assert [int(axis.float().mean()) for axis in off_center.nonzero(as_tuple=True)] == [60, 20]


def test_disc_grids_are_blurred_by_10_px_and_averaged():
    radius = torch.tensor([60.0])
    soft = ndimage.gaussian_filter(
        masks.discs(224, radius)[0, 0].double().numpy(), 10, mode="nearest", truncate=4.0
    )
    expected = soft.reshape(28, 8, 28, 8).mean((1, 3))
    np.testing.assert_allclose(masks.disc_grids(224, 28, radius)[0, 0].numpy(), expected, atol=1e-5)
