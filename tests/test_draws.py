"""Several masks for one question: how the draws differ, and what is made of them."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage
from test_optimizer import slow_masks

import perturb_tutorial as pt
from perturb_tutorial import draws, mask_files, optimizer
from perturb_tutorial.canvas import ImageCanvas, jitter_shifts
from perturb_tutorial.initialization import InitialMasks
from perturb_tutorial.masks import disc_grids
from perturb_tutorial.perturbations import background_for, perturb

FEW = pt.MaskSettings(iterations=8, learning_rate=0.02, jitter=28)
FAST = pt.MaskSettings(iterations=30, jitter=28).fast()
ROUNDING = 1e-4
"""Of grids after a few steps, between batches of different sizes."""


@pytest.fixture(params=["deletion", "preservation"])
def masks(request: pytest.FixtureRequest, tiny: pt.Network, noise_images: torch.Tensor) -> pt.Masks:
    settings = FAST.replace(game=request.param, initialization="gradient")
    return pt.learn_masks(tiny, noise_images, [0, 1, 2], settings, draws=3, seed=5)


def test_each_draw_is_a_run_with_a_jitter_of_its_own(tiny: pt.Network, noise_images: torch.Tensor) -> None:
    """Against the slow loop, which knows one image and one sequence of shifts."""
    settings = FEW.replace(initialization="half", mask_scale=28)
    masks = pt.learn_masks(tiny, noise_images[:2], [2, 0], settings, draws=3, seed=11, batch_size=4)
    assert masks.draws is not None
    assert masks.draws.shape == (2, 3, 8, 8)
    for row, target in enumerate((2, 0)):
        for draw in range(3):
            grid, scores = slow_masks(
                tiny, noise_images[row], [target], settings, seed=draws.draw_seed(11, draw)
            )
            torch.testing.assert_close(masks.draws[row, draw].double(), grid[0, 0], atol=2e-4, rtol=0)
            if draw == 0:
                np.testing.assert_allclose(masks.history.score[row].numpy(), scores, atol=1e-5)
    assert len({draws.draw_seed(11, draw) for draw in range(64)}) == 64
    assert draws.draw_seed(11, 0) == 11


@pytest.mark.parametrize("initialization", ["disc", "gradient", "random"])
@pytest.mark.parametrize("optimizer_name", ["adam", "averaged"])
def test_the_first_draw_is_the_mask_of_one_draw(
    tiny: pt.Network, noise_images: torch.Tensor, initialization: str, optimizer_name: str
) -> None:
    settings = FEW.replace(initialization=initialization, optimizer=optimizer_name)
    one = pt.learn_masks(tiny, noise_images, [0, 1, 2], settings, seed=5)
    three = pt.learn_masks(tiny, noise_images, [0, 1, 2], settings, draws=3, seed=5)
    assert one.draws is None
    assert three.draws is not None
    torch.testing.assert_close(three.draws[:, :1], one.grid, atol=ROUNDING, rtol=0)
    torch.testing.assert_close(three.radius, one.radius, equal_nan=True)
    torch.testing.assert_close(three.history.score, one.history.score, atol=1e-5, rtol=0)
    assert torch.equal(three.iterations, one.iterations)
    assert (three.draws[1, 1:] - one.grid[1]).abs().flatten(1).amax(1).min() > 100 * ROUNDING


def test_a_draw_is_the_same_alone_in_other_batches_and_among_more_draws(
    tiny: pt.Network, noise_images: torch.Tensor, masks: pt.Masks
) -> None:
    assert masks.draws is not None
    assert set(masks.iterations.tolist()) != {30}, "the example has images that end before"
    alone = pt.learn_masks(tiny, noise_images[1:2], 1, masks.settings, draws=5, seed=5, batch_size=2)
    assert alone.draws is not None
    torch.testing.assert_close(alone.draws[:, :3], masks.draws[1:2], atol=ROUNDING, rtol=0)
    other = pt.learn_masks(tiny, noise_images, [0, 1, 2], masks.settings, draws=3, seed=6)
    assert other.draws is not None
    # The second image has evidence; the others' masks become empty from everywhere.
    assert (other.draws - masks.draws)[1].abs().flatten(1).amax(1).min() > 100 * ROUNDING


def test_the_mask_is_the_mean_and_its_score_is_measured(
    tiny: pt.Network, noise_images: torch.Tensor, masks: pt.Masks
) -> None:
    assert masks.draws is not None
    torch.testing.assert_close(masks.grid, masks.draws.mean(1, keepdim=True))
    background = background_for(masks.settings, noise_images, color=tiny.mean_color, seed=5)
    with torch.inference_mode():
        scores = tiny.scores(perturb(noise_images, background, masks.mask))
    torch.testing.assert_close(masks.score_masked, scores[range(3), range(3)])
    assert masks.draw_count == 3
    assert (masks.seed, masks.engine) == (5, "torch")


def test_agreement_and_spread_by_hand(masks: pt.Masks) -> None:
    """Each draw enlarged by SciPy's Gaussian, its pixels counted by NumPy."""
    grids = torch.rand(3, 4, 28, 28, generator=torch.Generator().manual_seed(0))
    masks = dataclasses.replace(masks, draws=grids, grid=grids.mean(1, keepdim=True))
    agreement, spread = masks.agreement, masks.spread
    assert agreement.shape == spread.shape == (3, 1, 32, 32)
    pixel = np.arange(32) * 28 // 32
    sigma = masks.settings.lengths(masks.size).mask_sigma
    for row in range(3):
        saliency = np.array(
            [
                ndimage.gaussian_filter(grid[pixel][:, pixel], sigma, mode="nearest", truncate=4.0)
                for grid in grids[row].double().numpy()
            ]
        )
        if masks.settings.game == "deletion":
            saliency = 1 - saliency
        assert abs(saliency - 0.5).min() > 1e-6, "no pixel is decided by rounding"
        np.testing.assert_allclose(agreement[row, 0], (saliency > 0.5).sum(0) / 4)
        np.testing.assert_allclose(spread[row, 0], saliency.std(0, ddof=1), atol=1e-6)
    assert set(agreement.unique().tolist()) == {0, 0.25, 0.5, 0.75, 1}


def test_one_draw_agrees_with_nothing(tiny: pt.Network, noise_images: torch.Tensor) -> None:
    masks = pt.learn_masks(tiny, noise_images, 1, FEW.replace(iterations=1), draws=1)
    assert (masks.draws, masks.draw_count) == (None, 1)
    for name in ("agreement", "spread"):
        with pytest.raises(ValueError, match=r"masks: expected several draws of each, got one; learn_masks"):
            getattr(masks, name)
    for wrong in (0, 65, 2.5, "many"):
        with pytest.raises(ValueError, match="draws: expected a whole number from 1 to 64, got"):
            pt.learn_masks(tiny, noise_images, 1, FEW, draws=wrong)  # type: ignore[arg-type]


def test_converged_is_a_mean_whose_draws_all_are(masks: pt.Masks) -> None:
    """Rows image by image, draw by draw, as the loop leaves them."""
    rows = pt.Masks.concatenate([dataclasses.replace(masks, draws=None)] * 2)  # two draws of three images
    rows = dataclasses.replace(rows, converged=torch.tensor([1, 1, 0, 1, 1, 1]).bool())
    good = 0.0 if masks.settings.game == "deletion" else 2.0
    found = draws.mean_of_draws(rows, 2, lambda grid: torch.tensor([good, good, good]))
    assert found.converged.tolist() == [True, False, True]
    found = draws.mean_of_draws(rows, 2, lambda grid: torch.tensor([good, good, torch.nan]))
    assert found.converged.tolist() == [True, False, False]
    found = draws.mean_of_draws(rows, 2, lambda grid: torch.tensor([1 - good, good, good]) * 2)
    assert found.converged[0] == (good == 2 - 2 * good)


@pytest.mark.parametrize("game", ["deletion", "preservation"])
def test_discs_vary_about_the_one_that_was_found(game: str) -> None:
    settings = pt.MaskSettings(game=game)
    start = InitialMasks(torch.rand(4, 1, 20, 40), torch.tensor([60.0, 60.0, 60.0, torch.nan]))
    rows = draws.Draws(3, (0, 1, 2, 1))
    varied = draws.varied_starts(start, rows, settings, (112, 224))
    assert torch.equal(varied.grid[0], start.grid[0])
    assert torch.equal(varied.grid[3], start.grid[3]), "no disc was found"
    torch.testing.assert_close(varied.radius, start.radius, equal_nan=True)
    # By hand: image px are √(112·224) / 224 of those of a square of 224.
    radius = 60 * (112 * 224) ** 0.5 / 224
    for row in (1, 2):
        factor, right, down = draws.start_variation(3, row)
        assert 0.8 <= factor <= 1.25
        assert max(abs(right), abs(down)) <= 0.25
        center = torch.tensor([[112 + right * radius, 56 + down * radius]], dtype=torch.float64)
        disc = disc_grids((112, 224), (20, 40), torch.tensor([factor * radius]), center)[0]
        torch.testing.assert_close(varied.grid[row], 1 - disc if game == "deletion" else disc)
        # Its center of mass is where it was moved to.
        y, x = ndimage.center_of_mass(disc[0].numpy())
        assert (x + 0.5) * 5.6 == pytest.approx(float(center[0, 0]), abs=1.5)
        assert (y + 0.5) * 5.6 == pytest.approx(float(center[0, 1]), abs=5)  # cut off above and below
    assert draws.start_variation(3, 1) != draws.start_variation(3, 2) != draws.start_variation(4, 2)
    assert draws.start_variation(3, 0) == (1, 0, 0)
    sizes = [draws.start_variation(0, draw)[0] for draw in range(1, 64)]
    assert min(sizes) < 0.83
    assert max(sizes) > 1.2


def test_the_start_by_gradients_takes_more_cells_or_fewer(
    tiny: pt.Network, noise_images: torch.Tensor
) -> None:
    settings = FAST.replace(iterations=0, initialization="gradient", jitter=1, game="preservation")
    masks = pt.learn_masks(tiny, noise_images[1:2], 1, settings, draws=6, seed=2)
    assert masks.draws is not None
    area = masks.draws[0].mean((1, 2))
    larger = [draws.start_variation(2, draw)[0] > 1 for draw in range(1, 6)]
    assert set(larger) == {True, False}
    # Without jitter the order of the cells is the same.
    assert (area[1:] > area[0]).tolist() == larger
    assert (area[1:] < area[0]).tolist() == [not each for each in larger]


@pytest.mark.parametrize("optimizer_name", ["adam", "averaged"])
def test_draws_start_from_varied_discs(
    tiny: pt.Network, noise_images: torch.Tensor, optimizer_name: str
) -> None:
    settings = FEW.replace(iterations=0, optimizer=optimizer_name)
    masks = pt.learn_masks(tiny, noise_images[1:2], 1, settings, draws=3, seed=4)
    found = pt.learn_masks(tiny, noise_images[1:2], 1, settings)
    assert found.radius.isfinite().all()
    start = InitialMasks(found.grid.expand(3, -1, -1, -1), found.radius.expand(3))
    expected = draws.varied_starts(start, draws.Draws(4, (0, 1, 2)), settings, 32)
    assert masks.draws is not None
    torch.testing.assert_close(masks.draws[0], expected.grid[:, 0])
    assert not torch.equal(masks.draws[0, 1], masks.draws[0, 0])


def test_each_row_sees_the_window_of_its_draw(tiny: pt.Network, noise_images: torch.Tensor) -> None:
    settings, numbers = pt.MaskSettings(iterations=6, jitter=56), (0, 2, 1)
    weights = torch.ones(3, 5)
    canvas = ImageCanvas(tiny, noise_images, weights, settings, 7, "float32", numbers)
    for step in range(6):
        window = canvas.windows(canvas.pictures, step)
        for row, number in enumerate(numbers):
            seed = draws.draw_seed(7, number)
            alone = ImageCanvas(tiny, noise_images[row : row + 1], weights[:1], settings, seed)
            assert jitter_shifts(settings, 32, seed) == alone.windows.shifts[0]
            torch.testing.assert_close(window[:, row], alone.windows(alone.pictures, step)[:, 0])
        by_tensor = canvas.windows(canvas.pictures, torch.tensor([step]))  # as in a recorded iteration
        assert torch.equal(by_tensor, window)
        some = canvas.rows(torch.tensor([2, 0]))
        assert torch.equal(some.windows(some.pictures, step), window[:, [2, 0]])


def test_draws_share_batches_and_count_in_the_progress(
    tiny: pt.Network, noise_images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    sizes: list[int] = []
    learn_on = optimizer.learn_on

    def watched(canvas, *arguments):  # type: ignore[no-untyped-def]
        sizes.append(len(canvas.images))
        if sizes == [6]:
            raise RuntimeError("not enough memory")
        return learn_on(canvas, *arguments)

    monkeypatch.setattr(optimizer, "learn_on", watched)
    settings = FEW.replace(iterations=2)
    masks = pt.learn_masks(
        tiny,
        noise_images[:2],
        [0, 1],
        settings,
        draws=3,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert sizes == [6, 3, 3], "halved where the memory was full"
    assert seen == [(3, 12), (6, 12), (9, 12), (12, 12)]
    assert masks.draws is not None
    assert masks.draws.shape == (2, 3, 28, 28)


def test_a_run_that_is_ended_leaves_the_images_with_all_draws(
    tiny: pt.Network, noise_images: torch.Tensor
) -> None:
    def ends_after(rows: int):  # type: ignore[no-untyped-def]
        return lambda done, total: done < rows * 2

    options = {"draws": 2, "batch_size": 3}
    settings = FEW.replace(iterations=2)
    half = pt.learn_masks(tiny, noise_images, [0, 1, 2], settings, progress=ends_after(3), **options)  # type: ignore[arg-type]
    whole = pt.learn_masks(tiny, noise_images, [0, 1, 2], settings, **options)  # type: ignore[arg-type]
    assert (len(half), len(whole)) == (1, 3), "of the second one draw only was begun"
    torch.testing.assert_close(half.draws, whole[:1].draws)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        none = pt.learn_masks(
            tiny, noise_images, 0, settings, draws=4, batch_size=3, progress=lambda *_: False
        )
    assert len(none) == 0


def test_own_scores_and_sets_of_classes_have_draws(tiny: pt.Network, noise_images: torch.Tensor) -> None:
    by_score = pt.learn_masks(
        tiny, noise_images, None, FEW, draws=2, score=lambda output: output.softmax(1)[:, 1]
    )
    assert by_score.draw_count == 2
    torch.testing.assert_close(by_score.score_original, torch.ones(3))
    sets = pt.learn_masks(tiny, noise_images, [[0, 1], [2], [3, 4]], FEW, draws=2)
    with torch.inference_mode():
        scores = tiny.scores(noise_images)
    torch.testing.assert_close(sets.score_original[0], scores[0, :2].sum())
    torch.testing.assert_close(sets.score_original[1], scores[1, 2])


def test_draws_by_the_exported_graph(tiny: pt.Network, noise_images: torch.Tensor) -> None:
    pytest.importorskip("openvino")
    by_torch, by_onnx = (
        pt.learn_masks(tiny, noise_images, [0, 1, 2], FEW, draws=2, engine=engine)
        for engine in ("torch", "onnx")
    )
    torch.testing.assert_close(by_onnx.draws, by_torch.draws, atol=1e-3, rtol=0)
    torch.testing.assert_close(by_onnx.score_masked, by_torch.score_masked, atol=1e-4, rtol=0)


def test_draws_are_saved_indexed_and_joined(masks: pt.Masks, tmp_path) -> None:  # type: ignore[no-untyped-def]
    masks.save(tmp_path / "masks.pt")
    again = pt.Masks.load(tmp_path / "masks.pt")
    assert again == masks
    assert torch.equal(again.agreement, masks.agreement)
    part = masks[1]
    assert part.draws is not None
    assert part.draws.shape[:2] == (1, 3)
    assert torch.equal(part.agreement, masks.agreement[1:2])
    assert pt.Masks.concatenate([masks[:1], masks[1:]]) == masks
    assert masks.to("cpu") == masks
    assert masks.to("meta").draws.is_meta  # type: ignore[union-attr]
    single = dataclasses.replace(masks, draws=None)
    assert masks != single
    assert single != masks
    assert not masks.agrees_with(single)
    assert masks.agrees_with(again)
    assert masks.draws is not None
    assert masks != dataclasses.replace(masks, draws=masks.draws.sin())
    with pytest.raises(ValueError, match="parts: expected masks of one draw_count, got 3 and 1"):
        pt.Masks.concatenate([masks, single])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda x: x + 1, "draws: expected values from 0 to 1"),
        (lambda x: x[:, :1], "draws: expected N×k×h×w with k of at least 2, got 3×1×28×28"),
        (lambda x: x[:, :, 1:], "draws: expected 3×3×28×28 of torch.float32, got 3×3×27×28"),
        (lambda x: x.double(), "draws: expected 3×3×28×28 of torch.float32, got"),
    ],
)
def test_draws_of_another_form_are_neither_saved_nor_loaded(masks, tmp_path, change, line) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "masks.pt"
    with pytest.raises(ValueError, match=line):
        dataclasses.replace(masks, draws=change(masks.draws)).save(path)
    assert not path.exists()
    masks.save(path)
    content = torch.load(path, weights_only=True)
    del content["checksum"]
    content["draws"] = change(masks.draws)
    torch.save({**content, "checksum": mask_files.checksum(content)}, path)
    with pytest.raises(ValueError, match=f"masks: .*masks.pt: {line}"):
        pt.Masks.load(path)
