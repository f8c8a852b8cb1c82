"""Runs a benchmark: compares the settings with earlier records, computes the missing batches, writes the summary."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from perturb_tutorial._outside import check_whole, printable_errors
from perturb_tutorial.benchmarks.base import COMMON, Benchmark
from perturb_tutorial.benchmarks.data import BenchmarkData
from perturb_tutorial.benchmarks.mask_engine import with_mask_engine
from perturb_tutorial.benchmarks.plan import Batch, Plan, Question, digest, limited
from perturb_tutorial.benchmarks.registry import find_benchmark
from perturb_tutorial.benchmarks.settings import BenchmarkSettings
from perturb_tutorial.benchmarks.store import (
    RECORDS,
    SETTINGS,
    SUMMARY,
    BenchmarkError,
    Claim,
    Store,
    agree,
    check_own,
    claim,
    parquet,
    plain,
    write_json,
)
from perturb_tutorial.benchmarks.tally import LINES, counts, figures
from perturb_tutorial.benchmarks.worker import Worker
from perturb_tutorial.datasets.records import ImageRecord
from perturb_tutorial.metrics.intervals import LEVEL, RESAMPLES
from perturb_tutorial.networks import Network
from perturb_tutorial.places import Place, as_place
from perturb_tutorial.sealed import marked

if TYPE_CHECKING:
    import pandas as pd

ENGINES = ("local", "ray")
Rows = list[dict[str, Any]]
Compute = Callable[[Worker, Iterator[Batch]], Generator[tuple[int, Rows], None, None]]
"""An engine: from a worker and the missing batches to their numbers and records, in any order."""
Progress = Callable[[int, int], None]
"""Called as (records finished, records planned)."""


@dataclass(frozen=True)
class Outcome:
    """What :func:`run_benchmark` did.

    ``summary``: as in summary.json. ``folder``: of the records. ``computed``: how many of them are new, and
    ``computed_before`` how many of a first step. ``repaired``: a line for each damaged file of records that was done
    again.
    """

    summary: dict[str, Any]
    folder: Place
    computed: int
    computed_before: int = 0
    repaired: tuple[str, ...] = ()


@printable_errors
def plan_benchmark(name: str, data: BenchmarkData, settings: BenchmarkSettings | None = None) -> Plan:
    """The plan of ``run_benchmark``: that of the first step, for a benchmark that has one."""
    settings = settings or BenchmarkSettings()
    benchmark = find_benchmark(name)
    benchmark.chosen_methods(settings)
    first = benchmark.first_step() or benchmark
    all_questions = first.questions(data, settings)
    _check_ids(all_questions)
    questions = limited(all_questions, settings.limit, settings.seed)
    if not questions:
        raise data.refusal("no image with a class that the network knows")
    return Plan(tuple(questions), first.chosen_methods(settings), settings.batch_size)


@printable_errors
def run_benchmark(
    name: str,
    data: BenchmarkData,
    network: Network,
    output: str | Place,
    settings: BenchmarkSettings | None = None,
    *,
    engine: str = "local",
    ray_address: str | None = None,
    cores_per_worker: int | None = None,
    progress: Progress | None = None,
    show_workers: Callable[[str], None] | None = None,
) -> Outcome:
    """Runs a benchmark and writes its records and summary.json; what an earlier run has finished there is kept.

    Args:
        name: the benchmark's name, such as "pointing-game".
        data: what :func:`~perturb_tutorial.benchmarks.read_data` gives.
        network: the network that is explained.
        output: the folder of records and summary; also a URL, ``file:///…`` or ``s3://bucket/…``.
        settings: None is :class:`BenchmarkSettings` with its defaults.
        engine: "local" computes in this process, "ray" on Ray's workers.
        ray_address: the cluster; None is the one that RAY_ADDRESS names, or one on this machine.
        cores_per_worker: CPU cores of each of Ray's workers where there is no GPU.
        progress: called with (records finished, records planned).
        show_workers: called with who is at work over Ray, such as "3 workers on 2 nodes", when it changes.

    Raises:
        ValueError: for settings or data of the wrong form, and where ``output`` has records of other settings.
        BenchmarkError: where ``output`` cannot be written; after all others for batches that kill Ray's workers.
        BucketError: where a bucket does not answer or refuses.
        ImportError: for a missing extra.
    """
    settings = settings or BenchmarkSettings()
    benchmark = find_benchmark(name)
    compute = _engine(engine, ray_address, cores_per_worker, show_workers)
    parquet()
    plan = plan_benchmark(name, data, settings)
    _check_targets(plan.questions, network)
    if str(output) == "":
        raise ValueError("output: expected a folder, got ''")
    folder = as_place("output", output)
    check_own(folder)  # before the lock, so that nothing is written into somebody else's folder
    with claim(folder) as held:
        settings = with_mask_engine(settings, network, folder / SETTINGS)
        agree(folder / SETTINGS, _fingerprint(benchmark, data, plan, network, settings))
        before = 0
        repaired: list[str] = []
        about: dict[str, Any] = {}
        first = benchmark.first_step()
        if first is not None:
            place = folder / f"{first.name}.parquet"
            frame, before, repaired = _step(first, plan, network, settings, place, held, compute, progress)
            about = {first.name: {"records": counts(frame, plan.records), **figures(first, frame, settings)}}
            questions = benchmark.questions_after(list(plan.questions), frame, settings)
            plan = Plan(tuple(questions), benchmark.chosen_methods(settings), settings.batch_size)
        place = folder / RECORDS
        frame, computed, lines = _step(benchmark, plan, network, settings, place, held, compute, progress)
        content = marked(
            {
                "benchmark": benchmark.name,
                "about": benchmark.about,
                "data": {
                    "name": data.dataset.name,
                    "images": len(data.dataset.images),
                    "annotations_left_out": len(data.dataset.problems),
                    "left_out": list(data.dataset.problems[:LINES]),
                },
                "network": network.name,
                "settings": settings.to_dict(),
                "intervals": {
                    "level": LEVEL,
                    "resamples": RESAMPLES,
                    "resampled": "images",
                    "seed": settings.seed,
                },
                **about,
                "records": counts(frame, plan.records),
                **figures(benchmark, frame, settings),
            }
        )
        summary: dict[str, Any] = plain(content)
        write_json(folder / SUMMARY, summary)
    return Outcome(summary, folder, computed, before, (*repaired, *lines))


def _engine(name: str, address: str | None, cores: int | None, show: Callable[[str], None] | None) -> Compute:
    if name not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {name!r}")
    cores = None if cores is None else check_whole("cores_per_worker", cores, 1)
    if name == "local":
        return lambda worker, batches: ((batch.number, worker.measure(batch)) for batch in batches)
    from perturb_tutorial.benchmarks.ray_engine import compute

    return lambda worker, batches: compute(worker, batches, address=address, cores=cores, show=show)


def _check_targets(questions: Sequence[Question], network: Network) -> None:
    highest = max(max(question.targets) for question in questions)
    if highest >= network.class_count:
        raise ValueError(
            f"network: {network.name} has {network.class_count} classes, the data's targets go up to {highest}; "
            "take an ImageNet network, or give BenchmarkData the classes of yours"
        )


def _check_ids(questions: Sequence[Question]) -> None:
    """Raises ``ValueError`` where two images have one id: records are kept by id, and one would be measured twice."""
    paths: dict[str, Place] = {}
    for image in (question.image for question in questions):
        if not isinstance(image, ImageRecord):
            continue
        first = paths.setdefault(str(image.id), image.path)
        if first != image.path:
            raise ValueError(
                f"data: expected an id of its own for every image, got {image.id!r} for {first} and {image.path}"
            )


def _fingerprint(
    benchmark: Benchmark, data: BenchmarkData, plan: Plan, network: Network, settings: BenchmarkSettings
) -> dict[str, Any]:
    return {
        "benchmark": benchmark.name,
        **settings.to_dict(),
        "precision": "float32",
        "methods": list(benchmark.chosen_methods(settings)),
        "network": {"name": network.name, "input_size": network.input_size, "weights": _weights(network)},
        "data": {
            "name": data.dataset.name,
            "questions": len(plan.questions),
            "digest": digest(plan.questions),
        },
    }


def _weights(network: Network) -> str:
    """A short fingerprint of the network's weights and normalization."""
    sha = hashlib.sha256(repr((network.mean, network.std)).encode())
    for key, value in sorted(network.module.state_dict().items()):
        sha.update(key.encode())
        sha.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]


def _step(
    benchmark: Benchmark,
    plan: Plan,
    network: Network,
    settings: BenchmarkSettings,
    folder: Place,
    held: Claim,
    compute: Compute,
    progress: Progress | None,
) -> tuple[pd.DataFrame, int, list[str]]:
    """Computes the missing batches of a plan.

    Args:
        benchmark: measures the maps.
        plan: questions and methods in batches.
        network: the network that is explained.
        settings: of the benchmark.
        folder: of the records.
        held: the claim on the output.
        compute: the engine.
        progress: called with (records finished, records planned).

    Returns:
        All records of the plan, the number of new ones, and a line for each damaged file that was done again.
    """
    ids = (question.image.id for question in plan.questions)
    numbered = all(isinstance(number, int) and abs(number) < 2**63 for number in ids)
    kind = "int64" if numbered else "string"
    store = Store(folder, {"image_id": kind, **COMMON, **benchmark.columns}, held)
    repaired = store.check(
        lambda number: (
            plan.keys(number)
            if numbered
            else [(str(image), category, method) for image, category, method in plan.keys(number)]
        )
    )
    done = store.done()
    finished = sum(len(plan.batch(number).questions) for number in done)
    computed = 0
    if progress is not None:
        progress(finished, plan.records)
    # Closed whatever happens here, so that no worker goes on.
    with closing(compute(Worker(benchmark, network, settings), plan.without(done))) as results:
        for number, rows in results:
            store.append(
                number, rows if numbered else [{**row, "image_id": str(row["image_id"])} for row in rows]
            )
            computed += len(rows)
            if progress is not None:
                progress(finished + computed, plan.records)
    frame = store.read()
    if len(frame) != plan.records:
        raise BenchmarkError(
            f"{folder} has {len(frame)} records, the plan {plan.records}; give another folder"
        )
    return frame, computed, repaired
