"""The grid pointing game (Böhle et al., CVPR 2021), in two steps.

First the network classifies every image: which ones are right, with which score? Then images of distinct classes, the
best recognized first, become mosaics of n×n, and each method explains the class of every cell. The score is the share
of positive attribution inside the cell, 1/n² by chance; no positive mass scores 0.

An image of a data set with categories (COCO) is right when the network's class is in the set C of a category in it,
and then stands for this category; ``elsewhere`` is whether another image of the mosaic shows it too, in which case
attribution outside the cell is no mistake. Böhle et al. use 3×3 on inputs of three times the size; this benchmark
squashes the mosaic to the network's input, so 2×2 is the default: the cells of a 3×3 mosaic are 75 px wide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from perturb_tutorial.benchmarks.base import Benchmark, View
from perturb_tutorial.benchmarks.plan import Mosaic, Question
from perturb_tutorial.benchmarks.settings import BenchmarkSettings
from perturb_tutorial.benchmarks.summary import Figures, keys, wide
from perturb_tutorial.datasets.records import ImageRecord
from perturb_tutorial.metrics import grid_pointing_score, plan_mosaics

if TYPE_CHECKING:
    import pandas as pd

MOSAICS = 500
"""The largest number of mosaics where the settings give none (Böhle et al.)."""


class Recognition(Benchmark):
    """The first step: how the network classifies each image."""

    name = "recognition"
    about = "Which images does the network classify right?"
    methods = ("recognition",)
    own_methods = ("recognition",)
    columns = {"right": "bool", "top": "int64"}  # noqa: RUF012  (ClassVar in the base)

    def chosen_methods(self, settings: BenchmarkSettings) -> tuple[str, ...]:
        """One pseudo-method, since this step needs no map."""
        return self.methods

    def measure(self, view: View) -> dict[str, Any]:
        """Whether the class with the highest score is one of the targets."""
        return {"right": view.top in view.question.targets, "top": view.top}

    def figures(self, records: pd.DataFrame, settings: BenchmarkSettings) -> dict[str, Any]:
        """The share of questions whose image is classified right."""
        images, _ = keys(records)
        result = Figures(settings.seed)
        result.add_means("accuracy", wide(records, "right"), images)
        return result.to_dict()


class GridPointingGame(Benchmark):
    """The second step: the share of positive attribution in the right cell."""

    name = "grid-pointing-game"
    about = "Which cell of a mosaic does the attribution fall in? (Böhle et al., 2021)"
    columns = {  # noqa: RUF012  (ClassVar in the base)
        "cell": "int64",
        "images": "list string",
        "share": "double",
        "elsewhere": "bool",
    }

    def first_step(self) -> Benchmark:
        """What the network recognizes."""
        return Recognition()

    def questions_after(
        self, questions: list[Question], records: pd.DataFrame, settings: BenchmarkSettings
    ) -> list[Question]:
        """One a cell of each mosaic of recognized images."""
        return mosaic_questions(questions, records, settings)

    def measure(self, view: View) -> dict[str, Any]:
        """The share inside the cell, and the images of the mosaic."""
        mosaic, cell = view.question.image, view.question.cell
        if not isinstance(mosaic, Mosaic) or view.heat is None:
            raise TypeError(f"image: expected a mosaic and its map, got {type(mosaic).__name__}")
        share = grid_pointing_score(view.heat, mosaic.cells, cell)
        others = [part for place, part in enumerate(mosaic.parts) if place != cell]
        elsewhere = any(view.question.category in part.categories for part in others)
        images = [str(part.id) for part in mosaic.parts]
        return {"cell": cell, "images": images, "share": share, "elsewhere": elsewhere}

    def figures(self, records: pd.DataFrame, settings: BenchmarkSettings) -> dict[str, Any]:
        """The mean share of each method, over all cells and over those whose class no other cell shows."""
        images, _ = keys(records)
        result = Figures(settings.seed)
        shares, elsewhere = wide(records, "share"), wide(records, "elsewhere")
        alone = next(iter(elsewhere.values())) == 0
        for subset, rows in (("all", np.ones_like(alone)), ("class in one cell only", alone)):
            about = {"subset": subset, "cells": settings.cells, "chance": 1 / settings.cells**2}
            result.add_means("share", shares, images, rows=rows, labels=about)
        return result.to_dict()


def mosaic_questions(
    questions: list[Question], records: pd.DataFrame, settings: BenchmarkSettings
) -> list[Question]:
    """The second step's questions, one for each cell of each mosaic, from the first step's questions and records.

    An image that is right for several categories is used for the one with the highest score.

    Raises:
        ValueError: where fewer than cells² classes are recognized.
    """
    known = {(str(question.image.id), question.category): question for question in questions}
    best = records[records["problem"].isna() & records["right"].eq(True)]
    best = best.sort_values(["score", "category_id"], ascending=[False, True], kind="stable")
    best = best.drop_duplicates("image_id").sort_values("image_id")
    right = [known[str(i), int(c)] for i, c in zip(best["image_id"], best["category_id"], strict=True)]
    count = settings.mosaics or min(MOSAICS, max(1, len(right) // settings.cells**2))
    try:
        plan = plan_mosaics(
            [question.category for question in right],
            best["score"].to_numpy(),
            np.ones(len(right), dtype=np.bool_),
            cells=settings.cells,
            count=count,
            seed=settings.seed,
        )
    except ValueError as error:
        problems = list(dict.fromkeys(records["problem"].dropna()))
        if not problems:
            raise
        raise ValueError(f"data: {len(problems)} bad images, the first: {problems[0]}; {error}") from error
    cell_questions = []
    for number, places in enumerate(plan):
        chosen = [right[place] for place in places]
        parts = tuple(question.image for question in chosen if isinstance(question.image, ImageRecord))
        mosaic = Mosaic(f"mosaic {number:05d}", parts, settings.cells)
        cell_questions += [
            Question(mosaic, q.category, q.name, q.targets, cell) for cell, q in enumerate(chosen)
        ]
    return cell_questions
