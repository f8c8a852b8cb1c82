"""``perturb-tutorial benchmark`` as its users call it: files, exit status, one line for each mistake."""

from __future__ import annotations

import json
import re
import sys
import warnings
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from tqdm import tqdm

from perturb_tutorial._words import counted
from perturb_tutorial.benchmarks import read_records
from perturb_tutorial.cli import app
from perturb_tutorial.cli.benchmark import _line, _lines_above, benchmark
from perturb_tutorial.datasets.samples import sample_path

pytest.importorskip("pycocotools", reason="COCO needs the extra coco")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(benchmark, [str(argument) for argument in arguments])


@pytest.fixture
def samples() -> None:
    try:
        sample_path("bull_mastiff"), sample_path("chelsea")
    except ValueError:
        pytest.skip("needs the extra samples")


def test_a_warning_stands_above_the_progress_bar_not_in_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: print(message, file=sys.stderr))
    with tqdm(total=4, file=sys.stderr) as bar, _lines_above(bar):
        bar.update()
        bar.set_postfix_str("2 workers on 2 nodes")
        warnings.warn("no worker", stacklevel=1)
        bar.update(3)
    lines = capsys.readouterr().err.splitlines()
    (warned,) = [line for line in lines if "no worker" in line]
    assert "workers on" not in warned
    assert "2 workers on 2 nodes" in lines[-1]


def test_every_benchmark_says_what_it_does_without_torch() -> None:
    import subprocess
    import sys

    code = "import sys; from perturb_tutorial.cli.benchmark import benchmark; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "False"
    assert set(benchmark.commands) == {
        "pointing-game", "grid-pointing-game", "localization", "animal-parts", "faithfulness",
    }  # fmt: skip
    for name in benchmark.commands:
        result = call(name, "--help")
        assert result.exit_code == 0
        for option in (
            "--data",
            "--split",
            "--methods",
            "--network",
            "--preset",
            "--game",
            "--seed",
            "--device",
        ):
            assert option in result.output
        assert "--limit" in result.output


def test_a_run_on_the_samples_is_told_and_goes_on(tmp_path: Path, samples: None) -> None:
    line = (
        "pointing-game",
        "--methods",
        "grad_cam",
        "--limit",
        "3",
        "--device",
        "cpu",
        "--output",
        tmp_path / "out",
    )
    first = call(*line)
    assert first.exit_code == 0, first.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    frame = pd.read_parquet(tmp_path / "out" / "records.parquet")
    assert frame["image_id"].nunique() == 3
    assert set(frame["method"]) == {"center", "grad_cam"}
    assert {"image_id", "category_id", "method"} <= set(frame)
    assert len(frame) == summary["records"]["finished"]
    assert f"{len(frame)} records, {len(frame)} of them new" in first.output
    assert "precision (subset all, maximum mean)" in first.output
    again = call(*line)
    assert f"{len(frame)} records, 0 of them new" in again.output
    other = call(*line, "--seed", "1")
    assert other.exit_code != 0
    assert "--output: " in other.output
    assert "seed was 0, is 1" in other.output


def test_game_preset_and_settings_reach_the_masks(tmp_path: Path, samples: None) -> None:
    quick = tmp_path / "quick.json"
    quick.write_text('{"iterations": 2}')
    line = [
        "animal-parts",
        "--preset",
        "localization",
        "--game",
        "preservation",
        "--settings",
        quick,
        "--limit",
        "2",
    ]
    result = call(*line, "--device", "cpu", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["target_count"] == 5
    wanted = {"game": "preservation", "area_weight": 1e-3, "tv_exponent": 2.0, "iterations": 2}
    assert {name: settings["mask"][name] for name in wanted} == wanted
    assert settings["minimum_images"] == 0


def test_masks_are_learned_by_the_engine_that_was_asked_for(
    tmp_path: Path, samples: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only onnx writes its graph into the cache. Adam's first steps are as long for a gradient of 1e-9 as for one of 1,
    so a few cells go another way; the records stay within the design's bound for engines, 0.05.
    """
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "cache"))
    quick = tmp_path / "quick.json"
    quick.write_text('{"iterations": 4}')
    line = ["faithfulness", "--settings", quick, "--limit", "2", "--methods", "mask", "--device", "cpu"]
    areas = {}
    for engine in ("torch", "onnx"):
        out = tmp_path / engine
        result = call(*line, "--mask-engine", engine, "--output", out)
        assert result.exit_code == 0, result.output
        assert json.loads((out / "settings.json").read_text())["mask_engine"] == engine
        areas[engine] = read_records(out)["deletion_area"].to_numpy()
        assert any((tmp_path / "cache").rglob("*.onnx")) == (engine == "onnx")
    np.testing.assert_allclose(areas["onnx"], areas["torch"], atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--methods", "nonsense"], "--methods: expected some of center, mask"),
        (["--data", "/nowhere/at/all"], "--data: /nowhere/at/all is not a folder"),
        (["--network", "nonsense"], "--network: expected one of efficientnet_lite0"),
        (["--device", "nonsense"], "--device: "),
        (["--settings", "/nowhere.json"], "--settings: /nowhere.json cannot be read"),
    ],
)
def test_mistakes_are_one_line_that_names_the_option(tmp_path: Path, arguments: list[str], line: str) -> None:
    result = call("pointing-game", *arguments, "--output", tmp_path / "out")
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), result.exception
    assert line in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_without_the_data_is_one_line(tmp_path: Path) -> None:
    for name in ("pointing-game", "animal-parts", "localization"):
        result = call(name, "--data", tmp_path, "--output", tmp_path / "out")
        assert isinstance(result.exception, SystemExit)
        assert "expected" in result.output
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2014").mkdir()
    (tmp_path / "annotations" / "instances_val2014.json").write_text('{"images": [')
    result = call("pointing-game", "--data", tmp_path, "--output", tmp_path / "out")
    assert "the annotation file is not whole JSON" in result.output


def test_an_empty_output_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (
        ["benchmark", "faithfulness"],
        ["explain", "--sample", "chelsea"],
        ["gallery", ".", "--target", "1"],
    ):
        result = CliRunner().invoke(app, [*command, "--output", ""])
        assert result.exit_code != 0
        assert "expected a path, got ''" in result.output
    assert list(tmp_path.iterdir()) == []


def test_counts_count_what_they_name() -> None:
    assert [counted(n, "image") for n in (0, 1, 2, 1000)] == [
        "0 images",
        "1 image",
        "2 images",
        "1,000 images",
    ]
    assert counted(1, "map is", "maps are") == "1 map is"
    numbers = {"estimate": 0.5, "low": None, "high": None, "rows": 4, "images": 1, "reason": "too few"}
    line = _line({"name": "precision", "subset": "all", "method": "mask", **numbers})
    assert line.split("  ")[-2:] == ["4 rows of 1 image", "(too few)"]
    assert "precision (subset all)" in line
    assert "0.5000 [–, –]" in line


def test_the_new_records_of_each_step_are_counted_alone(tmp_path: Path, samples: None) -> None:
    quick = ("--methods", "gradient", "--limit", "6", "--device", "cpu", "--output", tmp_path / "out")
    result = call("grid-pointing-game", *quick)
    assert result.exit_code == 0, result.output
    first, last = result.output.strip().splitlines()[-2:]
    counts = [int(number) for number in re.findall(r"(\d+)(?: records?, | of them new)", first + last)]
    assert counts[0] == counts[1]
    assert counts[2] == counts[3] == len(read_records(tmp_path / "out"))
    assert first.startswith("recognition: ")


def test_the_group_is_a_click_group() -> None:
    assert isinstance(benchmark, click.Group)
