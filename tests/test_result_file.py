"""results.json and the pictures beside it: whose files are replaced, and by one run at a time."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from pathlib import Path

import pytest
from PIL import Image
from small_inputs import tiny_module

import perturb_tutorial as pt
from perturb_tutorial.explain import Request, explain_files
from perturb_tutorial.metrics import segment_mask
from perturb_tutorial.result_file import result_file


@pytest.fixture
def request_() -> Request:
    network = pt.Network(tiny_module(), input_size=32, device="cpu")
    return Request(network, pt.MaskSettings(iterations=1), target=0)


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "cat.jpg"
    Image.new("RGB", (40, 40), "red").save(path)
    return path


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "text",
    [
        '{"scores": [1, 2]}',
        "[1, 2]",
        '[{"image": "cat.jpg"}]',
        '{"program": "other", "entries": []}',
        "no JSON",
        "",
    ],
)
def test_results_of_another_program_are_left_alone_and_so_are_pictures(
    tmp_path: Path, request_: Request, photograph: Path, text: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.json").write_text(text)
    (out / "cat.png").write_bytes(b"of somebody else")
    before = content_of(out)
    with pytest.raises(ValueError, match=r"^output: .*results\.json .*; give another folder$"):
        explain_files([photograph], request_, out)
    assert content_of(out) == before


def test_only_the_files_that_a_run_wrote_are_replaced(
    tmp_path: Path, request_: Request, photograph: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for _ in range(2):
        explain_files([photograph], request_, out)
    content = json.loads((out / "results.json").read_text())
    assert content["files"] == ["cat.npy", "cat.png", "results.csv"]
    assert (content["program"], content["format"], content["version"]) == (
        "perturb-tutorial",
        1,
        pt.__version__,
    )
    (entry,) = content["entries"]
    assert (entry["layer"], entry["engine"], entry["precision"], entry["seed"]) == (
        None,
        "torch",
        "float32",
        0,
    )
    # The user's own picture beside them.
    dog = photograph.with_name("dog.jpg")
    dog.write_bytes(photograph.read_bytes())
    (out / "dog.png").write_bytes(b"of the user")
    with pytest.raises(ValueError, match=r"holds dog\.png, which would be overwritten"):
        explain_files([photograph, dog], request_, out)
    assert (out / "dog.png").read_bytes() == b"of the user"


def test_results_of_the_first_form_are_read_as_the_programs_own(
    tmp_path: Path, request_: Request, photograph: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    explain_files([photograph], request_, out)
    entries = json.loads((out / "results.json").read_text())["entries"]
    (out / "results.json").write_text(json.dumps(entries))
    (out / "results.csv").unlink()  # the first form had none
    explain_files([photograph], request_, out)
    assert len(json.loads((out / "results.json").read_text())["entries"]) == 1


def test_a_run_that_is_stopped_keeps_the_earlier_entries_and_owns_its_pictures(tmp_path: Path) -> None:
    with result_file(tmp_path) as results:
        results.write([{"image": "first"}])
    with result_file(tmp_path) as results:
        results.announce(["second.png"])  # and the process is killed
    content = json.loads((tmp_path / "results.json").read_text())
    assert (content["entries"], content["files"]) == (
        [{"image": "first"}],
        ["results.csv", "second.png"],
    )
    (tmp_path / "second.png").write_bytes(b"half a run")
    with result_file(tmp_path) as results:
        results.check(["second.png"], [])


def test_two_runs_at_once_in_one_folder_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="locks are POSIX's")
    with (
        result_file(tmp_path),
        pytest.raises(ValueError, match="in use by another run"),
        result_file(tmp_path),
    ):
        pass
    with result_file(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_without_locks_the_other_run_is_noticed_before_it_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perturb_tutorial.result_file.lock", lambda _: True)
    with result_file(tmp_path) as first, result_file(tmp_path) as second:
        first.write([{"image": "first"}])
        with pytest.raises(ValueError, match="was written by another run"):
            second.write([{"image": "second"}])
    assert json.loads((tmp_path / "results.json").read_text())["entries"] == [{"image": "first"}]


def test_a_table_of_the_user_is_left_alone(tmp_path: Path, request_: Request, photograph: Path) -> None:
    (tmp_path / "results.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds results\.csv, which would be overwritten"):
        explain_files([photograph], request_, tmp_path)
    assert (tmp_path / "results.csv").read_text(encoding="utf-8") == "mine"


def test_exports_have_the_size_of_the_photograph_and_are_the_programs_own(
    tmp_path: Path, request_: Request
) -> None:
    photograph = tmp_path / "a cat.jpg"
    Image.new("RGB", (50, 40), "red").save(photograph)
    request = dataclasses.replace(request_, export=("png", "rle", "polygon"))
    (tmp_path / "out").mkdir()
    for _ in range(2):  # the second run replaces what the first one wrote
        outcome = explain_files([photograph], request, tmp_path / "out", names=["a cat.jpg"])
        assert outcome.errors == []
    masks = tmp_path / "out" / "masks"
    assert sorted(path.name for path in masks.iterdir()) == [
        "a cat.png",
        "a cat.polygon.json",
        "a cat.rle.json",
    ]
    with Image.open(masks / "a cat.png") as picture:
        assert picture.size == (50, 40)
    code = json.loads((masks / "a cat.rle.json").read_text(encoding="utf-8"))
    assert (code["image"], code["method"], code["segmentation"]["size"]) == ("a cat.jpg", "mask", [40, 50])
    assert segment_mask(code["segmentation"], (40, 50)).sum() == code["area"]
    with (tmp_path / "out" / "results.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    (entry,) = outcome.entries
    assert (row["image"], float(row["area"])) == ("a cat.jpg", entry["area"])
    (masks / "dog.png").write_bytes(b"of the user")
    photograph.rename(tmp_path / "dog.jpg")
    with pytest.raises(ValueError, match=r"dog\.png, which would be overwritten"):
        explain_files([tmp_path / "dog.jpg"], request, tmp_path / "out")
