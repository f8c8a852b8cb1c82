"""Real photographs that need no download: they are part of packages that pip installs anyway.

``data/samples/annotations.json`` lists the photographs, what they show and who made them, together with this project's
own outlines of their objects. The photographs themselves stay in the packages.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from perturb_tutorial.files import resource
from perturb_tutorial.images import load_images
from perturb_tutorial.networks.class_table import imagenet_classes
from perturb_tutorial.sizes import Size, sides

ANNOTATIONS = "samples/annotations.json"


@dataclass(frozen=True)
class Sample:
    """One photograph: its name among the samples, the package that contains it, its ImageNet class (None: it has none).

    ``package_path`` begins with the module that contains it; ``size`` is (height, width) in image px.
    """

    name: str
    package: str
    package_path: str
    class_index: int | None
    size: tuple[int, int]
    credit: str

    @property
    def label(self) -> str:
        """The class's name, or a dash."""
        return "–" if self.class_index is None else imagenet_classes().name(self.class_index)

    @property
    def path(self) -> Path | None:
        """The file, or None when its package is not installed."""
        module, _, inside = self.package_path.partition("/")
        spec = find_spec(module)
        for place in (spec.submodule_search_locations or []) if spec else []:
            path = Path(place, inside)
            if path.is_file():
                return path
        return None


@dataclass(frozen=True, eq=False)
class Samples:
    """Photographs N×C×H×W in [0, 1], their N ImageNet classes, and their N names.

    ``boxes``: for each photograph the boxes (x0, y0, x1, y1) of the objects of its class, in px of ``images``.
    """

    images: Tensor
    targets: list[int]
    names: list[str]
    boxes: list[list[tuple[float, float, float, float]]]


@lru_cache(maxsize=1)
def _records() -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(resource(ANNOTATIONS).read_text(encoding="utf-8")))


def all_samples() -> dict[str, Sample]:
    """Every sample by its name, in the order of the annotations."""
    return {
        record["name"]: Sample(
            record["name"],
            record["package"],
            record["package_path"],
            record["imagenet_index"],
            (record["height"], record["width"]),
            record["credit"],
        )
        for record in _records()["images"]
    }


def find_sample(name: str) -> Sample:
    """The sample called ``name``; ``ValueError`` lists the samples if it is unknown."""
    samples = all_samples()
    if name not in samples:
        raise ValueError(f"sample: expected one of {', '.join(samples)}, got {name!r}")
    return samples[name]


def sample_path(name: str) -> Path:
    """The file of the sample ``name``; ``ValueError`` gives the command that installs it if it is missing."""
    sample = find_sample(name)
    path = sample.path
    if path is None:
        raise ValueError(
            f"sample: {name} is carried by {sample.package}; run: pip install 'perturb_tutorial[samples]'"
        )
    return path


def load_samples(size: Size = 224, *, names: Sequence[str] | None = None, channels: int = 3) -> Samples:
    """The sample photographs squashed to ``size``, with their ImageNet classes as targets.

    ``size`` and ``channels``: as in :func:`~perturb_tutorial.load_images`. ``names``: which ones; None is every one
    that shows an ImageNet class. Errors: ``ValueError`` for an unknown name, for a sample without a class, and for one
    whose package is not installed.

    Examples:
        >>> import perturb_tutorial as pt
        >>> sample = pt.load_samples(64, names=["chelsea"])
        >>> sample.images.shape, sample.targets
        (torch.Size([1, 3, 64, 64]), [285])
    """
    chosen = [name for name, sample in all_samples().items() if sample.class_index is not None]
    if names is not None:
        chosen = list(names)
    targets = []
    for name in chosen:
        index = find_sample(name).class_index
        if index is None:
            raise ValueError(
                f"sample: {name} shows no ImageNet class; use load_images(sample_path({name!r}), {size})"
            )
        targets.append(index)
    images = load_images([sample_path(name) for name in chosen], size, channels=channels)
    return Samples(images, targets, chosen, [_boxes(name, size) for name in chosen])


def _boxes(name: str, size: Size) -> list[tuple[float, float, float, float]]:
    """The boxes of the objects of the photograph's class, in px of the photograph squashed to ``size``."""
    records = _records()
    image = next(record for record in records["images"] if record["name"] == name)
    of_class = {c["id"] for c in records["categories"] if image["imagenet_index"] in c["imagenet_indices"]}
    down, across = (px / image[side] for px, side in zip(sides(size), ("height", "width"), strict=True))
    return [
        (x * across, y * down, (x + width) * across, (y + height) * down)
        for annotation in records["annotations"]
        if annotation["image_id"] == image["id"] and annotation["category_id"] in of_class
        for x, y, width, height in [annotation["bbox"]]
    ]
