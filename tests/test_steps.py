"""The steps of both optimizers against loops in NumPy, and when an image is done."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

import perturb_tutorial as pt
from perturb_tutorial import initialization, steps
from perturb_tutorial.engines.recording import repeat
from perturb_tutorial.objectives import objective

GRADIENTS = torch.randn(25, 3, 1, 8, 6, generator=torch.Generator().manual_seed(0)) * 1e-2
START = torch.rand(3, 1, 8, 6, generator=torch.Generator().manual_seed(1))
EVERY = torch.ones(3, dtype=torch.bool)


def settings_of(game: str) -> pt.MaskSettings:
    return pt.MaskSettings(game=game, optimizer="averaged", learning_rate=0.2, area_weight=3e-3)


@pytest.mark.parametrize("game", ["deletion", "preservation"])
def test_averaged_steps_are_the_modules_formulas(game: str) -> None:
    """In float64, one image at a time, written from the docstring; SciPy softens."""
    settings = settings_of(game)
    under_test = steps.steps_from(START, settings)
    for gradient in GRADIENTS:
        with torch.no_grad():
            under_test.step(gradient, EVERY)
    for row in range(3):
        m = mean = START[row, 0].double().numpy()
        first, second = np.zeros_like(m), np.zeros_like(m)
        for t, gradient in enumerate(GRADIENTS[:, row, 0].double().numpy()):
            g = ndimage.gaussian_filter(gradient, 5 / 8, mode="nearest", truncate=4.0)
            g = g + (-1 if game == "deletion" else 1) * 3e-3 * 3 * max(0, 1 - t / 30)
            first, second = 0.9 * first + 0.1 * g, 0.95 * second + 0.05 * g**2
            unbiased = first / (1 - 0.9 ** (t + 1)), second / (1 - 0.95 ** (t + 1))
            m = np.clip(m - 0.2 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8), 0, 1)
            w = min(0.9, 1 - 1 / (t / 4 + 2))
            mean = w * mean + (1 - w) * m
        np.testing.assert_allclose(under_test.mask[row, 0], mean, atol=1e-5)  # float32 against float64


@pytest.mark.parametrize("optimizer", ["adam", "averaged"])
def test_some_images_go_on_as_if_nothing_had_happened(optimizer: str) -> None:
    settings = settings_of("deletion").replace(optimizer=optimizer)
    together, kept = steps.steps_from(START, settings), torch.tensor([2, 0])
    some = together
    for number, gradient in enumerate(GRADIENTS):
        if number == 10:
            some = together.rows(kept)
        with torch.no_grad():
            together.step(gradient, EVERY)
            if number >= 10:
                some.step(gradient[kept], EVERY[kept])
    assert torch.equal(some.mask, together.mask[kept])
    assert torch.equal(some.grid, together.grid[kept])
    assert not torch.equal(some.mask, START[kept])


@pytest.mark.parametrize("optimizer", ["adam", "averaged"])
def test_an_image_without_a_usable_gradient_keeps_its_mask(optimizer: str) -> None:
    under_test = steps.steps_from(START, settings_of("deletion").replace(optimizer=optimizer))
    gradient = GRADIENTS[0].clone()
    gradient[1] = torch.nan
    with torch.no_grad():
        under_test.step(gradient, torch.tensor([True, False, True]))
    # A mean of equal numbers rounds.
    torch.testing.assert_close(under_test.mask[1], START[1], atol=1e-6, rtol=0)
    assert not torch.equal(under_test.mask[0], START[0])


def test_an_image_is_done_once_its_objective_has_stopped_falling() -> None:
    plateau, every = steps.Plateau(torch.zeros(4), 0.1), torch.arange(4)
    assert plateau.reached(every, torch.tensor([1.0, 1.0, 1.0, torch.nan])).tolist() == [False] * 3 + [True]
    assert plateau.reached(every[:3], torch.tensor([0.8, 0.95, 1.2])).tolist() == [False, True, True]
    assert plateau.reached(every[:1], torch.tensor([0.75])).tolist() == [True], "since the last look"


def test_repeat_goes_on_where_it_was_and_ends_when_it_is_asked_to() -> None:
    seen: list[int] = []
    cpu = torch.device("cpu")
    assert repeat(lambda step: seen.append(int(step)), 3, 9, cpu, lambda done: done < 6) == 6
    assert seen == [3, 4, 5]
    assert repeat(lambda step: seen.append(int(step)), 6, 8, cpu, lambda done: True) == 8
    assert seen == [3, 4, 5, 6, 7]


FAST = pt.MaskSettings(iterations=70, jitter=28, initialization="gradient").fast().replace(tolerance=3e-3)


@pytest.fixture
def fast(tiny, noise_images) -> pt.Masks:
    return pt.learn_masks(tiny, noise_images, [0, 1, 2], FAST)


def test_each_image_ends_by_itself_alone_or_in_a_batch(tiny, noise_images, fast: pt.Masks) -> None:
    assert len(set(fast.iterations.tolist())) > 1, "the example has images that end at different times"
    for row in range(3):
        alone = pt.learn_masks(tiny, noise_images[row : row + 1], [row], FAST)
        assert alone.iterations[0] == fast.iterations[row]
        torch.testing.assert_close(alone.grid, fast.grid[row : row + 1], atol=1e-4, rtol=0)


def test_the_history_ends_with_the_image(fast: pt.Masks) -> None:
    for name in ("score", "area", "tv"):
        values = getattr(fast.history, name)
        assert values.shape == (3, 70)
        for row, count in enumerate(fast.iterations.tolist()):
            assert values[row, :count].isfinite().all(), name
            assert values[row, count:].isnan().all(), name


def test_an_image_that_ends_early_is_as_after_so_many_iterations(tiny, noise_images, fast: pt.Masks) -> None:
    row = int(fast.iterations.argmin())
    fixed = FAST.replace(tolerance=0.0, iterations=int(fast.iterations[row]))
    whole = pt.learn_masks(tiny, noise_images, [0, 1, 2], fixed)
    assert whole.iterations.tolist() == [fixed.iterations] * 3
    torch.testing.assert_close(whole.grid[row], fast.grid[row], atol=1e-5, rtol=0)


def test_passes_are_saved_when_an_image_ends(tiny, noise_images, fast: pt.Masks, monkeypatch) -> None:
    rows: list[int] = []
    score = pt.canvas.ImageCanvas.score
    monkeypatch.setattr(
        pt.canvas.ImageCanvas,
        "score",
        lambda self, grid, step: (rows.append(len(grid)), score(self, grid, step))[1],
    )
    pt.learn_masks(tiny, noise_images, [0, 1, 2], FAST)
    assert sum(rows) == int(fast.iterations.sum()) + 3 * 4  # four gradients for each start
    rows.clear()
    pt.learn_masks(tiny, noise_images, [0, 1, 2], FAST.replace(initialization="half"))
    assert sum(rows) < 3 * 70


def test_the_fast_objective_is_as_low_as_the_papers(tiny, noise_images, fast: pt.Masks) -> None:
    paper = pt.learn_masks(tiny, noise_images, [0, 1, 2], pt.MaskSettings(jitter=28))
    gap = (fast.objective - paper.objective).mean()
    assert gap <= 0.005, "a network of random weights has flat objectives; no outlier that would be one"


def test_progress_counts_an_ended_image_as_done(tiny, noise_images) -> None:
    seen: list[tuple[int, int]] = []
    pt.learn_masks(tiny, noise_images, [0, 1, 2], FAST, progress=lambda *now: seen.append(now))
    done = [now for now, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (210, 210)


@pytest.mark.parametrize("settings", [pt.MaskSettings(iterations=20, initialization="half"), FAST])
def test_progress_that_returns_false_ends_the_run(tiny, noise_images, tmp_path, settings) -> None:
    masks = pt.learn_masks(
        tiny, noise_images, [0, 1, 2], settings, batch_size=2, progress=lambda done, _: done < 12
    )
    assert masks.iterations.tolist() == [6, 6], "of the images that had been begun"
    assert masks.history.score[:, :6].isfinite().all()
    assert masks.history.score[:, 6:].isnan().all()
    masks.save(tmp_path / "masks.pt")
    assert pt.Masks.load(tmp_path / "masks.pt") == masks
    expected = pt.learn_masks(tiny, noise_images[:2], [0, 1], settings.replace(iterations=6))
    torch.testing.assert_close(masks.grid, expected.grid, atol=1e-6, rtol=0)


def test_the_objective_of_masks_is_that_of_the_loop(tiny, noise_images) -> None:
    for scale in ("softmax", "relative", "logit"):
        settings = pt.MaskSettings(iterations=2, initialization="half", score_scale=scale)
        masks = pt.learn_masks(tiny, noise_images, [0, 1, 2], settings)
        s, s0, s1 = masks.score_masked, masks.score_original, masks.score_perturbed
        by_hand = {"softmax": s, "relative": s / s0, "logit": (s - s1) / (s0 - s1).clamp(min=1)}[scale]
        assert torch.equal(masks.objective, objective(masks.grid, by_hand, settings))


def test_the_start_by_gradients_deletes_where_the_evidence_is(noise_images) -> None:
    """A network that looks at one corner: the smallest set that does most of the job lies there."""

    class Corner(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bright = 40 * (x[:, :, :12, :12].mean((1, 2, 3)) - 0.2)
            return torch.stack([bright, torch.zeros_like(bright)], 1)

    image = torch.zeros(1, 3, 32, 32)
    image[:, :, :12, :12] = 0.5
    network = pt.Network(Corner(), input_size=32, device="cpu")
    for game in ("deletion", "preservation"):
        settings = pt.MaskSettings(
            game=game, iterations=0, initialization="gradient", perturbation="constant"
        )
        masks = pt.learn_masks(network, image, 0, settings)
        salient = masks.saliency[0, 0]
        assert salient[:12, :12].sum() > 0.8 * salient.sum(), game
        assert 0.01 < masks.area[0] < 0.25
        assert masks.radius.isnan().all()
        assert masks.converged.all()


def test_bisected_discs_are_the_smallest_where_the_score_is_monotone() -> None:
    """Made-up scores of 36 radii: monotone ones, none that suffices, and one that is not usable."""
    needed = torch.tensor([0, 7, 35, 99, 3])
    usable = torch.tensor([True, True, True, True, False])
    grids = torch.arange(36.0).view(36, 1, 1, 1).expand(36, 1, 2, 2)
    asked: list[int] = []

    def normalized(rows: torch.Tensor, tried: torch.Tensor) -> torch.Tensor:
        asked.append(len(rows) * len(tried))
        return torch.where(tried[None, :, 0, 0, 0] >= needed[rows, None], 0.0, 1.0)

    found = {
        optimizer: initialization.smallest_discs(
            normalized, grids, usable, pt.MaskSettings(optimizer=optimizer)
        )
        for optimizer in ("adam", "averaged")
        if asked.clear() is None
    }
    assert sum(asked) <= 4 * 6
    assert torch.equal(found["averaged"].grid, found["adam"].grid)
    assert found["averaged"].radius[:3].tolist() == found["adam"].radius[:3].tolist() == [0, 35, 175]
    assert found["averaged"].radius[3:].isnan().all()


def test_masks_of_a_fixed_batch_end_together(tiny, noise_images, fast: pt.Masks, monkeypatch) -> None:
    """An engine whose code is made for one number of images goes on until the last has ended."""
    monkeypatch.setattr(pt.canvas.ImageCanvas, "fixed_batch", True)
    masks = pt.learn_masks(tiny, noise_images, [0, 1, 2], FAST)
    assert masks.iterations.tolist() == fast.iterations.tolist()
    torch.testing.assert_close(masks.grid, fast.grid, atol=1e-5, rtol=0)
    assert masks.history.score.isnan().tolist() == fast.history.score.isnan().tolist()


def test_a_layers_masks_end_when_they_are_done(tiny, noise_images) -> None:
    layer = next(name for name in tiny.layers if name)
    settings = pt.activations.layer_settings(tiny, layer).fast().replace(iterations=60, tolerance=0.05)
    masks = pt.learn_activation_masks(tiny, noise_images, [0, 1, 2], layer, settings)
    alone = pt.learn_activation_masks(tiny, noise_images[1:2], [1], layer, settings)
    assert int(masks.iterations.min()) < 60
    assert alone.iterations[0] == masks.iterations[1]
    torch.testing.assert_close(alone.grid, masks.grid[1:2], atol=1e-4, rtol=0)
