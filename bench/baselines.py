"""Speed of the comparison methods as ratios, each pair measured in turn in one run: medians of rounds.

    occlusion_over_forward    occlusion of one image / its 784 forward passes, same batch and form of network (≤ 1.1)
    occlusion_over_captum     seconds a window, ours / Captum's at its best perturbations_per_eval (≤ 1)
    excitation_over_gradient  excitation backprop of 8 images / a forward and backward pass of them (≤ 4)

Run: python bench/baselines.py [--network NAME] [--device D] [--rounds N] [--threads N]
Writes bench/results/baselines.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

import perturb_tutorial as pt
from perturb_tutorial import baselines
from perturb_tutorial.baselines.occluders import OCCLUSIONS_AT_ONCE, POSITIONS

WINDOWS = POSITIONS**2
RESULTS = Path(__file__).parent / "results" / "baselines.json"


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock time of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turn(
    works: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each piece of work in every round, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for index in range(rounds + 1):
        for name, work in works.items():
            spent = seconds(work, device)
            if index:
                times[name].append(spent)
    return times


def ratio(times: dict[str, list[float]], above: str, below: str) -> float:
    """The median over the rounds of one time divided by the other in the same round."""
    return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))


def occlusion_times(network: pt.Network, rounds: int) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Times of occlusion, of its forward passes alone, and of Captum's at its best number of windows at once (which is
    determined first); and the batch sizes.
    """
    from captum.attr import Occlusion

    image = torch.rand(1, 3, network.input_size, network.input_size, device=network.device)
    batch = OCCLUSIONS_AT_ONCE[network.device.type]
    occluded = image.repeat(batch, 1, 1, 1)
    captum = Occlusion(network.logits)
    baseline = network.mean_color.to(image).view(1, 3, 1, 1).expand_as(image)
    captum_windows = (-(-(network.input_size - 35) // 8) + 1) ** 2

    def forward() -> None:
        with torch.inference_mode():
            for _ in range(WINDOWS // batch):
                network.logits(occluded)

    def captums(at_once: int) -> object:
        with torch.inference_mode():
            return captum.attribute(
                image, (3, 35, 35), (3, 8, 8), baseline, target=0, perturbations_per_eval=at_once
            )

    choices = (1, 2, 4, 8, 16, 32) if network.device.type == "cpu" else (32, 64, 128, 256, 625)
    best = min(choices, key=lambda at_once: seconds(lambda: captums(at_once), network.device))
    works = {
        "occlusion": lambda: baselines.occlusion(network, image, 0),
        "forward": forward,
        "captum": lambda: captums(best),
    }
    sizes = {"batch": batch, "captum_perturbations_per_eval": best, "captum_windows": captum_windows}
    return in_turn(works, rounds, network.device), sizes


def excitation_times(network: pt.Network, rounds: int) -> dict[str, list[float]]:
    """Both kinds of excitation backprop and the gradient, one forward and backward pass, of 8 images."""
    images = torch.rand(8, 3, network.input_size, network.input_size, device=network.device)
    names = ("excitation_backprop", "contrastive_excitation_backprop", "gradient")
    works = {name: partial(getattr(baselines, name), network, images, 0) for name in names}
    return in_turn(works, rounds, network.device)


def main() -> None:
    """Measures, prints the ratios, writes the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="efficientnet_lite0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = pt.load_network(options.network, device=options.device)

    occlusion, sizes = occlusion_times(network, options.rounds)
    excitation = excitation_times(network, 2 * options.rounds)
    windows = sizes["captum_windows"] / WINDOWS
    ratios = {
        "occlusion_over_forward": ratio(occlusion, "occlusion", "forward"),
        "occlusion_over_captum": ratio(occlusion, "occlusion", "captum") * windows,
        "excitation_over_gradient": ratio(excitation, "excitation_backprop", "gradient"),
        "contrastive_over_gradient": ratio(excitation, "contrastive_excitation_backprop", "gradient"),
    }
    on_gpu = network.device.type == "cuda"
    result = {
        "machine": {
            "device": torch.cuda.get_device_name(network.device) if on_gpu else platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "versions": {name: version(name) for name in ("torch", "captum")}
        | {"python": platform.python_version()},
        "network": options.network,
        "rounds": options.rounds,
        "sizes": sizes,
        "seconds": {name: statistics.median(times) for name, times in (occlusion | excitation).items()},
        "ratios": ratios,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    part = options.output.with_suffix(".part")
    part.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    os.replace(part, options.output)
    for name, value in ratios.items():
        print(f"{name:28} {value:.2f}")


if __name__ == "__main__":
    main()
