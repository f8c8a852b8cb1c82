"""Whole runs on simulated clusters that lose nodes, workers and the process that was started: the local engine's
records each time, none lost, none twice. Some minutes; ``make test-cluster``.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray_cases
from ray_cases import QUICK, Deadly, same, wait_until_free, wrapped

ray = pytest.importorskip("ray", reason="the engine needs the extra ray")
pytest.importorskip("pycocotools", reason="COCO needs the extra coco")
from benchmark_cases import records_of, tiny_network, write_coco  # noqa: E402

from cluster import SMALL, simulated  # noqa: E402
from perturb_tutorial.benchmarks import (  # noqa: E402
    BenchmarkData,
    BenchmarkError,
    BenchmarkSettings,
    run_benchmark,
)
from perturb_tutorial.images import load_images  # noqa: E402

BOXES = [(1, (4.0, 4.0, 12.0, 12.0)), (2, (60.0, 40.0, 12.0, 12.0))]
SETTINGS = BenchmarkSettings(methods=("mask", "gradient"), batch_size=2)
SETTINGS = SETTINGS.replace(mask=SETTINGS.mask.replace(iterations=10))
IMAGES = 24
RECORDS = IMAGES * 2 * 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkData:
    return write_coco(tmp_path_factory.mktemp("data"), IMAGES, BOXES)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Nodes of one, two and one cores."""
    ray.cloudpickle.register_pickle_by_value(ray_cases)
    with simulated(1, 2, 1, **QUICK) as nodes:
        yield nodes
    ray.cloudpickle.unregister_pickle_by_value(ray_cases)


def module(folder: Path, deaths: int = 0, **options: Any) -> Deadly:
    return Deadly(tiny_network().module, folder / "tombstones", deaths, **options)


def run(
    data: BenchmarkData,
    module: Deadly,
    output: Path,
    engine: str = "ray",
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    run_benchmark("pointing-game", data, wrapped(module), output, SETTINGS, engine=engine, progress=progress)
    return records_of(output)


@pytest.fixture(scope="module")
def expected(data: BenchmarkData, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("local")
    records = run(data, module(folder), folder / "out", "local")
    assert len(records) == RECORDS
    return records


@pytest.mark.parametrize("seed", range(5))
def test_a_node_is_killed_and_another_joins(
    cluster: Any, data: BenchmarkData, expected: pd.DataFrame, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    moment, changed = chance.randrange(0, RECORDS // 2), []

    def progress(finished: int, _: int) -> None:
        if finished > moment and not changed:
            victim = chance.choice(sorted(cluster.worker_nodes, key=lambda node: node.node_id))
            cluster.remove_node(victim, allow_graceful=False)
            changed.append(cluster.add_node(num_cpus=chance.choice((1, 2)), **SMALL))

    same(run(data, module(tmp_path, seconds=0.02), tmp_path / "out", progress=progress), expected)
    assert changed
    assert wait_until_free(ray)


def test_workers_that_the_system_kills_for_memory_are_replaced(
    cluster: Any, data: BenchmarkData, expected: pd.DataFrame, tmp_path: Path
) -> None:
    killing = module(tmp_path, deaths=4)
    same(run(data, killing, tmp_path / "out"), expected)
    assert len(list(killing.tombstones.iterdir())) == 4


def test_a_poisonous_image_is_named_when_all_others_are_done_and_tried_again_in_the_next_run(
    cluster: Any, data: BenchmarkData, expected: pd.DataFrame, tmp_path: Path
) -> None:
    image = data.dataset.images[5]
    network = tiny_network()
    poison = network.normalize(load_images([image.path], 32))[0]
    killing = module(tmp_path, deaths=1000, poison=poison)
    with pytest.raises(BenchmarkError, match="all others are done") as error:
        run(data, killing, tmp_path / "out")
    # The batch of this image's two questions by each of the three methods.
    numbers = [15, 16, 17]
    assert all(f"batch {number} (" in str(error.value) for number in numbers), str(error.value)
    parts = {path.name for path in (tmp_path / "out" / "records.parquet").glob("part-*")}
    assert parts == {f"part-{n:08d}.parquet" for n in range(IMAGES * 3) if n not in numbers}
    # Twice in company at the most, then three times alone.
    assert 9 <= len(list(killing.tombstones.iterdir())) <= 9 + len(numbers)
    killing.deaths = 0
    same(run(data, killing, tmp_path / "out"), expected)


DRIVER = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests' own starter ignores
sys.path[:0] = json.loads(sys.argv[1])
import ray
import ray_cases
from benchmark_cases import tiny_network
from pathlib import Path
from perturb_tutorial.benchmarks import BenchmarkData, BenchmarkSettings, run_benchmark
from perturb_tutorial.datasets import read_coco_json
from benchmark_cases import CLASSES

folder, output, address = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] or None
ray.cloudpickle.register_pickle_by_value(ray_cases)
data = BenchmarkData(read_coco_json(folder / "annotations.json", folder / "images", name="small"), CLASSES)
settings = BenchmarkSettings(methods=("mask", "gradient"), batch_size=2)
settings = settings.replace(mask=settings.mask.replace(iterations=10))
network = ray_cases.wrapped(
    ray_cases.Deadly(tiny_network().module, output.parent / "tombstones", 0, seconds=0.05)
)
run_benchmark(
    "pointing-game", data, network, output, settings, engine="ray", ray_address=address, cores_per_worker=1
)
"""


def start(data: BenchmarkData, output: Path, address: str = "") -> subprocess.Popen[str]:
    paths = json.dumps([path for path in sys.path if path])
    folder = data.dataset.images[0].path.parents[1]
    line = [sys.executable, "-c", DRIVER, paths, str(folder), str(output), address]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def parts(output: Path) -> int:
    return len(list((output / "records.parquet").glob("part-*")))


def wait_for_parts(run: subprocess.Popen[str], output: Path, count: int) -> None:
    while parts(output) < count and run.poll() is None:
        time.sleep(0.02)


def test_the_started_process_is_killed_and_started_again(
    cluster: Any, data: BenchmarkData, expected: pd.DataFrame, tmp_path: Path
) -> None:
    chance, output, found = random.Random(7), tmp_path / "out", []
    for _ in range(3):
        run = start(data, output, cluster.address)
        wait_for_parts(run, output, parts(output) + chance.randint(1, 12))
        assert run.poll() is None, run.stderr and run.stderr.read()[-2000:]
        run.send_signal(signal.SIGKILL)
        run.wait()
        found.append(parts(output))
        assert wait_until_free(ray), "workers of a process that is gone"
    assert sorted(set(found)) == found
    run = start(data, output, cluster.address)
    assert run.wait(timeout=300) == 0, run.stderr and run.stderr.read()[-2000:]
    same(records_of(output), expected)


@pytest.mark.parametrize("joined", [True, False])
def test_ctrl_c_leaves_nothing_running(
    cluster: Any, data: BenchmarkData, tmp_path: Path, joined: bool
) -> None:
    output = tmp_path / "out"
    before = processes_of_ray()
    run = start(data, output, cluster.address if joined else "")
    wait_for_parts(run, output, 3)
    assert run.poll() is None, run.stderr and run.stderr.read()[-2000:]
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=60) == -signal.SIGINT
    assert wait_until_free(ray)
    if not joined:
        deadline = time.monotonic() + 30
        while processes_of_ray() - before and time.monotonic() < deadline:
            time.sleep(0.5)
        assert processes_of_ray() - before == set()


def processes_of_ray() -> set[int]:
    """The raylets and cluster services on this machine."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if b"/raylet/raylet\0" in line or b"gcs_server\0" in line:
            found.add(int(path.parent.name))
    return found
