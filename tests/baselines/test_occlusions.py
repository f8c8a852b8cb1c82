"""The occlusion methods against loops that place one occluder after another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial import baselines
from perturb_tutorial.baselines.variable_occlusion import draw_discs


class Weighing(nn.Module):
    """Logit 0 is a weighted sum of the pixels, logit 1 its square: linear and not."""

    def __init__(self, height: int, width: int, channels: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = torch.rand(channels, height, width, generator=generator)
        self.weight = nn.Parameter(weight / (height * width))

    def forward(self, x):
        total = (x * self.weight).sum((1, 2, 3))
        return torch.stack((total, 10 * total**2), 1)


def weighing(size=224, channels=3):
    """``size``: of the input, a side or (height, width)."""
    height, width = (size, size) if isinstance(size, int) else size
    network = pt.Network(
        Weighing(height, width, channels),
        mean=(0.2, 0.5, 0.7, 0.4)[:channels],
        std=(0.3, 0.2, 0.4, 0.3)[:channels],
        input_size=size,
        device="cpu",
    )
    images = torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(1))
    return network, images


def logits_by_hand(network, image):
    normal = (image - np.array(network.mean)[:, None, None]) / np.array(network.std)[:, None, None]
    total = (normal * network.module.weight.double().numpy()).sum()
    return np.array([total, 10 * total**2])


def by_hand(network, image, classes, occluders, background):
    """One occluder after another, in float64."""
    start = logits_by_hand(network, image)[classes].mean()
    weighted, coverage, drops = 0.0, 0.0, []
    for occluder in occluders:
        mixed = image * (1 - occluder) + background * occluder
        drops.append(start - logits_by_hand(network, mixed)[classes].mean())
        weighted, coverage = weighted + drops[-1] * occluder, coverage + occluder
    return np.where(coverage > 0, weighted / np.where(coverage > 0, coverage, 1), 0), np.array(drops)


def assert_same(map_, expected):
    # Some 800 float32 drops, each a difference of two logits a hundred times as large.
    np.testing.assert_allclose(map_.numpy(), expected, rtol=0, atol=5e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("size", "channels", "positions"),
    [(224, 3, (28, 28)), (128, 3, (28, 28)), ((48, 108), 1, (19, 42)), ((100, 36), 4, (47, 17))],
)
def test_occlusion(size, channels, positions):
    network, images = weighing(size, channels)
    maps = baselines.occlusion(network, images, [0, {0, 1}])
    (rows, columns), (height, width) = positions, images.shape[2:]
    side = round(35 * math.sqrt(height * width) / 224)

    def squares():
        for i in range(rows):
            for j in range(columns):
                square = np.zeros((height, width))
                top, left = i * height // rows, j * width // columns
                square[top : top + side, left : left + side] = 1
                yield square

    mean = np.broadcast_to(np.array(network.mean)[:, None, None], images.shape[1:])
    for index, classes in enumerate(([0], [0, 1])):
        image = images[index].double().numpy()
        expected, drops = by_hand(network, image, classes, squares(), mean)
        assert len(drops) == rows * columns
        assert_same(maps[index, 0], expected)


def soft_disc(shape, scale, radius, x, y):
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    hard = ((columns - x) ** 2 + (rows - y) ** 2 < radius**2).astype(float)
    return ndimage.gaussian_filter(hard, 10 * scale, mode="nearest", truncate=4.0)


def blurred(image, scale):
    return np.stack(
        [ndimage.gaussian_filter(color, 10 * scale, mode="nearest", truncate=4.0) for color in image]
    )


SHAPES = pytest.mark.parametrize(
    ("height", "width", "channels", "positions"), [(64, 64, 3, (28, 28)), (36, 100, 4, (17, 47))]
)
"""A square, and a rectangle of √(36·100) = 60 px, with 28 · 36/60 and 28 · 100/60 positions."""


@SHAPES
def test_blur_occlusion(height, width, channels, positions):
    network, images = weighing((height, width), channels)
    scale, (rows, columns) = math.sqrt(height * width) / 224, positions
    discs = [
        soft_disc(
            (height, width), scale, 17.5 * scale, (j + 0.5) * width / columns, (i + 0.5) * height / rows
        )
        for i in range(rows)
        for j in range(columns)
    ]
    image = images[1].double().numpy()
    expected, _ = by_hand(network, image, [1], discs, blurred(image, scale))
    assert_same(baselines.blur_occlusion(network, images, 1)[1, 0], expected)


@SHAPES
def test_variable_occlusion_and_its_point(height, width, channels, positions):
    network, images = weighing((height, width), channels)
    scale = math.sqrt(height * width) / 224
    drawn = draw_discs(seed=3)
    centers = drawn.centers.numpy() * [width / 224, height / 224]
    discs = [
        soft_disc((height, width), scale, float(radius) * scale, *center)
        for radius, center in zip(drawn.radii, centers, strict=True)
    ]
    image = images[0].double().numpy()
    expected, drops = by_hand(network, image, [1], discs, blurred(image, scale))
    assert_same(baselines.variable_occlusion(network, images, 1, seed=3)[0, 0], expected)

    best = sorted(range(784), key=lambda k: -drops[k])[:78]
    smallest = min(best, key=lambda k: float(drawn.radii[k]))
    point = baselines.variable_occlusion_points(network, images, 1, seed=3)
    assert point.shape == (2, 2)
    inside = np.clip(centers[smallest] - 0.5, 0, [width - 1, height - 1])
    np.testing.assert_allclose(point[0], inside, atol=1e-9)


def test_discs_follow_the_three_distributions():
    """Kolmogorov-Smirnov against scipy's own distributions, §4.1."""
    drawn = draw_discs(seed=0, count=20_000)
    area = math.pi * drawn.radii.numpy() ** 2
    assert stats.kstest(area, stats.lognorm(s=1.2848, scale=math.exp(7.5060)).cdf).pvalue > 0.01
    assert stats.kstest(drawn.centers[:, 0], stats.uniform(0, 224).cdf).pvalue > 0.01
    assert stats.kstest(drawn.centers[:, 1], stats.norm(116.0759, 47.5054).cdf).pvalue > 0.01


def test_a_seed_gives_the_same_discs_another_seed_others_and_the_callers_generator_stays():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = draw_discs(1)
    assert torch.equal(first.radii, draw_discs(1).radii)
    assert not torch.equal(first.radii, draw_discs(2).radii)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_image_alone_and_in_a_batch_and_any_number_at_once():
    network, images = weighing(64)
    for method in (baselines.occlusion, baselines.blur_occlusion, baselines.variable_occlusion):
        together = method(network, images, [0, 1])
        alone = torch.cat([method(network, images[i : i + 1], i, batch_size=50) for i in range(2)])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_a_batch_that_does_not_fit_is_halved(monkeypatch):
    network, images = weighing(64)
    expected = baselines.occlusion(network, images, 0)
    logits, sizes = network.logits, []

    def small_memory(batch):
        sizes.append(len(batch))
        if len(batch) > 10:
            raise torch.OutOfMemoryError("out of memory")
        return logits(batch)

    monkeypatch.setattr(network, "logits", small_memory)
    torch.testing.assert_close(
        baselines.occlusion(network, images, 0, batch_size=64), expected, rtol=0, atol=1e-6
    )
    assert {64, 32, 16, 8} <= set(sizes)


@pytest.mark.parametrize("method", [baselines.occlusion, baselines.variable_occlusion_points])
def test_questions_about_one_image_share_its_passes(method, monkeypatch):
    network, images = weighing(64)
    three, targets = images[[0, 0, 1]], [[0], {0, 1}, [1]]
    alone = torch.cat([method(network, three[i : i + 1], targets[i : i + 1]) for i in range(3)])
    calls, logits = [], network.logits
    monkeypatch.setattr(network, "logits", lambda batch: (calls.append(len(batch)), logits(batch))[1])
    # The drops are equal; the product that spreads them over the pixels rounds by its number of rows.
    torch.testing.assert_close(method(network, three, targets), alone, rtol=1e-5, atol=1e-7)
    assert sum(calls) == 2 * (784 + 1)


def test_progress_ends_at_the_total():
    network, images = weighing(64)
    calls = []
    baselines.occlusion(network, images, 0, progress=lambda *call: calls.append(call))
    assert calls[-1] == (2 * 784, 2 * 784)
    assert calls == sorted(calls)


def test_pixels_only():
    network, images = weighing(64)
    with pytest.raises(ValueError, match=r"layer: occlusion works on the pixels, expected None, got 'conv'"):
        baselines.occlusion(network, images, 0, layer="conv")
