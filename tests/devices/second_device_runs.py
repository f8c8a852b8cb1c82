"""Everything that takes a network, on the second device and on the CPU: ``python second_device_runs.py``.

Prints one JSON object: for each run what went wrong, "" where both devices agree.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from second_device import NAME, WAITS, SecondDevice, tf32
from torch import Tensor

import perturb_tutorial as pt
from perturb_tutorial.baselines import METHODS
from perturb_tutorial.study import failures, games

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "benchmarks")]
from benchmark_cases import color_network, records_of, tiny_network, write_coco, write_colors
from small_inputs import FailsOnBlack, tiny_module

RUNS: dict[str, Callable[[pt.Network, Tensor], object]] = {}
"""A network and images → tensors, arrays or numbers that have to be the same wherever the network lies."""
SETTINGS = pt.MaskSettings(iterations=6, mask_scale=28)
"""A grid of 8×8 cells."""


def run(name: str) -> Callable[[Callable[[pt.Network, Tensor], object]], None]:
    return lambda function: RUNS.update({name: function})


def learned(masks: pt.Masks) -> list[Tensor]:
    assert masks.grid.device.type == "cpu"
    return [
        masks.grid,
        masks.score_original,
        masks.score_perturbed,
        masks.score_masked,
        masks.converged,
        masks.radius,
        masks.history.score,
        masks.history.area,
        masks.history.tv,
    ]


for game, perturbation, start in (
    ("deletion", "blur", "disc"),
    ("preservation", "blur", "disc"),
    ("deletion", "noise", "random"),
    ("preservation", "constant", "half"),
):
    changes = {"game": game, "perturbation": perturbation, "initialization": start}
    RUNS[f"masks, {game}, {perturbation}, {start}"] = lambda network, images, changes=changes: learned(
        pt.learn_masks(network, images, [0, {1, 2}, 3], SETTINGS.replace(**changes))
    )


@run("masks, in batches")
def _(network: pt.Network, images: Tensor) -> object:
    return learned(pt.learn_masks(network, images, 1, SETTINGS, batch_size=2))


@run("masks of images that lie there already")
def _(network: pt.Network, images: Tensor) -> object:
    masks = pt.learn_masks(network, images.to(network.device), 1, SETTINGS)
    assert masks.grid.device.type == network.device.type
    return [*learned(masks.to("cpu")), masks.saliency.cpu(), masks.area.cpu()]


@run("an image that is not finite")
def _(network: pt.Network, images: Tensor) -> object:
    broken = images.clamp(0.1, 1)
    broken[1] = 0
    fails = pt.Network(FailsOnBlack(network.module), input_size=network.input_size, device=network.device)
    return learned(pt.learn_masks(fails, broken, 1, SETTINGS.replace(initialization="half")))


@run("bfloat16")
def _(network: pt.Network, images: Tensor) -> object:
    masks = pt.learn_masks(network, images, 1, SETTINGS, precision="bfloat16")
    return len(masks)  # which operations are rounded is each device's own matter; the second rounds none


@run("nothing in the loop waits")
def _(network: pt.Network, images: Tensor) -> object:
    waits = []
    for iterations in (4, 12):
        WAITS.clear()
        pt.learn_masks(network, images, 1, SETTINGS.replace(iterations=iterations))
        waits.append(dict(WAITS))
    assert waits[0] == waits[1], waits
    return None


@run("masks on a layer")
def _(network: pt.Network, images: Tensor) -> object:
    return learned(pt.learn_activation_masks(network, images, 1, "2"))


for method in METHODS:
    RUNS[f"saliency, {method}"] = lambda network, images, method=method: pt.saliency(
        network, images, [0, {1, 2}, 3], method, settings=SETTINGS
    )


@run("scores and classes")
def _(network: pt.Network, images: Tensor) -> object:
    return [
        network.scores(images).cpu(),
        network.unfolded_logits(images).cpu(),
        pt.top_classes(network, images, 3),
    ]


@run("disc scores")
def _(network: pt.Network, images: Tensor) -> object:
    return pt.initialization.disc_scores(network, images, 1, SETTINGS)[0]


@run("both games measured")
def _(network: pt.Network, images: Tensor) -> object:
    played = {}
    for game in ("deletion", "preservation"):
        masks = pt.learn_masks(network, images, 1, SETTINGS.replace(game=game))
        played[game] = games.measure_game(network, images, 1, masks, steps=8)
    compared = games.GameComparison(**played)
    return [value for row in compared.table() for value in row.values() if not isinstance(value, str)]


@run("diagnoses")
def _(network: pt.Network, images: Tensor) -> object:
    masks = pt.learn_masks(network, images, 1, SETTINGS)
    assert masks.to(network.device).saliency.device.type == network.device.type
    return [
        [found.area, found.effect, found.log_odds]
        for found in failures.diagnose(masks.to(network.device), network, images.to(network.device), 1)
    ]


for benchmark in ("pointing-game", "localization", "faithfulness"):

    @run(f"benchmark, {benchmark}")
    def _(network: pt.Network, images: Tensor, benchmark: str = benchmark) -> object:
        settings = pt.benchmarks.BenchmarkSettings(methods=("mask", "grad_cam"), mask=SETTINGS)
        with tempfile.TemporaryDirectory() as folder:
            data = write_coco(Path(folder), 3, [(1, (4, 4, 12, 12)), (3, (60, 40, 12, 12))])
            pt.benchmarks.run_benchmark(benchmark, data, network, Path(folder) / "out", settings)
            return records_of(Path(folder) / "out").select_dtypes("number").to_numpy(float)


@run("benchmark, grid-pointing-game")
def _(network: pt.Network, images: Tensor) -> object:
    settings = pt.benchmarks.BenchmarkSettings(methods=("mask", "gradient"), mask=SETTINGS, mosaics=2)
    with tempfile.TemporaryDirectory() as folder:
        data, network = write_colors(Path(folder)), color_network().to(network.device)
        pt.benchmarks.run_benchmark("grid-pointing-game", data, network, Path(folder) / "out", settings)
        return records_of(Path(folder) / "out").select_dtypes("number").to_numpy(float)


@run("points of variable occlusion")
def _(network: pt.Network, images: Tensor) -> object:
    return pt.baselines.variable_occlusion_points(network, images.to(network.device), 1)


@run("a network with BatchNorms made there")
def _(network: pt.Network, images: Tensor) -> object:
    made = pt.Network(tiny_module(), input_size=32, device=network.device)
    moved = pt.Network(tiny_module(), input_size=32, device="cpu").to(network.device)
    for one in (made, moved):
        assert one.folded is not one.module
        assert one.channels_last == (network.device.type == "cpu")  # on devices that are known to like it
        kernel = one.folded.get_parameter("3.weight")
        assert kernel.is_contiguous(memory_format=torch.channels_last) == one.channels_last
    return [made.scores(images).cpu(), moved.scores(images).cpu()]


@run("BatchNorms are folded although convolutions are rounded")
def _(network: pt.Network, images: Tensor) -> object:
    with tf32():
        made = pt.load_network("efficientnet_lite0", device=network.device)
        place = pt.activations._place(made, "_blocks.4")
    assert made.folded is not made.module
    assert place.folded
    return None


@run("a network loaded there, from the command line")
def _(network: pt.Network, images: Tensor) -> object:
    from click.testing import CliRunner

    from perturb_tutorial.cli import app

    with tempfile.TemporaryDirectory() as folder:
        settings, output = Path(folder) / "settings.json", Path(folder) / "out"
        settings.write_text(json.dumps({"iterations": 0}))  # a step of Adam makes much of how layouts round
        arguments = [
            "explain",
            "--sample",
            "chelsea",
            "--device",
            network.device.type,
            "--settings",
            str(settings),
        ]
        result = CliRunner().invoke(app, [*arguments, "--output", str(output)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return [np.load(path) for path in sorted(output.glob("*.npy"))]


def main(*names: str) -> None:
    """The runs of these names, or all."""
    torch.set_num_threads(1)
    network = tiny_network()
    coarse = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    images = torch.nn.functional.interpolate(coarse, size=32, mode="bicubic").clamp(0, 1)
    wrong = {}
    for name in names or RUNS:
        function = RUNS[name]
        try:
            expected = function(network, images)
            with SecondDevice():
                found = function(network.to(NAME), images)
            compare(found, expected)
        except Exception:
            wrong[name] = traceback.format_exc()
        else:
            wrong[name] = ""
    print(json.dumps(wrong))


def compare(found: object, expected: object) -> None:
    """Raises where the two differ by more than the order of a sum explains."""
    if isinstance(expected, list):
        assert isinstance(found, list)
        for one, other in zip(found, expected, strict=True):
            compare(one, other)
    elif expected is not None:
        np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    main()
