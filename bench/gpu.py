"""Measurements of a GPU, part by part; each part is written as soon as it is finished.

    python bench/gpu.py [--parts agreement,iterations,profile,paper,memory] [--output FILE] [--quick]

agreement   masks of 25 photographs by precision against those of a CPU, which the repository holds
iterations  by engine, precision and batch: an iteration, the network's two passes alone, images an hour against the
            eager single-image loop (float32, PyTorch's defaults) on the same GPU
paper       whole GoogLeNet masks, including the disc search, and the minutes for the paper's 30,989
memory      the largest batch that fits into memory, and time and memory beyond it
profile     where the time of an iteration goes

Passes and iterations are timed as they run: recorded once, then replayed, each with a wait at its end. Figures are
medians. bench/on_gpu.sh runs the tests of the GPU and then all of this.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from costs import gflops
from data_set import paper_data_set
from on_card import OnGpu, compile_ahead, cuda_peak, say
from peers import eager_loop
from torch.profiler import ProfilerActivity, profile

import perturb_tutorial as pt
from perturb_tutorial.files import resource, whole_file
from perturb_tutorial.objectives import objective
from perturb_tutorial.settings import PRECISIONS

BATCHES = (1, 8, 64, 256)
COMPILED_BATCHES = (256,)
MASK_ITERATIONS = 300
PARTS = ("agreement", "iterations", "profile", "paper", "memory")
KINDS = {
    "convolution": ("conv", "gemm", "dgrad", "fprop", "cutlass", "nvjet", "xmma", "winograd"),
    "pooling": ("pool",),
    "copy and fill": ("copy", "cat", "fill", "pad", "index"),
    "elementwise": ("elementwise", "triton", "reduce", "softmax"),
}


def agreement(bench: OnGpu, precisions: Iterable[str] = PRECISIONS) -> dict[str, Any]:
    """Masks against the stored ones of a CPU, by game and precision."""
    found: dict[str, Any] = {}
    for game in ("deletion", "preservation"):
        stored = pt.Masks.load(resource(f"sweeps/{game}.pt"))
        for precision in precisions:
            settings = pt.MaskSettings(game=game)
            masks = pt.learn_masks(
                bench.network, bench.pictures, bench.targets, settings, precision=precision
            )
            pairs = list(zip(masks.saliency, stored.saliency, strict=True))
            alike = [float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) for a, b in pairs]
            alike = [value for value in alike if value == value]  # an empty mask has no correlation
            mine, theirs = (objective(m.grid, m.score_masked, settings) for m in (masks, stored))
            found.setdefault(game, {})[precision] = {
                "agree": sum(masks[row].agrees_with(stored[row]) for row in range(len(masks))),
                "masks": len(masks),
                "mean_correlation": statistics.mean(alike),
                "lowest_correlation": min(alike),
                "objective_minus_cpu": float((mine - theirs).mean()),
                "objectives_apart_at_most": float((mine - theirs).abs().max()),
                "objective_worse_at_most": float((mine - theirs).max()),
                "early_score_apart_at_most": float(
                    (masks.history.score - stored.history.score)[:, :5].abs().max()
                ),
                "early_area_apart_at_most": float(
                    (masks.history.area - stored.history.area)[:, :5].abs().max()
                ),
            }
    return found


def iterations(
    bench: OnGpu,
    batches: Iterable[int] = BATCHES,
    compiled_batches: Iterable[int] = COMPILED_BATCHES,
    rounds: int = 1,
    count: int = 256,
) -> dict[str, Any]:
    """Times iterations against the network's passes alone.

    Args:
        bench: the network and the photographs.
        batches: batch sizes of the engine "torch".
        compiled_batches: batch sizes of the engine "compile".
        rounds: how often each is measured.
        count: images of a whole run.

    Returns one row for each engine, precision and batch size; ``seconds`` are of one image.
    """
    network = bench.network
    one, settings = network.normalize(bench.pictures[:1].to(network.device)), pt.MaskSettings()
    rows = []

    def eager() -> float:
        clock = eager_loop(network.module, one, bench.targets[0], 15, settings)
        return MASK_ITERATIONS * clock.iteration + clock.around

    eager_times = [eager() for _ in range(3)]
    for engine, sizes in (("torch", batches), ("compile", compiled_batches)):
        for precision in PRECISIONS:
            for batch in sizes:
                options = {"engine": engine, "precision": precision}
                measured = []
                for _ in range(rounds):
                    alone = bench.pass_seconds(batch, precision, engine)
                    clock = bench.learn(batch, **options)
                    measured.append((alone, clock.iteration))
                eager_times.append(eager())
                alone, step = (statistics.median(values) for values in zip(*measured, strict=True))
                rows.append(
                    {
                        **options,
                        "batch": batch,
                        "seconds": step / batch,
                        "passes_seconds": alone / batch,
                        "over_passes": step / alone,
                    }
                )
                say(
                    f"{engine} {precision} {batch}: {step / batch * 1e6:.1f} µs, {step / alone:.2f} of passes"
                )
    eager_mask = statistics.median(eager_times)
    for row in rows:
        row["over_eager"] = eager_mask / (MASK_ITERATIONS * row["seconds"])
    return {
        "eager_mask_seconds": eager_mask,
        "rows": rows,
        "whole_masks": whole_masks(bench, eager_mask, count),
    }


def whole_masks(bench: OnGpu, eager_mask: float, count: int) -> list[dict[str, Any]]:
    """Seconds of one of ``count`` whole masks, disc search included, and how many times longer the eager loop takes."""
    images, targets = bench.images(count)
    found = []
    for engine, precisions in (("torch", ("float32",)), ("compile", ("tf32", "bfloat16"))):
        for precision in precisions:
            options: dict[str, Any] = {"engine": engine, "precision": precision}

            def learn(iterations: int, options: dict[str, Any] = options) -> float:
                start = time.perf_counter()
                settings = pt.MaskSettings(iterations=iterations)
                pt.learn_masks(
                    bench.network, images, targets, settings, batch_size=min(count, 256), **options
                )
                return (time.perf_counter() - start) / count

            learn(2)
            spent = learn(MASK_ITERATIONS)
            found.append({**options, "masks": count, "seconds": spent, "over_eager": eager_mask / spent})
            say(f"whole masks {engine} {precision}: {spent * 1e3:.1f} ms, {eager_mask / spent:.0f} × eager")
    return found


def paper(device: torch.device, masks: int = 1024) -> list[dict[str, Any]]:
    found = []
    for engine, precision, count in (
        ("compile", "bfloat16", masks),
        ("torch", "bfloat16", masks // 4),
        ("torch", "float32", masks // 4),
    ):
        row = paper_data_set(device, count, engine=engine, precision=precision, batch_size=min(count, 256))
        row["minutes_of_paper"] = row["hours_of_paper"] * 60
        row["masks_a_second"] = count / row["seconds"]
        say(
            f"paper {engine} {precision}: {row['masks_a_second']:.1f} a second, {row['minutes_of_paper']:.1f} minutes"
        )
        found.append(row)
    return found


def largest_batch(bench: OnGpu, start: int = 256, limit: int = 8192) -> int:
    """The largest of ``start``, 2 · ``start``, … up to ``limit`` that the memory holds at once."""
    size = start
    # A batch that does not fit is halved and learned in parts, which report more often than a whole one.
    while size < limit and len(bench.learn(2 * size, iterations=2).ticks) == 2:
        size *= 2
    return size


def memory(bench: OnGpu, peak: Callable[[], float]) -> dict[str, Any]:
    """The largest batch; time an image and peak memory of 1, 2 and 4 times 256 images against those of 256."""
    device = bench.network.device
    times, peaks = {}, {}
    for count in (256, 256, 512, 1024):  # the first one warms up
        images, targets = bench.images(count)
        peak()
        start = time.perf_counter()
        settings = pt.MaskSettings(initialization="half", iterations=20)
        pt.learn_masks(bench.network, images, targets, settings, batch_size=256)
        times[str(count)] = (time.perf_counter() - start) / count
        peaks[str(count)] = peak()
    found = {
        "gigabytes_of_256": peaks["256"] / 1e9,
        "time": {count: value / times["256"] for count, value in times.items()},
        "memory": {count: value / peaks["256"] for count, value in peaks.items()},
        "largest_batch": largest_batch(bench),
    }
    if device.type == "cuda":
        found["gigabytes_of_the_card"] = torch.cuda.get_device_properties(device).total_memory / 1e9
    return found


def profiles(bench: OnGpu, batches: Iterable[int] = (1, 8, 64)) -> dict[str, Any]:
    """Share of the GPU's time by kind of kernel and the heaviest kernels, of one iteration's operations by batch."""
    found: dict[str, Any] = {}
    device = bench.network.device
    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    for batch in batches:
        bench.learn(batch, iterations=4)
        with profile(activities=[activity]) as profiled:
            clock = bench.learn(batch, iterations=4)
        spent: dict[str, float] = defaultdict(float)
        kernels: dict[str, float] = defaultdict(float)
        launches = 0
        for event in profiled.events():
            seconds = (event.device_time if device.type == "cuda" else event.self_cpu_time_total) / 1e6
            name = event.name.lower()
            kind = next((kind for kind, parts in KINDS.items() if any(p in name for p in parts)), "other")
            spent[kind] += seconds
            kernels[event.name[:100]] += seconds
            launches += 1
        total = sum(spent.values())
        heaviest = sorted(kernels.items(), key=lambda item: -item[1])[:12]
        found[str(batch)] = {
            "shares": {kind: value / total for kind, value in sorted(spent.items(), key=lambda i: -i[1])},
            "kernels": launches / 4,
            "seconds_unrecorded": clock.iteration,
            "heaviest": {name: value / total for name, value in heaviest},
        }
    return found


def main() -> None:
    """Measures, prints, writes the file after each part."""
    from speed import RESULTS, machine, versions

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--masks", type=int, default=1024, help="whole masks of the paper's part")
    parser.add_argument(
        "--tests", type=Path, help="run the tests of the GPU meanwhile, with their output into a file"
    )
    parser.add_argument("--quick", action="store_true", help="a dry run: small batches, few masks")
    options = parser.parse_args()
    parts = options.parts.split(",")
    jobs = []
    if "iterations" in parts:
        jobs += [("efficientnet_lite0", precision) for precision in PRECISIONS]
    if "paper" in parts:
        jobs.append(("googlenet", "bfloat16"))
    ahead = [] if options.quick else compile_ahead(jobs)
    if options.tests:
        pytest = [
            sys.executable,
            "-m",
            "pytest",
            "tests/devices/test_cuda.py",
            "-q",
            "-p",
            "no:cacheprovider",
        ]
        with open(options.tests, "w", encoding="utf-8") as log:
            ahead.append(
                subprocess.Popen([*pytest, "--durations", "8"], stdout=log, stderr=subprocess.STDOUT)
            )
    bench = OnGpu(options.device)
    device = bench.network.device
    about = machine(device)
    path = options.output or RESULTS / f"cuda_{re.sub(r'[^a-z0-9]+', '-', about['device'].lower())}.json"
    result: dict[str, Any] = {"machine": about, "versions": versions(), "network": bench.network.name}
    result["gflops"] = gflops(bench.network)

    def wait() -> None:
        for process in ahead:
            process.wait()

    quick = options.quick
    works: dict[str, Callable[[], Any]] = {
        "agreement": lambda: agreement(bench),
        "iterations": lambda: (
            wait(),
            iterations(bench, (1, 2), (2,), 1, 2) if quick else iterations(bench, count=options.masks // 4),
        )[1],
        "paper": lambda: (wait(), paper(device, 4 if quick else options.masks))[1],
        "memory": lambda: memory(bench, lambda: cuda_peak(device)),
        "profile": lambda: profiles(bench, (1, 2) if quick else (1, 8, 64)),
    }
    for part in parts:
        say(part)
        start = time.perf_counter()
        result[part] = works[part]()
        say(f"{part}: {time.perf_counter() - start:.0f} s")
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write((json.dumps(result, indent=2) + "\n").encode())
    print(f"written: {path}")


if __name__ == "__main__":
    main()
