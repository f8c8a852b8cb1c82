"""COCO's instances (2014 and 2017): objects, segments, boxes and crowds of 80 categories.

The official layout, under one folder of yours:

    annotations/instances_val2014.json      val2014/COCO_val2014_000000000042.jpg
    annotations/instances_val2017.json      val2017/000000000139.jpg

(``images/val2014/`` works too.) This module reads the JSON itself, since ``pycocotools.coco.COCO`` prints, lets a later
record overwrite an earlier one with the same id, and notices a missing image only when it is opened. Segments are
turned into pixels in :mod:`perturb_tutorial.metrics.segments`.
"""

from __future__ import annotations

import math
import reprlib
from array import array
from pathlib import Path
from typing import Any

from perturb_tutorial._outside import is_number, printable, printable_errors, short
from perturb_tutorial.datasets.json_values import is_flag, read_whole, text
from perturb_tutorial.datasets.records import Dataset, ImageRecord, Instance, Point
from perturb_tutorial.metrics.segments import run_lengths
from perturb_tutorial.places import Place, as_place, matching
from perturb_tutorial.reading import read_json

PARTS = {"eye": "eye", "foot": "foot", "paw": "foot"}
"""Last word of a key point's name → the part that it is (§7)."""
IMAGENET = 1000
"""The number of ImageNet's classes."""
FAR = 10
"""A coordinate beyond this many times the image's longer side is a mistake. pycocotools would visit every pixel along
such an outline."""
MEGABYTES = 1500
"""Largest annotation file; COCO's own have up to 450 MB, LVIS's 1,200."""


def load_json(path: Place) -> dict[str, Any]:
    """A COCO file's content; ``ValueError`` with one line where it is missing, cut off or something else."""
    try:
        content = read_json(path, MEGABYTES)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such annotation file") from None
    except OSError as error:
        raise ValueError(f"{path}: the annotation file cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(
            f"{path}: the annotation file is not whole JSON ({error}); copy or download it again"
        ) from None
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise ValueError(f"{path}: expected a COCO file with the lists images, annotations and categories")
    return content


@printable_errors
def find_annotations(folder: Place, split: str | None = None) -> tuple[Place, Place]:
    """The annotation file and the image folder of a split under ``folder``.

    Without ``split`` there must be one annotation file only. Raises ``ValueError`` that lists the splits
    found.
    """
    paths = matching(folder, "annotations/instances_*.json")
    files = {path.stem.removeprefix("instances_"): path for path in paths}
    if not files:
        raise ValueError(f"{folder}: expected COCO's annotations/instances_<split>.json in it, found none")
    if split is None and len(files) == 1:
        split = next(iter(files))
    if split not in files:
        problem = "several splits, name one" if split is None else f"no split {split!r}"
        raise ValueError(f"{folder}: {problem} of {', '.join(files)} (--split)")
    for images in (folder / split, folder / "images" / split):
        if images.is_dir():
            return files[split], images
    raise ValueError(
        f"{folder}: expected the images of {split} in {split}/ or images/{split}/, found neither"
    )


def _code_fault(code: dict[str, Any], height: int, width: int) -> str | None:
    if code.get("size") != [height, width]:
        size = reprlib.repr(code.get("size"))
        return f"a run-length code of size {size} on an image of [{height}, {width}]"
    try:
        return None if sum(run_lengths(code.get("counts"), height * width)[1::2]) else "an empty segment"
    except ValueError:
        return "a run-length code that does not add up to the image"


def _segments(raw: object, height: int, width: int) -> tuple[list[Any] | dict[str, Any], str | None]:
    """A segmentation with packed polygons (a quarter of their size as lists), and what is wrong with it."""
    if isinstance(raw, dict):
        return raw, _code_fault(raw, height, width)
    if not isinstance(raw, list) or not raw:
        return [], "an empty segment"
    polygons, inside = [], False
    for polygon in raw:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return [], "a polygon with fewer than 3 points"
        try:
            packed = array("d", polygon)
        except (TypeError, OverflowError):
            return [], "a polygon with a coordinate that is no number"
        if not math.isfinite(sum(packed)):
            return [], "a polygon with a coordinate that is no number"
        if max(map(abs, packed)) > FAR * max(height, width):
            return [], "a polygon far outside of the image"
        xs, ys = packed[::2], packed[1::2]
        inside = inside or (max(xs) > 0 and min(xs) < width and max(ys) > 0 and min(ys) < height)
        polygons.append(packed)
    return polygons, None if inside else "a segment outside of the image"


def _box_fault(box: object, height: int, width: int) -> str | None:
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        return "a box that is not x, y, width, height"
    x, y, w, h = box
    if w < 0 or h < 0:
        return "a box of negative size"
    if max(map(abs, box)) > FAR * max(height, width):
        return "a box far outside of the image"
    return None if x < width and y < height and x + w > 0 and y + h > 0 else "a box outside of the image"


def _points_fault(points: object, height: int, width: int) -> str | None:
    if points is None:
        return None
    if not isinstance(points, list) or len(points) % 3 or not all(map(is_number, points)):
        return "key points that are not numbers x, y, v"
    far = max(map(abs, points), default=0) > FAR * max(height, width)
    return "key points far outside of the image" if far else None


def _parts(annotation: dict[str, Any], names: list[str]) -> dict[str, tuple[Point, ...]]:
    """Labeled key points (v > 0) of eyes and feet, by part."""
    triples = (annotation.get("keypoints") or []) if names else []
    found: dict[str, list[Point]] = {}
    for name, k in zip(names, range(0, len(triples) - 2, 3), strict=False):
        part = PARTS.get(name.lower().replace(" ", "_").rsplit("_", 1)[-1])
        if part is not None and triples[k + 2] > 0:
            found.setdefault(part, []).append((float(triples[k]), float(triples[k + 1])))
    return {part: tuple(points) for part, points in found.items()}


def _is_class(index: object) -> bool:
    return isinstance(index, int) and not isinstance(index, bool) and 0 <= index < IMAGENET


def _read_images(path: Place, content: dict[str, Any], problems: list[str]) -> dict[int, dict[str, Any]]:
    """Image records by id; what is wrong with the others goes to ``problems``."""
    images: dict[int, dict[str, Any]] = {}
    for image in content["images"]:
        try:
            key, file = read_whole(image["id"]), Path(text(image["file_name"]))
            sides = read_whole(image["height"]), read_whole(image["width"])
            label = image.get("imagenet_index")
        except (TypeError, KeyError, ValueError, OverflowError):
            problems.append(f"{path.name}: an image without id, file_name, height and width: left out")
            continue
        if key in images:
            problems.append(f"{path.name}: image id {key} is used twice: {file} left out")
        elif file.is_absolute() or ".." in file.parts or min(sides) < 1:
            problems.append(f"{path.name}: image {key}: expected a file in its folder and a size: left out")
        elif label is not None and not _is_class(label):
            problems.append(
                f"{path.name}: image {key}: expected imagenet_index from 0 to {IMAGENET - 1}, "
                f"got {short(label)}: left out"
            )
        else:
            images[key] = image
    return images


def _read_annotations(
    path: Place,
    annotations: list[Any],
    images: dict[int, dict[str, Any]],
    keypoints: dict[int, list[str]],
    segments: bool,
    problems: list[str],
) -> dict[int, list[Instance]]:
    """Converts annotations to instances.

    Args:
        path: the annotation file, for messages.
        annotations: the raw records; the list is emptied.
        images: the raw image records by id.
        keypoints: the names of each category's key points.
        segments: whether instances have segments.
        problems: gets a line for each annotation that is left out.

    Returns:
        Instances by image id.
    """
    instances: dict[int, list[Instance]] = {key: [] for key in images}
    seen: set[int] = set()
    # A raw record is freed once it is read: the file and the data set are never both whole in memory.
    annotations.reverse()
    while annotations:
        raw = annotations.pop()
        annotation = raw if isinstance(raw, dict) else {}
        ids = [annotation.get(name) for name in ("id", "image_id", "category_id")]
        if not all(type(value) is int for value in ids):
            problems.append(
                f"{path.name}: an annotation whose ids are {reprlib.repr(ids)}, not whole numbers: left out"
            )
            continue
        key, image_id, category = (int(value) for value in ids if value is not None)
        segmentation: list[Any] | dict[str, Any] | None = None
        if key in seen:
            fault: str | None = "its id is used twice"
        elif image_id not in images:
            fault = f"its image {image_id} is unknown"
        elif category not in keypoints:
            fault = f"its category {category} is unknown"
        else:
            height, width = int(images[image_id]["height"]), int(images[image_id]["width"])
            fault = _box_fault(annotation.get("bbox"), height, width)
            if fault is None and not is_flag(annotation.get("iscrowd", 0)):
                fault = f"iscrowd is {reprlib.repr(annotation['iscrowd'])}, neither 0 nor 1"
            if fault is None and keypoints[category]:
                fault = _points_fault(annotation.get("keypoints"), height, width)
            if fault is None and segments:
                segmentation, fault = _segments(annotation.get("segmentation"), height, width)
        if fault is not None:
            problems.append(f"{path.name}: annotation {key}: {fault}: left out")
            continue
        seen.add(key)
        x, y, w, h = (float(value) for value in annotation["bbox"])
        area: Any = annotation.get("area")
        instances[image_id].append(
            Instance(
                category=category,
                box=(x, y, w, h),
                area=float(area) if is_number(area) and 0 <= area <= height * width else w * h,
                segmentation=segmentation,
                crowd=bool(annotation.get("iscrowd", 0)),
                parts=_parts(annotation, keypoints[category]),
            )
        )
    return instances


@printable_errors
def read_coco_json(
    annotation_file: str | Place,
    image_folder: str | Place,
    *,
    name: str | None = None,
    segments: bool = True,
    check_files: bool = True,
) -> Dataset:
    """A COCO file with its images' folder as a :class:`Dataset`; images by ascending id.

    An annotation that cannot be used (empty or outside segment, unknown category or image, an id used before) is left
    out and reported in ``problems``.

    Args:
        annotation_file: the JSON file.
        image_folder: the folder of its images.
        name: the data set's name; None is the file's.
        segments: False for files whose annotations have key points and boxes only.
        check_files: whether an image missing from the folder gets its problem at once, from one listing of the folder.
            Unreadable files and wrong sizes are found by :func:`~perturb_tutorial.datasets.records.check_image` when
            the image is due.

    Raises:
        ValueError: for a file that is missing, truncated or no COCO file, and for a missing folder.
    """
    path, folder = as_place("annotation_file", annotation_file), as_place("image_folder", image_folder)
    content = load_json(path)
    try:
        categories = {read_whole(c["id"]): printable(text(c["name"])) for c in content["categories"]}
        keypoints = {
            read_whole(c["id"]): [text(k) for k in c.get("keypoints") or []] for c in content["categories"]
        }
    except (TypeError, KeyError, ValueError, OverflowError):
        raise ValueError(
            f"{path}: expected an id and a name, and a list of key points or none, for every category"
        ) from None
    if len(categories) < len(content["categories"]):
        raise ValueError(f"{path}: expected categories with an id of their own each, got one twice")
    if check_files and not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder with the images, found none")
    try:
        present = {entry.name for entry in folder.iterdir()} if check_files else set()
    except OSError as error:
        raise ValueError(f"{folder}: the folder cannot be read ({error.strerror})") from None

    problems: list[str] = []
    images = _read_images(path, content, problems)
    instances = _read_annotations(path, content["annotations"], images, keypoints, segments, problems)
    records = []
    for key in sorted(images):
        file, index = str(images[key]["file_name"]), images[key].get("imagenet_index")
        missing = check_files and Path(file).name == file and file not in present
        records.append(
            ImageRecord(
                id=key,
                path=folder / file,
                height=read_whole(images[key]["height"]),
                width=read_whole(images[key]["width"]),
                instances=tuple(instances[key]),
                label=index,
                problem=f"{file}: the image is missing from {folder}" if missing else None,
            )
        )
    return Dataset(name or path.stem, tuple(records), categories, tuple(map(printable, problems)))


def read_coco(folder: str | Place, split: str | None = None) -> Dataset:
    """COCO in its official layout under ``folder`` (see the module); ``split`` such as "val2014".

    Raises ``ValueError`` with one line where files are missing or the JSON is cut off.
    """
    annotation_file, image_folder = find_annotations(as_place("folder", folder), split)
    return read_coco_json(annotation_file, image_folder)
