"""The same plan over Ray: one worker for each GPU or group of CPU cores, on one machine or a cluster.

Workers only compute; the main process reads the plan and writes the records. A worker that dies is replaced, on
another node if its own is lost. The batches that it had are computed again, each alone at a worker, so that none is
blamed for its neighbor; a batch that kills three workers so stops the run.
Images are read by the workers: their folder must be at the same path on every node.
"""

from __future__ import annotations

import copy
import itertools
import os
import platform
import socket
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from perturb_tutorial.benchmarks.plan import Batch
from perturb_tutorial.benchmarks.store import BenchmarkError
from perturb_tutorial.benchmarks.worker import Worker
from perturb_tutorial.datasets.records import ImageRecord
from perturb_tutorial.networks import pick_device

CORES = 4
"""CPU cores of a worker where there is no GPU."""
RETRIES = 2
"""How often a batch is tried again after its worker died."""
PATIENCE = 10.0
"""Seconds to wait for a connection to an address."""
IN_HAND = 2
"""Batches at each worker, so that it need not wait for the next one."""


class RemoteWorker:
    """A worker in a process of Ray's."""

    def __init__(self, worker: Worker, cores: int) -> None:
        torch.set_num_threads(cores)
        self._worker = copy.copy(worker)
        self._worker.network = worker.network.to(pick_device("auto"))

    def measure(self, batch: Batch) -> list[dict[str, Any]]:
        """The batch's records; ``ValueError`` where this node does not have the images' folder."""
        for question in batch.questions:
            image = question.image
            path = image.path if isinstance(image, ImageRecord) and image.problem is None else None
            if isinstance(path, Path) and not _folder(path).is_dir():
                raise ValueError(
                    f"data: {_folder(path)} is not on the node {platform.node()}; share it at that path"
                )
        return self._worker.measure(batch)


def _folder(path: Path) -> Path:
    return path.absolute().parent


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "the engine ray needs the package ray: pip install 'perturb_tutorial[ray]'"
        ) from error
    return ray


def _start(ray: Any, address: str | None) -> bool:
    """Connects to a cluster or starts one on this machine; returns whether this process must disconnect."""
    if ray.is_initialized():
        return False
    # Otherwise Ray would send usage statistics to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    given = address or os.environ.get("RAY_ADDRESS")
    _check_reachable(given)
    cluster = {"address": given} if given else {"address": "local", "include_dashboard": False}
    try:
        ray.init(**cluster, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"ray_address: no cluster answers at {given} ({reason})") from error
    return True


def _check_reachable(address: str | None) -> None:
    """Raises ``ValueError`` at once where no server listens at an address; Ray itself would wait for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not (colon and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"ray_address: no cluster answers at {address} ({reason})") from error


def compute(
    worker: Worker, batches: Iterator[Batch], *, address: str | None = None, cores: int | None = None
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Computes batches on Ray's workers.

    Args:
        worker: what computes a batch; each of Ray's workers gets a copy.
        batches: the missing ones.
        address: of a cluster; None is RAY_ADDRESS, or a cluster on this machine.
        cores: CPU cores of a worker where there is no GPU.

    Yields:
        Number and records of each batch, in the order in which they finish.
    """
    ray = _ray()
    first = next(batches, None)
    if first is None:
        return
    ours = _start(ray, address)
    pool: _Pool | None = None
    try:
        pool = _Pool(ray, worker, cores)
        yield from pool.compute(itertools.chain([first], batches))
    finally:
        if pool is not None:
            pool.close()
        if ours:
            ray.shutdown()


class _Pool:
    """As many workers as the cluster holds, and the batches that each has in hand."""

    def __init__(self, ray: Any, worker: Worker, cores: int | None) -> None:
        self.ray = ray
        resources = ray.cluster_resources()
        gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        self.group = min(cores or CORES, max(cpus, 1))
        share = {"num_gpus": 1, "num_cpus": 1} if gpus else {"num_cpus": self.group}
        self.remote = ray.remote(RemoteWorker).options(**share)
        shipped = copy.copy(worker)
        shipped.network = worker.network.to("cpu")
        self.shipped = ray.put(shipped)
        self.actors = [self._actor() for _ in range(gpus or max(1, cpus // self.group))]
        self.running: dict[Any, tuple[Batch, int]] = {}
        """Of each result that is awaited, its batch and the worker's number."""
        self.suspects: deque[Batch] = deque()
        """Batches that a worker had in hand when it died."""
        self.deaths: Counter[int] = Counter()
        """How many workers died on a batch while they had no other."""

    def _actor(self) -> Any:
        return self.remote.remote(self.shipped, self.group)

    def close(self) -> None:
        for actor in self.actors:
            self.ray.kill(actor)

    def compute(self, batches: Iterator[Batch]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        for number in list(range(len(self.actors))) * IN_HAND:
            self._submit(number, next(batches, None))
        while self.running:
            (ready, *_), _ = self.ray.wait(list(self.running), num_returns=1)
            batch, number = self.running[ready]
            try:
                rows = self.ray.get(ready)
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except self.ray.exceptions.RayActorError as error:
                self._replace(number, error)
                rows = None
            else:
                del self.running[ready]
            self._supply(number, batches)
            if rows is not None:
                yield batch.number, rows

    def _in_hand(self, number: int) -> list[Any]:
        return [reference for reference, (_, worker) in self.running.items() if worker == number]

    def _submit(self, number: int, batch: Batch | None) -> None:
        if batch is not None:
            self.running[self.actors[number].measure.remote(batch)] = (batch, number)

    def _supply(self, number: int, batches: Iterator[Batch]) -> None:
        """What a worker does next: a suspect if there is one, which waits until the worker has nothing else."""
        if not self.suspects:
            hands = [self.running[reference][0].number for reference in self._in_hand(number)]
            if not any(self.tried(batch) for batch in hands):
                for _ in range(IN_HAND - len(hands)):
                    self._submit(number, next(batches, None))
        elif not self._in_hand(number):
            self._submit(number, self.suspects.popleft())

    def tried(self, number: int) -> bool:
        """Whether a worker died that had this batch."""
        return number in self.deaths

    def _replace(self, number: int, error: Exception) -> None:
        """Another worker in place of one that died; its batches are suspects."""
        lost = [self.running.pop(reference)[0] for reference in self._in_hand(number)]
        self.actors[number] = self._actor()
        for batch in lost:
            self.deaths[batch.number] += len(lost) == 1
            if self.deaths[batch.number] > RETRIES:
                images = ", ".join(str(question.image.id) for question in batch.questions[:3])
                raise BenchmarkError(
                    f"ray: a worker died {RETRIES + 1} times on batch {batch.number} ({batch.method}, images "
                    f"{images} …); is its memory full? try a smaller batch size"
                ) from error
        self.suspects.extend(lost)
