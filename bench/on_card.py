"""A network on a GPU and how to time it: recorded work, compilation in advance, and the peak of the memory."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial

import torch
from costs import gradient_of
from peers import Clock, ours
from torch import Tensor

import perturb_tutorial as pt
from perturb_tutorial.engines.compiled import compiled_logits
from perturb_tutorial.engines.recording import recorded
from perturb_tutorial.networks.arithmetic import arithmetic

ITERATIONS = 40  # of a timed run: enough to be recorded, the median is of replays


class OnGpu:
    """A network, photographs, and how to time them."""

    def __init__(self, device: str = "cuda", network: pt.Network | None = None) -> None:
        self.network = network or pt.load_network(device=device)
        samples = pt.load_samples(self.network.input_size)
        self.pictures, self.targets = samples.images, [target or 0 for target in samples.targets]

    def images(self, count: int) -> tuple[Tensor, list[int]]:
        """``count`` photographs and their classes; the samples are repeated."""
        rows = [row % len(self.pictures) for row in range(count)]
        return self.pictures[rows], [self.targets[row] for row in rows]

    def learn(self, batch: int, iterations: int | None = None, **options: object) -> Clock:
        settings = pt.MaskSettings(initialization="half", iterations=iterations or ITERATIONS)
        return ours(self.network, *self.images(batch), settings, **options)

    def pass_seconds(self, batch: int, precision: str, engine: str = "torch", rounds: int = 15) -> float:
        """Seconds of the network's forward pass and input gradient, recorded and replayed.

        Args:
            batch: images in a pass.
            precision: one of ``PRECISIONS``.
            engine: "torch" or "compile".
            rounds: the result is the median of that many.
        """
        network, device = self.network, self.network.device
        images = self.images(batch)[0].to(device)
        compiled = partial(compiled_logits, network) if engine == "compile" else None
        work = gradient_of(network, network.normalize(images), compiled)
        autocast = (
            torch.autocast(device.type, dtype=torch.bfloat16)
            if precision == "bfloat16"
            else contextlib.nullcontext()
        )
        with arithmetic(device, precision), autocast:
            return median_seconds(recorded(work, device), device, rounds)


def median_seconds(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    times = []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def cuda_peak(device: torch.device) -> float:
    """Bytes at the peak since the last call."""
    if device.type != "cuda":
        return 1.0
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return float(peak)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def compile_ahead(jobs: Iterable[tuple[str, str]]) -> list[subprocess.Popen[bytes]]:
    """Compiles in separate processes, in parallel, into the compiler's cache on the disk."""
    code = (
        "import sys, torch; sys.path[:0] = ['bench']; import perturb_tutorial as pt\n"
        "name, precision = sys.argv[1:]\n"
        "network = pt.load_network(name) if name.startswith('eff') else pt.seeded_network(name, device='auto')\n"
        "images = torch.rand(256, 3, network.input_size, network.input_size)\n"
        "settings = pt.MaskSettings(iterations=2, initialization='half')\n"
        "pt.learn_masks(network, images, 0, settings, engine='compile', precision=precision, batch_size=256)\n"
    )
    return [subprocess.Popen([sys.executable, "-c", code, *job]) for job in jobs]
