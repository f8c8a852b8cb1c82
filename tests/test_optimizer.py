"""learn_masks against a loop written from the paper in float64, and the promises it makes about batches."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy import ndimage
from small_inputs import tiny_module
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial import batches, canvas, loop
from perturb_tutorial.canvas import jitter_shifts
from perturb_tutorial.settings import ENGINES

SIZE = 32


def slow_masks(network, image, classes, settings, seed):
    """One image, float64, eq. 6 or 1 as printed: no folding, no matrices, Adam written out."""
    module = network.module.double()
    shape = height, width = image.shape[1:]
    scale = (height * width) ** 0.5 / 224
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (network.mean, network.std))
    image = image.double()[None]
    sigma = settings.blur_sigma * scale
    blurred = torch.from_numpy(
        ndimage.gaussian_filter(image.numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4.0)
    )
    reach = int(4 * settings.mask_sigma * scale + 0.5)
    kernel = torch.exp(
        -0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / (settings.mask_sigma * scale)) ** 2
    )
    kernel = kernel / kernel.sum()

    def soften(mask):
        padded = nn.functional.pad(mask, (reach,) * 4, mode="replicate")
        rows = nn.functional.conv2d(padded, kernel.view(1, 1, -1, 1))
        return nn.functional.conv2d(rows, kernel.view(1, 1, 1, -1))

    def shifted(pixels, dx, dy):
        padded = nn.functional.pad(pixels, (8, 0, 8, 0), mode="replicate")
        return torch.roll(padded, (dy, dx), (2, 3))[..., 8:, 8:]

    cells = [round(settings.grid_size * (a / b) ** 0.5) for a, b in ((height, width), (width, height))]
    grid = torch.full((1, 1, *cells), 0.5, dtype=torch.float64)
    first, second = torch.zeros_like(grid), torch.zeros_like(grid)
    scores = []
    for step, (dx, dy) in enumerate(jitter_shifts(settings, shape, seed), start=1):
        m = grid.clone().requires_grad_(True)
        mask = soften(nn.functional.interpolate(m, size=shape, mode="nearest"))
        pixels = shifted(image, dx, dy) * mask + shifted(blurred, dx, dy) * (1 - mask)
        score = module((pixels - mean) / std).softmax(1)[0, list(classes)].sum()
        d1 = nn.functional.pad(m[..., 1:, :] - m[..., :-1, :], (0, 0, 0, 1))
        d2 = nn.functional.pad(m[..., :, 1:] - m[..., :, :-1], (0, 1))
        tv = ((d1**2 + d2**2 + 1e-20) ** (settings.tv_exponent / 2)).sum()
        if settings.game == "deletion":
            loss = settings.area_weight * (1 - m).abs().sum() + settings.tv_weight * tv + score
        else:
            loss = settings.area_weight * m.abs().sum() + settings.tv_weight * tv - score
        (gradient,) = torch.autograd.grad(loss, m)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        update = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        grid = (grid - settings.learning_rate * update).clamp(0, 1)
        scores.append(score.item())
    module.float()
    return grid, scores


@pytest.mark.parametrize("game", ["deletion", "preservation"])
@pytest.mark.parametrize(("classes", "exponent"), [([2], 3.0), ([0, 3], 2.0)])
def test_the_loop_is_the_papers(tiny, noise_images, game, classes, exponent):
    # τ = 28 px of 224 are 4 px of 32. Few steps, a small rate: far from where rounding decides.
    settings = pt.MaskSettings(
        game=game,
        iterations=8,
        learning_rate=0.02,
        tv_exponent=exponent,
        jitter=28,
        initialization="half",
        mask_scale=28,
    )
    masks = pt.learn_masks(tiny, noise_images, [classes] * 3, settings, seed=11)
    for row in range(3):
        grid, scores = slow_masks(tiny, noise_images[row], classes, settings, seed=11)
        torch.testing.assert_close(masks.grid[row : row + 1].double(), grid, atol=2e-4, rtol=0)
        np.testing.assert_allclose(masks.history.score[row].numpy(), scores, atol=1e-5)


@pytest.mark.parametrize("game", ["deletion", "preservation"])
@pytest.mark.parametrize(
    ("shape", "channels", "cells"), [((24, 40), 4, (6, 10)), ((50, 18), 1, (13, 5)), ((16, 64), 3, (4, 16))]
)
def test_the_loop_is_the_papers_on_a_rectangle(game, shape, channels, cells):
    # √(24·40) = 31 px, √(50·18) = 30 px and √(16·64) = 32 px; δ = 28 of 224 px makes 8·8 cells of a square.
    settings = pt.MaskSettings(
        game=game, iterations=8, learning_rate=0.02, jitter=28, initialization="half", mask_scale=28
    )
    numbers = ((0.5, 0.4, 0.3, 0.6)[:channels], (0.25, 0.3, 0.2, 0.3)[:channels])
    module = tiny_module(channels=channels)
    network = pt.Network(module, mean=numbers[0], std=numbers[1], input_size=shape, device="cpu")
    coarse = torch.rand(2, channels, 6, 6, generator=torch.Generator().manual_seed(3))
    images = nn.functional.interpolate(coarse, size=shape, mode="bicubic").clamp(0, 1)
    masks = pt.learn_masks(network, images, [2, 0], settings, seed=11)
    assert masks.grid.shape == (2, 1, *cells)
    for row, target in enumerate((2, 0)):
        grid, scores = slow_masks(network, images[row], [target], settings, seed=11)
        torch.testing.assert_close(masks.grid[row : row + 1].double(), grid, atol=2e-4, rtol=0)
        np.testing.assert_allclose(masks.history.score[row].numpy(), scores, atol=1e-5)


def test_jitter_is_uniform_seeded_and_scaled():
    settings = pt.MaskSettings(iterations=4000)
    shifts = np.array(jitter_shifts(settings, 224, seed=3))
    assert set(shifts.flat) == {0, 1, 2, 3}
    counts = np.stack([np.bincount(axis, minlength=4) for axis in shifts.T])
    # Each of 4 values in 4,000 draws: 1,000 ± 5 standard errors of 27.4.
    assert (abs(counts - 1000) < 137).all()
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.08
    assert np.array_equal(shifts, jitter_shifts(settings, 224, seed=3))
    assert not np.array_equal(shifts, jitter_shifts(settings, 224, seed=4))
    assert max(np.array(jitter_shifts(settings, 448, seed=3)).flat) == 7
    assert jitter_shifts(settings, (112, 448), seed=3) == jitter_shifts(settings, 224, seed=3)
    assert set(np.array(jitter_shifts(settings.replace(jitter=1), 224, seed=3)).flat) == {0}


def test_shift_moves_the_image_and_replicates_its_edge():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    padded = torch.nn.ReplicationPad2d((2, 0, 2, 0))(image)
    moved = canvas.shift(padded, dx=1, dy=2, size=4)[0, 0]
    assert moved.tolist() == [[0, 0, 1, 2], [0, 0, 1, 2], [0, 0, 1, 2], [4, 4, 5, 6]]
    padded = torch.nn.ReplicationPad2d((2, 0, 2, 0))(torch.arange(6.0).view(1, 1, 2, 3))
    assert canvas.shift(padded, dx=2, dy=1, size=(2, 3))[0, 0].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert canvas.shift(padded, dx=1, dy=0, size=(2, 3))[0, 0].tolist() == [[0, 0, 1], [3, 3, 4]]


def test_same_seed_same_mask_and_another_seed_another(tiny, noise_images):
    settings = pt.MaskSettings(iterations=20, jitter=28)
    first, again, other = (
        pt.learn_masks(tiny, noise_images, 1, settings, seed=seed).grid for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_image_alone_and_in_a_batch_go_the_same_way(tiny, noise_images):
    images = torch.cat([noise_images] * 8)[:17]
    targets = [row % 5 for row in range(17)]
    settings = pt.MaskSettings(iterations=1, jitter=28, initialization="half", perturbation="noise")
    together = pt.learn_masks(tiny, images, targets, settings, batch_size=17)
    for row in (0, 9, 16):
        alone = pt.learn_masks(tiny, images[row : row + 1], targets[row], settings)
        torch.testing.assert_close(together.grid[row : row + 1], alone.grid, atol=1e-4, rtol=0)
    parts = pt.learn_masks(tiny, images, targets, settings, batch_size=5)
    torch.testing.assert_close(parts.grid, together.grid, atol=1e-4, rtol=0)


def assert_alike(a, b):
    """Rounding flips rectified units and Adam amplifies it: after 100 iterations alike, not equal."""
    assert (a - b).abs().mean() <= 0.02
    assert np.corrcoef(a.flatten(), b.flatten())[0, 1] >= 0.99


def photographs_of(samples, *names):
    rows = [samples.names.index(name) for name in names]
    return samples.images[rows], [samples.targets[row] for row in rows]


@pytest.fixture(scope="module")
def learned_alone(lite0, foolbox_photographs):
    """Of one photograph the mask in each game."""
    return {
        game: pt.learn_masks(
            lite0, *photographs_of(foolbox_photographs, "bald_eagle"), pt.MaskSettings(game=game)
        )
        for game in ("deletion", "preservation")
    }


def test_an_image_alone_and_in_a_batch_end_alike(lite0, foolbox_photographs):
    settings = pt.MaskSettings(iterations=100)
    photographs = photographs_of(foolbox_photographs, "bull_mastiff", "bald_eagle")
    together = pt.learn_masks(lite0, *photographs, settings)
    alone = pt.learn_masks(lite0, *(rows[:1] for rows in photographs), settings)
    assert_alike(alone.saliency[0], together.saliency[0])


@pytest.mark.parametrize("game", ["deletion", "preservation"])
def test_a_mask_learned_now_is_the_stored_one(learned_alone, foolbox_photographs, request, game):
    """What the tests of all 20 photographs say of the stored masks holds for the optimizer as it is."""
    row = foolbox_photographs.names.index("bald_eagle")
    assert learned_alone[game].agrees_with(request.getfixturevalue(f"{game}_masks")[row])


SHORT = pt.MaskSettings(iterations=5)


@pytest.fixture(scope="module")
def short_masks(lite0, foolbox_photographs):
    """Of each game five iterations of two photographs."""
    images, targets = foolbox_photographs.images[:2], foolbox_photographs.targets[:2]
    return {
        game: pt.learn_masks(lite0, images, targets, SHORT.replace(game=game))
        for game in ("deletion", "preservation")
    }


@pytest.mark.parametrize("game", ["deletion", "preservation"])
def test_runs_that_round_differently_agree(lite0, foolbox_photographs, short_masks, game):
    """An image 1e-6 brighter stands for a processor that rounds otherwise: float32 has some 1e-7."""
    images, targets = foolbox_photographs.images[:2] * (1 - 1e-6), foolbox_photographs.targets[:2]
    brighter = pt.learn_masks(lite0, images, targets, SHORT.replace(game=game))
    assert not torch.equal(brighter.history.score, short_masks[game].history.score)
    assert brighter.agrees_with(short_masks[game])


@pytest.mark.parametrize("game", ["deletion", "preservation"])
@pytest.mark.parametrize(
    "change",
    [
        {"area_weight": 1.5e-4},
        {"tv_weight": 1.5e-2},
        {"tv_exponent": 2.0},
        {"learning_rate": 0.11},
        {"jitter": 3},
        {"blur_sigma": 9.0},
        {"mask_sigma": 4.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_runs_with_another_setting_do_not_agree(lite0, foolbox_photographs, short_masks, game, change):
    images, targets = foolbox_photographs.images[:2], foolbox_photographs.targets[:2]
    other = pt.learn_masks(lite0, images, targets, SHORT.replace(game=game, **change))
    assert not any(other[row].agrees_with(short_masks[game][row]) for row in range(2))


class FailsOnDark(nn.Module):
    """Its logits are NaN for an image whose first pixel is black."""

    def __init__(self):
        super().__init__()
        self.inner = tiny_module()

    def forward(self, inputs):
        return self.inner(inputs) + torch.where(inputs[:, :1, 0, 0] <= 0, torch.nan, 0.0)


@pytest.mark.parametrize("game", ["deletion", "preservation"])
def test_one_failing_image_leaves_its_neighbors_alone(noise_images, game):
    network = pt.Network(FailsOnDark(), input_size=SIZE, device="cpu")
    settings = pt.MaskSettings(game=game, iterations=15, blur_sigma=0.1)
    images = noise_images.clamp(0.1, 1)
    bad = images.clone()
    bad[1, :, :4, :4] = 0.0
    whole, broken = (pt.learn_masks(network, batch, [0, 1, 2], settings) for batch in (images, bad))
    assert broken.converged.tolist() == [whole.converged[0].item(), False, whole.converged[2].item()]
    torch.testing.assert_close(broken.grid[[0, 2]], whole.grid[[0, 2]], atol=1e-5, rtol=0)
    assert torch.isfinite(broken.grid).all()
    assert torch.isnan(broken.score_original[1])
    assert torch.isnan(broken.history.score[1]).all()


class FailsSometimes(nn.Module):
    """NaN in one call, for one image: an instability that passes."""

    def __init__(self):
        super().__init__()
        self.inner, self.calls = tiny_module(), 0

    def forward(self, inputs):
        self.calls += 1
        logits = self.inner(inputs)
        if len(inputs) == 3 and torch.is_grad_enabled() and inputs.requires_grad:
            self.calls_with_gradient = getattr(self, "calls_with_gradient", 0) + 1
            if self.calls_with_gradient == 4:
                logits = logits + torch.tensor([[0.0], [torch.nan], [0.0]])
        return logits


def test_a_passing_instability_is_reported_and_survived(noise_images):
    network = pt.Network(FailsSometimes(), input_size=SIZE, device="cpu")
    masks = pt.learn_masks(
        network, noise_images, [0, 1, 2], pt.MaskSettings(iterations=10, initialization="half")
    )
    assert torch.isfinite(masks.grid).all()
    assert not masks.converged[1]
    assert torch.isnan(masks.history.score[1]).sum() == 1
    assert torch.isfinite(masks.history.score[1, 4:]).all()
    assert not torch.equal(masks.grid[1], torch.full_like(masks.grid[1], 0.5))


class FitsThree(torch.nn.Module):
    """A network whose device holds no more than ``most`` images at once."""

    def __init__(self, module: torch.nn.Module, most: int) -> None:
        super().__init__()
        self.module, self.most, self.sizes = module, most, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return self.module(x)


def test_a_batch_that_does_not_fit_is_halved(tiny, noise_images):
    images = torch.cat([noise_images] * 4)[:11]
    settings = pt.MaskSettings(iterations=3, initialization="half")
    expected = pt.learn_masks(tiny, images, 2, settings)
    small = pt.Network(FitsThree(tiny_module(), 3), mean=tiny.mean, std=tiny.std, input_size=32, device="cpu")
    done = []
    masks = pt.learn_masks(small, images, 2, settings, progress=lambda count, total: done.append(count))
    assert done[2::3] == [6, 12, 18, 24, 30, 33]  # parts of 2, 2, 2, 2, 2 and 1 images
    torch.testing.assert_close(masks.grid, expected.grid, atol=1e-4, rtol=0)
    none = pt.Network(FitsThree(tiny_module(), 3), input_size=32, device="cpu")
    none.folded.most = 0
    with pytest.raises(torch.cuda.OutOfMemoryError):
        pt.learn_masks(none, images, 2, settings)


def test_parts_are_halved_and_the_last_part_too():
    tried = []

    def run(start: int, stop: int) -> None:
        tried.append(stop - start)
        if stop - start > 3:
            raise torch.cuda.OutOfMemoryError("out of memory")

    batches.in_batches(11, 8, run)
    assert tried == [8, 4, 2, 2, 2, 2, 2, 1]
    tried.clear()
    batches.in_batches(5, 64, run)  # half of what was tried, not of the size
    assert tried == [5, 2, 2, 1]


@pytest.mark.parametrize("game", ["deletion", "preservation"])
def test_a_recorded_iteration_reads_its_number_from_the_device(tiny, noise_images, monkeypatch, game):
    # What a GPU replays, without the recording: the number of the iteration is a tensor.
    settings = pt.MaskSettings(game=game, iterations=6, jitter=28)
    expected = pt.learn_masks(tiny, noise_images, [0, 1, 2], settings)

    def replayed(iterate, first, last, device, goes_on):
        number = torch.full((1,), first)
        for done in range(first, last):
            iterate(number)
            number.add_(1)
            if not goes_on(done + 1):
                return done + 1
        return last

    monkeypatch.setattr(loop, "repeat", replayed)
    masks = pt.learn_masks(tiny, noise_images, [0, 1, 2], settings)
    for name in ("score", "area", "tv"):
        assert torch.equal(getattr(masks.history, name), getattr(expected.history, name))
    assert torch.equal(masks.grid, expected.grid)


def test_progress_counts_every_image_iteration(tiny, noise_images):
    seen = []
    settings = pt.MaskSettings(iterations=4, initialization="half")
    pt.learn_masks(
        tiny, noise_images, 0, settings, batch_size=2, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(2, 12), (4, 12), (6, 12), (8, 12), (9, 12), (10, 12), (11, 12), (12, 12)]


def test_scores_and_areas_are_what_they_say(tiny, noise_images):
    settings = pt.MaskSettings(iterations=10, jitter=28)
    masks = pt.learn_masks(tiny, noise_images, [[0, 1], [2], [3]], settings)
    blurred = torch.from_numpy(
        ndimage.gaussian_filter(noise_images.numpy(), (0, 0, 10 / 7, 10 / 7), mode="nearest", truncate=4.0)
    )
    sets = [[0, 1], [2], [3]]

    def score(pixels):
        return torch.stack([tiny.scores(pixels)[row, classes].sum() for row, classes in enumerate(sets)])

    kept = noise_images * masks.mask + blurred * (1 - masks.mask)
    torch.testing.assert_close(masks.score_original, score(noise_images), atol=1e-5, rtol=0)
    torch.testing.assert_close(masks.score_perturbed, score(blurred), atol=1e-5, rtol=0)
    torch.testing.assert_close(masks.score_masked, score(kept), atol=1e-5, rtol=0)
    torch.testing.assert_close(masks.area, (1 - masks.mask).mean((1, 2, 3)))
    assert masks.converged.tolist() == (masks.score_masked < masks.score_original).tolist()


def test_masks_stay_float32_under_a_callers_autocast(tiny, noise_images):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        masks = pt.learn_masks(tiny, noise_images, 0, pt.MaskSettings(iterations=3))
    assert masks.grid.dtype == masks.mask.dtype == torch.float32
    plain = pt.learn_masks(tiny, noise_images, 0, pt.MaskSettings(iterations=3))
    # bfloat16 keeps 8 bits: scores agree to about 1 %.
    torch.testing.assert_close(masks.score_original, plain.score_original, atol=0.02, rtol=0)


@pytest.mark.parametrize("game", ["deletion", "preservation"])
def test_bfloat16_is_of_the_passes_in_the_loop_alone(tiny, noise_images, game):
    settings = pt.MaskSettings(game=game, iterations=3)
    exact = pt.learn_masks(tiny, noise_images, [0, 1, 2], settings)
    coarse = pt.learn_masks(tiny, noise_images, [0, 1, 2], settings, precision="bfloat16")
    for name in ("score_original", "score_perturbed", "radius"):
        torch.testing.assert_close(
            getattr(coarse, name), getattr(exact, name), atol=0, rtol=0, equal_nan=True
        )
    assert coarse.grid.dtype == coarse.history.tv.dtype == torch.float32
    first, other = exact.history.score[:, 0], coarse.history.score[:, 0]
    assert not torch.equal(first, other)
    # 8 bits: relative steps of 2⁻⁸ in each layer's sums, some 1 % of a score.
    torch.testing.assert_close(other, first, atol=0.02, rtol=0)
    # Each mask's score is that of the mask as it is, in float32.
    blurred = pt.perturbations.fully_perturbed(noise_images, "blur", color=tiny.mean_color)
    with torch.no_grad():
        scores = tiny.scores(noise_images * coarse.mask + blurred * (1 - coarse.mask))
    torch.testing.assert_close(coarse.score_masked, scores[range(3), [0, 1, 2]], atol=1e-5, rtol=0)


def test_bfloat16_goes_the_same_way_on_a_trained_network(lite0, foolbox_photographs):
    """Its gradient points nearly where float32's does: the same start, and a like mask after 20 steps."""
    row = foolbox_photographs.names.index("bald_eagle")
    image, target = foolbox_photographs.images[row : row + 1], foolbox_photographs.targets[row]
    exact, coarse = (
        pt.learn_masks(lite0, image, target, pt.MaskSettings(iterations=20), precision=precision)
        for precision in ("float32", "bfloat16")
    )
    assert np.corrcoef(exact.saliency.flatten(), coarse.saliency.flatten())[0, 1] >= 0.95
    assert (exact.score_masked - coarse.score_masked).abs().max() <= 0.02


def test_a_precision_that_is_not_there_is_refused(tiny, noise_images):
    with pytest.raises(ValueError, match="precision: expected one of float32, tf32, bfloat16, got 'float16'"):
        pt.learn_masks(tiny, noise_images, 0, precision="float16")


def test_a_caller_without_gradients_gets_the_same_masks(tiny, noise_images):
    settings = pt.MaskSettings(iterations=3)
    expected = pt.learn_masks(tiny, noise_images, 0, settings)
    with torch.no_grad():
        masks = pt.learn_masks(tiny, noise_images, 0, settings)
        assert not torch.is_grad_enabled()
    assert torch.equal(masks.grid, expected.grid)


def test_the_callers_generator_is_left_alone(tiny, noise_images):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    settings = pt.MaskSettings(iterations=2, initialization="random", perturbation="noise")
    pt.learn_masks(tiny, noise_images, 0, settings)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "tensorflow"}, "engine: expected one of .*, got 'tensorflow'"),
        ({"device": "tpu"}, "device: 'tpu' cannot be used here"),
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, got 0"),
    ],
)
def test_wrong_options_are_named(tiny, noise_images, options, message):
    with pytest.raises(ValueError, match=message):
        pt.learn_masks(tiny, noise_images, 0, **options)


def test_no_images_is_said(tiny, noise_images):
    with pytest.raises(ValueError, match="images: expected at least one image, got none"):
        pt.learn_masks(tiny, noise_images[:0], [])


def rescored(network, photographs, masks):
    """The target scores of photographs under masks, image by image, with SciPy's blur."""
    scores = []
    for image, target, mask in zip(photographs.images, photographs.targets, masks.mask, strict=True):
        blurred = torch.from_numpy(
            ndimage.gaussian_filter(image.numpy(), (0, 10, 10), mode="nearest", truncate=4.0)
        )
        with torch.inference_mode():
            scores.append(network.scores((image * mask + blurred * (1 - mask))[None])[0, target])
    return torch.stack(scores)


def test_twenty_photographs_deletion(lite0, foolbox_photographs, deletion_masks):
    # A plain implementation of the paper deletes all 20 with a median area of 0.41.
    scores = rescored(lite0, foolbox_photographs, deletion_masks)
    torch.testing.assert_close(deletion_masks.score_masked, scores, atol=1e-3, rtol=0)
    assert (scores / deletion_masks.score_original <= 0.02).sum() >= 19
    assert deletion_masks.area.median() <= 0.45
    assert deletion_masks.converged.all()


def test_twenty_photographs_preservation(lite0, foolbox_photographs, preservation_masks):
    # A plain implementation of the paper preserves all 20 with a median area of 0.13.
    scores = rescored(lite0, foolbox_photographs, preservation_masks)
    torch.testing.assert_close(preservation_masks.score_masked, scores, atol=1e-3, rtol=0)
    assert (scores >= preservation_masks.score_original).sum() >= 18
    assert preservation_masks.area.median() <= 0.20
    assert preservation_masks.converged.all()


class Severed(nn.Module):
    """A classifier whose author switched gradients off inside of it."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    @torch.no_grad()
    def forward(self, x):
        return self.module(x)


def test_a_network_without_gradients_is_refused_and_not_left_unexplained(noise_images):
    network = pt.Network(
        Severed(tiny_module()), mean=(0.5,) * 3, std=(0.25,) * 3, input_size=32, device="cpu"
    )
    with pytest.raises(ValueError, match="expected logits with a gradient"):
        pt.learn_masks(network, noise_images, 0, pt.MaskSettings(iterations=2))


def test_a_caller_in_inference_mode_gets_the_same_masks(tiny, noise_images):
    settings = pt.MaskSettings(iterations=3)
    expected = pt.learn_masks(tiny, noise_images, 0, settings)
    with torch.inference_mode():
        got = pt.learn_masks(tiny, noise_images, 0, settings)
    torch.testing.assert_close(got.grid, expected.grid)


def test_threads_on_one_network_do_not_touch_each_other(tiny, noise_images):
    settings = pt.MaskSettings(iterations=12)
    asked = [(noise_images[row : row + 1], row) for row in (0, 1, 2)] * 2
    expected = [pt.learn_masks(tiny, image, target, settings).grid for image, target in asked]
    scores = tiny.scores(noise_images)
    with ThreadPoolExecutor(4) as pool:
        learning = [pool.submit(pt.learn_masks, tiny, image, target, settings) for image, target in asked]
        while not all(job.done() for job in learning):
            torch.testing.assert_close(tiny.scores(noise_images), scores)
        got = [job.result().grid for job in learning]
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_what_each_device_says_when_it_is_full():
    for words in (
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes",
        "MPS backend out of memory (MPS allocated: 1 GB)",
    ):
        assert batches.out_of_memory(RuntimeError(words))
    assert not batches.out_of_memory(RuntimeError("shapes cannot be multiplied"))


@pytest.mark.skipif(shutil.which("c++") is None, reason="the compiler needs one for C++")
def test_compiled_passes_give_the_same_masks(tiny, noise_images):
    settings = pt.MaskSettings(iterations=6, initialization="half")
    images = torch.cat([noise_images, noise_images[:2]])
    expected = pt.learn_masks(tiny, images, 1, settings)
    # A last part of one image is filled up to the two for which the code was made.
    got = pt.learn_masks(tiny, images, 1, settings, engine="compile", batch_size=2)
    torch.testing.assert_close(got.grid, expected.grid, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda module, **_: lambda x: module(x.flip(3)), "another gradient when it is compiled"),
        # Three quarters of the pixels: alike enough for coarse arithmetic, not for float32.
        (
            lambda module, **_: lambda x: module(x * (torch.arange(SIZE) % 4 > 0)),
            "another gradient when it is compiled",
        ),
        (lambda module, **_: lambda x: module(x) * torch.nan, "another gradient when it is compiled"),
        (lambda module, **_: lambda x: 1 / 0, "cannot be compiled here .ZeroDivisionError"),
    ],
)
def test_what_a_compiler_gets_wrong_is_refused(tiny, noise_images, monkeypatch, made, told):
    monkeypatch.setattr(torch, "compile", made)
    with pytest.raises(ValueError, match=told):
        pt.learn_masks(tiny, noise_images, 1, pt.MaskSettings(iterations=2), engine="compile")


def test_every_engine_has_a_canvas():
    assert tuple(canvas.CANVASES) == ENGINES


def test_a_compiled_batch_that_does_not_fit_is_halved(noise_images, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    network = pt.Network(FitsThree(tiny_module(), 3), input_size=SIZE, device="cpu")
    images, sizes = torch.cat([noise_images] * 3)[:7], []
    network.folded.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    settings = pt.MaskSettings(iterations=2, initialization="half")
    masks = pt.learn_masks(network, images, 1, settings, engine="compile", batch_size=4)
    assert len(masks) == 7
    assert 1 not in sizes  # the last image stands beside itself
