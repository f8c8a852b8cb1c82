"""What of a run's records counts: the images without a problem, and how many there are of each kind."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from perturb_tutorial.benchmarks.base import Benchmark
from perturb_tutorial.benchmarks.settings import BenchmarkSettings

if TYPE_CHECKING:
    import pandas as pd

LINES = 100
"""How many lines about left-out images summary.json quotes."""


def without_bad_images(records: pd.DataFrame) -> pd.DataFrame:
    """The records of images that no record has a problem with.

    A file that is repaired or damaged between two starts of a run is bad for some methods only. It is then left out for
    all, so that all are measured on the same images.
    """
    bad = records.loc[records["problem"].notna(), "image_id"]
    return records[~records["image_id"].isin(bad)].reset_index(drop=True)


def counts(records: pd.DataFrame, planned: int) -> dict[str, Any]:
    """The numbers of records, ``planned`` and finished, and of unusual ones, with the reasons of bad images.

    ``set_aside``: records without a problem that the figures leave out (:func:`without_bad_images`).
    """
    bad = records[records["problem"].notna()]
    reasons = list(dict.fromkeys(bad["problem"]))
    good = without_bad_images(records)
    return {
        "planned": planned,
        "finished": len(records),
        "with_problem": len(bad),
        "set_aside": len(records) - len(bad) - len(good),
        "bad_images": int(bad["image_id"].nunique()),
        "problems": reasons[:LINES],
        "unusable_maps": dict(Counter(good.loc[good["usable"].eq(False), "method"])),
        "not_converged": int(good["converged"].eq(False).sum()),
        "seconds": {str(m): float(v) for m, v in good.groupby("method")["seconds"].mean().items()},
    }


def figures(benchmark: Benchmark, records: pd.DataFrame, settings: BenchmarkSettings) -> dict[str, Any]:
    """The benchmark's figures and differences, from the records of images without a problem."""
    good = without_bad_images(records)
    if good.empty:
        return {"figures": [], "differences": []}
    return benchmark.figures(good, settings)
