"""Hits by size and crowding: counted by hand, the regression against scikit-learn's, a run from its folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import perturb_tutorial as pt
from perturb_tutorial.benchmarks import BenchmarkData, BenchmarkSettings, run_benchmark
from perturb_tutorial.datasets import read_coco

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import coco_objects as tool
from benchmark_cases import annotation, fake_method, tiny_network, write_images


def records(count: int = 60, seed: int = 0) -> pd.DataFrame:
    """Two pairs an image, all methods; large objects are hit more often by all but the center."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for pair in range(count):
        about = {
            "image_id": pair // 2,
            "category_id": pair % 2,
            "category": ("traffic light", "dog")[pair % 2],
            "share": float(4 ** rng.uniform(-5, 0)),
            "crowding": float(rng.uniform(0, 0.6)),
            "neighbors": int(rng.integers(0, 6)),
            "score": float(10 ** rng.uniform(-5, 0)),
        }
        for method in tool.METHODS:
            chance = 0.3 if method == "center" else about["share"] ** 0.3
            converged = bool(rng.random() < about["score"] + 0.3) if method == "mask" else None
            hit = bool(rng.random() < chance)
            rows.append({**about, "method": method, "hit": hit, "converged": converged})
    return pd.DataFrame(rows)


def test_each_bin_has_the_pairs_that_are_in_it() -> None:
    frame = records()
    summary = tool.summed_up(frame)
    seen = 0
    for row in summary["figures"]:
        if row["name"] == "slope" or row["method"] != "mask":
            continue
        mine = frame[frame["method"] == "mask"]
        if row["by"] == "category":
            mine = mine[mine["category"] == row["bin"]]
            assert len(mine) == 30
        elif row["by"] != "all":
            edges = [*tool.BINS[row["by"]]]
            high = edges[edges.index(row["bin"]) + 1]
            mine = mine[(mine[row["by"]] >= row["bin"]) & (mine[row["by"]] < high)]
        assert row["rows"] == len(mine)
        measure = mine["hit"] if row["name"] == "hit_rate" else ~mine["converged"].astype(bool)
        assert row["estimate"] == pytest.approx(measure.mean())
        assert row["low"] <= row["estimate"] <= row["high"]
        seen += 1
    assert seen == 1 + 2 * (1 + sum(len(edges) - 1 for edges in tool.BINS.values()))
    for name in tool.BINS:
        mask = [r for r in summary["figures"] if (r["name"], r["method"]) == ("hit_rate", "mask")]
        assert sum(r["rows"] for r in mask if r["by"] == name) == 60  # every pair is in one bin


def test_the_regression_is_scikit_learns() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="the oracle")
    rng = np.random.default_rng(1)
    values = rng.normal(size=(80, 3))
    hits = (rng.random(80) < 1 / (1 + np.exp(-(0.5 + values @ [1.0, -2.0, 0.0])))).astype(float)
    weights = np.stack([np.ones(80), rng.integers(0, 3, 80)]).astype(float)
    for row in weights:
        fitted = linear_model.LogisticRegression(C=1 / tool.RIDGE, tol=1e-10, max_iter=1000)
        fitted.fit(values, hits, sample_weight=row)
        expected = [fitted.intercept_[0], *fitted.coef_[0]]
        found = [tool.logistic(values, hits, slope)(row[None])[0] for slope in range(4)]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    # Where size separates hits from misses the slope is large, and finite.
    apart = tool.logistic(np.arange(10.0)[:, None], (np.arange(10) > 4).astype(float), 1)
    assert 1 < apart(np.ones((1, 10)))[0] < 20


def test_what_grows_with_size_has_a_slope_and_what_does_not_has_none() -> None:
    summary = tool.summed_up(records(240, seed=3))
    slopes = {(r["by"], r["method"]): r for r in summary["figures"] if r["name"] == "slope"}
    assert slopes["share", "mask"]["low"] > 0
    assert slopes["share", "center"]["low"] < 0 < slopes["share", "center"]["high"]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """COCO's layout with four images of 60×80 px: a large object at the left, a small one inside its box."""
    folder = tmp_path / "coco"
    names = write_images(folder / "val2017", 4)
    content = {
        "images": [{"id": k + 1, "file_name": n, "height": 60, "width": 80} for k, n in enumerate(names)],
        "annotations": [
            annotation(10 * k + j, k + 1, category, box)
            for k in range(4)
            for j, (category, box) in enumerate([(1, (0.0, 0.0, 40.0, 60.0)), (2, (70.0, 50.0, 6.0, 6.0))])
        ],
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return folder


def test_a_run_becomes_a_file(
    coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def left(i: int, targets: list[int]) -> torch.Tensor:
        heat = torch.zeros(8, 8)
        heat[4, 1] = 1
        return heat

    for method in ("gradient", "grad_cam"):
        fake_method(monkeypatch, method, left)
    data = BenchmarkData(read_coco(coco, "val2017"), {1: (0,), 2: (1, 2)})
    settings = BenchmarkSettings(methods=tool.METHODS, mask=pt.MaskSettings(iterations=1), batch_size=4)
    run = tmp_path / "run"
    run_benchmark("pointing-game", data, tiny_network(), run, settings)
    assert tool.main([str(coco), str(run), "--folder", str(tmp_path)]) == 0
    assert "coco_objects.json" in capsys.readouterr().out
    text = (tmp_path / "coco_objects.json").read_text()
    assert str(tmp_path) not in text
    summary = json.loads(text)["summary"]
    assert summary["data"] == {"name": "val2017", "images": 4, "pairs": 8, "pairs_planned": 8}
    rates = {(r["by"], r["bin"]): r for r in summary["figures"] if r["method"] == "grad_cam" and "bin" in r}
    # The peak lies on the large object, half of the image, and never on the small one, 36 of 4800 px.
    assert (rates["share", 0.16]["estimate"], rates["share", 0.16]["rows"]) == (1.0, 4)
    assert (rates["share", 0]["estimate"], rates["share", 0]["rows"]) == (0.0, 4)
    assert rates["share", 0.01]["estimate"] is None
    # Unfinished: the second batch's answers of one method are missing, so its questions do not count.
    parts = sorted((run / "records.parquet").iterdir())
    parts[-1].unlink()
    assert tool.main([str(coco), str(run), "--folder", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "coco_objects.json").read_text())["summary"]["data"]["pairs"] == 4


def test_mistakes_are_one_line(coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert tool.main([str(coco), str(run)]) == 2
    run.mkdir()
    (run / "settings.json").write_text(json.dumps({"methods": ["center", "mask"], "data": {}}))
    assert tool.main([str(coco), str(run)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("coco_objects: ")
    assert "it lacks" in second
