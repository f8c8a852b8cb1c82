"""The defaults and presets are the paper's numbers; a wrong setting is named in one line."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import perturb_tutorial as pt
from perturb_tutorial.cli import app
from perturb_tutorial.explain import Request
from perturb_tutorial.games import GAMES
from perturb_tutorial.settings import PRESETS, check_seed, settings_table
from perturb_tutorial.study import architectures, gallery, games

# Typed from the protocol's table, apart from the code.
PAPER = {
    "game": "deletion",
    "iterations": 300,
    "learning_rate": 0.1,
    "area_weight": 0.0001,
    "tv_weight": 0.01,
    "tv_exponent": 3,
    "mask_scale": 8,
    "mask_sigma": 5,
    "jitter": 4,
    "perturbation": "blur",
    "initialization": "disc",
    "blur_sigma": 10,
    "score_scale": "softmax",
    "optimizer": "adam",
    "tolerance": 0,
}


def test_defaults_are_the_papers():
    assert pt.MaskSettings().to_dict() == PAPER
    assert pt.MaskSettings.preset("default") == pt.MaskSettings()
    assert pt.MaskSettings().grid_size == 28


def test_localization_changes_two_numbers_and_takes_five_classes():
    assert pt.MaskSettings.preset("localization").to_dict() == {
        **PAPER,
        "area_weight": 0.001,
        "tv_exponent": 2.0,
    }
    assert PRESETS["localization"].target_count == 5
    assert PRESETS["default"].target_count == 1


def test_alexnet_has_a_grid_of_30():
    settings = pt.MaskSettings.preset("default", network="alexnet")
    assert settings.grid_size == 30
    # δ in px of its own 227 px input is 227/30 = 7.566…
    assert settings.mask_scale * 227 / 224 == pytest.approx(7.5667, abs=1e-4)


# By hand from eq. 6, eq. 1 and §2, of a mask of 0.25 under which the score is 0.4, between 0.9 of the image and 0.1.
RULES = {
    "deletion": {"sign": 1, "salient": 0.75, "gain": 0.5, "suffices": [True, True, False, False, False]},
    "preservation": {"sign": -1, "salient": 0.25, "gain": 0.3, "suffices": [False, False, False, True, True]},
}


def test_a_game_is_its_formulas():
    assert set(RULES) == set(GAMES)
    original, perturbed, nan = torch.tensor(0.9), torch.tensor(0.1), torch.tensor(torch.nan)
    mask, normalized = torch.tensor([0.25, 0.0, 1.0]), torch.tensor([-0.5, 0.009, 0.5, 0.991, 1.5])
    for name, expected in RULES.items():
        settings = pt.MaskSettings(game=name)
        game = settings.rules
        assert (game.name, game.sign) == (name, expected["sign"])
        assert settings.to_dict()["game"] == name, "files hold the name"
        salient = game.salient(mask)
        assert salient[0].item() == expected["salient"]
        torch.testing.assert_close(game.disc(salient), mask, atol=0, rtol=0)
        assert game.suffices(normalized).tolist() == expected["suffices"]
        assert not game.suffices(nan), "no span, no disc"
        gain = game.gain(torch.tensor(0.4), original, perturbed)
        assert gain.item() == pytest.approx(expected["gain"], abs=1e-7)  # float32 of numbers below 1
        assert game.reached(torch.tensor(0.4), original, perturbed)
        for still in (original if name == "deletion" else perturbed, nan):
            assert not game.reached(still, original, perturbed)
    assert not GAMES["deletion"].reached(torch.tensor(0.95), original, perturbed)
    assert not GAMES["preservation"].reached(torch.tensor(0.05), original, perturbed)


def test_lengths_are_of_a_224_px_input_and_grow_with_it():
    settings = pt.MaskSettings()
    assert settings.lengths(224) == (5.0, 4)
    assert settings.lengths(448) == (10.0, 8)
    assert settings.replace(jitter=1).lengths(32) == (5 / 7, 1), (
        "a jitter of less than a pixel is none, which is 1"
    )


def test_every_setting_has_its_source():
    rows = settings_table()
    assert [row["name"] for row in rows] == [field.name for field in dataclasses.fields(pt.MaskSettings)]
    assert all(row["symbol"] and row["meaning"] and row["source"] for row in rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"game": "delete"}, "game: expected one of deletion, preservation, got 'delete'"),
        ({"game": ["deletion"]}, r"game: expected one of deletion, preservation, got \['deletion'\]"),
        ({"iterations": -1}, "iterations: expected a whole number of at least 0"),
        ({"iterations": 2.5}, "iterations: expected a whole number"),
        ({"jitter": 0}, "jitter: expected a whole number of at least 1"),
        ({"tv_exponent": 0}, "tv_exponent: expected a number above 0"),
        ({"area_weight": float("nan")}, "area_weight: expected a number"),
        ({"mask_scale": 500}, "mask_scale: expected 1 to 224"),
        ({"mask_scale": 0.01}, "mask_scale: expected 1 to 224"),
        ({"jitter": 100_000}, "jitter: expected at most 224"),
        ({"iterations": 10**20}, "iterations: expected at most 1,000,000"),
        ({"mask_sigma": 1e7}, "mask_sigma: expected at most 224"),
        ({"blur_sigma": 300.0}, "blur_sigma: expected at most 224"),
        ({"tolerance": -1.0}, "tolerance: expected a number of at least 0"),
        ({"tolerance": 1e13}, "tolerance: expected at most 1e"),
        ({"optimizer": "sgd"}, "optimizer: expected one of adam, averaged, got 'sgd'"),
        ({"score_scale": "log"}, "score_scale: expected one of softmax, relative, logit, got 'log'"),
        ({"perturbation": "blurr"}, "perturbation: expected one of blur, constant, noise"),
    ],
)
def test_wrong_values_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        pt.MaskSettings(**change)


def test_fast_changes_how_it_is_optimized_and_nothing_else():
    how = {"optimizer", "tolerance", "learning_rate"}
    for base in (pt.MaskSettings(), pt.MaskSettings.preset("localization").replace(game="preservation")):
        changed = {name for name, value in base.fast().to_dict().items() if value != base.to_dict()[name]}
        assert changed == how | ({"initialization"} if base.game == "preservation" else set())
        assert base.fast().fast() == base.fast()
    assert pt.MaskSettings(initialization="ones").fast().initialization == "ones", (
        "a start that was asked for"
    )


def test_unknown_setting_and_preset_list_what_there_is():
    with pytest.raises(ValueError, match=r"settings: expected game, .*; got lambda_1"):
        pt.MaskSettings().replace(lambda_1=3)
    with pytest.raises(ValueError, match="preset: expected one of default, localization, got 'top5'"):
        pt.MaskSettings.preset("top5")


def test_settings_file(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"iterations": 7}))
    base = pt.MaskSettings.preset("localization")
    assert pt.MaskSettings.from_file(path, base) == base.replace(iterations=7)
    for text, message in (
        ("{", "is not JSON"),
        ("[1]", "one JSON object"),
        ('{"iterations": "7"}', "iterations: expected"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            pt.MaskSettings.from_file(path)
    with pytest.raises(ValueError, match=r"nothing\.json cannot be read"):
        pt.MaskSettings.from_file(tmp_path / "nothing.json")


def test_a_seed_of_any_whole_number_type_is_the_number():
    for seed in (
        3,
        np.int64(3),
        np.uint8(3),
        np.array(3),
        torch.tensor(3),
        torch.tensor(3, dtype=torch.uint8),
    ):
        taken = check_seed(seed)
        assert type(taken) is int
        assert taken == 3
    assert check_seed(2**63 - 1) == 2**63 - 1


NO_SEEDS = {
    "half": 0.5,
    "whole float": 3.0,
    "too large": 2**70,
    "beyond": 2**63,
    "negative": -1,
    "bool": True,
    "numpy bool": np.bool_(True),
    "torch bool": torch.tensor(True),
    "torch float": torch.tensor(3.0),
    "text": "a",
    "digits": "3",
    "none": None,
    "several": np.arange(3),
    "several in torch": torch.arange(40).view(8, 5),
}


@pytest.mark.parametrize("seed", NO_SEEDS.values(), ids=NO_SEEDS.keys())
def test_a_seed_that_is_none_is_told_in_one_sentence(seed):
    with pytest.raises(
        ValueError, match=r"^seed: expected a whole number from 0 to 2\*\*63 - 1, got"
    ) as caught:
        check_seed(seed)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 130


def takers(tiny, images):
    """Every public function that takes a seed."""
    settings = pt.MaskSettings(iterations=1, initialization="random", perturbation="noise")
    heat = torch.zeros(3, 1, 32, 32)
    metrics, rows = pt.metrics, ([0.1, 0.2], [0, 1])
    score = torch.zeros(3)
    return {
        "learn_masks": lambda seed: pt.learn_masks(tiny, images, 0, settings, seed=seed),
        "learn_activation_masks": lambda seed: pt.learn_activation_masks(tiny, images, 0, "2", seed=seed),
        "saliency, mask": lambda seed: pt.saliency(tiny, images, 0, "mask", settings=settings, seed=seed),
        "saliency without a seed": lambda seed: pt.saliency(tiny, images, 0, "gradient", seed=seed),
        "variable_occlusion": lambda seed: pt.baselines.variable_occlusion(tiny, images, 0, seed=seed),
        "points": lambda seed: pt.baselines.variable_occlusion_points(tiny, images, 0, seed=seed),
        "seeded_network": lambda seed: pt.seeded_network("alexnet", seed=seed),
        "fully_perturbed": lambda seed: pt.perturbations.fully_perturbed(
            images, "noise", color=torch.zeros(3), seed=seed
        ),
        "background_for": lambda seed: pt.perturbations.background_for(
            settings, images, color=torch.zeros(3), seed=seed
        ),
        "initial_masks": lambda seed: pt.initialization.initial_masks(
            tiny, images, images, torch.ones(3, 5), settings,
            original_score=score, perturbed_score=score, seed=seed,
        ),
        "learn_gallery": lambda seed: gallery.learn_gallery(tiny, [], "0", seed=seed),
        "learn_by_architecture": lambda seed: architectures.learn_by_architecture([], 0, [], seed=seed),
        "faithfulness_curves": lambda seed: games.faithfulness_curves(tiny, images, 0, heat, seed=seed),
        "bootstrap": lambda seed: metrics.bootstrap(*rows, seed=seed),
        "held_out": lambda seed: metrics.held_out(10, seed=seed),
        "plan_mosaics": lambda seed: metrics.plan_mosaics(
            [0, 1, 2, 3], [1, 1, 1, 1], [True] * 4, cells=2, count=1, seed=seed
        ),
        "BenchmarkSettings": lambda seed: pt.benchmarks.BenchmarkSettings(seed=seed),
        "explain": lambda seed: Request(tiny, settings, seed=seed),
    }  # fmt: skip


def test_every_function_with_a_seed_checks_it(tiny, noise_images):
    wrong = []
    for name, call in takers(tiny, noise_images).items():
        for seed in (0.5, 2**70, -1, True, "a"):
            try:
                call(seed)
            except ValueError as error:
                if str(error).startswith("seed: expected a whole number"):
                    continue
                wrong.append((name, seed, str(error)))
            except Exception as error:
                wrong.append((name, seed, repr(error)))
            else:
                wrong.append((name, seed, "taken"))
    assert not wrong


def test_numpys_and_torchs_numbers_are_the_same_seeds(tiny, noise_images):
    settings = pt.MaskSettings(iterations=2, initialization="random", perturbation="noise")
    expected, *others = (
        pt.learn_masks(tiny, noise_images, 0, settings, seed=seed).grid
        for seed in (7, np.int64(7), torch.tensor(7))
    )
    for grid in others:
        torch.testing.assert_close(grid, expected, atol=0, rtol=0)
    assert pt.benchmarks.BenchmarkSettings(seed=np.int64(7)).to_dict()["seed"] == 7


def test_the_command_line_tells_of_a_seed_that_is_none(tmp_path):
    for command in (
        ["explain", "--sample", "chelsea"],
        ["benchmark", "pointing-game", "--data", str(tmp_path)],
    ):
        for seed in ("0.5", "-1", "a", str(2**70)):
            result = CliRunner().invoke(app, [*command, "--seed", seed, "--output", str(tmp_path / "out")])
            assert result.exit_code == 2, (command, seed)
            assert "'--seed'" in result.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"self": 1}', "settings: expected game, .*; got self$"),
        ("[" * 100_000, "is not JSON"),
        ("[" * 100_000 + "]" * 100_000, "is not JSON .*nested"),
        ('{"jitter": ' + "[" * 40 + "]" * 40 + "}", "is nested more than 16 deep"),
        ('{"area_weight": 1' + "0" * 309 + "}", "area_weight: expected a number of at least 0"),
        ('{"area_weight": 1' + "0" * 5000 + "}", "thousands of digits"),
        ('{"learning_rate": 1e39}', r"learning_rate: expected at most 1e\+12, got 1e\+39"),
        ('{"tv_exponent": NaN}', "tv_exponent: expected a number above 0, got nan"),
        ("\xff", "is not JSON"),
    ],
    ids=lambda value: value[:20],
)
def test_odd_files_of_settings_are_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "settings.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=said) as caught:
        pt.MaskSettings.from_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
