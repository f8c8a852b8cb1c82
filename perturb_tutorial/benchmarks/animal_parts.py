"""Eyes against feet (§7, fig. 11, table 2): mean mask value in 5×5 px around each key point, lower = more salient.

The value is that of the mask, 1 − saliency. A comparison method has no mask: its map's positive part, divided by its
maximum, is used as the saliency. An image's class is its label; for an animal of no ImageNet class, such as an auklet,
the target is the set of ImageNet's birds (eq. 2), and all such images form one class. Per class, over all its key
points, ratio = mean at feet / mean at eyes; per group of classes the mean of the ratios ± SE over classes. Classes with
more than ``minimum_images`` images that show an eye and a foot take part. Intervals resample images.

Feet are near the border of most photographs, eyes are not, so a mask that only marks the middle also has a ratio above
1. ``initial_disc`` measures this bias: the centered disc that the mask started from (§2), before any step.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from perturb_tutorial.benchmarks.base import Benchmark, View
from perturb_tutorial.benchmarks.data import BenchmarkData, read_samples
from perturb_tutorial.benchmarks.plan import Question
from perturb_tutorial.benchmarks.settings import BenchmarkSettings
from perturb_tutorial.benchmarks.summary import Figures, keys
from perturb_tutorial.benchmarks.worker import mask_heats
from perturb_tutorial.datasets import (
    animal_categories,
    category_matches,
    imagenet_classes_of,
    imagenet_indices,
    imagenet_names,
    read_animal_parts,
    with_both_parts,
)
from perturb_tutorial.datasets.paper import fig11
from perturb_tutorial.datasets.records import ImageRecord
from perturb_tutorial.metrics import class_parts, group_parts, is_usable, resize_map, window_means
from perturb_tutorial.metrics.heatmaps import Bool, Float
from perturb_tutorial.metrics.intervals import Statistic
from perturb_tutorial.optimizer import learn_masks
from perturb_tutorial.places import Place

if TYPE_CHECKING:
    import pandas as pd

BIRD, DOG = 16, 18
"""COCO's ids, under which the ImageNet birds and dogs are listed."""
INITIAL_DISC = "initial_disc"
KIND = 1000
"""A class that is a COCO category has this + COCO's id: above all of ImageNet's indices."""


class AnimalParts(Benchmark):
    """Mask values at eyes and feet."""

    name = "animal-parts"
    about = "Are eyes more salient than feet? (§7)"
    methods = ("mask", INITIAL_DISC)
    own_methods = (INITIAL_DISC,)
    columns = {"eyes": "list double", "feet": "list double", "outside": "int64"}  # noqa: RUF012  (ClassVar in the base)

    def read(
        self, root: Place, split: str | None = None, *, images: str | Place | None = None, near: bool = False
    ) -> BenchmarkData:
        """The animal parts in ``root``; ImageNet's images may be elsewhere, in ``images``."""
        return BenchmarkData(read_animal_parts(root, images), kinds=animal_categories(root))

    def read_samples(self) -> BenchmarkData:
        """The package's own photographs, one class an image."""
        return read_samples(labels=True)

    def questions(self, data: BenchmarkData, settings: BenchmarkSettings) -> list[Question]:
        """The images that show an eye and a foot of one animal's category, of classes that have enough of them.

        Only instances of such a category take part: another animal that happens to be in the picture does not.
        """
        candidates = [
            question
            for image in with_both_parts(data.dataset.images, 0)
            for question in _questions(image, data)
        ]
        counts = Counter(question.category for question in candidates)
        chosen = [question for question in candidates if counts[question.category] > settings.minimum_images]
        if not chosen:
            most = max(counts.values(), default=0)
            if not most:
                raise data.refusal("no image with an eye and a foot of one animal")
            raise ValueError(
                f"minimum_images: no class has more than {settings.minimum_images} images with an eye and a "
                f"foot, the largest has {most}; lower it (--minimum-images)"
            )
        return chosen

    def measure(self, view: View) -> dict[str, Any]:
        """The means of the windows around eyes and around feet, and how many key points lie outside the image."""
        image = view.question.image
        if not isinstance(image, ImageRecord):
            raise TypeError(f"image: expected an image's record, got {type(image).__name__}")
        heat = _initial_disc(view) if view.method == INITIAL_DISC else view.heat
        if heat is None:
            raise ValueError(f"method: {view.method} gives no map")
        is_mask = view.method in ("mask", INITIAL_DISC)
        row: dict[str, Any] = {"eyes": [], "feet": [], "outside": 0}
        # A mask of ones, which is no map at all, still has values at the key points.
        if not (np.isfinite(heat).all() if is_mask else is_usable(heat)):
            return row
        positive = np.maximum(resize_map(heat, view.size), 0)
        mask = 1 - (positive if is_mask else positive / max(positive.max(), np.finfo(float).tiny))
        for part, column in (("eye", "eyes"), ("foot", "feet")):
            points = [point for instance in image.instances for point in instance.parts.get(part, ())]
            means = window_means(mask, points)
            row[column] = means[np.isfinite(means)].tolist()
            row["outside"] += int((~np.isfinite(means)).sum())
        return row

    def figures(self, records: pd.DataFrame, settings: BenchmarkSettings) -> dict[str, Any]:
        """The mean feet:eyes ratio over classes, of all and of each group, and each class's statistics (fig. 11).

        Also three figures that are robust to a small denominator: the ratio of the means over all key points, the share
        of images whose eyes have a lower mean than their feet (equal ones count half), and the mean over images of
        feet − eyes.
        """
        images, classes = keys(records)
        parts = {str(m): p.sort_values(["image_id", "category_id"]) for m, p in records.groupby("method")}
        present = {method: np.ones(len(images), dtype=np.bool_) for method in parts}
        result = Figures(settings.seed)
        groups = {int(c): group_of(int(c)) for c in np.unique(classes)}
        for group in ("all", *sorted(set(groups.values()))):
            inside = np.array([group in ("all", groups[int(c)]) for c in classes])

            def make(method: str, rows: Bool) -> Statistic:
                part = parts[method][rows]
                return mean_ratio(_sums(part, "eyes"), _sums(part, "feet"), classes[rows])

            def make_pooled(method: str, rows: Bool) -> Statistic:
                part = parts[method][rows]
                return mean_ratio(_sums(part, "eyes"), _sums(part, "feet"), np.zeros(rows.sum()))

            chosen = {method: rows & inside for method, rows in present.items()}
            labels = {"group": group}
            result.add("feet_to_eyes", chosen, images, make, labels=labels)
            result.add("feet_to_eyes_pooled", chosen, images, make_pooled, labels=labels)
            gaps = {method: _gaps(part) for method, part in parts.items()}
            lower = {method: (1 + np.sign(gap)) / 2 for method, gap in gaps.items()}
            result.add_means("eyes_lower", lower, images, rows=inside, labels=labels)
            result.add_means("feet_minus_eyes", gaps, images, rows=inside, labels=labels)
        tables = [_tables(method, part, groups) for method, part in parts.items()]
        return {
            **result.to_dict(),
            "classes": [row for class_rows, _ in tables for row in class_rows],
            "groups": [row for _, group_rows in tables for row in group_rows],
        }


def _questions(image: ImageRecord, data: BenchmarkData) -> list[Question]:
    """The image's label, or the kind of each category that shows both parts, as questions about those instances."""
    shown = {part: {i.category for i in image.instances if i.parts.get(part)} for part in ("eye", "foot")}
    both = shown["eye"] & shown["foot"]
    own = replace(image, instances=tuple(i for i in image.instances if i.category in both))
    if image.label is not None:
        # The data set's own categories are species; a label is an ImageNet class.
        name = imagenet_names().get(image.label, str(image.label))
        return [Question(own, image.label, name, (image.label,))]
    names = {row.category_id: row.category for row in category_matches()}
    questions = []
    for kind in sorted({data.kinds[category] for category in both if category in data.kinds}):
        instances = tuple(i for i in own.instances if data.kinds.get(i.category) == kind)
        targets = imagenet_classes_of()[kind]
        questions.append(Question(replace(own, instances=instances), KIND + kind, names[kind], targets))
    return questions


def _initial_disc(view: View) -> Any:
    """Saliency (1×1×H×W) of the mask before the first step."""
    start = view.settings.mask.replace(iterations=0)
    targets = [list(view.question.targets)]
    masks = learn_masks(view.network, view.image[None], targets, start, seed=view.settings.seed)
    return mask_heats(masks).cpu().numpy()


@cache
def _groups() -> dict[int, str]:
    indices = imagenet_indices()
    listed = imagenet_classes_of()
    birds_and_dogs = {c: name for key, name in ((BIRD, "bird"), (DOG, "dog")) for c in listed[key]}
    groups = birds_and_dogs | {indices[animal.wnid]: animal.group for animal in fig11()}
    # A kind of animal belongs to a group if all of its classes that have a group agree.
    for kind, classes in listed.items():
        found = {groups[c] for c in classes if c in groups}
        if len(found) == 1:
            groups[KIND + kind] = found.pop()
    return groups


def group_of(index: int) -> str:
    """The row of table 2 that a class belongs to: the paper's 76 classes, all birds and dogs, kinds; else other."""
    return _groups().get(index, "other")


def _sums(part: pd.DataFrame, column: str) -> tuple[Float, Float]:
    """Sum and number of the key points' values in each row."""
    values = [np.asarray(value, dtype=np.float64) for value in part[column]]
    return np.array([v.sum() for v in values]), np.array([v.size for v in values], dtype=np.float64)


def _gaps(part: pd.DataFrame) -> Float:
    """The mean at the feet − the mean at the eyes of each row; NaN where a row lacks one of them."""
    (eye_sums, eye_counts), (foot_sums, foot_counts) = _sums(part, "eyes"), _sums(part, "feet")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(foot_sums / foot_counts - eye_sums / eye_counts)


def mean_ratio(eyes: tuple[Float, Float], feet: tuple[Float, Float], classes: Any) -> Statistic:
    """Statistic: the mean over classes of mean at feet / mean at eyes, from each row's sums and numbers.

    A class without an eye or a foot in a resample is skipped there; NaN where all are.
    """
    members = [np.flatnonzero(classes == c) for c in np.unique(classes)]

    def mean(weights: Float, rows: Any, part: tuple[Float, Float]) -> Float:
        return np.asarray((weights[:, rows] @ part[0][rows]) / (weights[:, rows] @ part[1][rows]))

    def statistic(weights: Float) -> Float:
        if not members:
            return np.full(len(weights), np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.stack([mean(weights, rows, feet) / mean(weights, rows, eyes) for rows in members])
        finite = np.isfinite(ratios)
        count = finite.sum(axis=0)
        total = np.where(finite, ratios, 0.0).sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    return statistic


def _tables(
    method: str, part: pd.DataFrame, groups: dict[int, str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Fig. 11's rows and table 2's rows of one method."""
    rows, ratios = [], {}
    for category, own in part.groupby("category_id", sort=True):
        eyes, feet = (
            np.concatenate([np.asarray(v, dtype=np.float64) for v in own[c]]) for c in ("eyes", "feet")
        )
        statistics = class_parts(eyes, feet)
        index, name = int(category), str(own["category"].iloc[0])
        about = {"category_id": index, "category": name, "group": groups[index], "method": method}
        rows.append({**about, "images": len(own), **statistics._asdict()})
        ratios[str(index)] = statistics.ratio
    table = group_parts(ratios, {str(index): group for index, group in groups.items()})
    return rows, [{"group": group, "method": method, **row._asdict()} for group, row in table.items()]
