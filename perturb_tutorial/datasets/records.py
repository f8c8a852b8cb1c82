"""What a data set states about its images: plain records, no pixels.

An :class:`ImageRecord` names a file, its size and the objects in it. An invalid image or annotation never stops a run:
the image's record has its ``problem``, and annotations that were left out are listed line by line in
``Dataset.problems``. Sizes are (height, width); boxes are COCO's (x, y, width, height)
with the corner of the first pixel at (0, 0), or, for ImageNet, inclusive corners (x0, y0, x1, y1), as each
field says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from perturb_tutorial._outside import check_whole, printable
from perturb_tutorial.image_files import Unusable, upright_size
from perturb_tutorial.places import Place

Box = tuple[float, float, float, float]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Instance:
    """One object: its category, ``box`` (x, y, width, height), segments, ``area`` in px² and key points.

    ``segmentation`` is COCO's: polygons (sequences x0, y0, x1, y1, …) or a run-length code; None where the
    data set has none. ``parts`` holds key points (x, y) by the name of the part, such as "eye" and "foot".
    """

    category: int
    box: Box
    area: float
    segmentation: list[Any] | dict[str, Any] | None = None
    crowd: bool = False
    parts: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image: its file, its size if the annotations give it, its instances, and what is wrong with it.

    ``label`` is the ImageNet class index where the data set gives one to the whole image, ``truth`` its boxes
    of that class with inclusive corners (x0, y0, x1, y1). ``id`` and ``problem`` are made printable.
    """

    id: int | str
    path: Place
    height: int | None = None
    width: int | None = None
    instances: tuple[Instance, ...] = ()
    label: int | None = None
    truth: tuple[Box, ...] = ()
    problem: str | None = None

    def __post_init__(self) -> None:
        for name in ("id", "problem"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, printable(value))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in px.

        Raises ``ValueError`` where the annotations do not give it; :func:`check_image` reads it from the file.
        """
        if self.height is None or self.width is None:
            raise ValueError(
                f"{self.path.name}: its annotations do not give its size; read it with check_image"
            )
        return self.height, self.width

    @property
    def categories(self) -> tuple[int, ...]:
        """The categories in the image, ascending, each once."""
        return tuple(sorted({instance.category for instance in self.instances}))

    def of(self, category: int) -> tuple[Instance, ...]:
        """The instances of one category."""
        return tuple(instance for instance in self.instances if instance.category == category)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images by ascending id, the categories' names by id, and one line for everything that was left out."""

    name: str
    images: tuple[ImageRecord, ...]
    categories: Mapping[int, str]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """One question to a method: this image, this category."""

    image: ImageRecord
    category: int


def check_image(record: ImageRecord) -> ImageRecord:
    """The record after a check of its file: with the size of the file, or with the ``problem`` of the file.

    Problems: the file is missing or not one that :func:`~perturb_tutorial.load_images` reads, or its size (with its
    EXIF orientation, as images are loaded) is not the annotated one. The file is decoded completely, since a truncated
    file still has a valid header.
    """
    if record.problem is not None:
        return record
    try:
        height, width = upright_size(record.path)
    except Unusable as error:
        if error.missing:
            missing = f"{record.path.name}: the image is missing from {record.path.parent}"
            return replace(record, problem=missing)
        return replace(record, problem=f"{record.path.name}: {error}")
    if (record.height, record.width) == (None, None):
        return replace(record, height=height, width=width)
    if (height, width) != (record.height, record.width):
        return replace(
            record,
            problem=f"{record.path.name}: the image has {width}×{height} px, "
            f"its annotations say {record.width}×{record.height}",
        )
    return record


def pairs(images: Iterable[ImageRecord], categories: Iterable[int] | None = None) -> list[Pair]:
    """All pairs of an image and a category in it, image by image; only of ``categories`` where given."""
    wanted = None if categories is None else set(categories)
    return [
        Pair(image, category)
        for image in images
        for category in image.categories
        if wanted is None or category in wanted
    ]


def first_images(
    images: Iterable[ImageRecord], limit: int = 400, categories: Iterable[int] | None = None
) -> list[Pair]:
    """The paper's subset (§4): of each category the pairs of its first ``limit`` images, by ascending id.

    The paper does not say in which order images are first; the order of ids is the same in every copy. Images with a
    problem keep their place, so that a missing file does not shift the subset. The pairs come image by image.
    """
    limit = check_whole("limit", limit, 1)
    taken: dict[int, int] = {}
    chosen = []
    for pair in pairs(sorted(images, key=lambda image: image.id), categories):
        taken[pair.category] = taken.get(pair.category, 0) + 1
        if taken[pair.category] <= limit:
            chosen.append(pair)
    return chosen
