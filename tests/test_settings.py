"""The defaults and presets are the paper's numbers; a wrong setting is named in one line."""

from __future__ import annotations

import dataclasses
import json

import pytest

import perturb_tutorial as pt
from perturb_tutorial.settings import PRESETS, settings_table

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


def test_every_setting_has_its_source():
    rows = settings_table()
    assert [row["name"] for row in rows] == [field.name for field in dataclasses.fields(pt.MaskSettings)]
    assert all(row["symbol"] and row["meaning"] and row["source"] for row in rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"game": "delete"}, "game: expected one of deletion, preservation, got 'delete'"),
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
        ({"perturbation": "blurr"}, "perturbation: expected one of blur, constant, noise"),
    ],
)
def test_wrong_values_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        pt.MaskSettings(**change)


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
