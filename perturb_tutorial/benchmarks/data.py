"""The data of a benchmark: a data set, and the network's classes that stand for its categories.

With an ImageNet network a COCO category is the set C of the ImageNet classes under it, and its score the sum over C
(eq. 2); a data set that gives each image an ImageNet class, its label, has that class alone as target. ``samples``
are the package's own photographs with this project's outlines; their categories have COCO's ids, or 1000 + an
ImageNet class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from perturb_tutorial._outside import printable_errors
from perturb_tutorial.benchmarks.plan import Question
from perturb_tutorial.datasets import (
    Dataset,
    ImageRecord,
    category_matches,
    first_images,
    imagenet_classes_of,
    read_coco,
    read_coco_json,
    read_imagenet,
)
from perturb_tutorial.datasets.samples import ANNOTATIONS, all_samples
from perturb_tutorial.files import resource
from perturb_tutorial.places import Place, as_place
from perturb_tutorial.places.buckets import listed_once

SAMPLES = "samples"


@dataclass(frozen=True)
class BenchmarkData:
    """``dataset``, and the network's ``classes`` of each category id; None: the images' labels are the classes.

    ``kinds``: COCO's id of each category id of animals, the target for an image without a label.
    """

    dataset: Dataset
    classes: Mapping[int, tuple[int, ...]] | None = None
    kinds: Mapping[int, int] = field(default_factory=dict)

    def questions(self, per_class: int | None = None) -> list[Question]:
        """One question for each pair of an image and a mapped category in it, or one for each image with a label."""
        if self.classes is None:
            return self.label_questions()
        limit = per_class or max(1, len(self.dataset.images))
        return [
            Question(pair.image, pair.category, self.name(pair.category), tuple(self.classes[pair.category]))
            for pair in first_images(self.dataset.images, limit, self.classes)
        ]

    def label_questions(self) -> list[Question]:
        """One question for each image with a label, about that class of the network."""
        return [
            Question(image, image.label, self.name(image.label), (image.label,))
            for image in self.dataset.images
            if image.label is not None
        ]

    def refusal(self, lack: str) -> ValueError:
        """The error for data that ``lack`` something: it begins with what is wrong with its images, if anything is."""
        problems = [image.problem for image in self.dataset.images if image.problem is not None]
        problems += self.dataset.problems
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        reason = f"{problems[0]}{more}; " if problems else ""
        return ValueError(f"data: {self.dataset.name}: {reason}{lack}")

    def name(self, category: int) -> str:
        """The category's name, or its number where the data set has no name for it."""
        return self.dataset.categories.get(category, str(category))


@printable_errors
def read_data(
    benchmark: str,
    folder: str | Place = SAMPLES,
    split: str | None = None,
    *,
    images: str | Place | None = None,
    near: bool = False,
) -> BenchmarkData:
    """The data of a benchmark.

    COCO is recognized by its ``annotations/instances_*.json``; any other folder is read as ImageNet. The benchmark
    animal-parts uses :func:`~perturb_tutorial.datasets.read_animal_parts`.

    Args:
        benchmark: its name, such as "localization".
        folder: the data set's folder, or "samples"; also a URL, ``file:///…`` or ``s3://bucket/…``, as for ``images``.
        split: of the data set, such as "val2014"; None where there is only one.
        images: ImageNet's images, for animal-parts.
        near: whether to add COCO categories for which ImageNet only has similar classes.

    Raises:
        BucketError: where a bucket does not answer or refuses.
        ValueError: with one line, also where one of COCO's category ids has another name: the ImageNet classes under
            COCO's categories are not those of other data in COCO's format.
    """
    from perturb_tutorial.benchmarks.registry import find_benchmark  # which needs this module to load

    found = find_benchmark(benchmark)
    if str(folder) == SAMPLES:
        return found.read_samples()
    root = as_place("data", folder)
    beside = None if images is None else as_place("images", images)
    with listed_once():
        if not root.is_dir():
            raise ValueError(f"data: {root} is not a folder; give the data set's own, or {SAMPLES}")
        return found.read(root, split, images=beside, near=near)


def read_photographs(
    root: Place, split: str | None = None, *, near: bool = False, segments: bool = False
) -> BenchmarkData:
    """COCO or ImageNet in the folder ``root``; ``segments``: only COCO, which has them, will do."""
    if any(root.glob("annotations/instances_*.json")):
        dataset = read_coco(root, split)
        _check_names(dataset)
        return BenchmarkData(dataset, imagenet_classes_of(near=near))
    if segments:
        raise ValueError(
            f"data: {root}: expected COCO's annotations/instances_<split>.json in it, found none"
        )
    return BenchmarkData(read_imagenet(root, split or "val"))


def _check_names(dataset: Dataset) -> None:
    """Refuses data whose category ids are not COCO's, which the table of ImageNet's classes is keyed by."""
    names = {row.category_id: row.category for row in category_matches()}
    for category, name in dataset.categories.items():
        wanted = names.get(category, name)
        if name.strip().casefold().replace("_", " ") != wanted.casefold():
            raise ValueError(
                f"data: category {category} is {name!r}, COCO's is {wanted!r}; use BenchmarkData with your own classes"
            )


def read_samples(*, labels: bool = False) -> BenchmarkData:
    """The package's photographs with their outlines; with ``labels`` each image has one class instead of categories."""
    path = resource(ANNOTATIONS)
    content = json.loads(path.read_text(encoding="utf-8"))
    names = {image["id"]: image["name"] for image in content["images"]}
    dataset = read_coco_json(path, path.parent, name=SAMPLES, check_files=False)
    samples = all_samples()

    def found(record: ImageRecord) -> ImageRecord:
        sample = samples[names[record.id]]
        if sample.path is None:
            return replace(
                record,
                problem=f"{sample.name}: {sample.package} carries it; run: pip install {sample.package}",
            )
        return replace(record, path=sample.path)

    dataset = replace(dataset, images=tuple(found(record) for record in dataset.images))
    classes = {c["id"]: tuple(c["imagenet_indices"]) for c in content["categories"] if c["imagenet_indices"]}
    return BenchmarkData(dataset, None if labels else classes)
