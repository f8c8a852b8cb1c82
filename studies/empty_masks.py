"""Where the mask of the pointing game is empty, is there anything to find? data/measured/empty_masks.json (§4).

    python studies/empty_masks.py COCO RUN… --records FILE

RUN is the --output folder of a finished run of the pointing game with the method mask, one for each split of COCO. In
the deletion game a cell costs λ₁ whatever the score is, so where the score is next to nothing the cheapest mask deletes
nothing: it is empty and has no point. For those pairs a mask is learned again with the score divided by that of the
image, so that it begins at 1 for every pair; everything else is as in the run. The file has the hit rate of these
masks, that of the center and their paired difference on the pairs with empty masks; the same on all pairs, where an
empty mask is replaced by the new one ("relative"), replaced by the center of the image ("center instead"), or counted
as a miss ("a miss"), which is the benchmark's rule; and the area that the new masks delete. FILE has one line for each
batch; a second start appends the missing ones.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from harness import Kept, Study, keeps_records, parser_of, run_study, split_names
from torch import Tensor

import perturb_tutorial as pt
from perturb_tutorial.benchmarks import Question, read_data
from perturb_tutorial.benchmarks.merge import read_json
from perturb_tutorial.benchmarks.store import RECORDS, SETTINGS, read_records
from perturb_tutorial.benchmarks.summary import Figures, keys, wide
from perturb_tutorial.benchmarks.worker import load_scene
from perturb_tutorial.metrics import is_hit, maximum_point, resize_map, union_mask

METHODS = ("center", "mask")
BATCH = 8
RELATIVE, CENTER, MISS = "relative", "center instead", "a miss"
SEED = 0

Pair = tuple[int, int]


def relative_grids(
    network: pt.Network,
    images: Tensor,
    targets: list[list[int]],
    settings: pt.MaskSettings,
    seed: int,
    engine: str,
) -> Tensor:
    """Masks whose score is divided by that of the image.

    Args:
        network: the network that is explained.
        images: N×3×S×S in [0, 1].
        targets: N sets of classes.
        settings: of the masks.
        seed: of the masks.
        engine: one of ``ENGINES``.

    Returns:
        Their salient grids N×1×h×w.
    """
    relative = settings.replace(score_scale="relative")
    return pt.learn_masks(network, images, targets, relative, seed=seed, engine=engine).salient_grid


def answered(question: Question, grid: Tensor) -> dict[str, Any]:
    """One row: whether the grid's point hits, and the share of it that is deleted."""
    record = question.image
    segments = (i.segmentation for i in record.of(question.category) if i.segmentation is not None)
    point = maximum_point(resize_map(grid.numpy(), record.size), "mean")
    hit = is_hit(point, union_mask(segments, record.size))
    return {"image_id": record.id, "category_id": question.category, "hit": hit, "area": float(grid.mean())}


def summed_up(records: pd.DataFrame, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures and differences from a run's records, ``METHODS`` only, and one row for each empty mask."""
    images, _ = keys(records)
    hits, empty = wide(records, "hit"), wide(records, "usable")["mask"] != 1
    pairs = list(
        records[records["method"] == "mask"]
        .sort_values(["image_id", "category_id"])[["image_id", "category_id"]]
        .itertuples(index=False, name=None)
    )
    found = {(row["image_id"], row["category_id"]): row for row in rows}
    if missing := [pair for pair, none in zip(pairs, empty, strict=True) if none and pair not in found]:
        raise ValueError(f"records: expected an answer for every empty mask, {len(missing)} lack one")
    again = np.array(
        [float(found[pair]["hit"]) if none else np.nan for pair, none in zip(pairs, empty, strict=True)]
    )
    area = np.array(
        [found[pair]["area"] if none else np.nan for pair, none in zip(pairs, empty, strict=True)]
    )
    table = {
        "center": hits["center"],
        RELATIVE: np.where(empty, again, hits["mask"]),
        CENTER: np.where(empty, hits["center"], hits["mask"]),
        MISS: np.where(empty, 0.0, hits["mask"]),
    }
    result = Figures(SEED)
    only = {name: table[name] for name in ("center", RELATIVE)}
    result.add_means("hit_rate", only, images, rows=empty, labels={"subset": "empty"})
    result.add_means("hit_rate", table, images, labels={"subset": "all"})
    result.add_means(
        "area", {RELATIVE: area}, images, rows=empty, labels={"subset": "empty"}, differences=False
    )
    return result.to_dict()


def read_run(data: Path, folder: Path) -> tuple[pd.DataFrame, dict[str, Any], list[Question]]:
    """A finished run's records of ``METHODS``, its settings, and the questions whose mask is empty."""
    settings = read_json(folder / SETTINGS)
    if "mask" not in settings["methods"]:
        raise ValueError(f"{folder}: expected a run with the method mask")
    if settings["mask"]["game"] != "deletion":
        raise ValueError(f"{folder}: expected masks of the deletion game, got {settings['mask']['game']}")
    records = read_records(folder / RECORDS)
    records = records[records["method"].isin(METHODS) & records["problem"].isna()].reset_index(drop=True)
    masks = records[records["method"] == "mask"]
    if len(masks) != settings["data"]["questions"]:
        raise ValueError(
            f"{folder}: expected a finished run, {len(masks)} of {settings['data']['questions']} masks"
        )
    empty = set(
        masks.loc[~masks["usable"].astype(bool), ["image_id", "category_id"]].itertuples(
            index=False, name=None
        )
    )
    split = settings["data"]["name"].removeprefix("instances_")
    questions = read_data("pointing-game", data, split).questions(settings["per_class"])
    return records, settings, [q for q in questions if (q.image.id, q.category) in empty]


def empty_masks(options: argparse.Namespace) -> Study:
    """The study of the module's docstring."""
    runs = [read_run(options.data, folder) for folder in options.runs]
    kept = Kept(options.records)
    done = {(row["image_id"], row["category_id"]) for row in kept.rows}
    network = pt.load_network("efficientnet_lite0", device="cpu")
    for _, settings, questions in runs:
        left = [q for q in questions if (q.image.id, q.category) not in done]
        for start in range(0, len(left), BATCH):
            batch = left[start : start + BATCH]
            grids = relative_grids(
                network,
                torch.stack([load_scene(q.image, network.input_size).image for q in batch]),
                [list(q.targets) for q in batch],
                pt.MaskSettings(**settings["mask"]),
                settings["seed"],
                settings["mask_engine"],
            )
            kept.add([answered(q, grid) for q, grid in zip(batch, grids, strict=True)])
    records = pd.concat([part for part, _, _ in runs], ignore_index=True)
    splits = split_names([settings for _, settings, _ in runs])
    return Study(
        "empty_masks",
        f"python studies/empty_masks.py COCO {' '.join(f'RUN_{split}' for split in splits)} --records FILE",
        "EfficientNet-Lite0; images resampled for the intervals",
        {
            "data": {"name": " + ".join(splits), "images": int(records["image_id"].nunique())},
            **summed_up(records, kept.rows),
        },
    )


def main(argv: list[str] | None = None) -> int:
    parser = parser_of("Masks with a relative score where those of a run are empty.", runs=True)
    return run_study(keeps_records(parser), empty_masks, argv)


if __name__ == "__main__":
    sys.exit(main())
