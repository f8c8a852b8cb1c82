"""Two runs that differ in a setting are compared on the same questions, and only where they differ."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from benchmark_cases import difference, figure, records_of, tiny_network, write_coco

from perturb_tutorial.benchmarks import BenchmarkError, BenchmarkSettings, run_benchmark
from perturb_tutorial.benchmarks.compare import compared_summary
from perturb_tutorial.metrics import bootstrap_difference

pytest.importorskip("pycocotools", reason="COCO needs the extra coco")

BOXES = [(1, (8.0, 4.0, 40.0, 40.0)), (2, (40.0, 30.0, 20.0, 20.0))]


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """The pointing game with masks of 2 and of 12 steps."""
    data, network = write_coco(tmp_path, 4, BOXES), tiny_network()
    asked = BenchmarkSettings(methods=("gradient", "mask"), batch_size=4)
    folders = []
    for steps in (2, 12):
        folders.append(tmp_path / str(steps))
        changed = asked.replace(mask=asked.mask.replace(iterations=steps, learning_rate=0.5))
        run_benchmark("pointing-game", data, network, folders[-1], changed)
    return folders


def unsigned(path: Path) -> pq.Table:
    """A part as an earlier version wrote it, without a checksum."""
    return pq.read_table(path).replace_schema_metadata(None)


def test_methods_that_differ_get_labels_and_paired_differences(runs: list[Path]) -> None:
    summary = compared_summary(*runs, labels=("short", "long"))
    both = {"name": "hit_rate", "subset": "all", "maximum": "mean"}
    frames = [records_of(run) for run in runs]
    hits = [frame[frame["method"] == "mask"]["hit"].to_numpy(dtype=float) for frame in frames]
    masks = {
        label: figure(summary, method=f"mask ({label})", **both)["estimate"] for label in ("short", "long")
    }
    assert masks == {"short": hits[0].mean(), "long": hits[1].mean()}
    # The gradient and the center know nothing of the masks' steps: they stand once.
    assert {f["method"] for f in summary["figures"]} == {"center", "gradient", "mask (short)", "mask (long)"}
    found = difference(summary, method="mask (long)", minus="mask (short)", **both)
    images = frames[0][frames[0]["method"] == "mask"]["image_id"]
    expected = bootstrap_difference(hits[1], hits[0], images)
    np.testing.assert_allclose([found["estimate"], found["low"], found["high"]], expected[:3], atol=1e-12)
    assert summary["settings"]["long"]["mask"]["iterations"] == 12
    assert summary["records"]["finished"] == 4 * 8
    assert json.dumps(summary)


def test_runs_of_two_versions_are_not_compared(runs: list[Path], tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(runs[1], older)
    for path in (older / "records.parquet").iterdir():
        pq.write_table(unsigned(path).drop_columns(["softened_hit"]), path)
    with pytest.raises(ValueError, match="got softened_hit in one of them alone"):
        compared_summary(runs[0], older, labels=("short", "long"))


def test_a_method_that_the_settings_do_not_touch_stands_once_whatever_rounds(runs: list[Path]) -> None:
    # Batches of another size may round the network's score of an image; the center's own records are the same.
    for path in (runs[1] / "records.parquet").iterdir():
        part = unsigned(path)
        place = part.schema.get_field_index("score")
        pq.write_table(part.set_column(place, "score", pc.multiply(part["score"], 1 + 1e-9)), path)
    summary = compared_summary(*runs, labels=("short", "long"))
    assert {f["method"] for f in summary["figures"]} == {"center", "gradient", "mask (short)", "mask (long)"}


def test_an_image_that_broke_before_the_second_run_is_in_no_figure(tmp_path: Path) -> None:
    data, network = write_coco(tmp_path, 4, BOXES), tiny_network()
    asked = BenchmarkSettings(methods=("mask",), batch_size=4)
    runs = [tmp_path / "2", tmp_path / "12"]
    for steps, run in zip((2, 12), runs, strict=True):
        changed = asked.replace(mask=asked.mask.replace(iterations=steps, learning_rate=0.5))
        run_benchmark("pointing-game", data, network, run, changed)
        data.dataset.images[1].path.write_bytes(b"")
    summary = compared_summary(*runs, labels=("short", "long"))
    assert {f["method"] for f in summary["figures"]} == {"center", "mask (short)", "mask (long)"}
    frame = records_of(runs[0])
    good = frame[frame["image_id"] != 2]
    for method, label in (("center", "center"), ("mask", "mask (short)")):
        found = figure(summary, name="hit_rate", subset="all", maximum="mean", method=label)
        assert (found["rows"], found["estimate"]) == (6, good.loc[good["method"] == method, "hit"].mean())
    counts = summary["records"]
    assert (counts["bad_images"], counts["with_problem"], counts["set_aside"]) == (1, 2, 4)


def test_the_tool_keeps_a_comparison(runs: list[Path], tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies"))
    import measured as tool

    about = ["--compare", "short,long", "--command", "two commands", "--folder", str(tmp_path)]
    assert tool.main([*map(str, runs), "steps", *about]) == 0
    stored = json.loads((tmp_path / "steps.json").read_text())["summary"]
    assert {f["method"] for f in stored["figures"]} >= {"mask (short)", "mask (long)"}
    assert tool.main([str(runs[0]), "steps", *about]) == 2


def test_what_cannot_be_compared_is_one_line(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two different ones"):
        compared_summary(*runs, labels=("same", "same"))
    data = write_coco(tmp_path / "other", 3, BOXES)
    asked = BenchmarkSettings(methods=("gradient",), batch_size=4)
    run_benchmark("pointing-game", data, tiny_network(), tmp_path / "three", asked)
    with pytest.raises(ValueError, match="the same data as in"):
        compared_summary(runs[0], tmp_path / "three", labels=("a", "b"))
    (runs[1] / "summary.json").unlink()
    with pytest.raises(BenchmarkError, match="not finished"):
        compared_summary(*runs, labels=("short", "long"))
