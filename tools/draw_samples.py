"""The annotations of the sample photographs: tidy them after an edit, and draw them over the photographs.

    python tools/draw_samples.py tidy              write data/samples/annotations.json in its stable form
    python tools/draw_samples.py overlays FOLDER   draw FOLDER/<name>.png for each photograph, or for --names

Polygons and key points are drawn by hand, in px of the photograph's file: (x, y) with the corner of the first
pixel at (0, 0). This script computes everything that follows from them: ``area`` is the sum of the polygons'
areas ½|Σ xᵢyᵢ₊₁ − xᵢ₊₁yᵢ| (the polygons of one object do not overlap), ``bbox`` (x, y, width, height) the box
around all their vertices, ``num_keypoints`` the key points with a visibility above 0.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

ANNOTATIONS = Path(__file__).resolve().parents[1] / "data" / "samples" / "annotations.json"
DECIMALS = 1  # of a vertex, in px: finer than any hand draws
# By category; bright enough to be seen on most photographs.
COLORS = ("#ff00ff", "#00ffff", "#ffff00", "#00ff00", "#ff8000")
VISIBLE, HIDDEN = "#ff0000", "#ffa500"  # key points of visibility 2 and 1

Json = dict[str, Any]


def photograph(record: Json) -> Path:
    """The file of an image record inside the installed package that carries it.

    ``package_path`` begins with the name that Python imports. Raises ``ValueError`` where the package is not
    installed.
    """
    package, _, inside = str(record["package_path"]).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"{record['name']}: expected the package {record['package']}; install it")
    return Path(spec.submodule_search_locations[0]) / inside


def polygon_area(polygon: list[float]) -> Fraction:
    """Area in px² of one polygon x₁, y₁, x₂, y₂, … whose vertices are rounded.

    Exact: an area may end in half of its last digit, and rounding a sum of floats would go up on one machine and
    down on another.
    """
    points = [Fraction(round(value * 10**DECIMALS), 10**DECIMALS) for value in polygon]
    x, y = points[::2], points[1::2]
    after_x, after_y = x[1:] + x[:1], y[1:] + y[:1]
    terms = (a * d - b * c for a, b, c, d in zip(x, y, after_x, after_y, strict=True))
    return abs(sum(terms, Fraction())) / 2


def tidy_annotation(annotation: Json) -> Json:
    """The annotation with rounded vertices, its derived fields computed again and its fields in order."""
    polygons = [[round(value, DECIMALS) for value in polygon] for polygon in annotation["segmentation"]]
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    tidied = {
        "id": annotation["id"],
        "image_id": annotation["image_id"],
        "category_id": annotation["category_id"],
        "iscrowd": 0,
        "bbox": [round(value, DECIMALS) for value in box],
        "area": float(round(sum(map(polygon_area, polygons)), DECIMALS)),
        "segmentation": polygons,
    }
    if "keypoints" in annotation:
        tidied["keypoints"] = annotation["keypoints"]
        tidied["num_keypoints"] = sum(visibility > 0 for visibility in annotation["keypoints"][2::3])
    return tidied


def tidy(data: Json) -> str:
    """The whole file as text: one record a line, each list by ascending id."""
    data = {**data, "annotations": [tidy_annotation(annotation) for annotation in data["annotations"]]}
    lines = ['{"info": ' + json.dumps(data["info"], ensure_ascii=False)]
    for key in ("licenses", "categories", "images", "annotations"):
        records = sorted(data[key], key=lambda record: record["id"])
        rows = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
        lines.append(f'"{key}": [\n{rows}\n]')
    return ",\n".join(lines) + "}\n"


def overlay(record: Json, data: Json, size: int = 1060) -> Image.Image:
    """The photograph, enlarged to ``size`` px on its longer side, with polygons, boxes and key points."""
    with Image.open(photograph(record)) as file:
        image = file.convert("RGB")
    scale = size / max(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    own = [annotation for annotation in data["annotations"] if annotation["image_id"] == record["id"]]
    categories = sorted({annotation["category_id"] for annotation in own})
    names = {category["id"]: category for category in data["categories"]}
    for annotation in own:
        category = names[annotation["category_id"]]
        color = COLORS[categories.index(annotation["category_id"]) % len(COLORS)]
        for polygon in annotation["segmentation"]:
            points = [(x * scale, y * scale) for x, y in zip(polygon[::2], polygon[1::2], strict=True)]
            draw.line([*points, points[0]], fill=color, width=2)
        x, y, width, height = (value * scale for value in annotation["bbox"])
        draw.rectangle((x, y, x + width, y + height), outline=color, width=1)
        draw.text((x + 3, y + 2), category["name"], fill=color)
        points_of = annotation.get("keypoints", [])
        for name, x, y, visibility in zip(
            category.get("keypoints", []), points_of[::3], points_of[1::3], points_of[2::3], strict=False
        ):
            if visibility:
                color_of = VISIBLE if visibility == 2 else HIDDEN
                x, y = x * scale, y * scale
                draw.ellipse((x - 5, y - 5, x + 5, y + 5), outline=color_of, width=3)
                draw.text((x + 8, y - 6), name, fill="white")
    return image


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The annotations of the sample photographs.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tidy", help="write the annotations in their stable form")
    drawing = commands.add_parser("overlays", help="draw the annotations over the photographs")
    drawing.add_argument("folder", type=Path)
    drawing.add_argument("--names", nargs="*", default=None, help="only these photographs")
    chosen = parser.parse_args(arguments)
    data = json.loads(ANNOTATIONS.read_text(encoding="utf-8"))
    if chosen.command == "tidy":
        whole = ANNOTATIONS.with_suffix(".tmp")
        whole.write_text(tidy(data), encoding="utf-8")
        os.replace(whole, ANNOTATIONS)
        return 0
    known = [record["name"] for record in data["images"]]
    unknown = sorted(set(chosen.names or ()) - set(known))
    if unknown:
        parser.error(f"--names: expected names of sample photographs, got {', '.join(unknown)}")
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for record in data["images"]:
        if chosen.names is None or record["name"] in chosen.names:
            try:
                overlay(record, data).save(chosen.folder / f"{record['name']}.png")
            except (OSError, ValueError) as error:
                parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
