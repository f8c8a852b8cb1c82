"""The perturbation operator: what it leaves alone, and what stands in its place."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage

import perturb_tutorial as pt
from perturb_tutorial import masks
from perturb_tutorial.perturbations import NOISE_SIGMA, background_for, fully_perturbed, perturb

COLOR = torch.tensor([0.4, 0.5, 0.6])


@pytest.fixture
def images():
    return torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["blur", "constant", "noise"])
def test_a_mask_of_ones_reproduces_the_image_and_zeros_the_perturbed_one(images, kind):
    other = fully_perturbed(images, kind, color=COLOR)
    ones = masks.upsample(torch.ones(2, 1, 28, 28), 56, 1.25)
    # 1e-6: the rows of the upsampling matrix sum to 1 within float32.
    torch.testing.assert_close(perturb(images, other, ones), images, atol=1e-6, rtol=0)
    torch.testing.assert_close(perturb(images, other, 1 - ones), other, atol=1e-6, rtol=0)
    half = perturb(images, other, torch.full((2, 1, 56, 56), 0.5))
    torch.testing.assert_close(half, (images + other) / 2)


def test_blur_scales_with_the_input(images):
    # 10 px at 224 px are 2.5 px at 56 px.
    expected = ndimage.gaussian_filter(images.numpy(), (0, 0, 2.5, 2.5), mode="nearest", truncate=4.0)
    torch.testing.assert_close(
        fully_perturbed(images, "blur", color=COLOR), torch.from_numpy(expected), atol=1e-5, rtol=0
    )


def test_constant_is_the_mean_color(images):
    constant = fully_perturbed(images, "constant", color=COLOR)
    assert (constant == COLOR.view(1, 3, 1, 1)).all()


def test_noise_is_one_draw_a_seed_around_the_mean_color():
    images = torch.zeros(3, 3, 128, 128)
    noise = fully_perturbed(images, "noise", color=COLOR, seed=5)
    assert (noise[0] == noise[1]).all()
    torch.testing.assert_close(fully_perturbed(images[:1], "noise", color=COLOR, seed=5), noise[:1])
    assert not torch.equal(fully_perturbed(images, "noise", color=COLOR, seed=6), noise)
    # 128² draws a color: the mean is within 5 standard errors, the deviation within 3 %.
    error = 5 * NOISE_SIGMA / 128
    torch.testing.assert_close(noise[0].mean((1, 2)), COLOR, atol=error, rtol=0)
    torch.testing.assert_close(noise[0].std((1, 2)), torch.full((3,), 0.2), atol=0.006, rtol=0)


def test_the_background_is_what_the_settings_say(images):
    narrow = pt.MaskSettings(blur_sigma=6.0)  # 1.5 px at 56 px
    expected = ndimage.gaussian_filter(images.numpy(), (0, 0, 1.5, 1.5), mode="nearest", truncate=4.0)
    blurred = background_for(narrow, images, color=COLOR, seed=3)
    torch.testing.assert_close(blurred, torch.from_numpy(expected), atol=1e-5, rtol=0)  # float32 sums
    for kind in ("constant", "noise"):
        other = background_for(narrow.replace(perturbation=kind), images, color=COLOR, seed=3)
        assert torch.equal(other, fully_perturbed(images, kind, color=COLOR, seed=3)), kind


def test_unknown_kind_is_named(images):
    with pytest.raises(ValueError, match="perturbation: expected one of blur, constant, noise, got 'fade'"):
        fully_perturbed(images, "fade", color=COLOR)
