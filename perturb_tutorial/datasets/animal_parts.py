"""Eye and foot key points of animals (§7), in two forms.

- The VGG Animal Parts data set (Novotny, Larlus and Vedaldi, BMVC 2016): ``xml/eye/<image>.xml`` and
  ``xml/foot/<image>.xml`` for ImageNet images named ``n01440764_1234`` (training) or
  ``ILSVRC2012_val_00000293`` (validation). An ``object`` holds ``name``, ``bndbox`` and ``point`` elements
  with ``class`` (eye or foot), ``x`` and ``y`` in px. The images are ImageNet's own and lie elsewhere. The
  data set's MATLAB form, which also flags ambiguous key points, is not read; the authors used the XML.
- COCO key points: ``annotations.json`` with the categories' key points named ``left_eye``,
  ``right_hind_foot``, … and ``images/``. An image record may have an ``imagenet_index``. The target of a species
  without a class of its own is the COCO category of its name or supercategory: that of an auklet is bird.

Every record's instances hold ``parts``: the points (x, y) of "eye" and "foot". The paper's set is the classes
with more than 10 images that show at least one eye and one foot.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from xml.etree import ElementTree

from perturb_tutorial._outside import printable_errors
from perturb_tutorial.datasets.categories import category_matches
from perturb_tutorial.datasets.coco import load_json, read_coco_json
from perturb_tutorial.datasets.imagenet import (
    VALIDATION_PREFIX,
    finite,
    imagenet_indices,
    imagenet_names,
    parse_xml,
    validation_labels,
)
from perturb_tutorial.datasets.records import Dataset, ImageRecord, Instance, Point
from perturb_tutorial.places import Place, as_place, is_file, matching

PARTS = ("eye", "foot")
MINIMUM_IMAGES = 10
"""A class takes part with more than this many images that show an eye and a foot (authors' code)."""

_WNID = re.compile(r"n\d{8}")


def _points(element: ElementTree.Element, path: Place) -> dict[str, tuple[Point, ...]]:
    found: dict[str, list[Point]] = {}
    for point in element.iter("point"):
        part = (point.findtext("class") or "").strip()
        try:
            x, y = finite(point.findtext("x")), finite(point.findtext("y"))
            known = part in PARTS
        except ValueError:
            known = False
        if not known:
            raise ValueError(f"{path}: expected points of class eye or foot with numbers x and y")
        found.setdefault(part, []).append((x, y))
    return {part: tuple(points) for part, points in found.items()}


def _objects(
    path: Place,
) -> tuple[str, dict[str, tuple[Point, ...]], tuple[float, float, float, float] | None]:
    """Name, points by part, and the box around all objects (x0, y0, x1, y1) of one XML file."""
    names: list[str] = []
    parts: dict[str, tuple[Point, ...]] = {}
    corners: list[list[float]] = []
    for element in parse_xml(path).iter("object"):
        names.append((element.findtext("name") or "").strip())
        for part, points in _points(element, path).items():
            parts[part] = parts.get(part, ()) + points
        box = [element.findtext(f"bndbox/{field}") for field in ("xmin", "ymin", "xmax", "ymax")]
        try:
            corners.append([finite(corner) for corner in box if corner is not None])
        except ValueError:
            raise ValueError(f"{path}: expected numbers in bndbox") from None
    whole = [corner for corner in corners if len(corner) == 4]
    if not whole:
        return (names[0] if names else ""), parts, None
    x0, y0, x1, y1 = zip(*whole, strict=True)
    return names[0], parts, (min(x0), min(y0), max(x1), max(y1))


def _image_path(images: Place, stem: str) -> Place:
    """Where the ImageNet image ``stem`` is: in a folder of its class, split, both or neither."""
    wnid = stem.split("_")[0]
    split = "val" if stem.startswith(VALIDATION_PREFIX) else "train"
    for folder in (images / split / wnid, images / wnid, images / split, images):
        for suffix in (".JPEG", ".jpg", ".png"):
            if is_file(folder / f"{stem}{suffix}"):  # which is False for a name that is too long
                return folder / f"{stem}{suffix}"
    # A validation image may have been sorted into a folder of its class, which its name does not contain.
    classes = matching(images / "val", "n*") if split == "val" else []
    found = (folder / f"{stem}.JPEG" for folder in classes)
    return next(filter(is_file, found), images / split / f"{stem}.JPEG")


@printable_errors
def read_vgg_parts(folder: str | Place, images: str | Place) -> Dataset:
    """The VGG Animal Parts data set: ``folder`` holds ``xml/eye`` and ``xml/foot``, ``images`` ImageNet's
    images.

    The class of a training image is in its name; that of a validation image in the object's name, if this is
    a wnid, or else in an official list of labels under ``images`` (see
    :mod:`perturb_tutorial.datasets.imagenet`).
    """
    root, image_root = as_place("folder", folder), as_place("images", images)
    folders = {part: root / "xml" / part for part in PARTS}
    for part_folder in folders.values():
        if not part_folder.is_dir():
            raise ValueError(
                f"{root}: expected the folders xml/eye and xml/foot in it, found no {part_folder}"
            )
    files: dict[str, dict[str, Place]] = {}
    for part, part_folder in folders.items():
        for path in matching(part_folder, "*.xml"):
            files.setdefault(path.stem, {})[part] = path
    indices = imagenet_indices()
    label_of = validation_labels(image_root)
    records = []
    for stem in sorted(files):
        wnid = match.group() if (match := _WNID.match(stem)) else ""
        parts: dict[str, tuple[Point, ...]] = {}
        box, problem = None, None
        try:
            for part in PARTS:
                if part not in files[stem]:
                    continue
                name, found, part_box = _objects(files[stem][part])
                wnid = wnid or (name if _WNID.fullmatch(name) else "")
                box = box or part_box
                if part in found:
                    parts[part] = found[part]
        except ValueError as error:
            problem = str(error)
        wnid = wnid or label_of(stem) or ""
        path = _image_path(image_root, stem)
        if problem is None and wnid not in indices:
            problem = f"{stem}: its class is unknown: neither a name nor an official list gives it"
        if problem is None and not is_file(path):
            problem = f"{path.name}: the image is missing from {image_root}"
        instances: tuple[Instance, ...] = ()
        if wnid in indices:
            x0, y0, x1, y1 = box or (0.0, 0.0, 0.0, 0.0)
            width, height = (x1 - x0 + 1, y1 - y0 + 1) if box else (0.0, 0.0)
            instances = (Instance(indices[wnid], (x0, y0, width, height), width * height, parts=parts),)
        records.append(
            ImageRecord(id=stem, path=path, instances=instances, label=indices.get(wnid), problem=problem)
        )
    if not records:
        raise ValueError(f"{root}: expected XML files in xml/eye and xml/foot, found none")
    return Dataset("animal_parts", tuple(records), imagenet_names())


@printable_errors
def read_animal_parts(folder: str | Place, images: str | Place | None = None) -> Dataset:
    """Animals with eye and foot key points under ``folder``, in either form (see the module).

    ``images`` is ImageNet's folder for the VGG form (None: ``folder`` itself), and the images' folder for COCO's (None:
    ``images/`` in ``folder``).
    """
    root = as_place("folder", folder)
    if (root / "xml").is_dir():
        return read_vgg_parts(root, root if images is None else images)
    candidates = [root / "annotations.json", *matching(root, "annotations/*keypoints*.json")]
    for path in candidates:
        if path.is_file():
            place = as_place("images", images) if images is not None else root / "images"
            return read_coco_json(path, place, name="animal_parts", segments=False)
    raise ValueError(
        f"{root}: expected xml/eye and xml/foot (VGG) or annotations.json (COCO key points) in it"
    )


@printable_errors
def animal_categories(folder: str | Place) -> dict[int, int]:
    """COCO's id of each category id under ``folder`` (COCO key points) whose name, or else supercategory, is that of a
    COCO category which ImageNet has, such as bird, cat or horse. Empty for the VGG form, whose images have classes.
    """
    root = as_place("folder", folder)
    for path in [root / "annotations.json", *matching(root, "annotations/*keypoints*.json")]:
        if path.is_file() and not (root / "xml").is_dir():
            known = {row.category: row.category_id for row in category_matches() if row.match == "exact"}
            named = {
                int(c["id"]): (str(c["name"]), str(c.get("supercategory")))
                for c in load_json(path)["categories"]
            }
            return {
                key: known[name]
                for key, names in named.items()
                for name in [next((name for name in names if name in known), None)]
                if name is not None
            }
    return {}


def shows(record: ImageRecord, part: str) -> bool:
    """Whether any instance in the image has a key point of ``part``."""
    return any(instance.parts.get(part) for instance in record.instances)


def with_both_parts(images: Iterable[ImageRecord], minimum: int = MINIMUM_IMAGES) -> list[ImageRecord]:
    """Images with at least one eye and one foot of the same class, from classes with **more** than ``minimum`` such
    images.

    The class is the category of the instances that have both parts; the paper's 76 classes have ``minimum`` =
    10.
    """

    def own(record: ImageRecord) -> set[int]:
        by_part = [{i.category for i in record.instances if i.parts.get(part)} for part in PARTS]
        return by_part[0] & by_part[1]

    usable = [(record, own(record)) for record in images]
    counts = Counter(category for _, categories in usable for category in categories)
    return [
        record for record, categories in usable if any(counts[category] > minimum for category in categories)
    ]
