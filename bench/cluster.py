"""The Ray engine's own speed, with workers that compute nothing.

    efficiency  64 workers of one core on four simulated nodes, each batch a sleep of 2 to 4 s: the share of the
                workers' time in which they sleep, from the moment when all of them work, and from the run's start
    stream      a plan of a million questions, two workers whose records are made up: batches a second with the
                records written to disk, and the memory of the process that reads the plan and writes them

Run: python bench/cluster.py [--workers N] [--batches N] [--questions N] [--only efficiency|stream]
Writes bench/results/cluster.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results" / "cluster.json"
NODES = 4
SHORTEST, LONGEST = 2.0, 4.0
"""Seconds of a batch."""
SMALL = {"object_store_memory": 100 * 2**20}
"""Bytes of a node's memory for what its workers share."""
SAMPLES = 20
"""How often a stream's memory is read."""


class Nap(NamedTuple):
    """A batch that is slept through."""

    number: int
    seconds: float


class Sleeper:
    """A worker that sleeps, in a process that imports nothing but Ray."""

    def ready(self) -> None:
        """Replies."""

    def measure(self, nap: Nap) -> list[dict[str, Any]]:
        """When, and by whom, the nap was taken."""
        began = time.time()
        time.sleep(nap.seconds)
        return [{"worker": os.getpid(), "began": began, "ended": time.time()}]


@contextmanager
def simulated(*cpus: int, **settings: Any) -> Iterator[Any]:
    """A cluster simulated on this machine, to which Ray is connected: a head without cores, and nodes with ``cpus``.

    ``settings``: of Ray's own, such as ``health_check_period_ms``.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": settings, **SMALL}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for count in cpus:
            cluster.add_node(num_cpus=count, **SMALL)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def busy(naps: list[dict[str, Any]], start: float, end: float) -> float:
    """Seconds of sleep between ``start`` and ``end``."""
    return sum(max(0.0, min(nap["ended"], end) - max(nap["began"], start)) for nap in naps)


def efficiency(workers: int, batches: int) -> dict[str, Any]:
    """The share of the time of ``workers`` workers in which they sleep, ``batches`` batches for each once all work."""
    import ray

    from perturb_tutorial.benchmarks.ray_dispatch import Dispatcher
    from perturb_tutorial.benchmarks.ray_nodes import on_node

    chance = random.Random(0)
    seen: set[int] = set()

    def plan() -> Iterator[Nap]:
        number = itertools.count()
        while len(seen) < workers:
            yield Nap(next(number), SHORTEST)
        for _ in range(workers * batches):
            yield Nap(next(number), chance.uniform(SHORTEST, LONGEST))

    with simulated(*[workers // NODES] * NODES):
        remote = ray.remote(Sleeper)

        def hire(node: Any, share: Any) -> Any:
            return remote.options(**on_node(node, share)).remote()

        dispatcher = Dispatcher(ray, hire, cores=1, say=print, show=print)
        start = time.time()
        naps = []
        for _, (nap,) in dispatcher.compute(plan()):  # type: ignore[arg-type]  # naps for batches
            naps.append(nap)
            seen.add(nap["worker"])
        dispatcher.close()
    first: dict[int, float] = {}
    for nap in sorted(naps, key=lambda nap: nap["began"]):
        first.setdefault(nap["worker"], nap["began"])
    warm, end = max(first.values()), max(nap["ended"] for nap in naps)
    return {
        "workers": len(first),
        "nodes": NODES,
        "batches": len(naps),
        "batches_once_all_work": workers * batches,
        "seconds_of_a_batch": [SHORTEST, LONGEST],
        "seconds_until_all_work": warm - start,
        "seconds_from_then": end - warm,
        "efficiency": busy(naps, warm, end) / (len(first) * (end - warm)),
        "efficiency_with_start": busy(naps, start, end) / (len(first) * (end - start)),
    }


class Idle:
    """A worker of a benchmark that makes up its records."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def measure(self, batch: Any) -> list[dict[str, Any]]:
        """One record for each question."""
        return [
            {"image_id": question.image.id, "category_id": question.category, "category": question.name,
             "method": batch.method, "hit": True, "seconds": 0.0}
            for question in batch.questions
        ]  # fmt: skip


def megabytes() -> float:
    """This process's memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def stream(questions: int) -> dict[str, Any]:
    """Rate and memory of a plan of ``questions`` questions, from the plan to the records on disk."""
    import torch

    import perturb_tutorial as pt
    from perturb_tutorial.benchmarks.plan import Plan, Question
    from perturb_tutorial.benchmarks.ray_engine import compute
    from perturb_tutorial.benchmarks.store import Store
    from perturb_tutorial.datasets.records import ImageRecord, Instance

    linear = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 4))
    network = pt.Network(linear, input_size=32, device="cpu")
    columns = {"image_id": "int64", "category_id": "int64", "category": "string", "method": "string"}
    columns |= {"hit": "bool", "seconds": "double"}
    before = megabytes()
    with tempfile.TemporaryDirectory() as folder, simulated(1, 1):
        things = (Instance(17, (4.0, 4.0, 12.0, 12.0), 144.0),)
        names = (Path(folder, f"COCO_val2014_{n:012d}.jpg") for n in range(questions))
        images = (ImageRecord(n, name, 480, 640, things) for n, name in enumerate(names))
        asked = (Question(image, 17, "cat", (281, 282)) for image in images)
        plan = Plan(tuple(asked), ("gradient",), batch_size=16)
        with_plan = megabytes()
        store = Store(Path(folder, "records.parquet"), columns)
        start = time.perf_counter()
        memory, seconds = [], []
        every = max(1, len(plan) // SAMPLES)
        for done, (number, rows) in enumerate(compute(Idle(network), plan.without(set()), cores=1), 1):
            store.append(number, rows)
            if done % every == 0:
                memory.append(megabytes())
                seconds.append(time.perf_counter() - start)
                print(f"{done:,} batches, {seconds[-1]:.0f} s, {memory[-1]:.0f} MB", flush=True)
        frame = store.read()
        assert len(frame) == len(frame.drop_duplicates("image_id")) == questions
        spent = seconds[-1] - seconds[0]
        return {
            "questions": questions,
            "batches": len(plan),
            "batches_a_second": (len(memory) - 1) * every / spent,
            "mb_before": before,
            "mb_with_plan": with_plan,
            "mb_while_streaming": memory,
            "mb_with_all_records": megabytes(),
        }


def main() -> None:
    """Measures, prints, writes the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--batches", type=int, default=20, help="of each worker")
    parser.add_argument("--questions", type=int, default=1_000_000)
    parser.add_argument("--only", choices=["efficiency", "stream"])
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    result: dict[str, Any] = {}
    if options.only and options.output.exists():
        result = json.loads(options.output.read_text("utf-8"))
    result |= {
        "machine": {"device": platform.machine(), "cores": os.cpu_count()},
        "versions": {"ray": version("ray"), "python": platform.python_version()},
    }
    command = shlex.join(["python", "bench/cluster.py", *sys.argv[1:]])
    if options.only != "stream":
        result["efficiency"] = {"command": command, **efficiency(options.workers, options.batches)}
    if options.only != "efficiency":
        result["stream"] = {"command": command, **stream(options.questions)}
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
