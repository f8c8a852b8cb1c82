"""What a benchmark will take, before it is begun: questions, time and disc, from a short measurement here.

Each method is timed on the first questions, as the run itself would compute them. A mask is learned for two small
numbers of iterations, T₁ < T₂; the rest follows from the time of one iteration,

    t(T) = t(T₁) + (T − T₁) · (t(T₂) − t(T₁)) / (T₂ − T₁).

The records of that measurement are written to a temporary folder, whose size says what all of them need.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perturb_tutorial._outside import printable_errors
from perturb_tutorial._words import counted
from perturb_tutorial.benchmarks.base import COMMON, Benchmark
from perturb_tutorial.benchmarks.data import BenchmarkData
from perturb_tutorial.benchmarks.plan import Batch, Plan, Question
from perturb_tutorial.benchmarks.registry import find_benchmark
from perturb_tutorial.benchmarks.run import plan_benchmark
from perturb_tutorial.benchmarks.settings import BenchmarkSettings
from perturb_tutorial.benchmarks.store import Store
from perturb_tutorial.benchmarks.worker import Worker
from perturb_tutorial.networks import Network

if TYPE_CHECKING:
    from collections.abc import Sequence

AT_ONCE = 4
"""Questions that are timed; a run's larger batches are as fast or faster."""
ITERATIONS = (5, 15)
"""T₁ and T₂ of the masks that are timed."""


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        images: their number.
        questions: (image, class), each asked of every method.
        records: in all steps of the benchmark.
        seconds: of one record, by method.
        total: seconds of all records on this machine, one after the other.
        disc: bytes of all records.
        at_most: whether a first step may leave fewer questions to the second.
    """

    images: int
    questions: int
    records: int
    seconds: dict[str, float]
    total: float
    disc: int
    at_most: bool

    def lines(self) -> list[str]:
        """The estimate in words, a line for each part."""
        most = "at most " if self.at_most else ""
        rows = [f"{method}: {seconds:.2g} s a record" for method, seconds in self.seconds.items()]
        return [
            f"{counted(self.questions, 'question')} about {counted(self.images, 'image')}, "
            f"{most}{counted(self.records, 'record')}",
            *rows,
            f"expected time on this machine: {most}{duration(self.total)}; disc: {most}{size(self.disc)}",
        ]


def duration(seconds: float) -> str:
    """Seconds as people say them: ``40 s``, ``12 min``, ``3.5 h``, ``2.1 days``.

    Examples:
        >>> [duration(value) for value in (0.2, 40, 700, 12600, 180000)]
        ['1 s', '40 s', '12 min', '3.5 h', '2.1 days']
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    for most, unit, name in ((5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < most:
            return f"{seconds / unit:.0f} {name}" if name == "min" else f"{seconds / unit:.1f} {name}"
    return f"{seconds / 86_400:.1f} days"


def size(number: float) -> str:
    """Bytes as people say them.

    Examples:
        >>> [size(value) for value in (800, 52_000, 3_400_000)]
        ['1 kB', '52 kB', '3.4 MB']
    """
    if number < 1e6:
        return f"{max(1, round(number / 1e3))} kB"
    return f"{number / 1e6:.1f} MB" if number < 1e9 else f"{number / 1e9:.1f} GB"


@printable_errors
def estimate(
    name: str, data: BenchmarkData, network: Network, settings: BenchmarkSettings | None = None
) -> Estimate:
    """What :func:`~perturb_tutorial.benchmarks.run_benchmark` would take with the same arguments; nothing is kept.

    Raises:
        ValueError: for settings or data of the wrong form, and where none of the first images can be read.
        ImportError: for a missing extra.
    """
    settings = settings or BenchmarkSettings()
    benchmark, plan = find_benchmark(name), plan_benchmark(name, data, settings)
    first = benchmark.first_step()
    steps = [benchmark] if first is None else [first, benchmark]
    seconds: dict[str, float] = {}
    records, total, disc = 0, 0.0, 0.0
    for step in steps:
        planned = Plan(plan.questions, step.chosen_methods(settings), settings.batch_size)
        for method in planned.methods:
            taken, room = _measured(step, plan.questions, network, settings, method)
            seconds[method] = max(taken, seconds.get(method, 0.0))
            total += taken * len(plan.questions)
            disc += room * len(planned) / len(planned.methods)
        records += planned.records
    images = len({str(question.image.id) for question in plan.questions})
    return Estimate(images, len(plan.questions), records, seconds, total, round(disc), first is not None)


def _measured(
    benchmark: Benchmark,
    questions: Sequence[Question],
    network: Network,
    settings: BenchmarkSettings,
    method: str,
) -> tuple[float, float]:
    """Seconds of a record and bytes of a batch of them."""
    some = tuple(questions[: min(AT_ONCE, settings.batch_size)])
    iterations = settings.mask.iterations
    short, longer = (min(count, iterations) for count in ITERATIONS)
    taken, rows = _timed(benchmark, some, network, settings, method, short)
    if method == "mask" and longer > short:
        more, rows = _timed(benchmark, some, network, settings, method, longer)
        taken += max(0.0, more - taken) * (iterations - short) / (longer - short)
    good = sum(row["problem"] is None for row in rows)
    if not good:
        raise ValueError(
            f"data: none of the first {counted(len(some), 'image')} can be used: {rows[0]['problem']}"
        )
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), {"image_id": "string", **COMMON, **benchmark.columns})
        store.append(0, [{**row, "image_id": str(row["image_id"])} for row in rows])
        room = sum(path.stat().st_size for path in Path(folder).iterdir())
    return taken / good, room


def _timed(
    benchmark: Benchmark,
    questions: tuple[Question, ...],
    network: Network,
    settings: BenchmarkSettings,
    method: str,
    iterations: int,
) -> tuple[float, list[dict[str, object]]]:
    """Seconds for ``questions``, without what is done once, and their records."""
    mask = settings.mask.replace(iterations=iterations)
    worker = Worker(benchmark, network, dataclasses.replace(settings, mask=mask))
    worker.measure(Batch(0, questions[:1], method))  # what is prepared once
    began = time.perf_counter()
    rows = worker.measure(Batch(0, questions, method))
    return time.perf_counter() - began, rows
