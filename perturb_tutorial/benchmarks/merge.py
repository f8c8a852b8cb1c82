"""One summary of several finished runs of the same settings on different data: COCO's splits, or shares of a folder.

The records are concatenated and the figures computed from all of them by the benchmark itself, so that intervals
resample all images, and a class mean is over all pairs of the class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from perturb_tutorial.benchmarks.registry import find_benchmark
from perturb_tutorial.benchmarks.settings import BenchmarkSettings
from perturb_tutorial.benchmarks.store import (
    KEYS,
    RECORDS,
    SETTINGS,
    SUMMARY,
    BenchmarkError,
    compared,
    different_settings,
    plain,
    read_records,
)
from perturb_tutorial.benchmarks.tally import counts, figures
from perturb_tutorial.metrics.intervals import LEVEL, RESAMPLES
from perturb_tutorial.places import Place, as_place
from perturb_tutorial.sealed import marked, read_own
from perturb_tutorial.settings import MaskSettings


def merged_summary(folders: Sequence[str | Place], *, so_far: bool = False) -> dict[str, Any]:
    """The summary of all runs under ``folders``, in the form of the summary.json of one run on all their data.

    Args:
        folders: the runs' output folders, or their URLs; for a single one its own summary.json is returned.
        so_far: whether runs may be unfinished. Then the questions count that every method has results for, and
            ``records`` also has the planned number.

    Raises:
        BenchmarkError: where a run is not finished.
        ValueError: where settings differ, or where two runs have the same question.
    """
    import pandas as pd

    paths = [as_place("folders", folder) for folder in folders]
    if not paths:
        raise ValueError("folders: expected at least one run, got none")
    if len(paths) == 1 and not so_far:
        return read_json(paths[0] / SUMMARY)
    settings = [read_json(path / SETTINGS) for path in paths]
    for path, other in zip(paths[1:], settings[1:], strict=True):
        if differences := different_settings(_but_data(settings[0]), _but_data(other)):
            raise ValueError(f"folders: {paths[0]} and {path} have different settings ({differences})")
    columns = list(KEYS)
    records = pd.concat([read_records(path / RECORDS) for path in paths], ignore_index=True)
    if records.duplicated(columns).any():
        raise ValueError(f"folders: {', '.join(map(str, paths))} have records of the same images")
    records = records.sort_values(columns, kind="stable", ignore_index=True)
    planned = sum(one["data"]["questions"] for one in settings) * len(settings[0]["methods"])
    if so_far:
        answers = records.groupby(columns[:2])["method"].transform("size")
        records = records[answers == len(settings[0]["methods"])].reset_index(drop=True)
        name = " + ".join(one["data"]["name"] for one in settings)
        data: dict[str, Any] = {"name": name, "images": int(records["image_id"].nunique())}
    else:
        parts = [read_json(path / SUMMARY) for path in paths]
        planned = sum(part["records"]["planned"] for part in parts)
        data = _together([part["data"] for part in parts])
    benchmark, chosen = find_benchmark(settings[0]["benchmark"]), settings_of(settings[0])
    content = marked(
        {
            "benchmark": benchmark.name,
            "about": benchmark.about,
            "data": data,
            "network": settings[0]["network"]["name"],
            "settings": chosen.to_dict(),
            "intervals": {"level": LEVEL, "resamples": RESAMPLES, "resampled": "images", "seed": chosen.seed},
            "records": counts(records, planned),
            **figures(benchmark, records, chosen),
        }
    )
    merged: dict[str, Any] = plain(content)
    return merged


def _together(data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "name": " + ".join(str(one["name"]) for one in data),
        "images": sum(one["images"] for one in data),
        "annotations_left_out": sum(one["annotations_left_out"] for one in data),
        "left_out": [line for one in data for line in one["left_out"]],
    }


def read_json(path: Place) -> dict[str, Any]:
    """A finished run's summary.json or settings.json; ``BenchmarkError`` where it is missing or broken."""
    try:
        content: dict[str, Any] = read_own(path, lambda content: isinstance(content, dict))
    except FileNotFoundError:
        raise BenchmarkError(f"{path} is missing: the run is not finished; start its command again") from None
    except ValueError as error:
        raise BenchmarkError(f"{error}; start the run's command again") from error
    return content


def _but_data(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in compared(settings).items() if key != "data"}


def settings_of(content: Mapping[str, Any]) -> BenchmarkSettings:
    """The settings stored in a summary."""
    known = {field.name for field in dataclasses.fields(BenchmarkSettings)}
    values = {key: value for key, value in content.items() if key in known}
    return BenchmarkSettings(
        **{**values, "methods": tuple(values["methods"]), "mask": MaskSettings(**values["mask"])}
    )
