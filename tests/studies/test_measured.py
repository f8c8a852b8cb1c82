"""What was measured elsewhere is read as it was written, and nothing of the machine that measured it comes along."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from data_rows import check_rows
from PIL import Image

import perturb_tutorial as pt
from perturb_tutorial.benchmarks import (
    BenchmarkData,
    BenchmarkError,
    BenchmarkSettings,
    Question,
    merged_summary,
    read_records,
    run_benchmark,
)
from perturb_tutorial.benchmarks.store import write_json
from perturb_tutorial.datasets import ImageRecord, Instance, read_coco_json
from perturb_tutorial.metrics import bootstrap, bootstrap_difference
from perturb_tutorial.study import measured
from perturb_tutorial.study.measured import Measured

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import measured as tool
import object_statistics
import size_question
from benchmark_cases import annotation, fake_method, rectangle, tiny_network, write_coco

STORED = sorted(path.stem for path in tool.FOLDER.glob("*.json"))
BOXES = [(1, (5.0, 5.0, 20.0, 20.0)), (2, (50.0, 30.0, 20.0, 20.0))]


def left(i: int, targets: list[int]) -> torch.Tensor:
    """A peak on category 1 for the first and last question of a batch of four, else in an empty corner."""
    heat = torch.zeros(8, 8)
    heat[(2, 1) if i % 4 in (0, 3) else (0, 7)] = 1.0
    return heat


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two finished runs of the pointing game, on images 1 to 3 and on images 11 and 12."""
    fake_method(monkeypatch, "left", left)
    settings = BenchmarkSettings(methods=("left",), batch_size=4)
    folders = []
    for name, count, start in (("first", 3, 0), ("second", 2, 10)):
        data = write_coco(tmp_path / name, count, BOXES)
        path = tmp_path / name / "annotations.json"
        content = json.loads(path.read_text())
        for record, key in [(r, "id") for r in content["images"]] + [
            (r, "image_id") for r in content["annotations"]
        ]:
            record[key] += start
        path.write_text(json.dumps(content))
        moved = BenchmarkData(read_coco_json(path, tmp_path / name / "images", name=name), data.classes)
        run_benchmark("pointing-game", moved, tiny_network(), tmp_path / f"run_{name}", settings)
        folders.append(tmp_path / f"run_{name}")
    return folders


def test_every_file_says_what_it_is_and_nothing_of_a_machine() -> None:
    def check(name: str) -> None:
        found = measured.measured(name)
        assert found.command
        assert {"python", "perturb_tutorial", "torch", "numpy"} <= set(found.versions)
        content = json.loads((tool.FOLDER / f"{name}.json").read_text())
        assert tool.machine_paths(content) == []
        assert tool.trimmed(content["summary"]) == content["summary"], "written by the tool"
        assert (tool.FOLDER / f"{name}.json").stat().st_size < 150_000
        for row in found.summary.get("figures", []):
            if row["estimate"] is not None:
                assert row["low"] <= row["estimate"] <= row["high"] or row["rows"] < 30, row

    check_rows({name: name for name in STORED}, check)


def test_names_are_those_of_the_files() -> None:
    assert measured.measured_names() == tuple(STORED)
    assert STORED
    with pytest.raises(ValueError, match=f"^name: expected one of .*{STORED[0]}.*, got 'nothing'$"):
        measured.measured("nothing")


def test_runs_on_several_data_sets_are_summed_up_as_one(runs: list[Path]) -> None:
    summary = merged_summary(runs)
    records = pd.concat([read_records(folder) for folder in runs])
    assert (summary["records"]["planned"], summary["records"]["finished"]) == (20, 20)
    assert summary["data"]["images"] == 5
    found = Measured("x", "", "", {}, summary)
    rows = records[records["method"] == "left"].sort_values(["image_id", "category_id"])
    center = records[records["method"] == "center"].sort_values(["image_id", "category_id"])
    hits, classes, images = (rows[key].to_numpy() for key in ("hit", "category_id", "image_id"))
    assert 0 < hits.mean() < 1
    same(
        found.figure("precision", "left", subset="all", maximum="mean"),
        bootstrap(hits.astype(float), images, classes),
    )
    same(
        found.difference("hit_rate", "left", "center", subset="all", maximum="mean"),
        bootstrap_difference(hits.astype(float), center["hit"].to_numpy().astype(float), images),
    )


def same(found: Any, expected: Any) -> None:
    assert list(found) == pytest.approx(list(expected), abs=1e-12)


def test_one_run_is_its_own_summary(runs: list[Path]) -> None:
    stored = json.loads((runs[0] / "summary.json").read_text())
    assert stored.pop("checksum")
    assert merged_summary(runs[:1]) == stored


def test_runs_that_do_not_belong_together_are_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="records of the same images"):
        merged_summary([runs[0], runs[0]])
    (runs[1] / "summary.json").unlink()
    with pytest.raises(BenchmarkError, match="the run is not finished"):
        merged_summary(runs)
    path = runs[1] / "settings.json"
    write_json(path, {**json.loads(path.read_text()), "seed": 5})
    (runs[1] / "summary.json").write_bytes((runs[0] / "summary.json").read_bytes())
    with pytest.raises(ValueError, match=r"different settings \(seed was 0, is 5\)"):
        merged_summary(runs)


def test_a_run_so_far_counts_the_questions_that_every_method_has_answered(runs: list[Path]) -> None:
    assert merged_summary(runs, so_far=True)["figures"] == merged_summary(runs)["figures"]
    (runs[0] / "summary.json").unlink()
    # Batches of four: the first chunk's answers by "left" are missing, so its four questions do not count.
    (runs[0] / "records.parquet" / "part-00000001.parquet").unlink()
    summary = merged_summary(runs, so_far=True)
    assert (summary["records"]["planned"], summary["records"]["finished"]) == (20, 12)
    assert summary["data"] == {"name": "first + second", "images": 3}
    assert {row["rows"] for row in summary["figures"] if row.get("subset") == "all"} == {6}


def test_a_file_is_the_same_bytes_and_reads_back(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["small", "--command", "perturb-tutorial benchmark pointing-game --data COCO --output out"]
    once, again = tmp_path / "a", tmp_path / "b"
    for folder in (once, again):
        assert tool.main([*map(str, runs), *options, "--folder", str(folder)]) == 0
    content = (once / "small.json").read_bytes()
    assert content == (again / "small.json").read_bytes()
    assert str(tmp_path).encode() not in content
    summary = json.loads(content)["summary"]
    whole = merged_summary(runs)
    for kind in ("figures", "differences"):
        assert len(summary[kind]) == len(whole[kind])
        for row, expected in zip(summary[kind], whole[kind], strict=True):
            for key, value in expected.items():
                six_digits = pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
                assert row[key] == six_digits
    assert "cost" not in summary
    cost = ["--cpu-seconds", "120.5", "--peak-gigabytes", "1.5"]
    assert tool.main([*map(str, runs), *options, *cost, "--folder", str(once)]) == 0
    told = json.loads((once / "small.json").read_text())["summary"]["cost"]
    assert told == {"cpu_seconds": 120.5, "peak_gigabytes": 1.5}
    assert "small.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("benchmark --data COCO --output out", False),
        ("hits/misses; https://example.org/a; 3 / 4", False),
        ("--data /srv/coco", True),
        ("--data=/mnt/coco", True),
        ("~/coco", True),
        (r"C:\coco", True),
        ("'/home/me'", True),
        ("file:///x", True),
    ],
)
def test_paths_of_a_machine_are_found(text: str, bad: bool) -> None:
    assert bool(tool.machine_paths({"a": [{"b": text}]})) == bad


def test_mistakes_are_one_line(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, folder = str(runs[0]), ["--folder", str(tmp_path / "out")]
    for arguments, told in (
        ([run, "small", "--command", "x --data /srv/coco", *folder], "command: expected no path"),
        ([run, "Bad Name", "--command", "x", *folder], "NAME: expected lower-case"),
        ([run, "small", "--command", " ", *folder], "--command: expected"),
        ([str(tmp_path / "none"), "small", "--command", "x", *folder], "the run is not finished"),
    ):
        assert tool.main(arguments) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_figures_and_differences_are_found_by_their_labels() -> None:
    row = {"name": "rate", "subset": "all", "method": "mask", "estimate": 0.5, "low": 0.4, "high": 0.7}
    row |= {"rows": 9, "images": 5}
    summary = {"figures": [row, {**row, "subset": "difficult", "estimate": None, "low": None, "high": None}]}
    summary["differences"] = [{**row, "minus": "center", "low": -0.1, "high": 0.9}]
    found = Measured("x", "", "", {}, summary)
    assert found.methods == ("mask",)
    assert found.figure("rate", "mask", subset="all") == (0.5, 0.4, 0.7, 9, 5)
    assert np.isnan(found.figure("rate", "mask", subset="difficult").estimate)
    assert found.difference("rate", "mask", "center") == (0.5, -0.1, 0.9, 9, 5)
    assert found.difference("rate", "center", "mask") == (-0.5, -0.9, 0.1, 9, 5)
    with pytest.raises(ValueError, match=r"x has 2 figures with .*subset: all, difficult"):
        found.figure("rate", "mask")
    with pytest.raises(ValueError, match=r"x has 0 figures with .*method: mask"):
        found.figure("rate", "grad_cam")


def test_object_statistics_are_those_of_the_annotations(tmp_path: Path) -> None:
    folder = tmp_path / "coco"
    (folder / "annotations").mkdir(parents=True)
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 112, "width": 448}],
        "annotations": [
            annotation(1, 1, 3, (0.0, 0.0, 100.0, 50.0)),
            annotation(2, 1, 3, (200.0, 56.0, 48.0, 56.0)),
        ],
        "categories": [{"id": 3, "name": "three"}],
    }
    content["annotations"][0]["segmentation"] = rectangle(0, 0, 100, 50)
    content["annotations"][1]["segmentation"] = rectangle(200, 56, 48, 56)
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    (folder / "train").mkdir()
    assert object_statistics.main([str(folder), "train", "--folder", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "object_statistics.json").read_text())["summary"]
    # 448×112 squashed to 224×224: x halves, y doubles, areas stay; 5000 and 2688 px² have the mean 3844.
    assert summary["areas"] == [3844.0]
    assert (summary["x"], summary["y"]) == ([25.0, 112.0], [50.0, 168.0])


def photograph(folder: Path, width: int, height: int) -> ImageRecord:
    coarse = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    path = folder / f"{width}.png"
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)
    whole = Instance(1, (0.0, 0.0, 50.0, 50.0), 2500.0, rectangle(0, 0, 50, 50))
    return ImageRecord(1, path, height, width, (whole,))


def test_sizes_keep_the_shape_but_for_the_squashed_one(tmp_path: Path) -> None:
    found = size_question.pictures(photograph(tmp_path, 300, 200).path, 224)
    shapes = {name: tuple(image.shape) for name, image in found.items()}
    assert shapes == {
        "squashed": (1, 3, 224, 224),
        "shorter side": (1, 3, 224, 336),
        "own size": (1, 3, 200, 300),
    }


def test_sizes_agree_on_an_image_of_the_input_size(tmp_path: Path, lite0: pt.Network) -> None:
    record = photograph(tmp_path, 224, 224)
    first, *others = size_question.pictures(record.path, 224).values()
    for image in others:
        torch.testing.assert_close(image, first, rtol=0, atol=1e-6)
    (row,) = size_question.measure(size_question.any_size(lite0), [Question(record, 1, "one", (207,))])
    for method in size_question.METHODS:
        for maximum in size_question.MAXIMA:
            answers = {row[f"{m}, {s}, {maximum}"] for m, s in size_question.VARIANTS if m == method}
            assert len(answers) == 1


def test_a_network_of_any_size_takes_other_shapes(lite0: pt.Network) -> None:
    images = torch.full((1, 3, 224, 320), 0.5)
    with pytest.raises(ValueError, match="expected a float tensor"):
        pt.saliency(lite0, images, 207, method="grad_cam")
    heat = pt.saliency(size_question.any_size(lite0), images, 207, method="grad_cam")
    assert tuple(heat.shape) == (1, 1, 7, 10)
