"""The same plan over Ray, on two simulated nodes of one core each: the local engine's records, whoever dies.

Longer runs on other clusters are in tests/clusters: ``make test-cluster``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import ray_cases
from benchmark_cases import records_of, tiny_network, write_coco
from ray_cases import QUICK, Deadly, Job, Watched, same, wait_until_free, wrapped

from perturb_tutorial.benchmarks import (
    BenchmarkData,
    BenchmarkError,
    BenchmarkSettings,
    plan_benchmark,
    ray_dispatch,
    ray_workers,
    run_benchmark,
)
from perturb_tutorial.benchmarks.pointing import PointingGame
from perturb_tutorial.benchmarks.ray_engine import RemoteWorker
from perturb_tutorial.benchmarks.ray_nodes import Node, Share
from perturb_tutorial.benchmarks.ray_workers import Workers
from perturb_tutorial.benchmarks.worker import Worker

ray = pytest.importorskip("ray", reason="the engine needs the extra ray")
pytest.importorskip("pycocotools", reason="COCO needs the extra coco")
from cluster import SMALL, simulated  # noqa: E402

pytestmark = pytest.mark.slow

BOXES = [(1, (4.0, 4.0, 12.0, 12.0)), (2, (60.0, 40.0, 12.0, 12.0))]
SETTINGS = BenchmarkSettings(methods=("mask", "gradient"), batch_size=3)
SETTINGS = SETTINGS.replace(mask=SETTINGS.mask.replace(iterations=20))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    # What the workers get from here is not installed where they run.
    ray.cloudpickle.register_pickle_by_value(ray_cases)
    with simulated(1, 1, **QUICK) as nodes:
        yield nodes
    ray.cloudpickle.unregister_pickle_by_value(ray_cases)


@pytest.fixture(autouse=True)
def quick_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers, "GRACE", 0.5)
    monkeypatch.setattr(ray_dispatch, "LOOK", 0.2)


def run(data: BenchmarkData, module: Any, output: Path, engine: str) -> pd.DataFrame:
    run_benchmark("pointing-game", data, wrapped(module), output, SETTINGS, engine=engine)
    return records_of(output)


# id, name, CPUs, GPUs, free CPUs, free GPUs; whether it has a worker of ours
SHARES = [
    (Node("a", "a", 1, 0, 1, 0), False, Share(1, 0)),
    (Node("a", "a", 2, 0, 2, 0), False, Share(2, 0)),
    (Node("a", "a", 16, 0, 16, 0), True, Share(4, 0)),
    # What others have taken is theirs: what is left makes one smaller worker, but no second one.
    (Node("a", "a", 8, 0, 3, 0), False, Share(3, 0)),
    (Node("a", "a", 8, 0, 3, 0), True, None),
    (Node("a", "a", 8, 0, 0, 0), False, None),
    (Node("a", "a", 0, 0, 0, 0), False, None),
    (Node("a", "a", 8, 2, 8, 2), False, Share(1, 1)),
    (Node("a", "a", 8, 2, 1, 2), False, Share(0, 1)),
    (Node("a", "a", 8, 2, 8, 0), False, None),
]


def test_a_worker_fits_what_its_node_has_free() -> None:
    wrong = [
        (str(node), has_worker, node.share(4, has_worker), expected)
        for node, has_worker, expected in SHARES
        if node.share(4, has_worker) != expected
    ]
    assert wrong == []


def test_a_worker_that_cannot_start_since_its_cores_were_taken_is_asked_for_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Handle:
        def __init__(self) -> None:
            self.ready = self
            self.remote = object

    killed: list[Any] = []
    fake = SimpleNamespace(kill=killed.append)
    workers = Workers(fake, lambda node, share: Handle(), cores=4, say=print)
    workers.hire({"a": Node("a", "a", 4, 0, free_cpus=4, free_gpus=0)})
    (first,) = workers.living
    monkeypatch.setattr(ray_workers, "SLOW_START", -1.0)
    # All four are taken: by this worker, which only is slow, or by others, and nothing can be done.
    workers.hire({"a": Node("a", "a", 4, 0, free_cpus=0, free_gpus=0)})
    assert workers.living == [first]
    # Three are free, so it is not this worker that has the others, and it will not start with three.
    workers.hire({"a": Node("a", "a", 4, 0, free_cpus=3, free_gpus=0)})
    assert [actor.share for actor in workers.living] == [Share(3, 0)]
    assert killed == [first.handle]
    assert list(workers.waiting.values()) == workers.living


def test_nodes_of_one_core_give_the_local_engines_records_though_a_worker_is_killed(
    cluster: Any, tmp_path: Path
) -> None:
    data = write_coco(tmp_path, 8, BOXES)
    tombstones = tmp_path / "tombstones"
    module = Deadly(tiny_network().module, tombstones, deaths=1)
    expected = run(data, module, tmp_path / "local", "local")
    found = run(data, module, tmp_path / "ray", "ray")
    assert len(list(tombstones.iterdir())) == 1
    assert len(found) == 8 * 2 * 3
    same(found, expected)
    assert wait_until_free(ray), "a worker goes on after the run"


def test_a_batch_that_always_kills_its_worker_is_named_after_the_rest_is_done(cluster: Any) -> None:
    jobs = [Job(number, status=1 if number == 3 else None) for number in range(12)]
    watched, numbers = Watched(), []
    with pytest.raises(BenchmarkError) as error:
        numbers.extend(row["number"] for row in watched.do(jobs))
    assert sorted(numbers) == [number for number in range(12) if number != 3]
    assert "a worker died 3 times on batch 3 (job, " in str(error.value)
    assert "all others are done" in str(error.value)
    assert "\n" not in str(error.value)
    # The third worker that it killed was on the other node: it was tried on both.
    assert set(watched.dispatcher._deaths) == {3}
    assert len(set(watched.dispatcher._deaths[3])) == 2


def test_a_node_that_dies_costs_what_it_had_in_hand_and_a_new_one_is_used(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_dispatch, "IN_HAND", 1)  # so that the only one would be blamed
    watched, rows = Watched(), []
    for row in watched.do(Job(number, seconds=0.5) for number in range(30)):
        rows.append(row)
        if len(rows) == 4:
            (victim,) = [node for node in cluster.worker_nodes if node.node_id == row["node"]]
            os.kill(row["process"], signal.SIGKILL)  # a machine that stops ends its workers first
            cluster.remove_node(victim, allow_graceful=False)
        if len(rows) == 16:  # some seconds later, so that nobody has waited for Ray to learn of the death
            new = cluster.add_node(num_cpus=1, **SMALL)
    assert sorted(row["number"] for row in rows) == list(range(30))
    assert watched.dispatcher._deaths == {}
    assert new.node_id in {row["node"] for row in rows}
    assert watched.shown[-1] == "2 workers on 2 nodes, 1 batch again"


def test_a_batch_is_not_blamed_for_a_worker_that_died_while_it_was_idle(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_dispatch, "IN_HAND", 1)

    def jobs() -> Iterator[Job]:
        for number in range(4):
            yield Job(number, after=None if number else 0.2)
            time.sleep(1)  # whoever did the first one is dead when it gets its next

    watched = Watched()
    assert sorted(row["number"] for row in watched.do(jobs())) == [0, 1, 2, 3]
    assert len(watched.hired) > 2
    assert watched.dispatcher._deaths == {}


def test_cores_that_others_have_are_waited_for_with_a_word(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers, "WAIT", 1.0)
    others = [ray.remote(ray_cases.Doer).options(num_cpus=1).remote() for _ in range(2)]
    ray.get([other.ready.remote() for other in others])
    watched = Watched(after_line=lambda: ray.kill(others.pop()))
    assert len(list(watched.do([Job(0)]))) == 1
    (line,) = watched.said
    assert line.startswith(
        "ray: no worker for 1 s. Each takes a GPU, or up to 4 cores of a node without one; free: "
    )
    assert line.count(": 0 of 1 CPUs") == 2
    ray.kill(others.pop())
    assert wait_until_free(ray)


def test_workers_that_do_not_start_are_one_line_with_the_reason(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers, "FAILED_STARTS", 1)
    watched = Watched(broken=True)
    reason = r"ray: no worker starts on any node \(.*No module named 'perturb_tutorial'.*\)"
    with pytest.raises(BenchmarkError, match=reason):
        list(watched.do([Job(0)]))
    assert sum("it is left out" in line for line in watched.said) == 2


def test_a_workers_error_is_raised_and_nothing_goes_on(cluster: Any) -> None:
    with pytest.raises(ValueError, match="data: /nowhere is not on the node"):
        list(Watched().do([Job(n, error="data: /nowhere is not on the node" * (n == 2)) for n in range(9)]))
    assert wait_until_free(ray)


def test_a_run_that_is_stopped_leaves_nothing_on_the_cluster(cluster: Any) -> None:
    jobs = Watched().do([Job(number) for number in range(100)])
    next(jobs)
    assert not wait_until_free(ray, patience=0.5)
    jobs.close()
    assert wait_until_free(ray)


def test_images_and_versions_that_a_node_lacks_are_one_line(tmp_path: Path) -> None:
    data = write_coco(tmp_path, 2, BOXES)
    (batch, *_) = plan_benchmark("pointing-game", data, SETTINGS).without(set())
    worker = Worker(PointingGame(), tiny_network(), SETTINGS)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"data: .*/images is not on the node .*; share it at that path"):
        RemoteWorker(worker, Share(1, 0), ray_cases.pt.__version__).measure(batch)
    with pytest.raises(ValueError, match=r"ray: the node .* has perturb_tutorial .*, the run 0\.0\.9;"):
        RemoteWorker(worker, Share(1, 0), "0.0.9").ready()


def test_an_address_without_a_cluster_is_one_line(tmp_path: Path) -> None:
    if ray.is_initialized():
        ray.shutdown()
    data = write_coco(tmp_path, 2, BOXES)
    options = {"engine": "ray", "ray_address": "127.0.0.1:1"}
    with pytest.raises(ValueError, match=r"ray_address: no cluster answers at 127\.0\.0\.1:1 "):
        run_benchmark("pointing-game", data, tiny_network(), tmp_path / "o", SETTINGS, **options)
