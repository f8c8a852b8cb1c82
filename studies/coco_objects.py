"""Hits against the size of the objects, what crowds them, and how sure the network is: data/measured/coco_objects.json.

    python studies/coco_objects.py COCO RUN…

RUN is the --output folder of a run of the pointing game, one for each split of COCO; its settings name the split. Of a
run that is not finished, the questions count that every method has results for. The file has the hit rate of each
method in each bin, the paired differences between methods, how often the mask did not converge (§6.6), and for each
method a logistic regression

    log P(hit)/P(miss) = b + b_size log₄(share) + b_crowding crowding + b_score log₁₀(score),

with 95 % intervals from resampling the images. ``share`` and ``crowding``: :mod:`perturb_tutorial.datasets.objects`;
``score``: the softmax sum over the ImageNet classes under the category, which measures how much the objects look like
ImageNet's. No annotation and no name of an image is stored.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from harness import Study, parser_of, run_study, split_names
from numpy.typing import NDArray

from perturb_tutorial.benchmarks.merge import read_json
from perturb_tutorial.benchmarks.store import RECORDS, SETTINGS, read_records
from perturb_tutorial.benchmarks.summary import Figures, keys, wide
from perturb_tutorial.datasets import ImageRecord, read_coco
from perturb_tutorial.datasets.objects import object_facts
from perturb_tutorial.metrics.intervals import Statistic

METHODS = ("center", "mask", "gradient", "grad_cam")
NAMED = "traffic light"
"""The category that §6.7 names as a surprise; it has a hit rate of its own, by="category"."""
NOTE = (
    "share: of the image's pixels on the objects of the category; crowding: share of the largest one's box that is on "
    "the segments of other objects; neighbors: other objects whose boxes overlap it; score: softmax sum over the "
    "category's ImageNet classes; slopes: log odds of a hit per factor 4 of share, per crowding of 1, per factor 10 "
    "of score"
)
BINS: dict[str, Sequence[float]] = {
    "share": (0, 0.01, 0.04, 0.16, np.inf),
    "crowding": (0, 0.05, 0.25, np.inf),
    "neighbors": (0, 1, 3, np.inf),
    "score": (0, 0.001, 0.01, 0.1, np.inf),
}
"""Lower edges; a bin ends below the next edge. Sizes are in steps of a factor 2 in length."""

RIDGE = 0.1
"""Penalty ½ · RIDGE · b² on the slopes: a resample in which one of them separates hits from misses stays finite."""
_NEWTON_STEPS = 12
_LEAST_SCORE = 1e-6

Floats = NDArray[np.float64]


def facts_of(images: Mapping[int, ImageRecord], records: pd.DataFrame) -> pd.DataFrame:
    """``records`` with the columns share, crowding and neighbors."""
    found = {
        pair: object_facts(images[pair[0]], pair[1])
        for pair in set(zip(records["image_id"], records["category_id"], strict=True))
    }
    rows = [found[pair] for pair in zip(records["image_id"], records["category_id"], strict=True)]
    columns = {name: [getattr(row, name) for row in rows] for name in ("share", "crowding", "neighbors")}
    return records.assign(**columns)


def logistic(values: Floats, hits: Floats, slope: int) -> Statistic:
    """Statistic: the ``slope``-th coefficient of a logistic regression of ``hits`` (rows) on ``values``
    (rows×p) with an intercept; 0 is the intercept.
    """
    columns = np.column_stack([np.ones(len(hits)), values])
    products = (columns[:, :, None] * columns[:, None, :]).reshape(len(hits), -1)
    penalty = RIDGE * np.diag([0.0, *np.ones(values.shape[1])])

    def statistic(weights: Floats) -> Floats:
        b = np.zeros((len(weights), columns.shape[1]))
        for _ in range(_NEWTON_STEPS):
            p = 1 / (1 + np.exp(-np.clip(b @ columns.T, -30, 30)))
            gradient = (weights * (hits - p)) @ columns - b @ penalty
            curvature = ((weights * p * (1 - p)) @ products).reshape(-1, *penalty.shape) + penalty
            curvature += 1e-9 * np.eye(columns.shape[1])  # for a resample with only hits or only misses
            b += np.linalg.solve(curvature, gradient[..., None])[..., 0]
        return b[:, slope]

    return statistic


def summed_up(records: pd.DataFrame, seed: int = 0) -> dict[str, Any]:
    """Figures and differences from records with facts, those of ``METHODS`` only."""
    images, _ = keys(records)
    hits = wide(records, "hit")
    hits = {method: hits[method] for method in METHODS}
    failed = {"mask": 1 - wide(records[records["method"] == "mask"], "converged")["mask"]}
    about = {name: wide(records, name)["center"] for name in BINS}
    result = Figures(seed)
    result.add_means("hit_rate", hits, images, labels={"by": "all", "bin": "all"})
    result.add_means("not_converged", failed, images, labels={"by": "all", "bin": "all"})
    names = records[records["method"] == "mask"].sort_values(["image_id", "category_id"])["category"]
    labels = {"by": "category", "bin": NAMED}
    result.add_means("hit_rate", hits, images, rows=names.to_numpy() == NAMED, labels=labels)
    for name, edges in BINS.items():
        for low, high in pairwise(edges):
            rows = (about[name] >= low) & (about[name] < high)
            labels = {"by": name, "bin": low}
            result.add_means("hit_rate", hits, images, rows=rows, labels=labels)
            result.add_means("not_converged", failed, images, rows=rows, labels=labels)
    values = np.column_stack(
        [
            np.log(about["share"]) / np.log(4),
            about["crowding"],
            np.log10(np.maximum(about["score"], _LEAST_SCORE)),
        ]
    )
    everything = np.ones(len(images), dtype=np.bool_)
    for place, name in enumerate(("share", "crowding", "score"), 1):
        result.add(
            "slope",
            dict.fromkeys(METHODS, everything),
            images,
            lambda method, rows, place=place: logistic(values[rows], hits[method][rows], place),
            differences=False,
            labels={"by": name},
        )
    return {"bins": {name: list(edges[:-1]) for name, edges in BINS.items()}, **result.to_dict()}


def read_run(data: Path, folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A run's records with facts, for the questions that all of ``METHODS`` have results for, and its settings."""
    settings = read_json(folder / SETTINGS)
    if missing := set(METHODS) - {"center", *settings["methods"]}:
        raise ValueError(f"{folder}: expected a run with {', '.join(METHODS)}, it lacks {', '.join(missing)}")
    dataset = read_coco(data, settings["data"]["name"].removeprefix("instances_"))
    records = read_records(folder / RECORDS)
    records = records[records["method"].isin(METHODS)]
    answers = records.groupby(["image_id", "category_id"])["method"].transform("size")
    records = records[answers == len(METHODS)].reset_index(drop=True)
    return facts_of({int(image.id): image for image in dataset.images}, records), settings


def coco_objects(options: argparse.Namespace) -> Study:
    """The study of the module's docstring."""
    read = [read_run(options.data, run) for run in options.runs]
    records = pd.concat([part for part, _ in read], ignore_index=True)
    if records.empty:
        raise ValueError(f"RUN: {', '.join(map(str, options.runs))}: no question is answered yet")
    splits = split_names([settings for _, settings in read])
    summary = {
        "data": {
            "name": " + ".join(splits),
            "images": int(records["image_id"].nunique()),
            "pairs": len(records) // len(METHODS),
            "pairs_planned": sum(settings["data"]["questions"] for _, settings in read),
        },
        **summed_up(records),
    }
    runs = " ".join(f"RUN_{split}" for split in splits)
    return Study("coco_objects", f"python studies/coco_objects.py COCO {runs}", NOTE, summary)


def main(argv: list[str] | None = None) -> int:
    parser = parser_of("Hits against the size of objects and what crowds them.", runs=True)
    return run_study(parser, coco_objects, argv)


if __name__ == "__main__":
    sys.exit(main())
