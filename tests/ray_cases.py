"""Small plans and workers for the tests of the Ray engine, on clusters simulated on this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import perturb_tutorial as pt
from perturb_tutorial.benchmarks.ray_dispatch import Dispatcher
from perturb_tutorial.benchmarks.ray_nodes import Node, Share, living_nodes, on_node

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests" / "benchmarks")]
QUICK = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500}
"""With these a node's death is known after some three seconds, not fifteen."""


class Job(NamedTuple):
    """A batch that takes some time, and may end its worker: at its end (``status``), or some seconds ``after`` it."""

    number: int
    seconds: float = 0.1
    status: int | None = None
    after: float | None = None
    error: str = ""
    questions: tuple[Any, ...] = ()
    method: str = "job"


class Doer:
    """A worker that does jobs, in a process that imports nothing but Ray."""

    def __init__(self, broken: bool = False) -> None:
        if broken:
            raise ModuleNotFoundError("No module named 'perturb_tutorial'")

    def ready(self) -> None:
        """Replies."""

    def measure(self, job: Job) -> list[dict[str, Any]]:
        """The job's number, and the node and the process in which it was done."""
        time.sleep(job.seconds)
        if job.status is not None:
            os._exit(job.status)
        if job.after is not None:
            threading.Timer(job.after, os._exit, [1]).start()
        if job.error:
            raise ValueError(job.error)
        import ray

        node = ray.get_runtime_context().get_node_id()
        return [{"number": job.number, "node": node, "process": os.getpid()}]


class Watched:
    """A dispatcher of jobs; ``hired`` (node, share) in order, ``said`` and ``shown`` are what it did and told."""

    def __init__(
        self, cores: int = 4, broken: bool = False, after_line: Callable[[], None] = lambda: None
    ) -> None:
        import ray

        self.ray = ray
        self.hired: list[tuple[str, Share]] = []
        self.said: list[str] = []
        self.shown: list[str] = []
        self._broken, self._after_line = broken, after_line
        self._remote = ray.remote(Doer)
        self.dispatcher = Dispatcher(ray, self._hire, cores=cores, say=self._say, show=self.shown.append)

    def _say(self, line: str) -> None:
        self.said.append(line)
        self._after_line()

    def _hire(self, node: Node, share: Share) -> Any:
        self.hired.append((node.id, share))
        return self._remote.options(**on_node(node, share)).remote(self._broken)

    def do(self, jobs: Iterable[Job]) -> Iterator[dict[str, Any]]:
        """The result of each job."""
        try:
            for _, (row,) in self.dispatcher.compute(iter(jobs)):  # type: ignore[arg-type]  # jobs for batches
                yield row
        finally:
            self.dispatcher.close()


def wait_until_free(ray: Any, patience: float = 30.0) -> bool:
    """Whether all that the living nodes have is free again, after at most ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        nodes = living_nodes(ray).values()
        if all((node.free_cpus, node.free_gpus) == (node.cpus, node.gpus) for node in nodes):
            return True
        time.sleep(0.2)
    return False


class Deadly(nn.Module):
    """A network that is slow, and kills its process as the system does where memory is short; not where it was made.

    Args:
        module: the network.
        tombstones: a folder with a file for each death.
        deaths: how many there are before it stops to kill.
        poison: the input (C×H×W) that kills; None is any.
        seconds: of each pass.
    """

    def __init__(
        self,
        module: nn.Module,
        tombstones: Path,
        deaths: int,
        poison: Tensor | None = None,
        seconds: float = 0.0,
    ) -> None:
        super().__init__()
        self.module, self.tombstones, self.deaths, self.seconds = module, tombstones, deaths, seconds
        self.poison = None if poison is None else (poison.clone(),)  # in a tuple: no part of the weights
        self.home, self.passes = os.getpid(), 20
        tombstones.mkdir(exist_ok=True)

    def forward(self, inputs: Tensor) -> Tensor:
        if os.getpid() != self.home:
            time.sleep(self.seconds)
            self.passes -= 1
            if self._strikes(inputs) and len(list(self.tombstones.iterdir())) < self.deaths:
                (self.tombstones / f"{os.getpid()}-{time.monotonic_ns()}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return self.module(inputs)

    def _strikes(self, inputs: Tensor) -> bool:
        if self.poison is None:
            return self.passes < 0
        (image,) = self.poison
        return inputs.shape[1:] == image.shape and bool(((inputs - image).abs().amax((1, 2, 3)) < 1e-4).any())


def wrapped(module: nn.Module) -> pt.Network:
    """A module of :func:`benchmark_cases.tiny_network`'s kind as a network."""
    torch.set_num_threads(1)
    return pt.Network(module, mean=(0.5,) * 3, std=(0.25,) * 3, input_size=32, device="cpu", name="tiny")


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """The same records, each once. Only the order of sums may differ between processes with other numbers of cores."""
    assert not found.duplicated(["image_id", "category_id", "method"]).any()
    exact = [name for name in expected if expected[name].dtype != np.float64]
    pd.testing.assert_frame_equal(found[exact], expected[exact])
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3, atol=1e-4)
