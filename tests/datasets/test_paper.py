"""The paper's numbers are complete, and table 2 comes out of the 76 classes again, slip included."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import pytest

from perturb_tutorial import files
from perturb_tutorial.datasets.imagenet import imagenet_indices, imagenet_names
from perturb_tutorial.datasets.paper import (
    GROUPS,
    fig11,
    paper_number,
    paper_numbers,
    table2_computed,
    table2_printed,
    torchray_pointing,
)
from perturb_tutorial.files import read_table, resource

PRINTED = {
    "localization.value.alpha": 0.25,
    "localization.value.error": 48.4,
    "localization.energy.alpha": 0.90,
    "localization.energy.error": 46.1,
    "localization.mean.alpha": 1.0,
    "localization.mean.error": 46.0,
    "localization.heldout.default.error": 41.9,
    "localization.heldout.top5.error": 39.6,
    "pointing.default.all": 36.40,
    "pointing.default.difficult": 28.21,
    "pointing.images": 20721,
    "variable_occlusion.area.mu": 7.5060,
    "variable_occlusion.area.sigma": 1.2848,
    "variable_occlusion.y.mean": 116.0759,
    "variable_occlusion.y.sigma": 47.5054,
    "layer.vgg16.pool1.area_weight": 5e-5,
    "layer.alexnet.pool5.tv_weight": 1e-3,
    "animal_parts.bird.stderr": 0.04,
}
"""Some of the numbers, typed from the paper a second time."""


def test_every_number_has_a_unit_a_section_and_a_key_of_its_own() -> None:
    rows = read_table("paper/numbers.csv")
    assert list(rows[0]) == ["key", "value", "unit", "source", "note"]
    assert len({row["key"] for row in rows}) == len(rows)
    for number in paper_numbers().values():
        assert number.source.startswith("§")
        assert number.unit
        assert math.isfinite(number.value)


def test_numbers_are_the_printed_ones() -> None:
    other = {key: paper_number(key).value for key in PRINTED if paper_number(key).value != PRINTED[key]}
    assert not other, other


def test_slips_are_named_where_they_stand() -> None:
    assert "an error" in paper_number("localization.heldout.default.error").note
    assert "stride 8" in paper_number("blur_occlusion.stride").note
    assert "30, not 32" in paper_number("mask.alexnet.side").note
    assert "14×14" in paper_number("layer.vgg16.pool4.side").note
    assert "variance over N" in paper_number("animal_parts.bird.stderr").note


def test_an_unknown_key_names_its_neighbors() -> None:
    with pytest.raises(
        ValueError, match=r"no printed number 'pointing\.default'; there are .*pointing\.default\.all"
    ):
        paper_number("pointing.default")
    with pytest.raises(ValueError, match=r"there are animal_parts, .*localization"):
        paper_number("nothing")


def test_fig11_has_76_classes_with_their_wnids() -> None:
    classes = fig11()
    assert len(classes) == paper_number("animal_parts.classes").value == 76
    assert [animal.mean_eyes for animal in classes] == sorted(animal.mean_eyes for animal in classes)
    for animal in classes:
        assert imagenet_names()[imagenet_indices()[animal.wnid]] == animal.animal
        # §7: for all classes eyes are more salient than feet, and more than 10 images were used.
        assert animal.ratio > 1
        assert animal.images > 10


def test_table_2_comes_out_again() -> None:
    printed, computed = table2_printed(), table2_computed()
    assert tuple(printed) == tuple(computed) == GROUPS
    for group, (count, mean, error) in printed.items():
        row = computed[group]
        assert row.classes == count
        # Means and errors have two decimals; fig. 11's values four digits (±0.003 in a ratio).
        assert row.mean == pytest.approx(mean, abs=0.0055)
        if group != "bird":
            assert row.stderr == pytest.approx(error, abs=0.0055)
    bird = computed["bird"]
    assert bird.variance_over_n == pytest.approx(printed["bird"][2], abs=0.005)
    assert round(bird.stderr, 2) == 0.21


def test_the_birds_by_hand() -> None:
    ratios = [animal.mean_feet / animal.mean_eyes for animal in fig11() if animal.group == "bird"]
    assert len(ratios) == 21
    assert statistics.fmean(ratios) == pytest.approx(3.027, abs=0.001)
    assert statistics.stdev(ratios) == pytest.approx(0.948, abs=0.001)


def test_birds_and_reptiles_are_what_taxonomy_says() -> None:
    """Classes are in WordNet's order: birds 7–24, 80–100, 127–146, amphibians and reptiles 25–68."""
    indices = imagenet_indices()
    for animal in fig11():
        index = indices[animal.wnid]
        is_bird = index in {*range(7, 25), *range(80, 101), *range(127, 147)}
        assert (animal.group == "bird") == (animal.plain_group == "bird") == is_bird
        assert (animal.plain_group == "amphibian_reptile") == (25 <= index <= 68)


def test_moved_animals_say_why() -> None:
    moved = {animal.animal for animal in fig11() if animal.group != animal.plain_group}
    assert moved == {"Angora", "wombat", "triceratops", "Madagascar cat"}
    assert all(bool(animal.note) == (animal.animal in moved) for animal in fig11())
    plain = table2_computed(plain=True)
    assert sum(row.classes for row in plain.values()) == 76
    # With a zoologist's groups the counts, and so the rows, are not the printed ones.
    assert plain["amphibian_reptile"].classes == 8


def test_torchrays_table_is_context() -> None:
    rows = {(row.method, row.network): row for row in torchray_pointing()}
    assert rows["center", "vgg16"].all == 27.8
    assert rows["grad_cam", "resnet50"].difficult == 52.3
    assert len(rows) == 13
    assert all(row.all > row.difficult for row in rows.values())


def test_resources_are_found_in_a_checkout_and_in_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resource("paper/fig11.csv").is_file()
    package = tmp_path / "site-packages" / "perturb_tutorial"
    (package / "data" / "paper").mkdir(parents=True)
    (package / "data" / "paper" / "fig11.csv").write_text("in the wheel")
    # Another package's top-level data folder must not win.
    (package.parent / "data" / "paper").mkdir(parents=True)
    (package.parent / "data" / "paper" / "fig11.csv").write_text("somebody else's")
    monkeypatch.setattr(files, "_PACKAGE", package)
    assert resource("paper/fig11.csv").read_text() == "in the wheel"
    with pytest.raises(FileNotFoundError, match=r"paper/none\.csv is missing"):
        resource("paper/none.csv")
    for outside in ("../secrets", "/etc/passwd"):
        with pytest.raises(ValueError, match="below data/"):
            resource(outside)
