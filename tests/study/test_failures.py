"""Failures found by rule on made masks (§6.6), both games measured (§6.5), networks compared (§6.3)."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import perturb_tutorial as pt
from perturb_tutorial.results import History
from perturb_tutorial.study import architectures
from perturb_tutorial.study.architectures import correlation, learn_by_architecture
from perturb_tutorial.study.failures import KINDS, SATURATED_GAP, box_mask, diagnose, log_odds
from perturb_tutorial.study.games import GameComparison, faithfulness_curves, measure_game

SETTINGS = pt.MaskSettings(iterations=2, mask_scale=28, mask_sigma=0)  # a grid of 8×8, 4 px of 32 each


def made(
    saliency, *, original=0.8, perturbed=0.1, masked=0.1, converged=True, radius=40.0, game="deletion", **more
):
    """A mask with this saliency (8×8) and these scores."""
    heat = torch.as_tensor(saliency, dtype=torch.float32).expand(1, 1, 8, 8)
    score = torch.tensor([[more.get("step", 0.5)] * 2])
    return pt.Masks(
        grid=1 - heat if game == "deletion" else heat.clone(),
        size=(32, 32),
        score_original=torch.tensor([original]),
        score_perturbed=torch.tensor([perturbed]),
        score_masked=torch.tensor([masked]),
        converged=torch.tensor([converged]),
        radius=torch.tensor([radius]),
        iterations=torch.tensor([2]),
        history=History(score, score, score),
        settings=SETTINGS.replace(game=game),
    )


def block(rows, columns, value=1.0):
    heat = torch.zeros(8, 8)
    heat[rows, columns] = value
    return heat


LEFT = np.zeros((32, 32), dtype=bool)
LEFT[:, :16] = True


@pytest.mark.parametrize(
    ("mask", "kinds"),
    [
        (made(block(slice(0, 8), slice(0, 4))), ()),
        (made(block(slice(0, 8), slice(0, 4)), masked=0.8, converged=False), ("not converged",)),
        (made(block(slice(0, 8), slice(0, 4)), masked=math.nan, converged=False), ("not finite",)),
        (made(block(slice(0, 8), slice(0, 4)), step=math.nan, converged=False), ("not finite",)),
        (made(block(slice(0, 8), slice(0, 4)), radius=math.nan), ("no disc",)),
        (
            made(block(slice(0, 8), slice(0, 4)), perturbed=0.9, masked=0.7, radius=math.nan),
            ("no disc", "weak"),
        ),
        (made(block(slice(0, 8), slice(0, 4)), masked=0.46), ("weak",)),
        (made(block(slice(0, 8), slice(0, 4)), masked=0.44), ()),
        (made(block(slice(0, 8), slice(0, 4)), masked=0.44, game="preservation"), ("weak",)),
        (made(0.0), ("empty",)),
        (made(1.0), ("everything",)),
        (made(block(slice(0, 8), slice(3, 8))), ("context",)),
        (made(block(slice(0, 8), slice(2, 8))), ("wide",)),  # half of the object, a third of the saliency
        (made(block(slice(0, 3), slice(0, 4))), ("part",)),
        (made(block(slice(0, 4), slice(0, 4))), ()),  # exactly half of the object
        (made(block(slice(0, 3), slice(0, 5))), ("part",)),  # partly beside it, but most of it on it
    ],
)
def test_each_failure_is_found_and_nothing_else(tiny, noise_images, mask, kinds):
    (diagnosis,) = diagnose(mask, tiny, noise_images[:1], 0, [LEFT])
    assert diagnosis.kinds == kinds
    assert len(diagnosis.reasons) == len(kinds)
    assert all(
        reason.startswith(kind) or kind == "not finite"
        for kind, reason in zip(kinds, diagnosis.reasons, strict=True)
    )
    assert set(kinds) <= set(KINDS)
    failing = {"not finite", "not converged", "weak", "empty", "everything"}
    assert diagnosis.works == (not failing & set(kinds))
    assert (
        "nothing found" in str(diagnosis)
        if not kinds
        else all(r in str(diagnosis) for r in diagnosis.reasons)
    )


def test_what_is_measured_is_what_it_says(tiny, noise_images):
    heat = block(slice(0, 2), slice(0, 4), 0.75) + block(slice(4, 8), slice(0, 8), 0.25)
    (diagnosis,) = diagnose(made(heat), tiny, noise_images[:1], 0, [LEFT])
    # 8 cells of 0.75 and 16 of 0.25 on the left half of 32 cells, 16 of 0.25 on the right one.
    assert diagnosis.energy_inside == pytest.approx((8 * 0.75 + 16 * 0.25) / (8 * 0.75 + 32 * 0.25))
    assert diagnosis.covered == pytest.approx(8 / 32)
    assert diagnosis.object_share == 0.5
    assert diagnosis.area == pytest.approx((8 * 0.75 + 32 * 0.25) / 64)
    assert diagnosis.effect == pytest.approx(1.0)
    # The object's pixels may be of the photograph's own size.
    large = np.kron(LEFT, np.ones((5, 3), dtype=bool))
    (again,) = diagnose(made(heat), tiny, noise_images[:1], 0, [large])
    assert again.energy_inside == pytest.approx(diagnosis.energy_inside)
    (unknown,) = diagnose(made(heat), tiny, noise_images[:1], 0)
    assert math.isnan(unknown.energy_inside)
    assert not {"part", "context", "wide"} & set(unknown.kinds)


def test_log_odds_and_saturation(tiny, noise_images):
    sets = [[0, 1], [2], [4]]
    scores = tiny.scores(noise_images).double()
    chosen = torch.stack([scores[row, classes].sum() for row, classes in enumerate(sets)])
    np.testing.assert_allclose(
        log_odds(tiny, noise_images, sets), torch.log(chosen / (1 - chosen)), atol=1e-5
    )

    class Sure(torch.nn.Module):
        def forward(self, inputs):
            gap = torch.full((len(inputs), 1), SATURATED_GAP + 0.01)
            return torch.cat([gap, torch.zeros_like(gap)], 1)

    network = pt.Network(Sure(), input_size=32, device="cpu")
    assert network.scores(noise_images)[0, 0] == 1  # what the threshold stands for
    (diagnosis,) = diagnose(made(block(slice(0, 8), slice(0, 4))), network, noise_images[:1], 0)
    assert diagnosis.kinds == ("saturated",)


def test_real_masks_and_a_failing_one_in_a_batch(tiny, noise_images):
    masks = pt.learn_masks(tiny, noise_images, [0, 1, 2], pt.MaskSettings(iterations=3))
    broken = replace(
        masks, score_masked=masks.score_masked.clone().index_fill_(0, torch.tensor([1]), math.nan)
    )
    result = diagnose(broken, tiny, noise_images, [0, 1, 2], [None, LEFT, np.zeros((32, 32), bool)])
    assert [diagnosis.index for diagnosis in result] == [0, 1, 2]
    assert "not finite" in result[1].kinds
    with pytest.raises(ValueError, match="images, truth: expected one for each of 3 masks, got 2 and 3"):
        diagnose(masks, tiny, noise_images[:2], 0)
    assert diagnose(masks[:0], tiny, noise_images[:0], []) == []


def test_box_mask_has_inclusive_corners_and_is_cut_at_the_border():
    mask = box_mask([[1, 2, 3, 2], [-5, -5, 0, 0], [9, 9, 99, 99]], (6, 10))
    expected = np.zeros((6, 10), dtype=bool)
    expected[2, 1:4] = expected[0, 0] = True
    np.testing.assert_array_equal(mask, expected)
    assert not box_mask([], (3, 3)).any()


def test_curves_are_the_scores_of_images_built_by_hand(tiny, noise_images):
    generator = torch.Generator().manual_seed(5)
    saliency = torch.rand(3, 1, 32, 32, generator=generator)
    settings = pt.MaskSettings(perturbation="constant")
    deletion, insertion = faithfulness_curves(tiny, noise_images, [0, 1, 2], saliency, settings, steps=4)
    gray = torch.tensor(tiny.mean).view(3, 1, 1)
    for row in range(3):
        ranked = saliency[row, 0].flatten().argsort(descending=True)
        for step in range(5):
            image = noise_images[row].clone().view(3, -1)
            image[:, ranked[: 256 * step]] = gray.view(3, 1)
            score = tiny.scores(image.view(1, 3, 32, 32))[0, row].item()
            assert deletion[row, step] == pytest.approx(score, abs=1e-5)
            image = noise_images[row].clone().view(3, -1)
            image[:, ranked[256 * step :]] = gray.view(3, 1)
            score = tiny.scores(image.view(1, 3, 32, 32))[0, row].item()
            assert insertion[row, step] == pytest.approx(score, abs=1e-5)
    with pytest.raises(ValueError, match="saliency: expected 3×1×32×32, got 3×1×8×8"):
        faithfulness_curves(tiny, noise_images, 0, saliency[..., :8, :8])


def test_both_games_side_by_side(tiny, noise_images):
    settings, targets = pt.MaskSettings(iterations=6, mask_scale=28), [0, 1, 2]
    played = {}
    for game in ("deletion", "preservation"):
        masks = pt.learn_masks(tiny, noise_images, targets, settings.replace(game=game))
        played[game] = measure_game(tiny, noise_images, targets, masks, steps=4)
    result = GameComparison(**played)
    table = result.table()
    assert [(row["index"], row["game"]) for row in table][:2] == [(0, "deletion"), (0, "preservation")]
    for row in table:
        game = getattr(result, row["game"])
        curve = game.deletion_curve[row["index"]]
        by_hand = sum((a + b) / 2 for a, b in pairwise(curve)) / 4
        assert row["deletion_area"] == pytest.approx(by_hand)
        assert row["works"] == game.diagnoses[row["index"]].works
    works = [game.works for game in (result.deletion, result.preservation)]
    assert result.preservation_fails.tolist() == [a and not b for a, b in zip(*works, strict=True)]
    assert result.deletion_fails.tolist() == [b and not a for a, b in zip(*works, strict=True)]


@pytest.fixture
def files(tmp_path, noise_images):
    from PIL import Image

    paths = []
    for index, image in enumerate(noise_images):
        pixels = (image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).resize((60 + index, 40)).save(tmp_path / f"{index}.png")
        paths.append(tmp_path / f"{index}.png")
    return paths


def test_networks_get_their_own_size_and_a_missing_one_a_sentence(tiny, files, monkeypatch):
    from small_inputs import tiny_module

    larger = pt.Network(tiny_module(seed=1), input_size=48, name="larger", device="cpu")

    def unavailable(name, **_):
        raise pt.WeightsUnavailable(f"{name}: its weights could not be downloaded")

    monkeypatch.setattr(architectures, "load_network", unavailable)
    lines = []
    result = learn_by_architecture(
        files, [0, 1, 2], [tiny, "alexnet", larger], changes={"iterations": 3}, report=lines.append
    )
    assert result.names == [tiny.name, "larger"]
    assert {name: tuple(images.shape[2:]) for name, images in result.images.items()} == {
        tiny.name: (32, 32),
        "larger": (48, 48),
    }
    assert result.unavailable == {"alexnet": "alexnet: its weights could not be downloaded"}
    assert len(lines) == 3
    expected = pt.learn_masks(larger, pt.load_images(files, 48), [0, 1, 2], pt.MaskSettings(iterations=3))
    assert torch.equal(result.masks["larger"].grid, expected.grid)
    with pytest.raises(ValueError, match="networks: expected each network once, got larger twice"):
        learn_by_architecture(files, 0, [larger, larger], changes={"iterations": 0})


def test_alexnet_has_its_own_grid(files):
    network = pt.seeded_network("alexnet", device="cpu")
    result = learn_by_architecture(
        files[:1], 3, [network], changes={"iterations": 0, "initialization": "half"}
    )
    (masks,) = result.masks.values()
    assert (masks.grid.shape[2:], masks.size) == ((30, 30), (227, 227))


def test_correlation_is_pearsons():
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.rand(16, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    assert correlation(a, b, 16) == pytest.approx(np.corrcoef(a.flatten(), b.flatten())[0, 1])
    assert correlation(a, 3 * a + 1, 24) == pytest.approx(1)
    assert correlation(a, -a, 16) == pytest.approx(-1)
    # The same picture at twice the size: a ramp stays a ramp but for its border.
    ramp = torch.arange(16.0).expand(16, 16)
    assert correlation(ramp, torch.arange(32.0).expand(32, 32), 64) == pytest.approx(1, abs=1e-3)
    assert math.isnan(correlation(a, torch.ones(16, 16)))
