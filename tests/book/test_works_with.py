"""The page "What works with what" says what the stored sweep says."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from perturb_tutorial.baselines import METHODS

ROOT = Path(__file__).resolve().parents[2]
NO_RULE = "no rule for the operation 'LayerNorm'; name a layer above it"


@pytest.fixture(scope="module")
def works_with() -> Any:
    pytest.importorskip("sphinx", reason="needs the extra book")
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    return importlib.import_module("works_with")


@pytest.fixture
def rows(works_with: Any) -> list[dict[str, Any]]:
    """Three networks by hand: one right but for two refusals, one with a fault and an error, one left out."""
    right = dict.fromkeys(works_with.SHORT, "right")
    refused = {
        name: f"refused: {name}: {NO_RULE}"
        for name in ("excitation_backprop", "contrastive_excitation_backprop")
    }
    first = right | refused | {"mask, onnx": "refused: network: one has aten.foo"}
    second = right | {
        "gradient": "wrong: not finite",
        "mask": "error: KeyError: 'x'",
        "excitation_backprop": f"refused: {NO_RULE}",
    }
    head = {"size": 64, "parameters": 1_230_000}
    return [
        {"network": "one", "source": "timm", "layer": "blocks.2", "checks": first, **head},
        {"network": "two", "source": "timm", "layer": None, "checks": second, **head},
        {
            "network": "mute",
            "source": "torchvision",
            "left_out": "no gradient in stem",
            "checks": {},
            "size": 8,
        },
    ]


def test_the_columns_are_the_methods_and_the_masks(works_with: Any) -> None:
    assert list(works_with.SHORT) == [*METHODS, "mask, onnx", "mask on a layer"]


def test_sums_are_those_of_the_rows(works_with: Any, rows: list[dict[str, Any]]) -> None:
    lines = works_with.summary_lines(rows)
    assert lines[0].startswith("**1 of 2 networks: every method is right, or refused in a sentence.**")
    assert lines[0].endswith("There are 2 of timm, 1 of torchvision; 1 could not be tried.")
    table = {line.split(" | ")[0].strip("| "): line for line in lines[4:]}
    assert table["mask"] == "| mask | 1 | 0 | 0 | 1 |"
    assert table["gradient"] == "| gradient | 1 | 0 | 1 | 0 |"
    assert table["excitation_backprop"] == "| excitation_backprop | 0 | 2 | 0 | 0 |"
    assert table["occlusion"] == "| occlusion | 2 | 0 | 0 | 0 |"


def test_equal_reasons_are_one_and_the_most_frequent_comes_first(
    works_with: Any, rows: list[dict[str, Any]]
) -> None:
    found = works_with.reasons(rows)
    assert next(iter(found.items())) == (f"refused: {NO_RULE}", ["one", "two"])
    assert found["refused: network: the network has aten.foo"] == ["one"]
    assert found["left out: no gradient in stem"] == ["mute"]
    assert len(found) == 5
    named = {"network": "resnet18"}
    one, other = (
        works_with.sentence(named, f"wrong: layer 'block.{n}.relu' of resnet18 is {n}e-3 apart, ReLU6")
        for n in (1, 22)
    )
    assert one == other == "wrong: layer '…' of the network is … apart, ReLU6"


def test_each_cell_has_its_sign_its_meaning_and_the_number_of_its_reason(
    works_with: Any, rows: list[dict[str, Any]]
) -> None:
    numbers = {text: number for number, text in enumerate(works_with.reasons(rows), start=1)}
    lines = works_with.table_lines(rows, "timm")
    assert len(lines) == 4
    first, second = (re.split(r" \| ", line.strip("| ")) for line in lines[2:])
    assert first[:3] == ["one", "1.23 M", "64"]
    assert first[-1] == "`blocks.2`"
    columns = dict(zip(works_with.SHORT, first[3:], strict=False))
    assert columns["gradient"] == '<span role="img" aria-label="right" title="right">✓</span>'
    assert 'aria-label="refused"' in columns["excitation_backprop"]
    number = numbers[f"refused: {NO_RULE}"]
    assert columns["excitation_backprop"].endswith(f">–</span> [{number}](#works-with-{number})")
    assert 'aria-label="wrong"' in dict(zip(works_with.SHORT, second[3:], strict=False))["gradient"]
    (mute,) = works_with.table_lines(rows, "torchvision")[2:]
    assert mute.count("○") == len(works_with.SHORT)


def test_every_reason_has_an_entry_where_its_numbers_lead(
    works_with: Any, rows: list[dict[str, Any]]
) -> None:
    entries = works_with.reason_lines(rows)
    targets = {line for line in entries if line.endswith("=")}
    cells = "".join(
        line for source in ("timm", "torchvision") for line in works_with.table_lines(rows, source)
    )
    assert {f"({anchor})=" for anchor in re.findall(r"\(#(works-with-\d+)\)", cells)} == targets
    assert r"\*" in works_with.escaped("a * b")


def test_the_stored_sweep_can_be_shown(works_with: Any) -> None:
    rows = works_with.stored_rows()
    page = (ROOT / "book" / "works_with.md").read_text(encoding="utf-8")
    shown = re.findall(r"```\{works-with-table\} (\w+)", page)
    assert {row["source"] for row in rows} <= set(shown)
    assert len({row["network"] for row in rows}) == len(rows)
    for row in rows:
        assert ("left_out" in row) != (set(row["checks"]) == set(works_with.SHORT)), row["network"]
        assert all(works_with.verdict(found) in works_with.VERDICTS for found in row["checks"].values())
    assert sum(len(works_with.table_lines(rows, source)) - 2 for source in shown) == len(rows)
    assert "works_with" in yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["local_extensions"]
