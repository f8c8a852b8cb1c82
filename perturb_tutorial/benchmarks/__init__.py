"""The paper's measurements on any data: plan → batches → records → summary, resumable, on one machine or many.

    plan      questions (image, class, targets) in batches of ``batch_size``, times methods: a pure function of data
              and settings
    batch     one method on some questions; its rows are one file of ``records.parquet``, renamed into place whole
    summary   every figure with its counts and a 95 % bootstrap interval, and paired differences between methods

A batch whose file exists is never computed again, so a run that was killed can be resumed, and its records are those of
an uninterrupted run. The engine computes batches, in this process or on Ray's workers; only this process
writes.

    from perturb_tutorial.benchmarks import BenchmarkSettings, read_data, run_benchmark

    data = read_data("pointing-game", "samples")
    outcome = run_benchmark("pointing-game", data, network, "out", BenchmarkSettings(methods=("grad_cam",)))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perturb_tutorial.benchmarks.base import Benchmark
    from perturb_tutorial.benchmarks.compare import compared_summary
    from perturb_tutorial.benchmarks.data import BenchmarkData, read_data, read_samples
    from perturb_tutorial.benchmarks.merge import merged_summary
    from perturb_tutorial.benchmarks.plan import Plan, Question
    from perturb_tutorial.benchmarks.registry import BENCHMARKS, find_benchmark
    from perturb_tutorial.benchmarks.run import Outcome, plan_benchmark, run_benchmark
    from perturb_tutorial.benchmarks.settings import BenchmarkSettings
    from perturb_tutorial.benchmarks.store import BenchmarkError, BucketError, read_records

_EXPORTS = {
    "BENCHMARKS": "registry",
    "Benchmark": "base",
    "BenchmarkData": "data",
    "BenchmarkSettings": "settings",
    "Outcome": "run",
    "Plan": "plan",
    "Question": "plan",
    "BenchmarkError": "store",
    "BucketError": "store",
    "compared_summary": "compare",
    "find_benchmark": "registry",
    "merged_summary": "merge",
    "plan_benchmark": "run",
    "read_data": "data",
    "read_records": "store",
    "read_samples": "data",
    "run_benchmark": "run",
}

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "BenchmarkData",
    "BenchmarkError",
    "BenchmarkSettings",
    "BucketError",
    "Outcome",
    "Plan",
    "Question",
    "compared_summary",
    "find_benchmark",
    "merged_summary",
    "plan_benchmark",
    "read_data",
    "read_records",
    "read_samples",
    "run_benchmark",
]


def __getattr__(name: str) -> Any:
    # The command line imports this package for its options only; torch is loaded on first use.
    if name in _EXPORTS:
        return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
