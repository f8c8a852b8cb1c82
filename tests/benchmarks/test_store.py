"""Records on disk: whole or not at all, of one setting, and one run at a time."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
from benchmark_cases import records_of, tiny_network, write_coco

import perturb_tutorial as pt
from perturb_tutorial.benchmarks import BenchmarkError, BenchmarkSettings, read_records, run_benchmark
from perturb_tutorial.benchmarks.store import Store, agree, claim
from perturb_tutorial.benchmarks.worker import Worker
from perturb_tutorial.sealed import MARKS

pytest.importorskip("pycocotools", reason="COCO needs the extra coco")

COLUMNS = {"image_id": "int64", "hit": "bool", "curve": "list double"}
BOX = (4.0, 4.0, 12.0, 12.0)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.parquet", COLUMNS | {"category_id": "int64", "method": "string"})
    row = {"category_id": 1, "method": "m"}
    store.append(3, [{"image_id": 9, "hit": None, "curve": [0.5, 1.0], **row}])
    store.append(0, [{"image_id": 4, "hit": True, "curve": [], **row}, {"image_id": 5, **row}])
    assert store.done() == {0, 3}
    frame = store.read()
    assert list(frame["image_id"]) == [4, 5, 9]
    assert [None if pd.isna(hit) else bool(hit) for hit in frame["hit"]] == [True, None, None]
    assert list(frame["curve"][2]) == [0.5, 1.0]
    # As anybody reads it.
    assert len(pd.read_parquet(tmp_path / "r.parquet")) == 3


def test_what_a_killed_writer_left_is_no_record(tmp_path: Path) -> None:
    store = Store(tmp_path, COLUMNS | {"category_id": "int64", "method": "string"})
    store.append(0, [{"image_id": 1, "category_id": 1, "method": "m"}])
    (tmp_path / ".part-00000001.parquet.x1y2").write_bytes(b"PAR1 half")
    assert len(pd.read_parquet(tmp_path)) == 1
    again = Store(tmp_path, COLUMNS)
    assert again.done() == {0}
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000000.parquet"]


def test_a_finished_record_is_never_computed_again(tmp_path: Path, monkeypatch) -> None:
    data, network = write_coco(tmp_path, 4, [(1, BOX)]), tiny_network()
    settings = BenchmarkSettings(methods=("gradient",), batch_size=2)
    first = run_benchmark("pointing-game", data, network, tmp_path / "out", settings)
    assert first.computed == 8
    (tmp_path / "out" / "records.parquet" / "part-00000002.parquet").unlink()
    asked = []
    measure = Worker.measure

    def counted(self: Worker, batch):
        asked.append(batch.number)
        return measure(self, batch)

    monkeypatch.setattr(Worker, "measure", counted)
    before = records_of(tmp_path / "out")
    again = run_benchmark("pointing-game", data, network, tmp_path / "out", settings)
    assert (again.computed, asked) == (2, [2])
    assert len(before) == 6
    assert {**again.summary, "records": 0} == {**first.summary, "records": 0}
    assert run_benchmark("pointing-game", data, network, tmp_path / "out", settings).computed == 0


def test_other_settings_in_the_same_folder_are_refused_with_what_differs(tmp_path: Path) -> None:
    data, network = write_coco(tmp_path, 2, [(1, BOX)]), tiny_network()
    settings = BenchmarkSettings(methods=("gradient",))

    def run(settings: BenchmarkSettings = settings, data=data, network=network):
        return run_benchmark("pointing-game", data, network, tmp_path / "out", settings)

    run()
    records = records_of(tmp_path / "out")
    with pytest.raises(ValueError, match=r"output: .*\(seed was 0, is 1\); give another folder"):
        run(settings.replace(seed=1))
    with pytest.raises(ValueError, match=r"mask\.iterations was 300, is 10"):
        run(settings.replace(mask=settings.mask.replace(iterations=10)))
    with pytest.raises(ValueError, match=r"methods was .*'gradient'.*, is .*'grad_cam'"):
        run(settings.replace(methods=("grad_cam",)))
    other = tiny_network()
    next(iter(other.module.parameters())).data.add_(0.01)
    with pytest.raises(ValueError, match=r"network\.weights was"):
        run(network=other)
    with pytest.raises(ValueError, match=r"data\.digest was"):
        run(data=write_coco(tmp_path / "more", 2, [(1, (5.0, 4.0, 12.0, 12.0))]))
    pd.testing.assert_frame_equal(records_of(tmp_path / "out"), records)


def test_a_broken_settings_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"seed": ')
    with pytest.raises(ValueError, match=r"settings\.json cannot be read"):
        agree(tmp_path / "settings.json", {"seed": 0})


def test_a_broken_part_is_named_and_only_its_records_are_done_again(tmp_path: Path) -> None:
    data, network = write_coco(tmp_path, 2, [(1, BOX)]), tiny_network()
    settings = BenchmarkSettings(methods=("gradient",), batch_size=2)
    run_benchmark("pointing-game", data, network, tmp_path / "out", settings)
    part = tmp_path / "out" / "records.parquet" / "part-00000001.parquet"
    part.write_bytes(part.read_bytes()[:200])
    with pytest.raises(BenchmarkError, match=r"part-00000001.*does its records again") as caught:
        read_records(tmp_path / "out")
    assert "\n" not in str(caught.value)
    again = run_benchmark("pointing-game", data, network, tmp_path / "out", settings)
    assert again.computed == 2
    (line,) = again.repaired
    assert re.search(
        r"part-00000001.* is damaged: .*it is _damaged-part-00000001.parquet now, 2 records", line
    )
    assert "\n" not in line
    assert len(read_records(tmp_path / "out")) == len(pd.read_parquet(part.parent)) == 4


def test_a_copy_of_a_part_is_one_line_that_names_it(tmp_path: Path) -> None:
    data, network = write_coco(tmp_path, 2, [(1, BOX)]), tiny_network()
    settings = BenchmarkSettings(methods=("gradient",), batch_size=2)
    run_benchmark("pointing-game", data, network, tmp_path / "out", settings)
    records = tmp_path / "out" / "records.parquet"
    copy = records / "part-00000000 (copy).parquet"
    copy.write_bytes((records / "part-00000000.parquet").read_bytes())
    line = re.escape(f"{copy} is no part of the run's records; move it elsewhere and start again")
    with pytest.raises(BenchmarkError, match=line):
        run_benchmark("pointing-game", data, network, tmp_path / "out", settings)
    with pytest.raises(BenchmarkError, match=line):
        read_records(tmp_path / "out")
    copy.rename(tmp_path / copy.name)
    assert run_benchmark("pointing-game", data, network, tmp_path / "out", settings).computed == 0


def test_two_runs_at_once_in_one_folder_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="locks are POSIX's")
    with claim(tmp_path), pytest.raises(BenchmarkError, match="in use by another run"):
        claim(tmp_path)
    claim(tmp_path).close()


def test_an_output_that_cannot_be_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    data = write_coco(tmp_path, 1, [(1, BOX)])
    with pytest.raises(BenchmarkError, match=r"cannot be written \((File exists|Not a directory)\)"):
        run_benchmark("pointing-game", data, tiny_network(), tmp_path / "file" / "out")


FULL = """
import resource, signal, sys
from pathlib import Path
from perturb_tutorial.benchmarks.store import BenchmarkError, Store
store = Store(Path(sys.argv[1]), {"image_id": "int64", "curve": "list double"})
store.append(0, [{"image_id": 1, "curve": [0.5]}])
# A file may have 8 KiB from here on: the write fails as it does on a full disk, in the middle of the file.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    store.append(1, [{"image_id": 2, "curve": [k / 7 for k in range(20_000)]}])
except BenchmarkError as error:
    print(error)
"""


@pytest.mark.skipif(
    not hasattr(resource, "RLIMIT_FSIZE") or not hasattr(signal, "SIGXFSZ"), reason="POSIX limits"
)
def test_no_space_left_is_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    line = [sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path / "r.parquet")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True)
    assert "cannot be written (File too large); what is written is whole" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert os.listdir(tmp_path / "r.parquet") == ["part-00000000.parquet"]


def test_a_missing_extra_is_named_with_its_command(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ImportError, match=r"pandas and pyarrow: pip install 'perturb_tutorial\[benchmarks\]'"
    ):
        Store(tmp_path, COLUMNS)


def test_settings_file_is_what_the_run_had(tmp_path: Path) -> None:
    data = write_coco(tmp_path, 1, [(1, BOX)])
    settings = BenchmarkSettings(methods=("gradient",), seed=5)
    run_benchmark("pointing-game", data, tiny_network(), tmp_path / "out", settings)
    content = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert content["seed"] == 5
    assert content["methods"] == ["center", "gradient"]
    assert content["mask"] == settings.mask.to_dict()


@pytest.mark.parametrize("name", ["settings.json", "summary.json"])
def test_files_of_another_program_are_left_alone(tmp_path: Path, name: str) -> None:
    data, network = write_coco(tmp_path, 1, [(1, BOX)]), tiny_network()
    out = tmp_path / "out"
    out.mkdir()
    for text in ('{"mine": 1}', "[]", "no JSON"):
        (out / name).write_text(text)
        with pytest.raises(ValueError, match=rf"^output: .*{name} .*; give another folder$"):
            run_benchmark("pointing-game", data, network, out)
        assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, text)]
    (out / name).unlink()
    (out / "records.parquet").mkdir()
    with pytest.raises(ValueError, match=r"holds records\.parquet without settings\.json"):
        run_benchmark("pointing-game", data, network, out)
    assert os.listdir(out) == ["records.parquet"]
    with pytest.raises(ValueError, match=r"^output: expected a folder, got ''$"):
        run_benchmark("pointing-game", data, network, "")


def test_a_run_of_another_version_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, network = write_coco(tmp_path, 1, [(1, BOX)]), tiny_network()
    settings = BenchmarkSettings(methods=("gradient",))
    summary = run_benchmark("pointing-game", data, network, tmp_path / "out", settings).summary
    stored = json.loads((tmp_path / "out" / "summary.json").read_text())
    for content in (summary, stored, json.loads((tmp_path / "out" / "settings.json").read_text())):
        assert content["version"] == pt.__version__
    monkeypatch.setattr("perturb_tutorial.sealed.__version__", "9.9")
    with pytest.raises(ValueError, match=rf"version was '{re.escape(pt.__version__)}', is '9\.9'"):
        run_benchmark("pointing-game", data, network, tmp_path / "out", settings)
    # One from before there were versions.
    path = tmp_path / "out" / "settings.json"
    older = {key: value for key, value in json.loads(path.read_text()).items() if key not in MARKS}
    path.write_text(json.dumps(older))
    with pytest.raises(ValueError, match=r"version was None, is '9\.9'"):
        run_benchmark("pointing-game", data, network, tmp_path / "out", settings)


def test_a_part_of_other_questions_is_set_aside(tmp_path: Path) -> None:
    data, network = write_coco(tmp_path, 4, [(1, BOX)]), tiny_network()
    settings = BenchmarkSettings(methods=("gradient",), batch_size=2)
    run_benchmark("pointing-game", data, network, tmp_path / "out", settings)
    before = records_of(tmp_path / "out")
    records = tmp_path / "out" / "records.parquet"
    # The second batch's file under the name of the first: whole, and in the wrong place.
    (records / "part-00000000.parquet").write_bytes((records / "part-00000002.parquet").read_bytes())
    (records / "part-00000099.parquet").write_bytes((records / "part-00000002.parquet").read_bytes())
    again = run_benchmark("pointing-game", data, network, tmp_path / "out", settings)
    assert again.computed == 2
    assert ["its rows are not of this run" in line for line in again.repaired] == [True, True]
    pd.testing.assert_frame_equal(records_of(tmp_path / "out"), before)
