"""The pointing game (§4): the peak of the map, in px of the original image, within 15 px of a segment of the class.

A record has the mean of all maxima (x, y, hit), which the paper takes since its masks are clipped, and the first
maximum (first_x, first_y, first_hit). It is the grid that is clipped and so saturates; ``softened_hit`` is the result
for the softened mask, whose peak is a single pixel, often at the image's border, where softening repeats the last
value. ``center`` points at the middle of the image; variable occlusion chooses a point itself (§4.1). Precision is the
mean over classes; hit_rate that over all pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from perturb_tutorial.benchmarks.base import COMPARED, Benchmark, View
from perturb_tutorial.benchmarks.data import BenchmarkData, read_photographs
from perturb_tutorial.benchmarks.plan import Question
from perturb_tutorial.benchmarks.settings import BenchmarkSettings
from perturb_tutorial.benchmarks.summary import Figures, keys, wide
from perturb_tutorial.datasets.records import ImageRecord
from perturb_tutorial.masks import upsample
from perturb_tutorial.metrics import (
    center_point,
    is_difficult,
    is_hit,
    maximum_point,
    precision_by_class,
    resize_map,
    union_mask,
)
from perturb_tutorial.metrics.heatmaps import Bool
from perturb_tutorial.metrics.segments import coco_masks
from perturb_tutorial.places import Place

if TYPE_CHECKING:
    import pandas as pd

CENTER, MASK = "center", "mask"
RECOGNIZED_SCORE = 0.1
"""A class with at least this score is recognized. Below 784 λ₁ = 0.078 the area of a mask that deletes everything costs
more than the whole score can gain, so there is hardly anything to explain (ours)."""

FAINT_SCORE = 0.001
"""A class with at most this score is faint: it outweighs the area of ten of the 784 cells, and most masks for it end up
empty (ours)."""

Point = tuple[float, float] | None


class PointingGame(Benchmark):
    """Hits of the maps' peaks."""

    name = "pointing-game"
    about = "Does the peak of the map lie on the object? (§4)"
    methods = (CENTER, *COMPARED)
    own_methods = (CENTER,)
    points = True
    reads_grid = True
    columns = {  # noqa: RUF012  (ClassVar in the base)
        "x": "double",
        "y": "double",
        "hit": "bool",
        "first_x": "double",
        "first_y": "double",
        "first_hit": "bool",
        "softened_hit": "bool",
        "difficult": "bool",
        "difficult_boxes": "bool",
    }

    def chosen_methods(self, settings: BenchmarkSettings) -> tuple[str, ...]:
        """The settings' methods and always ``center``, with which every method is compared."""
        chosen = super().chosen_methods(settings)
        return chosen if CENTER in chosen else (CENTER, *chosen)

    def read(
        self, root: Place, split: str | None = None, *, images: str | Place | None = None, near: bool = False
    ) -> BenchmarkData:
        """COCO, since a hit is one of a segment."""
        return read_photographs(root, split, near=near, segments=True)

    def questions(self, data: BenchmarkData, settings: BenchmarkSettings) -> list[Question]:
        """The pairs of the first images of each class (§4: 400)."""
        coco_masks()
        if data.classes is None:
            raise ValueError("data: the pointing game needs segments; give COCO's folder or samples")
        return data.questions(settings.per_class)

    def measure(self, view: View) -> dict[str, Any]:
        """Both points, whether they hit, and whether the pair is difficult."""
        image, category = view.question.image, view.question.category
        if not isinstance(image, ImageRecord):
            raise TypeError(f"image: expected an image's record, got {type(image).__name__}")
        mean, first = _points(view)
        mask = union_mask(
            (i.segmentation for i in image.of(category) if i.segmentation is not None), view.size
        )
        instances = [i.category for i in image.instances]
        areas, boxes = [i.area for i in image.instances], [i.box for i in image.instances]
        return {
            "x": mean and mean[0],
            "y": mean and mean[1],
            "hit": is_hit(mean, mask),
            "first_x": first and first[0],
            "first_y": first and first[1],
            "first_hit": is_hit(first, mask),
            "softened_hit": is_hit(_softened_point(view), mask) if view.method == MASK else None,
            "difficult": is_difficult(view.size, category, instances, areas, boxes, "segments"),
            "difficult_boxes": is_difficult(view.size, category, instances, areas, boxes, "boxes"),
        }

    def figures(self, records: pd.DataFrame, settings: BenchmarkSettings) -> dict[str, Any]:
        """Precision and hit rate in each subset, mean of the maxima against the first, precision of each class."""
        images, classes = keys(records)
        tables = {column: wide(records, column) for column in ("hit", "first_hit")}
        result = Figures(settings.seed)
        for subset, rows in _subsets(records).items():
            for maximum, key in (("mean", "hit"), ("first", "first_hit")):
                labels = {"subset": subset, "maximum": maximum}
                for name, groups in (("precision", classes), ("hit_rate", None)):
                    result.add_means(
                        name,
                        tables[key],
                        images,
                        groups,
                        rows=rows,
                        labels=labels,
                        differences=maximum == "mean",
                    )
            if MASK in tables["hit"]:
                softened = {MASK: wide(records, "softened_hit")[MASK], CENTER: tables["hit"][CENTER]}
                labels = {"subset": subset, "maximum": "softened"}
                for name, groups in (("precision", classes), ("hit_rate", None)):
                    result.add_means(name, softened, images, groups, rows=rows, labels=labels)
            change = {m: tables["hit"][m] - tables["first_hit"][m] for m in tables["hit"]}
            labels = {"subset": subset}
            result.add_means(
                "precision_mean_minus_first",
                change,
                images,
                classes,
                rows=rows,
                labels=labels,
                differences=False,
            )
        return {**result.to_dict(), "classes": _classes(records)}


def _subsets(records: pd.DataFrame) -> dict[str, Bool]:
    """Which rows are in each subset: ``difficult`` as the authors ran it, ``difficult_boxes`` as Zhang et al. define
    it, ``recognized`` where the class has a score that is worth explaining, ``faint`` where it has almost none,
    ``with_mask`` where the learned mask, if it is among the methods, is not empty.
    """
    scores = wide(records, "score")[CENTER]
    usable = wide(records, "usable")
    subsets = {
        "all": np.ones(len(scores), dtype=np.bool_),
        "difficult": wide(records, "difficult")[CENTER] == 1,
        "difficult_boxes": wide(records, "difficult_boxes")[CENTER] == 1,
        "recognized": scores >= RECOGNIZED_SCORE,
        "faint": scores <= FAINT_SCORE,
    }
    if MASK in usable:
        subsets["with_mask"] = usable[MASK] == 1
    return subsets


def _points(view: View) -> tuple[Point, Point]:
    """Mean of the maxima and first maximum, px of the original image."""
    if view.method == CENTER:
        point = center_point(view.size)
        return point, point
    if view.point is not None:
        if not np.isfinite(view.point).all():
            return None, None
        (rows, columns), (height, width) = view.network.input_shape, view.size
        moved = ((view.point[0] + 0.5) * width / columns - 0.5, (view.point[1] + 0.5) * height / rows - 0.5)
        return moved, moved
    if view.heat is None:
        raise ValueError(f"method: {view.method} gives neither a map nor a point")
    heat = resize_map(view.heat, view.size)
    return maximum_point(heat, "mean"), maximum_point(heat, "first")


def _softened_point(view: View) -> Point:
    """The point of the mask as it lies on the image, px of the original image."""
    settings, size = view.settings.mask, view.network.input_size
    grid = torch.from_numpy(view.heat)[None, None].double()
    softened = upsample(grid, size, settings.lengths(size).mask_sigma)
    return maximum_point(resize_map(softened, view.size), "mean")


def _classes(records: pd.DataFrame) -> list[dict[str, Any]]:
    names = dict(zip(records["category_id"], records["category"], strict=True))
    rows = []
    for method, part in records.groupby("method", sort=True):
        for category, (rate, count) in precision_by_class(part["hit"], part["category_id"]).items():
            about = {"category_id": category, "category": names[category], "method": method}
            rows.append({**about, "precision": rate, "pairs": count})
    return rows
