"""The disc search against a brute-force scan written from §2, and its four rivals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial import initialization


def brute_force(network, image, target, settings):
    """§2, radius by radius on one image: the first disc that suppresses (preserves) the normalized score."""
    height, width = image.shape[1:]
    scale = (height * width) ** 0.5 / 224
    cells_shape = [round(settings.grid_size * (a / b) ** 0.5) for a, b in ((height, width), (width, height))]
    blurred = torch.from_numpy(
        ndimage.gaussian_filter(image.numpy(), (0, 10 * scale, 10 * scale), mode="nearest", truncate=4.0)
    )

    def score(pixels):
        return network.scores(pixels[None])[0, target].item()

    full, whole = score(blurred), score(image)
    y, x = np.mgrid[:height, :width] + 0.5
    # On a square the last radius is 175, and the corner √2 · 112 px from the center.
    last = 175 * np.hypot(height, width) / 2 / scale / (np.sqrt(2) * 112)
    for radius in range(0, int(np.ceil(round(last, 6) / 5)) * 5 + 1, 5):
        inside = ((x - width / 2) ** 2 + (y - height / 2) ** 2 < (radius * scale) ** 2).astype(np.float64)
        soft = ndimage.gaussian_filter(inside, 10 * scale, mode="nearest", truncate=4.0)
        cells = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(soft)[None, None], cells_shape)
        grid = 1 - cells if settings.game == "deletion" else cells
        nearest = torch.nn.functional.interpolate(grid, size=(height, width), mode="nearest")[0, 0].numpy()
        mask = torch.from_numpy(
            ndimage.gaussian_filter(nearest, 5 * scale, mode="nearest", truncate=4.0)
        ).float()
        normalized = (score(image * mask + blurred * (1 - mask)) - full) / (whole - full)
        if (normalized <= 0.01) if settings.game == "deletion" else (normalized >= 0.99):
            return radius, grid.float()
    return float("nan"), torch.zeros(1, 1, *cells_shape)


@pytest.mark.parametrize("game", ["deletion", "preservation"])
def test_disc_search_is_the_brute_force_scan_on_photographs(lite0, game):
    samples = pt.load_samples(names=["chelsea", "coffee", "bald_eagle"])
    settings = pt.MaskSettings(game=game, iterations=0)
    masks = pt.learn_masks(lite0, samples.images, samples.targets, settings)
    assert masks.history.score.shape == (3, 0)
    for row, target in enumerate(samples.targets):
        radius, grid = brute_force(lite0, samples.images[row], target, settings)
        assert masks.radius[row].item() == radius
        torch.testing.assert_close(masks.grid[row : row + 1], grid, atol=1e-5, rtol=0)


class RedRing(nn.Module):
    """Two logits; the first one falls, rises and falls again as a disc at the center grows: not monotone."""

    def forward(self, inputs):
        contrast = inputs - inputs.mean((2, 3), keepdim=True)
        red, green = (contrast[:, :2].square()).mean((2, 3)).unbind(1)
        return torch.stack([600 * red - 900 * green, torch.zeros_like(red)], 1)


@pytest.mark.parametrize("game", ["deletion", "preservation"])
def test_disc_search_on_a_small_network_with_every_outcome(tiny, noise_images, game):
    settings = pt.MaskSettings(game=game, iterations=0)
    network = tiny
    targets = [0, 3, 4]
    masks = pt.learn_masks(network, noise_images, targets, settings)
    for row, target in enumerate(targets):
        with torch.inference_mode():
            blurred = torch.from_numpy(
                ndimage.gaussian_filter(
                    noise_images[row].numpy(), (0, 10 / 7, 10 / 7), mode="nearest", truncate=4.0
                )
            )
            scores = network.scores(torch.stack([noise_images[row], blurred]))[:, target]
        if scores[0] <= scores[1]:
            # Nothing to suppress or to preserve: everything is perturbed.
            assert torch.isnan(masks.radius[row])
            assert (masks.grid[row] == 0).all()
            continue
        radius, grid = brute_force(network, noise_images[row], target, settings)
        np.testing.assert_equal(masks.radius[row].item(), radius)
        torch.testing.assert_close(masks.grid[row : row + 1], grid, atol=1e-5, rtol=0)


def test_smallest_disc_wins_where_the_score_is_not_monotone():
    # A red texture everywhere, a green one in a ring: covering the ring raises the first logit again.
    size = 64
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(x - 31.5, y - 31.5)
    checker = ((x // 2 + y // 2) % 2).astype(np.float32)
    image = np.stack([0.5 * np.ones_like(checker), 0.5 * np.ones_like(checker), checker * 0])
    image[0] += (checker - 0.5) * (distance < 10) + 0.5 * (checker - 0.5) * (distance > 24)
    image[1] += (checker - 0.5) * ((distance > 14) & (distance < 22)) * 0.6
    network = pt.Network(RedRing(), input_size=size, device="cpu")
    images = torch.from_numpy(image.astype(np.float32))[None]
    scores, radii = initialization.disc_scores(network, images, 0)
    assert scores.shape == (1, 36)
    assert (scores[0, 1:] > scores[0, :-1] + 1e-3).any()  # it rises somewhere
    radius, grid = brute_force(network, images[0], 0, pt.MaskSettings())
    masks = pt.learn_masks(network, images, 0, pt.MaskSettings(iterations=0))
    np.testing.assert_equal(masks.radius[0].item(), radius)
    fits = (scores[0] <= 0.01).nonzero().flatten()
    np.testing.assert_equal(masks.radius[0].item(), radii[fits[0]].item() if len(fits) else float("nan"))
    torch.testing.assert_close(masks.grid, grid, atol=1e-5, rtol=0)


class Contrast(nn.Module):
    """The first logit grows with what is left of a bright speck at one place."""

    def __init__(self, y, x):
        super().__init__()
        self.y, self.x = y, x

    def forward(self, inputs):
        speck = (inputs[:, 0, self.y, self.x] - inputs.mean((1, 2, 3))).clamp(min=0)
        return torch.stack([40 * speck - 10, torch.zeros_like(speck)], 1)


@pytest.mark.parametrize("game", ["deletion", "preservation"])
@pytest.mark.parametrize(("shape", "place"), [((12, 48), (1, 46)), ((48, 12), (20, 6)), ((20, 30), (12, 22))])
def test_disc_search_on_a_rectangle_reaches_its_corners(game, shape, place):
    images = torch.full((1, 1, *shape), 0.2)
    images[0, 0, place[0], place[1]] = 1
    network = pt.Network(Contrast(*place), mean=(0,), std=(1,), input_size=shape, device="cpu")
    settings = pt.MaskSettings(game=game, iterations=0)
    radius, grid = brute_force(network, images[0], 0, settings)
    assert np.isfinite(radius)
    assert (radius > 175) == (shape == (12, 48)), "the corner is 230 px of a 224 px input from the center"
    masks = pt.learn_masks(network, images, 0, settings)
    assert masks.radius.item() == radius
    torch.testing.assert_close(masks.grid, grid, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("shape", "last"), [((224, 224), 175), ((45, 45), 175), ((112, 448), 260), ((448, 112), 260)]
)
def test_the_last_disc_covers_the_corners_as_on_a_square(shape, last):
    # √(112·448) = 224, and the corner is √((¼ + 4) / 2) times as far away as on a square: 175 · 1.458 = 255.1.
    radii = initialization.disc_radii(shape)
    assert radii == tuple(range(0, last + 1, 5))
    assert initialization.disc_radii((224, 224)) == initialization.DISC_RADII
    settings = pt.MaskSettings(game="preservation")
    assert len(initialization.disc_candidates(settings, shape)) == len(radii)
    assert initialization.disc_candidates(settings, shape)[-1].min() > 0.9


@pytest.mark.parametrize(("name", "value"), [("half", 0.5), ("zeros", 0.0), ("ones", 1.0)])
def test_constant_rivals(tiny, noise_images, name, value):
    masks = pt.learn_masks(tiny, noise_images, 1, pt.MaskSettings(iterations=0, initialization=name))
    assert (masks.grid == value).all()
    assert torch.isnan(masks.radius).all()


def test_random_rival_is_uniform_and_one_draw_a_seed(tiny, noise_images):
    settings = pt.MaskSettings(iterations=0, initialization="random")
    grids = [pt.learn_masks(tiny, noise_images, 1, settings, seed=seed).grid for seed in (0, 0, 1)]
    assert torch.equal(grids[0], grids[1])
    assert torch.equal(grids[0][0], grids[0][2])
    assert not torch.equal(grids[0], grids[2])
    # 784 uniform draws: mean 0.5 and deviation 0.289, each within 5 standard errors.
    assert grids[0][0].mean().item() == pytest.approx(0.5, abs=5 * 0.289 / 28)
    assert grids[0][0].std().item() == pytest.approx(0.2887, abs=0.03)
    assert grids[0].min() >= 0
    assert grids[0].max() <= 1
