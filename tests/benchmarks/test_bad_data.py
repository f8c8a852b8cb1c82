"""Bad data never stops a run: a bad image becomes a record with its reason, the summary counts it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmark_cases import CLASSES, annotation, fake_method, figure, rectangle, tiny_network, write_coco
from PIL import Image

from perturb_tutorial.benchmarks import BenchmarkData, BenchmarkSettings, read_records, run_benchmark
from perturb_tutorial.cli.benchmark import _print_outcome
from perturb_tutorial.datasets import read_coco_json

pytest.importorskip("pycocotools", reason="COCO needs the extra coco")

BOX = (4.0, 4.0, 12.0, 12.0)
SETTINGS = BenchmarkSettings(methods=("gradient",), batch_size=3)


def reread(folder: Path) -> BenchmarkData:
    return BenchmarkData(read_coco_json(folder / "annotations.json", folder / "images"), CLASSES)


def test_bad_images_become_records_with_their_reason(tmp_path: Path) -> None:
    write_coco(tmp_path, 6, [(1, BOX)])
    images = tmp_path / "images"
    (images / "0000.png").unlink()
    (images / "0001.png").write_bytes(b"no image")
    (images / "0002.png").write_bytes((images / "0003.png").read_bytes()[:300])
    Image.new("RGB", (50, 40)).save(images / "0004.png")
    summary = run_benchmark(
        "pointing-game", reread(tmp_path), tiny_network(), tmp_path / "out", SETTINGS
    ).summary
    frame = read_records(tmp_path / "out")
    assert len(frame) == 12
    bad = frame[frame["problem"].notna()]
    assert set(bad["image_id"]) == {1, 2, 3, 5}
    assert bad[["hit", "score", "x", "seconds"]].isna().all(axis=None)
    reasons = dict(zip(bad["image_id"], bad["problem"], strict=True))
    assert "missing" in reasons[1]
    assert "is not an image that can be read" in reasons[2]
    assert "is damaged or cut off" in reasons[3]
    assert "50×40 px, its annotations say 80×60" in reasons[5]
    counts = summary["records"]
    assert (counts["planned"], counts["finished"], counts["with_problem"], counts["bad_images"]) == (
        12,
        12,
        8,
        4,
    )
    assert sorted(counts["problems"]) == sorted(reasons.values())
    assert figure(summary, name="precision", method="gradient", subset="all", maximum="mean")["rows"] == 2
    # They are finished: what is bad is not tried again.
    assert (
        run_benchmark("pointing-game", reread(tmp_path), tiny_network(), tmp_path / "out", SETTINGS).computed
        == 0
    )


def test_a_data_set_of_bad_images_only_has_no_figures_and_no_traceback(tmp_path: Path) -> None:
    write_coco(tmp_path, 3, [(1, BOX)])
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"")
    summary = run_benchmark(
        "pointing-game", reread(tmp_path), tiny_network(), tmp_path / "out", SETTINGS
    ).summary
    assert summary["figures"] == []
    assert summary["records"]["bad_images"] == 3


def test_a_mosaic_is_made_of_good_images_only(tmp_path: Path) -> None:
    # Two cells squared need four classes; images of one cannot be read.
    write_coco(tmp_path, 8, [(1, BOX)])
    (tmp_path / "images" / "0003.png").write_bytes(b"")
    with pytest.raises(
        ValueError, match="cells: a 2×2 mosaic needs 4 classes with an image classified right"
    ):
        run_benchmark("grid-pointing-game", reread(tmp_path), tiny_network(), tmp_path / "out", SETTINGS)
    frame = read_records(tmp_path / "out" / "recognition.parquet")
    assert list(frame[frame["problem"].notna()]["image_id"]) == [4]


def test_annotations_that_cannot_be_used_are_told_in_the_summary(tmp_path: Path) -> None:
    write_coco(tmp_path, 2, [(1, BOX)])
    path = tmp_path / "annotations.json"
    content = json.loads(path.read_text())
    content["annotations"] += [
        annotation(900, 1, 2, BOX, segmentation=[]),
        annotation(901, 1, 2, BOX, segmentation=rectangle(500, 500, 9, 9)),
        annotation(902, 1, 77, BOX),
        annotation(0, 1, 2, BOX),
    ]
    path.write_text(json.dumps(content))
    summary = run_benchmark(
        "pointing-game", reread(tmp_path), tiny_network(), tmp_path / "out", SETTINGS
    ).summary
    assert summary["data"]["annotations_left_out"] == 4
    told = " ".join(summary["data"]["left_out"])
    for reason in ("empty segment", "outside of the image", "category 77 is unknown", "id is used twice"):
        assert reason in told
    assert summary["records"]["planned"] == 4


def test_a_network_without_the_targets_classes_is_one_line(tmp_path: Path) -> None:
    data = write_coco(tmp_path, 1, [(1, BOX)])
    data = BenchmarkData(data.dataset, {1: (609,)})
    with pytest.raises(ValueError, match="network: tiny has 5 classes, the data's targets go up to 609"):
        run_benchmark("pointing-game", data, tiny_network(), tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


def test_an_image_mended_between_two_starts_is_left_out_for_all_methods(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # One map fits the object, the other is the whole image's.
    half = torch.arange(32).expand(32, 32) < 16
    fake_method(monkeypatch, "half", lambda i, targets: half.float())
    fake_method(monkeypatch, "flat", lambda i, targets: torch.ones(32, 32))
    data = write_coco(tmp_path, 6, [(1, (0.0, 0.0, 35.0, 60.0))])
    network, out = tiny_network(), tmp_path / "out"
    settings = SETTINGS.replace(methods=("half", "flat"), batch_size=2)
    broken = tmp_path / "images" / "0003.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"")
    run_benchmark("localization", data, network, out, settings)
    # Batch 4 of 3 × 3: images 3 and 4, half. As if the run had been stopped before it, and the file is mended.
    (out / "records.parquet" / "part-00000004.parquet").unlink()
    broken.write_bytes(whole)
    outcome = run_benchmark("localization", data, network, out, settings)
    frame = read_records(out)
    assert set(frame.loc[frame["problem"].notna(), "method"]) == {"whole_image", "flat"}
    counts = outcome.summary["records"]
    assert [counts[name] for name in ("finished", "with_problem", "set_aside", "bad_images")] == [18, 2, 1, 1]
    # The figures are those of a run that never had the image.
    images = tuple(image for image in data.dataset.images if image.path != broken)
    rest = BenchmarkData(replace(data.dataset, images=images), CLASSES)
    clean = run_benchmark("localization", rest, network, tmp_path / "clean", settings)
    for name in ("figures", "differences", "curves"):
        assert outcome.summary[name] == clean.summary[name]
    _print_outcome(outcome)
    told = capsys.readouterr().err
    assert "1 bad image is in no figure" in told
    assert "set aside: 1 record of these images, from another start of the run" in told


@pytest.mark.parametrize("ids", [(2**70, 2, 3), ("1", "caf\udce9", "3")], ids=["long", "Latin-1"])
def test_ids_and_names_that_a_table_cannot_hold_stop_nothing(
    tmp_path: Path, ids: tuple[int | str, ...]
) -> None:
    data = write_coco(tmp_path, 3, [(1, BOX)])
    odd = "caf\udce9.png"  # Latin-1, as old archives have it and Python tells it
    images = [replace(image, id=key) for image, key in zip(data.dataset.images, ids, strict=True)]
    images[2] = replace(images[2], problem=f"{odd}: the image is missing")
    data = BenchmarkData(replace(data.dataset, images=tuple(images)), CLASSES)
    summary = run_benchmark("faithfulness", data, tiny_network(), tmp_path / "out", SETTINGS).summary
    assert summary["records"]["problems"] == ["caf\\udce9.png: the image is missing"]
    found = set(read_records(tmp_path / "out")["image_id"])
    assert found == {str(key).replace("\udce9", "\\udce9") for key in ids}
