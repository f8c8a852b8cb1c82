"""The same plan over Ray: one worker for each GPU or group of CPU cores, on one machine or a cluster.

Workers only compute; the main process reads the plan, batch by batch, and writes the records. Where workers run and
what they compute is up to module ``ray_dispatch``. Images are read by the workers: their folder must be at the same
path on every node.
"""

from __future__ import annotations

import copy
import itertools
import os
import platform
import socket
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import torch

from perturb_tutorial import __version__
from perturb_tutorial.benchmarks.plan import Batch
from perturb_tutorial.benchmarks.ray_dispatch import Dispatcher
from perturb_tutorial.benchmarks.ray_nodes import Node, Share, on_node
from perturb_tutorial.benchmarks.ray_workers import Line
from perturb_tutorial.benchmarks.worker import Worker
from perturb_tutorial.datasets.records import ImageRecord
from perturb_tutorial.networks import pick_device

CORES = 4
"""CPU cores of a worker where there is no GPU."""
PATIENCE = 10.0
"""Seconds to wait for a connection to an address."""


class RemoteWorker:
    """A worker in a process of Ray's, with its share of the node; ``version``: of the package that made the plan."""

    def __init__(self, worker: Worker, share: Share, version: str) -> None:
        torch.set_num_threads(max(share.cpus, 1))
        # A GPU that Ray did not give to this worker is not its own.
        device = "cpu" if torch.cuda.is_available() and not share.gpus else "auto"
        self._worker = copy.copy(worker)
        self._worker.network = worker.network.to(pick_device(device))
        self._version = version

    def ready(self) -> None:
        """Replies when the worker has started; ``ValueError`` where this node has another version of the package."""
        if self._version != __version__:
            raise ValueError(
                f"ray: the node {platform.node()} has perturb_tutorial {__version__}, the run {self._version}; "
                "install the same version there"
            )

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
    worker: Worker,
    batches: Iterator[Batch],
    *,
    address: str | None = None,
    cores: int | None = None,
    show: Line | None = None,
) -> Generator[tuple[int, list[dict[str, Any]]], None, None]:
    """Computes batches on Ray's workers.

    Args:
        worker: what computes a batch; each of Ray's workers gets a copy.
        batches: the missing ones.
        address: of a cluster; None is RAY_ADDRESS, or a cluster on this machine.
        cores: CPU cores of a worker where there is no GPU.
        show: called with who is at work, such as "3 workers on 2 nodes, 1 batch again", when it changes.

    Yields:
        Number and records of each batch, in the order in which they finish.

    Raises:
        BenchmarkError: at the end, for batches that always kill their worker; where no worker starts.
        ValueError: for an address without a cluster, and a node without the images or with another version.
    """
    ray = _ray()
    first = next(batches, None)
    if first is None:
        return
    ours = _start(ray, address)
    dispatcher: Dispatcher | None = None
    try:
        shipped = copy.copy(worker)
        shipped.network = worker.network.to("cpu")
        stored = ray.put(shipped)
        remote = ray.remote(RemoteWorker)

        def hire(node: Node, share: Share) -> Any:
            return remote.options(**on_node(node, share)).remote(stored, share, __version__)

        dispatcher = Dispatcher(ray, hire, cores=cores or CORES, say=_warn, show=show or (lambda _: None))
        yield from dispatcher.compute(itertools.chain([first], batches))
    finally:
        if dispatcher is not None:
            dispatcher.close()
        if ours:
            ray.shutdown()


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=2)
