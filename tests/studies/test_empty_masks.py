"""Empty masks asked again: the relative score against scaled weights, the three rules counted by hand, bad runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import perturb_tutorial as pt
from perturb_tutorial.benchmarks.store import SETTINGS
from perturb_tutorial.objectives import class_weights, target_score

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies"))
import empty_masks as tool


def test_a_score_relative_to_its_start_is_as_good_as_weights_times_the_score(tiny, noise_images) -> None:
    """λ₁ A + λ₂ TV + s/s₀ and s₀ λ₁ A + s₀ λ₂ TV + s differ by the factor s₀, to which Adam is blind."""
    settings = pt.MaskSettings(iterations=12, area_weight=4e-4)
    targets = [[0], [1, 2], [4]]
    grids = tool.relative_grids(tiny, noise_images, targets, settings, seed=0, engine="torch")
    with torch.inference_mode():
        original = target_score(tiny.logits(noise_images), class_weights(targets, 5))
    moved = []
    for image, target, score, grid in zip(noise_images, targets, original.tolist(), grids, strict=True):
        scaled = settings.replace(
            area_weight=score * settings.area_weight, tv_weight=score * settings.tv_weight
        )
        expected = pt.learn_masks(tiny, image[None], [target], scaled).salient_grid[0]
        # Adam's ε of 1e-8 sees the factor where a cell's gradient is hardly larger: a few cells of 784.
        assert (grid - expected).abs().mean() <= 2e-3
        plain = pt.learn_masks(tiny, image[None], [target], settings).salient_grid[0]
        moved.append(float((grid - plain).abs().mean()))
    assert max(moved) > 0.02  # it is another mask than with the score as it is


def records() -> pd.DataFrame:
    """Four images of one pair each: center hits 1 1 0 0, the mask hits 0 – 1 –, where – is empty."""
    rows = []
    for image, (center, mask) in enumerate([(True, False), (True, None), (False, True), (False, None)]):
        about = {"image_id": image, "category_id": 1}
        rows.append({**about, "method": "center", "hit": center, "usable": True})
        rows.append({**about, "method": "mask", "hit": bool(mask), "usable": mask is not None})
    return pd.DataFrame(rows)


def test_the_three_rules_by_hand() -> None:
    rows = [
        {"image_id": 1, "category_id": 1, "hit": False, "area": 0.9},
        {"image_id": 3, "category_id": 1, "hit": True, "area": 0.5},
    ]
    summary = tool.summed_up(records(), rows)
    found = {(f["name"], f["subset"], f["method"]): f for f in summary["figures"]}
    for rule, rate in {tool.RELATIVE: 2 / 4, tool.CENTER: 2 / 4, tool.MISS: 1 / 4, "center": 2 / 4}.items():
        assert found["hit_rate", "all", rule]["estimate"] == pytest.approx(rate)
    assert found["hit_rate", "empty", tool.RELATIVE]["estimate"] == pytest.approx(1 / 2)
    assert found["hit_rate", "empty", "center"]["rows"] == 2
    assert found["area", "empty", tool.RELATIVE]["estimate"] == pytest.approx(0.7)
    with pytest.raises(ValueError, match="expected an answer for every empty mask, 1 lack one"):
        tool.summed_up(records(), rows[:1])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"methods": ["grad_cam"]}, "expected a run with the method mask"),
        ({"mask": {"game": "preservation"}}, "expected masks of the deletion game, got preservation"),
    ],
)
def test_a_run_of_no_use_is_one_line(tmp_path: Path, capsys, changes: dict[str, object], line: str) -> None:
    settings = {"methods": ["mask"], "mask": {"game": "deletion"}, **changes}
    (tmp_path / SETTINGS).write_text(json.dumps(settings))
    assert tool.main([str(tmp_path), str(tmp_path), "--records", str(tmp_path / "rows")]) == 2
    assert line in capsys.readouterr().err


def test_the_point_of_a_grid_is_asked_of_the_image_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools", reason="COCO needs the extra coco")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
    from benchmark_cases import write_coco

    from perturb_tutorial.benchmarks.run import plan_benchmark

    data = write_coco(tmp_path, 1, [(1, (60.0, 40.0, 12.0, 12.0))])  # of 80×60 px
    question = plan_benchmark("pointing-game", data).questions[0]
    grid = torch.zeros(1, 4, 4)
    for cell, hit in (((3, 3), True), ((0, 0), False)):
        there = grid.clone()
        there[0][cell] = 1
        row = tool.answered(question, there)
        assert row["hit"] is hit
        assert row["area"] == pytest.approx(1 / 16)
    assert np.isclose(row["category_id"], 1)
