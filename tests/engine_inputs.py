"""Inputs of an engine, and what it should compute from them, by the package's own functions."""

from __future__ import annotations

import torch
from torch import nn

from perturb_tutorial.masks import upsample
from perturb_tutorial.perturbations import fully_perturbed, perturb


def by_autograd(network, settings, mask, image, background, weights):
    """Score, gradient and probabilities by the package's own functions, one after the other."""
    grid = mask.clone().requires_grad_(True)
    size = network.input_shape
    sigma = settings.mask_sigma * (size[0] * size[1]) ** 0.5 / 224
    covered = perturb(image, background, upsample(grid, size, sigma))
    probabilities = network.scores(covered)
    score = (probabilities * weights).sum(1)
    (gradient,) = torch.autograd.grad(score.sum(), grid)
    return score.detach(), gradient, probabilities.detach()


def example(network, count, settings, seed=0):
    """Masks, smooth images, their backgrounds, and the weights of a class for each, of two classes for the first."""
    generator = torch.Generator().manual_seed(seed)
    height, width = network.input_shape
    coarse = torch.rand(count, network.channels, 8, 8, generator=generator)
    image = nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    background = fully_perturbed(image, "blur", color=network.mean_color)
    cells = (round(settings.grid_size * (a / b) ** 0.5) for a, b in ((height, width), (width, height)))
    mask = torch.rand(count, 1, *cells, generator=generator)
    weights = torch.zeros(count, network.class_count)
    weights[torch.arange(count), torch.arange(count) % network.class_count] = 1
    weights[0, :2] = 1  # a set of classes (eq. 2)
    return mask, image, background, weights


def distance(got, expected):
    """max |a − b| / max |b| of each row, the largest: how far gradients are apart."""
    apart = (got - expected).abs().flatten(1).amax(1) / expected.abs().flatten(1).amax(1)
    return float(apart.max())
