"""Weak localization (§5, table 1): the tight box around what a threshold keeps, against the true boxes.

Each record has, for the three thresholds, whether the box is right at each α of its grid: one character an α, 1 or 0.
α* is the α with the lowest error on a held-out share of the images, drawn by seed; the error is that of the other
images at α*. Fewer than ``LEAST_HELD_OUT`` held-out images say nothing of α*, and the errors are left out. The
interval is of those other images, α* being fixed. ``curves`` has the error at every α, of all images.

The method mask has the true class as target, or, with ``target_count`` 5 (the localization preset, §6.2), the five
best predicted classes; the other methods have the true class. ``whole_image`` is the box around everything at any α: it
is the baseline for every map, since ImageNet's objects are large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perturb_tutorial._words import counted
from perturb_tutorial.benchmarks.base import COMPARED, Benchmark, View
from perturb_tutorial.benchmarks.data import BenchmarkData
from perturb_tutorial.benchmarks.plan import Question
from perturb_tutorial.benchmarks.settings import BenchmarkSettings
from perturb_tutorial.benchmarks.summary import Figures, keys, without
from perturb_tutorial.datasets.records import Box, ImageRecord
from perturb_tutorial.metrics import choose_alpha, held_out, is_right, resize_map, right_by_alpha
from perturb_tutorial.metrics.heatmaps import Float
from perturb_tutorial.metrics.localization import Threshold, grid_of

if TYPE_CHECKING:
    import pandas as pd

THRESHOLDS: tuple[Threshold, ...] = ("value", "energy", "mean")
WHOLE_IMAGE = "whole_image"
LEAST_HELD_OUT = 5
"""Images on which α* is searched. On fewer, many α are equally good, and the first one is the whole image (ours)."""


class Localization(Benchmark):
    """Boxes from maps."""

    name = "localization"
    about = "Does the box around the map's high part fit the object? (§5)"
    methods = (WHOLE_IMAGE, *COMPARED)
    own_methods = (WHOLE_IMAGE,)
    predicted_targets = True
    columns = {f"right_{threshold}": "string" for threshold in THRESHOLDS}  # noqa: RUF012  (ClassVar in the base)

    def chosen_methods(self, settings: BenchmarkSettings) -> tuple[str, ...]:
        """The settings' methods and always ``whole_image``, with which every method is compared."""
        chosen = super().chosen_methods(settings)
        return chosen if WHOLE_IMAGE in chosen else (WHOLE_IMAGE, *chosen)

    def questions(self, data: BenchmarkData, settings: BenchmarkSettings) -> list[Question]:
        """The questions whose image has a box of the class."""
        found = [question for question in data.questions() if true_boxes(question) or _problem(question)]
        if len({str(question.image.id) for question in found if not _problem(question)}) < 2:
            raise data.refusal(
                "localization needs boxes on at least 2 images; give ImageNet's folder with LOC_val_solution.csv "
                "or the XML files, COCO's folder, or samples"
            )
        return found

    def measure(self, view: View) -> dict[str, Any]:
        """Right or wrong at each α of each threshold's grid."""
        truth = np.array(true_boxes(view.question))
        if view.method == WHOLE_IMAGE:
            height, width = view.size
            letter = "01"[bool(is_right([0, 0, width - 1, height - 1], truth)[0])]
            return {f"right_{threshold}": letter * len(grid_of(threshold)) for threshold in THRESHOLDS}
        if view.heat is None:
            raise ValueError(f"method: {view.method} gives no map")
        heat = resize_map(view.heat, view.network.input_shape)
        return {
            f"right_{threshold}": "".join(
                "01"[bool(right)] for right in right_by_alpha(heat, truth, view.size, threshold)
            )
            for threshold in THRESHOLDS
        }

    def figures(self, records: pd.DataFrame, settings: BenchmarkSettings) -> dict[str, Any]:
        """The error of each method and threshold at its α*, on the images that were not held out; the curves."""
        images, _ = keys(records)
        result = Figures(settings.seed)
        names = np.unique(images)
        held = np.zeros(len(images), dtype=np.bool_)
        if len(names) > 1:
            held = np.isin(images, names[held_out(len(names), settings.held_out_share, settings.seed)])
        curves: list[dict[str, Any]] = []
        for threshold in THRESHOLDS:
            right = {
                str(method): _right(part, f"right_{threshold}")
                for method, part in records.groupby("method", sort=True)
            }
            alphas = grid_of(threshold)
            for method, rows in right.items():
                about = {"method": method, "threshold": threshold, "rows": len(rows)}
                curve = (1 - rows.mean(axis=0)).tolist()
                curves.append({**about, "alphas": alphas.round(9).tolist(), "errors": curve})
            if reason := _too_few(images[held]):
                left_out = without(reason, rows=int((~held).sum()), images=len(np.unique(images[~held])))
                labels = {"name": "error", "threshold": threshold}
                result.figures += [{**labels, "method": method, **left_out} for method in right]
                continue
            errors: dict[str, Float] = {}
            searches: dict[str, dict[str, Any]] = {}
            for method, rows in right.items():
                search = choose_alpha(rows[held], alphas)
                column = int(np.argmin(np.abs(search.alphas - search.alpha)))
                errors[method] = 1 - rows[:, column].astype(np.float64)
                searches[method] = {
                    "alpha": round(search.alpha, 9),
                    "held_out_error": search.error,
                    "held_out_rows": search.images,
                }
            labels = {"threshold": threshold}
            result.add_means("error", errors, images, rows=~held, labels=labels, by_method=searches)
        return {**result.to_dict(), "curves": curves}


def _too_few(held: NDArray[Any]) -> str | None:
    """Why α* is not searched on the images ``held`` out; None where it is."""
    count = len(np.unique(held))
    if count >= LEAST_HELD_OUT:
        return None
    return (
        f"no α*: {counted(count, 'held-out image')}, and the search needs {LEAST_HELD_OUT}; use more images or a "
        "larger --held-out-share"
    )


def _problem(question: Question) -> bool:
    return isinstance(question.image, ImageRecord) and question.image.problem is not None


def true_boxes(question: Question) -> tuple[Box, ...]:
    """The true boxes of the class (x0, y0, x1, y1, inclusive) in px of the original image; crowds are none."""
    image = question.image
    if not isinstance(image, ImageRecord):
        return ()
    if image.truth:
        return image.truth
    boxes = [i.box for i in image.of(question.category) if not i.crowd]
    # A box of width w holds w columns of pixels.
    return tuple((x, y, x + w - 1, y + h - 1) for x, y, w, h in boxes)


def _right(part: pd.DataFrame, column: str) -> NDArray[np.bool_]:
    """Rows × α, in the order of ``keys``."""
    ordered = part.sort_values(["image_id", "category_id"])
    return np.array([[letter == "1" for letter in text] for text in ordered[column]], dtype=np.bool_)
