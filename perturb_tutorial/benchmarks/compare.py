"""Two finished runs on the same data with different settings, such as both presets, compared question by question.

Rows of a method whose records differ get the runs' labels, ``mask (default)`` and ``mask (localization)``; a method
that the settings do not affect appears once. The benchmark itself computes the figures, so a difference is paired, and
α* of the localization benchmark is searched for each on the same held-out images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perturb_tutorial.benchmarks.merge import read_json, settings_of
from perturb_tutorial.benchmarks.registry import find_benchmark
from perturb_tutorial.benchmarks.store import RECORDS, SETTINGS, SUMMARY, plain, read_records
from perturb_tutorial.benchmarks.tally import counts, figures
from perturb_tutorial.places import Place, as_place

if TYPE_CHECKING:
    import pandas as pd

_KEYS = ["image_id", "category_id"]
_COMMON = ("benchmark", "network", "data", "seed", "version")
"""What both runs must have in common."""


def compared_summary(first: str | Place, second: str | Place, labels: tuple[str, str]) -> dict[str, Any]:
    """A summary of both runs' methods, with ``labels`` for the first and the second, in the form of one run's
    summary.json.

    Raises:
        BenchmarkError: where a run is not finished.
        ValueError: where the two runs differ in their questions or their network.
    """
    import pandas as pd

    paths = [as_place("first", first), as_place("second", second)]
    parts = [read_json(path / SUMMARY) for path in paths]
    settings = [read_json(path / SETTINGS) for path in paths]
    for name in _COMMON:
        if settings[0].get(name) != settings[1].get(name):
            raise ValueError(f"second: expected the same {name} as in {paths[0]}, got another in {paths[1]}")
    tables = [read_records(path / RECORDS) for path in paths]
    alone = ", ".join(sorted(set(tables[0].columns) ^ set(tables[1].columns)))
    if alone:
        raise ValueError(
            f"second: expected the columns of {paths[0]}, got {alone} in one of them alone; another version of the "
            "package wrote it: run both with one"
        )
    if labels[0] == labels[1]:
        raise ValueError(f"labels: expected two different ones, got {labels[0]!r} twice")
    # Images that are bad in one run are in no figure: a method that differs on them alone is the same.
    bad: set[Any] = set().union(*(table.loc[table["problem"].notna(), "image_id"] for table in tables))
    pieces = []
    for method in dict.fromkeys([*tables[0]["method"], *tables[1]["method"]]):
        own = [table[table["method"] == method] for table in tables]
        if not own[0].empty and not own[1].empty:
            if _same(*(part[~part["image_id"].isin(bad)] for part in own)):
                own.pop()
            else:
                own = [
                    part.assign(method=f"{method} ({label})") for part, label in zip(own, labels, strict=True)
                ]
        pieces += [part for part in own if not part.empty]
    records = pd.concat(pieces, ignore_index=True)
    records = records.sort_values([*_KEYS, "method"], kind="stable", ignore_index=True)
    benchmark = find_benchmark(parts[0]["benchmark"])
    content = {
        **parts[0],
        "settings": dict(zip(labels, (part["settings"] for part in parts), strict=True)),
        "records": counts(records, len(records)),
        **figures(benchmark, records, settings_of(parts[0]["settings"])),
    }
    compared: dict[str, Any] = plain(content)
    return compared


def _same(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    """Whether the records of one method in two runs are equal.

    Not compared are the seconds, which depend on the machine, and ``score``, which batches of other sizes round
    differently.
    """
    ordered = [
        part.drop(columns=["seconds", "score"]).sort_values(_KEYS, ignore_index=True)
        for part in (first, second)
    ]
    return bool(ordered[0].astype(str).equals(ordered[1].astype(str)))
