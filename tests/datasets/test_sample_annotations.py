"""The hand-drawn annotations of the sample photographs: consistent, readable with COCO's own tools, and on
the objects. What needs a photograph is skipped where the package that carries it is not installed.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_rows import check_rows
from PIL import Image, ImageFilter

ROOT = Path(__file__).resolve().parents[2]
ANNOTATIONS = ROOT / "data" / "samples" / "annotations.json"
TEXT = ANNOTATIONS.read_text(encoding="utf-8")
DATA = json.loads(TEXT)
IMAGES = {image["id"]: image for image in DATA["images"]}
CATEGORIES = {category["id"]: category for category in DATA["categories"]}
KEYPOINTS = [
    "left_eye",
    "right_eye",
    "left_front_foot",
    "right_front_foot",
    "left_hind_foot",
    "right_hind_foot",
]
FINE = 8  # rasters are this much finer than the photograph, so that a 2 px wide leg has 16 pixels across
NAMED_IMAGES = {image["name"]: image for image in DATA["images"]}
NAMED_ANNOTATIONS = {
    f"{IMAGES[a['image_id']]['name']}-{CATEGORIES[a['category_id']]['name']}-{a['id']}": a
    for a in DATA["annotations"]
}


def annotations_of(image: dict[str, Any]) -> list[dict[str, Any]]:
    return [annotation for annotation in DATA["annotations"] if annotation["image_id"] == image["id"]]


def table(name: str) -> list[dict[str, str]]:
    with (ROOT / "data" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def imagenet_names() -> dict[int, str]:
    return {int(row["index"]): row["names"].split("; ")[0] for row in table("imagenet_classes.csv")}


def tool() -> Any:
    """tools/draw_samples.py as a module."""
    spec = importlib.util.spec_from_file_location("draw_samples", ROOT / "tools" / "draw_samples.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def photograph(image: dict[str, Any]) -> Path:
    package, _, inside = str(image["package_path"]).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{image['package']}, which carries {image['file_name']}, is not installed")
    return Path(spec.submodule_search_locations[0]) / inside


def fine_mask(annotation: dict[str, Any], image: dict[str, Any]) -> Any:
    """Run-length code of the union of all polygons, FINE times finer than the photograph."""
    coco_mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is the oracle here")
    polygons = [[FINE * value for value in polygon] for polygon in annotation["segmentation"]]
    codes = coco_mask.frPyObjects(polygons, FINE * image["height"], FINE * image["width"])
    return coco_mask.merge(codes)


def crossing(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> bool:
    """Whether segments ab and cd cross in a point inside both."""

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def test_reads_with_pycocotools(tmp_path: Path) -> None:
    coco_module = pytest.importorskip("pycocotools.coco")
    copy = tmp_path / "annotations.json"
    copy.write_bytes(ANNOTATIONS.read_bytes())
    coco = coco_module.COCO(str(copy))
    assert len(coco.getImgIds()) == 27
    assert len(coco.getAnnIds()) == len(DATA["annotations"])
    assert sorted(coco.getCatIds()) == sorted(CATEGORIES)
    dog = coco.loadAnns(coco.getAnnIds(catIds=[18]))[0]
    assert coco.annToMask(dog).shape == (512, 512)


def test_the_file_is_small_tidy_and_says_its_license() -> None:
    assert len(TEXT.encode()) <= 200_000
    assert tool().tidy(DATA) == TEXT
    licenses = {entry["id"]: entry["name"] for entry in DATA["licenses"]}
    assert licenses[DATA["info"]["license"]] == "Creative Commons Attribution 4.0 International"
    assert DATA["info"]["contributor"] == "The perturb_tutorial contributors"
    assert {image["license"] for image in DATA["images"]} <= set(licenses)
    assert all(image["credit"] for image in DATA["images"])


def test_ids_are_unique_and_references_resolve() -> None:
    for key in ("licenses", "categories", "images", "annotations"):
        ids = [record["id"] for record in DATA[key]]
        assert ids == sorted(set(ids)), key
    for field in ("name", "file_name", "package_path", "sha256"):
        assert max(Counter(image[field] for image in DATA["images"]).values()) == 1, field
    assert {annotation["image_id"] for annotation in DATA["annotations"]} <= set(IMAGES)
    assert {annotation["category_id"] for annotation in DATA["annotations"]} == set(CATEGORIES)


def test_category_ids_say_what_they_hold() -> None:
    def check(category: dict[str, Any]) -> None:
        indices = category["imagenet_indices"]
        if category["id"] < 1000:
            rows = [row for row in table("coco_to_imagenet.csv") if int(row["category_id"]) == category["id"]]
            wnids = {wnid for row in rows if row["match"] == "exact" for wnid in row["wnids"].split()}
            known = {row["wnid"]: int(row["index"]) for row in table("imagenet_classes.csv")}
            assert {row["category"] for row in rows} == {category["name"]}
            assert indices == sorted(known[wnid] for wnid in wnids)
        elif category["id"] < 2000:
            assert indices[0] == category["id"] - 1000
            assert imagenet_names()[indices[0]].lower() == category["name"]
        else:
            assert indices == []
            assert category["name"] not in {name.lower() for name in imagenet_names().values()}
        assert category.get("keypoints", KEYPOINTS) == KEYPOINTS

    check_rows({str(category["id"]): category for category in DATA["categories"]}, check)


def test_image_has_its_class_annotated_or_says_why_not() -> None:
    def check(image: dict[str, Any]) -> None:
        own = annotations_of(image)
        assert bool(own) != bool(image.get("unannotated"))
        index = image["imagenet_index"]
        assert image["label_source"] == (
            None if index is None else "ImageNet" if image["package"] == "foolbox" else "perturb_tutorial"
        )
        if own and index is not None:
            assert any(index in CATEGORIES[a["category_id"]]["imagenet_indices"] for a in own)

    check_rows(NAMED_IMAGES, check)


def test_foolbox_file_names_tell_class_and_name() -> None:
    def check(image: dict[str, Any]) -> None:
        match = re.fullmatch(r"imagenet_\d\d_(\d+)\.jpg", image["file_name"])
        assert match is not None
        index = int(match.group(1))
        assert image["imagenet_index"] == index
        primary = imagenet_names()[index].lower().replace(" ", "_")
        assert re.fullmatch(re.escape(primary) + r"(_\d)?", image["name"])

    check_rows({name: image for name, image in NAMED_IMAGES.items() if image["package"] == "foolbox"}, check)


def test_photograph_is_the_one_that_was_annotated() -> None:
    def check(image: dict[str, Any]) -> None:
        path = photograph(image)
        assert path.name == image["file_name"]
        with Image.open(path) as file:
            assert file.size == (image["width"], image["height"])
        assert hashlib.sha256(path.read_bytes()).hexdigest() == image["sha256"]

    check_rows(NAMED_IMAGES, check)


def test_polygons_are_simple_and_inside() -> None:
    def check(annotation: dict[str, Any]) -> None:
        image = IMAGES[annotation["image_id"]]
        for polygon in annotation["segmentation"]:
            points = np.array(polygon).reshape(-1, 2)
            assert len(points) >= 3
            assert (points >= 0).all()
            assert (points <= [image["width"], image["height"]]).all()
            edges = list(zip(points, np.roll(points, -1, axis=0), strict=True))
            crossed = [
                (first, second)
                for first in range(len(edges))
                for second in range(first)
                if crossing(*edges[first], *edges[second])
            ]
            assert not crossed

    check_rows(NAMED_ANNOTATIONS, check)


def test_area_and_box_are_those_of_the_segmentation() -> None:
    """The oracle is COCO's rasterizer. A sum of areas larger than the union's would also tell that polygons
    of one object overlap.
    """

    def check(annotation: dict[str, Any]) -> None:
        coco_mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is the oracle here")
        mask = fine_mask(annotation, IMAGES[annotation["image_id"]])
        # 1 %; a boat of 12 px² has a rim that the finer raster still blurs by half a fine pixel.
        assert coco_mask.area(mask) / FINE**2 == pytest.approx(annotation["area"], rel=0.01, abs=1.0)
        # Rounding to fine pixels moves each side by less than one of them: 2/8 px for both sides.
        np.testing.assert_allclose(coco_mask.toBbox(mask) / FINE, annotation["bbox"], atol=2 / FINE)

    check_rows(NAMED_ANNOTATIONS, check)


def test_key_points_are_on_their_animal() -> None:
    def check(annotation: dict[str, Any]) -> None:
        names = CATEGORIES[annotation["category_id"]].get("keypoints")
        assert ("keypoints" in annotation) == (names is not None)
        if names is None:
            return
        coco_mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is the oracle here")
        inside = coco_mask.decode(fine_mask(annotation, IMAGES[annotation["image_id"]]))
        x0, y0, width, height = annotation["bbox"]
        triples = np.array(annotation["keypoints"]).reshape(len(names), 3)
        assert annotation["num_keypoints"] == (triples[:, 2] > 0).sum() > 0
        for x, y, visibility in triples:
            if visibility == 0:
                assert (x, y) == (0, 0)
                continue
            assert visibility in (1, 2)
            assert x0 <= x <= x0 + width
            assert y0 <= y <= y0 + height
            near = 3 * FINE  # px: the outline's own tolerance
            row, column = int(y * FINE), int(x * FINE)
            assert inside[max(0, row - near) : row + near, max(0, column - near) : column + near].any()

    check_rows(NAMED_ANNOTATIONS, check)


def test_animals_show_eyes_and_feet() -> None:
    """§7 compares feet with eyes: the samples hold dogs and birds with both, seen or inferred."""
    with_both = set()
    for annotation in DATA["annotations"]:
        visible = np.array(annotation.get("keypoints", []))[2::3] > 0
        if visible[:2].any() and visible[2:].any():
            with_both.add(IMAGES[annotation["image_id"]]["name"])
    assert {"bull_mastiff", "dalmatian", "goose", "spoonbill", "bald_eagle", "dung_beetle"} <= with_both
    assert all(
        {"species", "group"} <= set(image)
        for image in DATA["images"]
        if any("keypoints" in annotation for annotation in annotations_of(image))
    )


def test_some_photographs_are_difficult() -> None:
    """More than one category, and all segments together under a quarter of the image (the authors' rule)."""
    coco_mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is the oracle here")
    difficult = set()
    for image in DATA["images"]:
        own = annotations_of(image)
        if len({annotation["category_id"] for annotation in own}) > 1:
            union = coco_mask.merge([fine_mask(annotation, image) for annotation in own])
            if coco_mask.area(union) / FINE**2 < image["width"] * image["height"] / 4:
                difficult.add(image["name"])
    assert difficult == {"thatch", "rocket", "china"}


def test_outlines_lie_on_edges() -> None:
    """The color changes more along an outline than along the same outline moved by 12 px: one that is drawn
    for another file, mirrored or with x and y exchanged does not pass.
    """

    def check(annotation: dict[str, Any]) -> None:
        image = IMAGES[annotation["image_id"]]
        with Image.open(photograph(image)) as file:
            # 1.5 px: wide enough that a line 1 or 2 px beside the edge still feels it.
            pixels = np.asarray(file.convert("RGB").filter(ImageFilter.GaussianBlur(1.5)), dtype=float)
        change = np.sqrt(sum((part**2).sum(axis=-1) for part in np.gradient(pixels, axis=(0, 1))))
        samples = []
        for polygon in annotation["segmentation"]:
            points = np.array(polygon).reshape(-1, 2)
            for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
                count = max(1, int(np.hypot(*(end - start)) / 2))
                samples.append(start + np.arange(count)[:, None] / count * (end - start))
        line = np.concatenate(samples)
        size = np.array([image["width"], image["height"]])
        line = line[
            ((line > 3) & (line < size - 3)).all(axis=1)
        ]  # the image's border is no edge of the object

        def along(shift: tuple[int, int]) -> float:
            x, y = np.clip(line + shift, 0, size - 1).astype(int).T
            return float(change[y, x].mean())

        moved = [along((dx, dy)) for dx in (-12, 0, 12) for dy in (-12, 0, 12) if (dx, dy) != (0, 0)]
        assert along((0, 0)) > np.mean(moved)

    # A small object is as large as the shifts above, and its surroundings decide.
    large = {name: a for name, a in NAMED_ANNOTATIONS.items() if a["area"] > 1500}
    check_rows(large, check)


def test_overlays_are_drawn_for_the_names_asked_for(tmp_path: Path) -> None:
    image = next(image for image in DATA["images"] if image["name"] == "grace_hopper")
    with Image.open(photograph(image)) as file:
        plain = np.asarray(file.convert("RGB").resize((905, 1060), Image.Resampling.LANCZOS), dtype=int)
    assert tool().main(["overlays", str(tmp_path / "new"), "--names", "grace_hopper"]) == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["grace_hopper.png"]
    with Image.open(tmp_path / "new" / "grace_hopper.png") as file:
        drawn = np.abs(np.asarray(file, dtype=int) - plain).max(axis=-1) > 40
    assert 0.002 < drawn.mean() < 0.1  # thin lines, not a painted-over photograph


def test_an_unknown_name_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        tool().main(["overlays", str(tmp_path), "--names", "unicorn"])
    assert stop.value.code == 2
    assert "unicorn" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
