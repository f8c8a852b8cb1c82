"""Every benchmark by its name."""

from __future__ import annotations

from perturb_tutorial.benchmarks.animal_parts import AnimalParts
from perturb_tutorial.benchmarks.base import Benchmark
from perturb_tutorial.benchmarks.faithfulness import Faithfulness
from perturb_tutorial.benchmarks.grid_pointing import GridPointingGame
from perturb_tutorial.benchmarks.localization import Localization
from perturb_tutorial.benchmarks.pointing import PointingGame

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (PointingGame(), GridPointingGame(), Localization(), AnimalParts(), Faithfulness())
}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark called ``name``; ``ValueError`` lists the known names if it is not among them."""
    if name not in BENCHMARKS:
        raise ValueError(f"benchmark: expected one of {', '.join(BENCHMARKS)}, got {name!r}")
    return BENCHMARKS[name]
