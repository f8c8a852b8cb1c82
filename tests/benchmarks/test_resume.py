"""Killed at random moments and started again, a run ends with the records of one that was never interrupted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from benchmark_cases import records_of

pytest.importorskip("pycocotools", reason="COCO needs the extra coco")

KILLS = 20

DRIVER = """
# Imports are done once: each run is a fork, a process of its own, which SIGKILL ends wherever it is.
import json, os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
torch.set_num_threads(1)
from benchmark_cases import tiny_network, write_coco
import pandas, pyarrow.parquet
torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # torch imports a second's worth of modules at the first one
from perturb_tutorial.benchmarks import BenchmarkSettings, run_benchmark
from perturb_tutorial.benchmarks.store import RECORDS

folder = Path(sys.argv[1])
data = write_coco(folder, 24, [(1, (4.0, 4.0, 12.0, 12.0)), (2, (60.0, 40.0, 12.0, 12.0))])
settings = BenchmarkSettings(methods=("mask", "gradient", "grad_cam"), batch_size=2, seed=3)
settings = settings.replace(mask=settings.mask.replace(iterations=10))

def start(output):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run_benchmark("pointing-game", data, tiny_network(), output, settings)
            status = 0
        finally:
            os._exit(status)
    return child

began = time.monotonic()
_, status = os.waitpid(start(folder / "whole"), 0)
assert status == 0
whole = time.monotonic() - began
rng = random.Random(11)
kills, finished, progress = 0, [], []
while kills < int(sys.argv[3]) or not finished:
    output = folder / f"broken{len(finished)}"
    child = start(output)
    patience = rng.uniform(0, whole / 6) if kills < int(sys.argv[3]) else 120
    deadline = time.monotonic() + patience
    done = 0
    while not done and time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.001)
    if done:
        assert status == 0, status
        finished.append(output.name)
        continue
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kills += 1
    records = output / RECORDS
    progress.append(len(list(records.glob("part-*"))) if records.is_dir() else 0)
print(json.dumps({"kills": kills, "finished": finished, "progress": progress, "seconds": whole}))
"""


def test_records_after_20_kills_are_those_of_an_unbroken_run(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="fork and SIGKILL are POSIX's")
    line = [sys.executable, "-c", DRIVER, str(tmp_path), str(Path(__file__).parent), str(KILLS)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["kills"] == KILLS
    # The kills fell at different states of the run, not all before the first record or after the last.
    assert len(set(told["progress"])) >= 5
    whole = records_of(tmp_path / "whole")
    assert len(whole) == 24 * 2 * 4
    summary = (tmp_path / "whole" / "summary.json").read_text()
    for name in told["finished"]:
        broken = records_of(tmp_path / name)
        assert not broken.duplicated(["image_id", "category_id", "method"]).any()
        pd.testing.assert_frame_equal(broken, whole, check_exact=True)
        expected, found = json.loads(summary), json.loads((tmp_path / name / "summary.json").read_text())
        for content in (expected, found):
            content["records"].pop("seconds")
            content.pop("checksum")
        assert found == expected
        assert not list((tmp_path / name / "records.parquet").glob(".*"))
