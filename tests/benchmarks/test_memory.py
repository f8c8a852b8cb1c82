"""Memory does not grow with the number of images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pycocotools", reason="COCO needs the extra coco")

MEASURE = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
torch.set_num_threads(1)
from benchmark_cases import tiny_network, write_coco
from perturb_tutorial.benchmarks import BenchmarkSettings, run_benchmark

def peak():
    # ru_maxrss would count the process that started this one, too: Linux hands its peak over.
    try:
        line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

folder = Path(sys.argv[1])
network = tiny_network(224)
data = write_coco(folder, 300, [(1, (4.0, 4.0, 12.0, 12.0))])
peaks = []
for limit in (40, 80, 300):
    settings = BenchmarkSettings(methods=("gradient",), batch_size=8, limit=limit)
    run_benchmark("pointing-game", data, network, folder / str(limit), settings)
    peaks.append(peak())
print(json.dumps(peaks))
"""


def test_300_images_take_the_memory_of_80(tmp_path: Path) -> None:
    # 220 more images of 3×224×224 floats would be 126 MiB, their maps alone 42 MiB.
    pytest.importorskip("resource", reason="peaks of memory are POSIX's")
    line = [sys.executable, "-c", MEASURE, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    _, some, many = json.loads(done.stdout)
    assert many - some < 20, f"MiB: {some:.0f} after 80 images, {many:.0f} after 300"
