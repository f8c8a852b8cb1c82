"""The same plan over Ray: one worker for each GPU or group of CPU cores, on one machine or a cluster.

Workers only compute; the main process reads the plan and writes the records. A worker that dies is restarted, on
another node if its own is lost, and its batch is computed again there; a batch that kills three workers stops the run.
Images are read by the workers: their folder must be at the same path on every node.
"""

from __future__ import annotations

import copy
import os
import platform
import socket
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
QUEUED = 2
"""Batches queued at each worker, so that it need not wait for the next one."""


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
            if isinstance(image, ImageRecord) and image.problem is None and not _folder(image.path).is_dir():
                raise ValueError(
                    f"data: {_folder(image.path)} is not on the node {platform.node()}; share it at that path"
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
    actors: list[Any] = []
    try:
        resources = ray.cluster_resources()
        gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        group = min(cores or CORES, max(cpus, 1))
        count = gpus or max(1, cpus // group)
        share = {"num_gpus": 1, "num_cpus": 1} if gpus else {"num_cpus": group}
        remote = ray.remote(RemoteWorker).options(max_restarts=-1, max_task_retries=RETRIES, **share)
        shipped = copy.copy(worker)
        shipped.network = worker.network.to("cpu")
        reference = ray.put(shipped)
        actors = [remote.remote(reference, group) for _ in range(count)]
        running: dict[Any, tuple[Batch, Any]] = {}

        def submit(actor: Any, batch: Batch | None) -> None:
            if batch is not None:
                running[actor.measure.remote(batch)] = (batch, actor)

        submit(actors[0], first)
        for actor in actors * QUEUED:
            submit(actor, next(batches, None))
        while running:
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            batch, actor = running.pop(ready)
            rows = _result(ray, ready, batch)
            submit(actor, next(batches, None))
            yield batch.number, rows
    finally:
        for actor in actors:
            ray.kill(actor)
        if ours:
            ray.shutdown()


def _result(ray: Any, ready: Any, batch: Batch) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayActorError as error:
        images = ", ".join(str(question.image.id) for question in batch.questions[:3])
        raise BenchmarkError(
            f"ray: a worker died {RETRIES + 1} times on batch {batch.number} ({batch.method}, images {images} …); "
            "is its memory full? try a smaller batch size"
        ) from error
    return rows
