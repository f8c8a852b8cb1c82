"""What a benchmark is asked about: a data set, and the network's classes that stand for its categories.

With an ImageNet network a COCO category is the set C of the ImageNet classes under it, and its score the sum over C
(eq. 2); a data set that gives each image an ImageNet class, its label, has that class alone as target. ``samples``
are the package's own photographs with this project's outlines; their categories have COCO's ids, or 1000 + an
ImageNet class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

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

SAMPLES = "samples"


@dataclass(frozen=True)
class BenchmarkData:
    """``dataset``, and the network's ``classes`` of each category id; None: the images' labels are the classes.

    ``kinds``: of animals, COCO's id of a category id, which an image without a label is asked about.
    """

    dataset: Dataset
    classes: Mapping[int, tuple[int, ...]] | None = None
    kinds: Mapping[int, int] = field(default_factory=dict)

    def questions(self, per_class: int | None = None) -> list[Question]:
        """One question a pair of an image and a mapped category in it, or one an image with a label."""
        if self.classes is None:
            return self.label_questions()
        limit = per_class or max(1, len(self.dataset.images))
        return [
            Question(pair.image, pair.category, self.name(pair.category), tuple(self.classes[pair.category]))
            for pair in first_images(self.dataset.images, limit, self.classes)
        ]

    def label_questions(self) -> list[Question]:
        """One question an image with a label, the network's class."""
        return [
            Question(image, image.label, self.name(image.label), (image.label,))
            for image in self.dataset.images
            if image.label is not None
        ]

    def name(self, category: int) -> str:
        """The category's name, or its number where the data set does not tell it."""
        return self.dataset.categories.get(category, str(category))


def read_data(
    benchmark: str,
    folder: str | Path = SAMPLES,
    split: str | None = None,
    *,
    images: str | Path | None = None,
    near: bool = False,
) -> BenchmarkData:
    """The data of ``benchmark`` (a name such as "localization") under ``folder``, or the samples.

    COCO is recognized by its ``annotations/instances_*.json``; anything else is ImageNet, but for the benchmark of
    animal parts, which reads :func:`~perturb_tutorial.datasets.read_animal_parts`, with ImageNet's images in
    ``images``. ``near`` adds COCO categories that ImageNet has only something like. Errors: ``ValueError`` with one
    line, also where one of COCO's category ids has another name: the ImageNet classes under COCO's are not those of
    other data in its format.
    """
    from perturb_tutorial.benchmarks.registry import find_benchmark  # which needs this module to load

    found = find_benchmark(benchmark)
    if str(folder) == SAMPLES:
        return found.read_samples()
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"data: {root} is not a folder; give the data set's own, or {SAMPLES}")
    return found.read(root, split, images=images, near=near)


def read_photographs(
    root: Path, split: str | None = None, *, near: bool = False, segments: bool = False
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
    """The table of ImageNet's classes goes by COCO's category ids, which mean other things elsewhere."""
    names = {row.category_id: row.category for row in category_matches()}
    for category, name in dataset.categories.items():
        wanted = names.get(category, name)
        if name.strip().casefold().replace("_", " ") != wanted.casefold():
            raise ValueError(
                f"data: category {category} is {name!r}, COCO's is {wanted!r}; use BenchmarkData with your own classes"
            )


def read_samples(*, labels: bool = False) -> BenchmarkData:
    """The package's photographs with their outlines; ``labels``: one class an image rather than categories."""
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
