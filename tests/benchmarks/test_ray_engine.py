"""The same plan over Ray: the local engine's records, also when a worker dies in the middle."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from benchmark_cases import records_of, tiny_network, write_coco
from torch import Tensor, nn

import perturb_tutorial as pt
from perturb_tutorial.benchmarks import BenchmarkData, BenchmarkError, BenchmarkSettings, run_benchmark
from perturb_tutorial.benchmarks.ray_engine import RETRIES

ray = pytest.importorskip("ray", reason="the engine needs the extra ray")
pytest.importorskip("pycocotools", reason="COCO needs the extra coco")
pytestmark = pytest.mark.slow

BOXES = [(1, (4.0, 4.0, 12.0, 12.0)), (2, (60.0, 40.0, 12.0, 12.0))]
SETTINGS = BenchmarkSettings(methods=("mask", "gradient", "grad_cam"), batch_size=3)
SETTINGS = SETTINGS.replace(mask=SETTINGS.mask.replace(iterations=20))


class Deadly(nn.Module):
    """A network that kills its process while ``tombstones`` holds fewer than ``deaths`` files, and this many passes
    have been made there; in the process that made it, it does not, and nothing is counted.
    """

    def __init__(self, module: nn.Module, tombstones: Path, deaths: int, passes: int) -> None:
        super().__init__()
        self.module, self.tombstones, self.deaths, self.passes = module, tombstones, deaths, passes
        self.home = os.getpid()

    def forward(self, inputs: Tensor) -> Tensor:
        away = os.getpid() != self.home
        self.passes -= away
        dead = list(self.tombstones.iterdir())
        if away and self.passes < 0 and len(dead) < self.deaths:
            (self.tombstones / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.module(inputs)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    # This module, and what its networks are made of, is not installed where the workers run.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        object_store_memory=100 * 2**20,
    )  # fmt: skip
    yield
    ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def network(tmp_path: Path, deaths: int, passes: int = 60) -> pt.Network:
    tombstones = tmp_path / f"tombstones{deaths}"
    tombstones.mkdir(exist_ok=True)
    module = Deadly(tiny_network().module, tombstones, deaths, passes)
    return pt.Network(module, mean=(0.5,) * 3, std=(0.25,) * 3, input_size=32, device="cpu", name="tiny")


def run(data: BenchmarkData, network: pt.Network, output: Path, engine: str) -> pd.DataFrame:
    torch.set_num_threads(1)
    run_benchmark("pointing-game", data, network, output, SETTINGS, engine=engine, cores_per_worker=1)
    return records_of(output)


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    exact = [name for name in expected if expected[name].dtype != np.float64]
    pd.testing.assert_frame_equal(found[exact], expected[exact])
    # The workers compute the same batches; only the order of sums may differ between processes.
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3, atol=1e-4)


def test_ray_gives_the_local_engines_records(cluster: None, tmp_path: Path) -> None:
    data = write_coco(tmp_path, 10, BOXES)
    expected = run(data, network(tmp_path, 0), tmp_path / "local", "local")
    found = run(data, network(tmp_path, 0), tmp_path / "ray", "ray")
    assert len(found) == 10 * 2 * 4
    same(found, expected)


def test_a_killed_worker_is_replaced_and_nothing_is_lost_or_twice(cluster: None, tmp_path: Path) -> None:
    data = write_coco(tmp_path, 10, BOXES)
    expected = run(data, network(tmp_path, 0), tmp_path / "local", "local")
    found = run(data, network(tmp_path, 2), tmp_path / "ray", "ray")
    # Two workers did die, each by SIGKILL in the middle of a batch.
    assert len(list((tmp_path / "tombstones2").iterdir())) == 2
    assert not found.duplicated(["image_id", "category_id", "method"]).any()
    same(found, expected)


def test_a_batch_that_always_kills_its_worker_ends_in_one_line(cluster: None, tmp_path: Path) -> None:
    data = write_coco(tmp_path, 2, BOXES)
    line = rf"a worker died {RETRIES + 1} times on batch \d+ \((mask|gradient|grad_cam)"
    with pytest.raises(BenchmarkError, match=line):
        run(data, network(tmp_path, 100, passes=5), tmp_path / "ray", "ray")
    # What was finished stays, and the local engine, whose process it does not kill, goes on from there.
    assert len(run(data, network(tmp_path, 100), tmp_path / "ray", "local")) == 2 * 2 * 4


def test_images_that_a_worker_cannot_see_are_no_bad_images(cluster: None, tmp_path: Path) -> None:
    data = write_coco(tmp_path, 2, BOXES)
    away = tuple(
        dataclasses.replace(i, path=Path("/nowhere/images") / i.path.name) for i in data.dataset.images
    )
    data = BenchmarkData(dataclasses.replace(data.dataset, images=away), data.classes)
    with pytest.raises(
        ValueError, match=r"data: /nowhere/images is not on the node .*; share it at that path"
    ):
        run(data, network(tmp_path, 0), tmp_path / "ray", "ray")


def test_an_address_without_a_cluster_is_one_line(tmp_path: Path) -> None:
    if ray.is_initialized():
        ray.shutdown()
    data = write_coco(tmp_path, 2, BOXES)
    options = {"engine": "ray", "ray_address": "127.0.0.1:1"}
    with pytest.raises(ValueError, match=r"ray_address: no cluster answers at 127\.0\.0\.1:1 "):
        run_benchmark("pointing-game", data, tiny_network(), tmp_path / "o", SETTINGS, **options)
