"""Are the masks of the sample photographs the same where sums are rounded differently? data/measured (§6.5, speed).

    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 python studies/rounding.py
    python studies/rounding.py --precision bfloat16

The first command writes rounding.json: the masks of the stored sweeps ``deletion`` and ``preservation`` learned again
with only the processor's instructions changed (those of one without AVX-512), so that sums are computed in another
order. The second writes bfloat16.json: the network's passes with 8 bits instead of 24. Each file has, for each game,
the correlation of the two saliency maps of a photograph, their mean absolute difference, and the differences of the
final scores and of the areas, with paired differences of the games.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import sweeps
import torch
from harness import Study, parser_of, run_study

import perturb_tutorial as pt
from perturb_tutorial.benchmarks.summary import Figures
from perturb_tutorial.settings import PRECISIONS
from perturb_tutorial.study.architectures import correlation

GAMES = ("deletion", "preservation")
INSTRUCTIONS = (
    "ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 python studies/rounding.py"
)
SEED = 0


def apart(first: pt.Masks, second: pt.Masks) -> dict[str, np.ndarray]:
    """The differences between two runs on the same photographs, N values each."""
    return {
        "correlation": np.array(
            [correlation(a, b) for a, b in zip(first.saliency, second.saliency, strict=True)]
        ),
        "saliency": (first.saliency - second.saliency).abs().mean((1, 2, 3)).numpy().astype(float),
        "score": (first.score_masked - second.score_masked).abs().numpy().astype(float),
        "area": (first.area - second.area).abs().numpy().astype(float),
    }


def summed_up(found: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """Means over the photographs with intervals, the games' paired differences, and each photograph's correlation."""
    count = len(next(iter(found.values()))["correlation"])
    result = Figures(SEED)
    for name in next(iter(found.values())):
        result.add_means(name, {game: values[name] for game, values in found.items()}, np.arange(count))
    return {
        "data": {"name": "samples", "images": count},
        **result.to_dict(),
        "correlations": {
            game: [round(value, 4) for value in values["correlation"].tolist()]
            for game, values in found.items()
        },
    }


def rounding(options: argparse.Namespace) -> Study:
    """The study of the module's docstring."""
    described = sweeps.all_sweeps()
    network = pt.load_network("efficientnet_lite0", device="cpu")
    found = {}
    for game in GAMES:
        stored = pt.Masks.load(sweeps.FOLDER / f"{game}.pt")
        sweep = described[game]
        assert isinstance(sweep, sweeps.Sweep)
        images, targets = sweep.inputs(network)
        again = pt.learn_masks(
            network, images, targets, sweep.settings, seed=sweep.seed, precision=options.precision
        )
        if torch.equal(again.grid, stored.grid):
            raise ValueError(
                f"expected instructions other than those of the stored masks; run: {INSTRUCTIONS}"
            )
        found[game] = apart(again, stored)
    if options.precision == "float32":
        name, command = "rounding", INSTRUCTIONS
        changed = f"{torch.backends.cpu.get_cpu_capability()} instructions"
    else:
        name, command = options.precision, f"python studies/rounding.py --precision {options.precision}"
        changed = f"{options.precision} on a CPU"
    note = f"EfficientNet-Lite0; {changed} against the stored masks; photographs resampled"
    return Study(name, command, note, summed_up(found))


def main(argv: list[str] | None = None) -> int:
    parser = parser_of("The masks of two sweeps once more, rounded differently.")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the network's passes")
    return run_study(parser, rounding, argv)


if __name__ == "__main__":
    sys.exit(main())
