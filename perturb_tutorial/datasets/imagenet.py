"""ImageNet's validation images (ILSVRC 2012), their classes and boxes, in the usual folder layouts.

    <folder>/val/n01440764/ILSVRC2012_val_00000293.JPEG     a folder for each class
    <folder>/val/ILSVRC2012_val_00000293.JPEG               flat, with one of the official lists of labels
    beside it

(The images may also lie in ``<folder>`` itself, or in Kaggle's ``ILSVRC/Data/CLS-LOC/val``.) Lists of labels,
looked for in ``<folder>``: ``LOC_val_solution.csv`` (Kaggle), ``val.txt`` (name and index a line),
``imagenet_2012_validation_synset_labels.txt`` (50,000 wnids), or the development kit's
``ILSVRC2012_validation_ground_truth.txt`` with its ``map_clsloc.txt``. Boxes come from
``LOC_val_solution.csv`` or the official XML files, in px of the original image, inclusive corners. Images on
the black list (``ILSVRC2014_clsloc_validation_blacklist.txt``: 1-based numbers, one on a line) are left out, as
the authors did (§5).

A record's id is the file's name without its extension. Where the same name occurs in the folders of several classes, as
in ImageNet-R and ImageNet-Sketch, or with several extensions, it is the path under the images' folder.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from perturb_tutorial._outside import printable_errors
from perturb_tutorial.datasets.records import Box, Dataset, ImageRecord
from perturb_tutorial.files import read_table
from perturb_tutorial.places import Place, as_place, below, matching
from perturb_tutorial.reading import read_bytes

SOLUTION = "LOC_val_solution.csv"
BLACK_LIST = "ILSVRC2014_clsloc_validation_blacklist.txt"
IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})
VALIDATION_PREFIX = "ILSVRC2012_val_"
XML_MEGABYTES, LIST_MEGABYTES = 4, 100
"""Largest files; ImageNet's own XML files have some kB, its lists of the 50,000 validation images some MB."""


@cache
def imagenet_indices() -> dict[str, int]:
    """Class index (0 … 999) of each wnid."""
    return {row["wnid"]: int(row["index"]) for row in read_table("imagenet_classes.csv")}


@cache
def imagenet_names() -> dict[int, str]:
    """Primary name of each class index. Two classes are called "crane"."""
    return {int(row["index"]): row["names"].split("; ")[0] for row in read_table("imagenet_classes.csv")}


def parse_xml(path: Place) -> ElementTree.Element:
    """Root of a small annotation file; ``ValueError`` where it is broken or has a document type."""
    try:
        parser = ElementTree.XMLParser(target=_Annotation())
        parser.feed(read_bytes(path, XML_MEGABYTES))
        root: ElementTree.Element = parser.close()
    except _DocumentType:
        raise ValueError(f"{path}: expected an annotation without DOCTYPE and ENTITY") from None
    except OSError as error:
        raise ValueError(f"{path}: the XML file cannot be read ({error.strerror})") from None
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        # The last two are for an encoding that Python does not know or expat cannot use.
        raise ValueError(f"{path}: the XML file cannot be read ({error})") from None
    return root


class _DocumentType(Exception):
    """An XML file has one. Annotations need none, and the entities that it may define can fill the memory."""


class _Annotation(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Called by the parser, which has decoded the file, before anything in the document type is read."""
        raise _DocumentType


def finite(text: str | None) -> float:
    """The number written in ``text``; ``ValueError`` where there is none, NaN or an infinity."""
    number = float(text or "nan")
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def read_solution(path: Place) -> dict[str, tuple[str, tuple[Box, ...]]]:
    """Wnid and boxes of each image id in Kaggle's ``LOC_val_solution.csv``: ``id,"wnid x0 y0 x1 y1 …"``."""
    found = {}
    try:
        text = read_bytes(path, LIST_MEGABYTES).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:  # the last one for a quote that is never closed
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{path}: the list of boxes cannot be read ({reason})") from None
    for number, row in enumerate(rows, start=2):
        words = (row.get("PredictionString") or "").split()
        try:
            corners = [[float(word) for word in words[k + 1 : k + 5]] for k in range(0, len(words), 5)]
            boxes = tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in corners)
            if not words or set(words[::5]) != {words[0]}:
                raise ValueError
            found[row["ImageId"]] = (words[0], boxes)
        except (ValueError, KeyError):
            raise ValueError(f'{path}: line {number}: expected ImageId,"wnid x0 y0 x1 y1 …"') from None
    return found


def read_xml_boxes(path: Place) -> tuple[str, tuple[Box, ...]]:
    """Wnid and boxes (x0, y0, x1, y1, inclusive) in an official XML file."""
    names, boxes = [], []
    for element in parse_xml(path).iter("object"):
        corners = [element.findtext(f"bndbox/{field}") for field in ("xmin", "ymin", "xmax", "ymax")]
        try:
            x0, y0, x1, y1 = (float(corner) for corner in corners if corner is not None)
        except ValueError:
            raise ValueError(f"{path}: expected xmin, ymin, xmax, ymax in every bndbox") from None
        names.append((element.findtext("name") or "").strip())
        boxes.append((x0, y0, x1, y1))
    if not boxes or len(set(names)) != 1:
        raise ValueError(f"{path}: expected boxes of one class, got {len(boxes)} of {len(set(names))}")
    return names[0], tuple(boxes)


def _number(stem: str) -> int | None:
    """1-based number of a validation image's name, or None."""
    digits = stem.removeprefix(VALIDATION_PREFIX)
    return int(digits) if stem.startswith(VALIDATION_PREFIX) and digits.isdecimal() else None


def _is_box(box: Box) -> bool:
    x0, y0, x1, y1 = box
    return all(map(math.isfinite, box)) and x0 <= x1 and y0 <= y1


def _lines(path: Place) -> list[str]:
    try:
        text = read_bytes(path, LIST_MEGABYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{path}: the list cannot be read ({reason})") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _first(folder: Place, names: Iterable[str]) -> Place | None:
    for name in names:
        for place in (
            folder,
            folder / "devkit" / "data",
            folder / "data",
            folder / "ILSVRC2012_devkit_t12" / "data",
        ):
            if (place / name).is_file():
                return place / name
    return None


def validation_labels(folder: Place) -> Callable[[str], str | None]:
    """A function from a validation image's stem to its wnid, from the first official list found in
    ``folder``.
    """
    if (path := _first(folder, [SOLUTION])) is not None:
        solution = read_solution(path)
        return lambda stem: solution[stem][0] if stem in solution else None
    if (path := _first(folder, ["val.txt"])) is not None:
        wnids = {index: wnid for wnid, index in imagenet_indices().items()}
        try:
            named = {Path(name).stem: wnids[int(index)] for name, index in map(str.split, _lines(path))}
        except (ValueError, KeyError):
            raise ValueError(f"{path}: expected a file name and an index from 0 to 999 a line") from None
        return named.get
    if (path := _first(folder, ["imagenet_2012_validation_synset_labels.txt"])) is not None:
        ordered = _lines(path)
    elif (path := _first(folder, ["ILSVRC2012_validation_ground_truth.txt"])) is not None:
        table = _first(folder, ["map_clsloc.txt"])
        if table is None:
            raise ValueError(
                f"{path}: its numbers are the development kit's own; put the kit's map_clsloc.txt beside it"
            )
        try:
            by_number = {number: wnid for wnid, number, *_ in map(str.split, _lines(table))}
        except ValueError:
            raise ValueError(f"{table}: expected a wnid and its number a line") from None
        try:
            ordered = [by_number[number] for number in _lines(path)]
        except KeyError as error:
            raise ValueError(f"{path}: class {error} is not in {table.name}") from None
    else:
        return lambda stem: None

    def wnid_of(stem: str) -> str | None:
        number = _number(stem)
        return ordered[number - 1] if number is not None and 1 <= number <= len(ordered) else None

    return wnid_of


def read_black_list(path: Place) -> frozenset[int]:
    """The 1-based numbers of the validation images on the black list."""
    try:
        return frozenset(int(line) for line in _lines(path))
    except ValueError:
        raise ValueError(f"{path}: expected the number of a validation image a line") from None


def _image_folder(folder: Place, split: str) -> Place:
    for place in (folder / split, folder / "ILSVRC" / "Data" / "CLS-LOC" / split, folder):
        if place.is_dir():
            return place
    raise ValueError(f"{folder}: expected a folder with ImageNet's images, found none")


def _xml_folder(folder: Place, split: str) -> Place | None:
    places = [
        folder / "Annotations" / "CLS-LOC" / split,
        folder / "ILSVRC" / "Annotations" / "CLS-LOC" / split,
        folder / "bbox" / split,
        folder / "Annotation" / split,
    ]
    return next((place for place in places if place.is_dir()), None)


@printable_errors
def read_imagenet(
    folder: str | Place,
    split: str = "val",
    *,
    boxes: str | Place | None = None,
    black_list: str | Place | None = None,
) -> Dataset:
    """ImageNet images under ``folder`` (see the module) with their class and, where found, their boxes.

    Args:
        folder: the data set's folder.
        split: the folder of the images in it.
        boxes: a ``LOC_val_solution.csv`` or a folder of XML files, if not in ``folder``.
        black_list: the file of the black list, if not in ``folder``.

    Returns:
        Records whose ``label`` is the class index and whose ``truth`` are its boxes; an image whose class no list
        contains has a ``problem``.

    Raises:
        ValueError: for a folder without images, and for a list or file of boxes that cannot be read.
    """
    root = as_place("folder", folder)
    images = _image_folder(root, split)
    indices = imagenet_indices()
    problems: list[str] = []

    box_source = (
        as_place("boxes", boxes)
        if boxes is not None
        else _first(root, [SOLUTION]) or _xml_folder(root, split)
    )
    if box_source is not None and not box_source.exists():
        raise ValueError(f"boxes: {box_source} does not exist")
    if box_source is not None and not (box_source.is_file() or box_source.is_dir()):
        raise ValueError(f"boxes: {box_source} is neither a file nor a folder")
    solution = read_solution(box_source) if box_source is not None and box_source.is_file() else {}
    black_file = as_place("black_list", black_list) if black_list is not None else _first(root, [BLACK_LIST])
    black = read_black_list(black_file) if black_file is not None else frozenset()

    files = [(path, path.parent.name) for path in matching(images, "n*/*") if path.parent.name in indices]
    if not files:
        label_of = validation_labels(root)
        files = [(path, label_of(path.stem) or "") for path in matching(images) if path.is_file()]
    files = [(path, wnid) for path, wnid in files if path.suffix.lower() in IMAGE_SUFFIXES]
    repeated = {stem for stem, times in Counter(path.stem for path, _ in files).items() if times > 1}
    records, left_out = [], 0
    for path, wnid in files:
        if _number(path.stem) in black:
            left_out += 1
            continue
        truth: tuple[Box, ...] = ()
        problem = None if wnid in indices else f"{path.name}: its class is unknown: no official list names it"
        try:
            if path.stem in solution:
                boxed, truth = solution[path.stem]
            elif (
                box_source is not None and box_source.is_dir() and (box_source / f"{path.stem}.xml").is_file()
            ):
                boxed, truth = read_xml_boxes(box_source / f"{path.stem}.xml")
            else:
                boxed = wnid
            if path.stem in repeated and boxed != wnid:
                truth = ()  # boxes of the other class's image
            if not all(map(_is_box, truth)):
                problem, truth = f"{path.name}: a box that is not x0 ≤ x1, y0 ≤ y1", ()
            if truth and problem is None and boxed != wnid:
                problem = f"{path.name}: its folder or list says {wnid}, its boxes are of {boxed}"
        except ValueError as error:
            problem = str(error)
        key = below(path, images) if repeated else path.stem
        records.append(ImageRecord(id=key, path=path, label=indices.get(wnid), truth=truth, problem=problem))
    if not records:
        raise ValueError(
            f"{images}: expected images in folders by wnid or named {VALIDATION_PREFIX}…, found none"
        )
    if left_out:
        problems.append(f"{left_out} images on the black list: left out")
    records.sort(key=lambda record: str(record.id))
    return Dataset(f"imagenet_{split}", tuple(records), imagenet_names(), tuple(problems))
