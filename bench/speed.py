"""Speed of the mask optimizer against the network's arithmetic and against its peers.

Every figure is a ratio of two things that were measured in turn in the same run: the median over rounds of the
ratio within a round. An iteration is timed inside a real run of a few iterations; the cost of a whole mask is
extrapolated: 300 iterations plus what is done once (800 for TorchRay's extremal perturbation, its default).
The disc search is on neither side of a comparison with others; its cost is a figure of its own.

Run: python bench/speed.py [--device D] [--rounds N] [--threads N] [--quick]
Writes bench/results/<device>_<machine>.json. Eleven minutes on two cores; --quick: three, without the long batches.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from costs import gflops, gradient_of, machine_limits, openvino_shares, torch_shares
from data_set import paper_data_set
from memory import peak_megabytes
from peers import Clock, eager_loop, extremal_perturbation, occlusion_window, ours, synchronize
from torch import Tensor

import perturb_tutorial as pt
from perturb_tutorial.files import whole_file
from perturb_tutorial.perturbations import fully_perturbed

RESULTS = Path(__file__).parent / "results"
MASK_ITERATIONS, EXTREMAL_ITERATIONS, OCCLUSION_WINDOWS = 300, 800, 625
BATCH = {"cpu": 8, "cuda": 64}
ITERATIONS = 7  # of a timed run; the first of them is not counted
HALF = pt.MaskSettings(initialization="half", iterations=ITERATIONS)
PACKAGES = ("torch", "openvino", "onnx", "torchray", "captum", "numpy")


class Bench:
    """A network, photographs, and how to time them."""

    def __init__(self, device: str, rounds: int) -> None:
        self.network = pt.load_network(device=device)
        self.rounds = rounds
        samples = pt.load_samples(self.network.input_size)
        self.pictures = samples.images.to(self.network.device)
        self.targets = [0 if target is None else target for target in samples.targets]
        self.engines = ["torch"]
        if self.network.device.type == "cpu" and find_spec("openvino") and find_spec("onnxscript"):
            self.engines.append("onnx")

    def images(self, count: int) -> tuple[Tensor, list[int]]:
        """``count`` photographs and their classes; the samples are repeated."""
        rows = [row % len(self.pictures) for row in range(count)]
        return self.pictures[rows], [self.targets[row] for row in rows]

    def learn(
        self,
        count: int,
        settings: pt.MaskSettings = HALF,
        engine: str = "torch",
        precision: str = "float32",
    ) -> Clock:
        return ours(self.network, *self.images(count), settings, engine=engine, precision=precision)

    def repeated(self, work: Callable[[], object]) -> float:
        """Seconds of one call: the median of as many calls as a timed run has iterations."""
        times = []
        for _ in range(ITERATIONS):
            synchronize(self.network.device)
            start = time.perf_counter()
            work()
            synchronize(self.network.device)
            times.append(time.perf_counter() - start)
        return statistics.median(times[1:])


def warm_up(bench: Bench) -> float | None:
    """Runs everything once; the seconds that writing and compiling the exported graph took, None without one."""
    bench.learn(1)
    if "onnx" not in bench.engines:
        return None
    start = time.perf_counter()
    bench.learn(2, engine="onnx")
    return time.perf_counter() - start


def iterations(bench: Bench, batch: int) -> dict[str, list[float]]:
    """Seconds of an iteration and of a whole mask for one image, by implementation, in every round."""
    network = bench.network
    normalized = network.normalize(bench.pictures[:batch].repeat(-(-batch // len(bench.pictures)), 1, 1, 1))
    normalized = normalized[:batch]
    plain, one, target = network.module, normalized[:1].contiguous(), bench.targets[0]
    times: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        times.setdefault(name, []).append(value)

    for _ in range(bench.rounds):
        note("network", bench.repeated(gradient_of(network, normalized)) / batch)
        for engine in bench.engines:
            clock = bench.learn(batch, engine=engine)
            note(engine, clock.iteration / batch)
            note(f"{engine}_mask", (MASK_ITERATIONS * clock.iteration + clock.around) / batch)
        clock = eager_loop(plain, one, target, ITERATIONS, HALF)
        note("eager", clock.iteration)
        note("eager_mask", MASK_ITERATIONS * clock.iteration + clock.around)
        clock = extremal_perturbation(plain, one, target, ITERATIONS)
        note("extremal", clock.iteration)
        note("extremal_mask", EXTREMAL_ITERATIONS * clock.iteration + clock.around)
        note("occlusion_map", OCCLUSION_WINDOWS * occlusion_window(network, bench.pictures[:1], target))
    return times


def median_ratio(times: Mapping[str, list[float]], above: str, below: str) -> float:
    return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))


def ratios(times: Mapping[str, list[float]], engines: list[str]) -> dict[str, float]:
    """The ratios that are reported: medians over the rounds."""
    found = {"torch_over_network": median_ratio(times, "torch", "network")}
    for engine in engines:
        for peer in ("eager", "extremal"):
            found[f"{peer}_over_{engine}"] = median_ratio(times, f"{peer}_mask", f"{engine}_mask")
            found[f"{peer}_over_{engine}_iteration"] = median_ratio(times, peer, engine)
        found[f"occlusion_over_{engine}"] = median_ratio(times, "occlusion_map", f"{engine}_mask")
    if "onnx" in engines:
        found["torch_over_onnx"] = median_ratio(times, "torch_mask", "onnx_mask")
    return found


def growth(bench: Bench, runs: Mapping[str, Callable[[], float]], base: str) -> dict[str, float]:
    """The medians of each run's time divided by that of ``base`` in the same round."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(max(3, bench.rounds // 2)):
        for name, run in runs.items():
            times[name].append(run())
    return {name: median_ratio(times, name, base) for name in runs}


def by_batch(bench: Bench, engine: str, batches: tuple[int, ...]) -> dict[str, float]:
    """Time an image of an iteration against that of a batch of one."""
    runs = {str(n): lambda n=n: bench.learn(n, engine=engine).iteration / n for n in batches}
    return growth(bench, runs, "1")


def by_grid(bench: Bench, cells: tuple[int, ...]) -> dict[str, float]:
    """Time of an iteration against that of the grid of 28×28, PyTorch, batch of 4."""
    runs = {str(n): lambda n=n: bench.learn(4, HALF.replace(mask_scale=224 / n)).iteration for n in cells}
    return growth(bench, runs, "28")


def by_iterations(bench: Bench, engine: str) -> float:
    """The last third of 60 iterations against the first third: 1 where the cost is linear in their number."""
    ticks = bench.learn(2, HALF.replace(iterations=60), engine).ticks
    return (ticks[-1] - ticks[-20]) / (ticks[19] - ticks[0])


def by_count(bench: Bench, engine: str, counts: tuple[int, ...]) -> dict[str, float]:
    """Time an image of 20 iterations against that of 16 images, run before and after each, in usual batches."""
    settings = HALF.replace(iterations=20)

    def run(count: int) -> float:
        images, targets = bench.images(count)
        start = time.perf_counter()
        pt.learn_masks(bench.network, images, targets, settings, engine=engine)
        return (time.perf_counter() - start) / count

    run(16)
    before, found = run(16), {"16": 1.0}
    for count in counts:
        middle, after = run(count), run(16)
        found[str(count)] = middle / ((before + after) / 2)
        before = after
    return found


def disc_search(bench: Bench, batch: int) -> float:
    """The cost of the disc search for one image, in iterations of PyTorch at the same batch size."""
    costs = []
    for _ in range(max(3, bench.rounds // 2)):
        clock = bench.learn(batch)
        with_disc, without = (
            bench.learn(batch, pt.MaskSettings(iterations=0, initialization=name))
            for name in ("disc", "half")
        )
        costs.append(((with_disc.end - with_disc.start) - (without.end - without.start)) / clock.iteration)
    return statistics.median(costs)


def shares(bench: Bench, batch: int) -> dict[str, dict[str, float]]:
    """Where the time goes: the eager loop, PyTorch's engine, OpenVINO's."""
    network, settings = bench.network, HALF
    normalized = network.normalize(bench.pictures)
    found = {
        "eager": torch_shares(lambda: eager_loop(network.module, normalized[:1], 0, 2, settings)),
        "torch": torch_shares(lambda: bench.learn(batch, settings.replace(iterations=2))),
    }
    if "onnx" in bench.engines:
        from perturb_tutorial.engines.graph_files import joint_bytes

        image = bench.pictures[:1]
        inputs = {
            "mask": torch.full((1, 1, settings.grid_size, settings.grid_size), 0.5),
            "image": image,
            "background": fully_perturbed(image, "blur", color=network.mean_color),
            "weights": torch.eye(network.class_count)[:1],
        }
        found["onnx"] = openvino_shares(joint_bytes(network, settings), inputs)
    return found


def machine(device: torch.device) -> dict[str, Any]:
    on_gpu = device.type == "cuda"
    cpu = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpu.read_text(encoding="utf-8")) if cpu.is_file() else []
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "perturb_tutorial": pt.__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def measure(bench: Bench, quick: bool) -> dict[str, Any]:
    device = bench.network.device
    on_cpu = device.type == "cpu"
    batch = BATCH.get(device.type, 8)
    best = bench.engines[-1]
    result: dict[str, Any] = {"machine": machine(device), "versions": versions()}
    result |= {
        "network": bench.network.name,
        "batch": batch,
        "rounds": bench.rounds,
        "engines": bench.engines,
    }
    result["graph_seconds"] = warm_up(bench)
    say("iterations")
    times = iterations(bench, batch)
    result["seconds"] = {name: statistics.median(values) for name, values in times.items()}
    result["ratios"] = ratios(times, bench.engines)
    say("growth")
    batches = (1, 2, 4, 8, 16) if on_cpu else (1, 8, 64, 128, 256)
    result["by_batch"] = {engine: by_batch(bench, engine, batches) for engine in bench.engines}
    result["by_grid"] = by_grid(bench, (7, 14, 28, 56, 112))
    result["by_iterations"] = {engine: by_iterations(bench, engine) for engine in bench.engines}
    result["disc_search_iterations"] = disc_search(bench, batch)
    say("profiles")
    result["gflops"] = gflops(bench.network)
    result["limits"] = machine_limits() if on_cpu else None
    result["shares"] = shares(bench, batch)
    if not quick:
        say("the paper's masks")
        count = 8 if on_cpu else 1024
        result["paper"] = [paper_data_set(device, count, engine=engine) for engine in bench.engines]
        if on_cpu:
            say("many images")
            result["by_count"] = {"engine": best, **by_count(bench, best, (64, 256))}
            say("memory")
            peaks = {str(n): peak_megabytes(n, best, torch.get_num_threads()) for n in (16, 64)}
            result["peak_megabytes"] = {"engine": best, **peaks}
    result["load_after"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return result


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


def main() -> None:
    """Measures, prints the ratios, writes the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="without the long batches and the memory")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    bench = Bench(options.device, options.rounds)
    if bench.network.device.type != "cuda":
        say("no CUDA device: the GPU figures stay missing")
    result = measure(bench, options.quick)
    kind = re.sub(r"\W+", "-", f"{bench.network.device.type}_{result['machine']['device']}".lower())
    path = options.output or RESULTS / f"{kind}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write((json.dumps(result, indent=2) + "\n").encode())
    for name, value in result["ratios"].items():
        print(f"{name:32} {value:.2f}")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
