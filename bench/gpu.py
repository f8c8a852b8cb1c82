"""What only a GPU is asked: precisions and batches against each other, the largest batch, and what lies past it."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from costs import gradient_of
from peers import eager_loop

import perturb_tutorial as pt

if TYPE_CHECKING:
    from speed import Bench

BATCHES = (64, 256, 1024)
MASK_ITERATIONS = 300


def by_precision(
    bench: Bench, settings: pt.MaskSettings, batches: Iterable[int] = BATCHES
) -> dict[str, dict[str, dict[str, float]]]:
    """Precision → batch → seconds an image of an iteration (``seconds``), that by the network's own two passes
    (``over_network``), and images an hour by those of the eager single-image loop (``over_eager``).

    The network's passes have the iteration's precision and batch, the eager loop is float32: medians of rounds.
    """
    network = bench.network
    one, target = network.normalize(bench.pictures[:1]), bench.targets[0]
    found: dict[str, dict[str, dict[str, float]]] = {precision: {} for precision in ("float32", "bfloat16")}
    for batch in batches:
        images, _ = bench.images(batch)
        passes = gradient_of(network, network.normalize(images))
        rows: dict[str, list[tuple[float, float, float]]] = {precision: [] for precision in found}
        for _ in range(bench.rounds):
            eager = eager_loop(network.module, one, target, settings.iterations, settings)
            eager_mask = MASK_ITERATIONS * eager.iteration + eager.around
            for precision, measured in rows.items():
                with _autocast(network.device, precision):
                    alone = bench.repeated(passes) / batch
                clock = bench.learn(batch, settings, precision=precision)
                mask = (MASK_ITERATIONS * clock.iteration + clock.around) / batch
                measured.append((clock.iteration / batch, clock.iteration / batch / alone, eager_mask / mask))
        for precision, measured in rows.items():
            names = ("seconds", "over_network", "over_eager")
            values = map(statistics.median, zip(*measured, strict=True))
            found[precision][str(batch)] = dict(zip(names, values, strict=True))
    return found


def _autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def largest_batch(bench: Bench, settings: pt.MaskSettings, start: int = 64, limit: int = 8192) -> int:
    """The largest of ``start``, 2 · ``start``, … up to ``limit`` that the memory holds at once."""
    size = start
    settings = settings.replace(iterations=2)
    # A batch that does not fit is halved and learned in parts, which report more often than a whole one.
    while size < limit and len(bench.learn(2 * size, settings).ticks) == settings.iterations:
        size *= 2
    return size


def past_the_largest(
    bench: Bench, settings: pt.MaskSettings, size: int, peak: Callable[[], float]
) -> dict[str, dict[str, float]]:
    """Time an image and peak memory of 1, 2 and 4 times ``size`` images, as parts of what ``size`` take.

    20 iterations; the images and the masks lie in the CPU's memory. ``peak``: the device's peak since its last call.
    """
    settings = settings.replace(iterations=20)
    times, peaks = {}, {}
    for count in (size, size, 2 * size, 4 * size):  # the first one warms up
        images, targets = bench.images(count)
        images = images.cpu()
        peak()
        start = time.perf_counter()
        pt.learn_masks(bench.network, images, targets, settings, batch_size=size)
        times[str(count)] = (time.perf_counter() - start) / count
        peaks[str(count)] = peak()
    whole = str(size)
    return {
        "time": {count: value / times[whole] for count, value in times.items()},
        "memory": {count: value / peaks[whole] for count, value in peaks.items()},
    }


def cuda_peak(device: torch.device) -> float:
    """Bytes at the peak since the last call."""
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return float(peak)


def measure_gpu(bench: Bench, settings: pt.MaskSettings) -> dict[str, Any]:
    """Everything in this module."""
    size = largest_batch(bench, settings)
    return {
        "by_precision": by_precision(bench, settings),
        "largest_batch": size,
        "past_the_largest": past_the_largest(bench, settings, size, lambda: cuda_peak(bench.network.device)),
        "memory_gbytes": torch.cuda.get_device_properties(bench.network.device).total_memory / 1e9,
    }
