"""Reading COCO: the official layout, crowds, and each kind of bad data with its one line."""

from __future__ import annotations

import copy
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perturb_tutorial.datasets import check_image, imagenet_classes_of, pairs, read_coco, read_coco_json
from perturb_tutorial.metrics import distance_to_mask, is_difficult, union_mask

pytest.importorskip("pycocotools", reason="COCO needs the extra coco")

SQUARE = [[2.0, 3.0, 6.0, 3.0, 6.0, 8.0, 2.0, 8.0]]


def annotation(key: int, image: int, category: int, **more: Any) -> dict[str, Any]:
    base = {"id": key, "image_id": image, "category_id": category, "iscrowd": 0}
    return {**base, "bbox": [2.0, 3.0, 4.0, 5.0], "area": 20.0, "segmentation": SQUARE, **more}


GOOD: dict[str, Any] = {
    "images": [
        {"id": 8, "file_name": "b.png", "height": 10, "width": 12},
        {"id": 3, "file_name": "a.png", "height": 10, "width": 12},
    ],
    "annotations": [
        annotation(1, 3, 16),
        annotation(2, 3, 17, iscrowd=1, segmentation={"size": [10, 12], "counts": [30, 10, 80]}, area=10),
        annotation(3, 8, 17),
    ],
    "categories": [{"id": 16, "name": "bird"}, {"id": 17, "name": "cat"}],
}


def write(folder: Path, content: dict[str, Any], split: str = "val2014") -> Path:
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / split).mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (12, 10)).save(folder / split / name)
    path = folder / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def content() -> dict[str, Any]:
    return copy.deepcopy(GOOD)


def test_the_official_layout_is_read(tmp_path: Path, content: dict[str, Any]) -> None:
    write(tmp_path, content)
    data = read_coco(tmp_path)
    assert data.categories == {16: "bird", 17: "cat"}
    assert data.problems == ()
    assert [image.id for image in data.images] == [3, 8]
    first = data.images[0]
    assert first.path == tmp_path / "val2014" / "a.png"
    assert first.size == (10, 12)
    assert first.categories == (16, 17)
    bird, cat = first.instances
    assert (bird.box, bird.area, bird.crowd) == ((2, 3, 4, 5), 20.0, False)
    assert isinstance(bird.segmentation, list)
    assert [list(polygon) for polygon in bird.segmentation] == SQUARE
    assert cat.crowd
    assert len(pairs(data.images)) == 3
    assert all(check_image(image).problem is None for image in data.images)


def test_crowds_count_as_segments_and_as_area(tmp_path: Path, content: dict[str, Any]) -> None:
    # The cat is a crowd only: column 3 of 10 px.
    write(tmp_path, content)
    image = read_coco(tmp_path).images[0]
    mask = union_mask([i.segmentation for i in image.of(17) if i.segmentation is not None], image.size)
    assert distance_to_mask(mask, (9, 4)) == 6.0
    arguments = (
        [i.category for i in image.instances],
        [i.area for i in image.instances],
        [i.box for i in image.instances],
    )
    # 20 + 10 px² are exactly a quarter of 120: easy; without the crowd it would be difficult.
    assert not is_difficult(image.size, 16, *arguments)


def test_a_split_must_be_named_where_there_are_several(tmp_path: Path, content: dict[str, Any]) -> None:
    write(tmp_path, content)
    write(tmp_path, content, "val2017")
    assert read_coco(tmp_path, "val2017").images[0].path.parent.name == "val2017"
    with pytest.raises(ValueError, match="several splits, name one of val2014, val2017"):
        read_coco(tmp_path)
    with pytest.raises(ValueError, match="no split 'train2014' of val2014, val2017"):
        read_coco(tmp_path, "train2014")


def test_an_empty_folder_or_one_without_images_is_told(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected COCO's annotations/instances_<split>\.json in it"):
        read_coco(tmp_path)
    write(tmp_path, content)
    (tmp_path / "val2014").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="expected the images of val2014"):
        read_coco(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "images" / "val2014")
    assert len(read_coco(tmp_path).images) == 2


def test_json_cut_in_half_is_one_line(tmp_path: Path, content: dict[str, Any]) -> None:
    path = write(tmp_path, content)
    whole = path.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is not whole JSON") as caught:
            read_coco(tmp_path)
        assert "\n" not in str(caught.value)
    path.write_text("[1, 2]")
    with pytest.raises(
        ValueError, match="expected a COCO file with the lists images, annotations and categories"
    ):
        read_coco(tmp_path)
    path.write_bytes(b"\xff\xfe\x00 no text")
    with pytest.raises(ValueError, match="is not whole JSON"):
        read_coco(tmp_path)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"segmentation": []}, "annotation 3: an empty segment"),
        ({"segmentation": {"size": [10, 12], "counts": [120]}}, "annotation 3: an empty segment"),
        ({"segmentation": {"size": [10, 12], "counts": "PQ3"}}, None),
        ({"segmentation": [[50, 50, 60, 50, 60, 60]]}, "annotation 3: a segment outside of the image"),
        ({"segmentation": [[-9, -9, -1, -9, -1, -1]]}, "annotation 3: a segment outside of the image"),
        ({"segmentation": [[1, 2, 3, 4]]}, "annotation 3: a polygon with fewer than 3 points"),
        (
            {"segmentation": [[1, 2, 3, 4, None, 6]]},
            "annotation 3: a polygon with a coordinate",
        ),
        ({"segmentation": [[1, 2, 3, 4, math.nan, 6]]}, "annotation 3: a polygon with a coordinate"),
        ({"segmentation": {"size": [12, 10], "counts": [50, 70]}}, "annotation 3: a run-length code of size"),
        (
            {"segmentation": {"size": [10, 12], "counts": [50, 7]}},
            "annotation 3: a run-length code that does not add",
        ),
        # Runs that are longer than the image, of other characters, cut off, and none.
        (
            {"segmentation": {"size": [10, 12], "counts": "000"}},
            "annotation 3: a run-length code that does not",
        ),
        (
            {"segmentation": {"size": [10, 12], "counts": "é3"}},
            "annotation 3: a run-length code that does not",
        ),
        (
            {"segmentation": {"size": [10, 12], "counts": "h"}},
            "annotation 3: a run-length code that does not",
        ),
        (
            {"segmentation": {"size": [10, 12], "counts": "P" * 9999}},
            "annotation 3: a run-length code that does",
        ),
        (
            {"segmentation": {"size": [10, 12], "counts": None}},
            "annotation 3: a run-length code that does not",
        ),
        ({"segmentation": {"size": None, "counts": "h3"}}, "annotation 3: a run-length code of size None on"),
        ({"segmentation": [[1, 2, 3, 4, 10**400, 6]]}, "annotation 3: a polygon with a coordinate"),
        ({"segmentation": [[1, 2, 3, 4, 5e8, 6]]}, "annotation 3: a polygon far outside of the image"),
        ({"bbox": [2, 3, 1e9, 5]}, "annotation 3: a box far outside of the image"),
        ({"bbox": [2, 3, 10**400, 5]}, "annotation 3: a box that is not x, y, width, height"),
        ({"bbox": [20, 3, 4, 5]}, "annotation 3: a box outside of the image"),
        ({"bbox": [2, 3, -4, 5]}, "annotation 3: a box of negative size"),
        ({"bbox": [2, 3]}, "annotation 3: a box that is not x, y, width, height"),
        ({"category_id": 99}, "annotation 3: its category 99 is unknown"),
        ({"image_id": 77}, "annotation 3: its image 77 is unknown"),
        ({"id": 1}, "annotation 1: its id is used twice"),
        ({"image_id": [8]}, "an annotation whose ids are"),
    ],
)
def test_a_bad_annotation_is_left_out_and_told(
    tmp_path: Path, content: dict[str, Any], change: dict[str, Any], line: str | None
) -> None:
    from pycocotools import mask as coco

    if line is None:
        # A compressed code of an empty mask.
        code = coco.encode(np.asfortranarray(np.zeros((10, 12), dtype=np.uint8)))
        change = {"segmentation": {"size": [10, 12], "counts": code["counts"].decode()}}
        line = "annotation 3: an empty segment"
    content["annotations"][2].update(change)
    write(tmp_path, content)
    data = read_coco(tmp_path)
    assert len(data.problems) == 1
    assert data.problems[0].startswith(f"instances_val2014.json: {line}")
    assert data.problems[0].endswith(": left out")
    assert "\n" not in data.problems[0]
    assert [len(image.instances) for image in data.images] == [2, 0]


def test_bad_images_are_told_and_missing_files_keep_their_record(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    content["images"] += [
        {"id": 8, "file_name": "twin.png", "height": 10, "width": 12},
        {"id": 9, "file_name": "../secret.png", "height": 10, "width": 12},
        {"id": 10, "file_name": "c.png"},
        {"id": 11, "file_name": "gone.png", "height": 10, "width": 12},
        {"id": 12, "file_name": "c.png", "height": math.inf, "width": 12},
    ]
    write(tmp_path, content)
    data = read_coco(tmp_path)
    assert [image.id for image in data.images] == [3, 8, 11]
    assert [problem.split(": ", 1)[1] for problem in data.problems] == [
        "image id 8 is used twice: twin.png left out",
        "image 9: expected a file in its folder and a size: left out",
        *["an image without id, file_name, height and width: left out"] * 2,
    ]
    assert data.images[2].problem == f"gone.png: the image is missing from {tmp_path / 'val2014'}"
    assert data.images[0].problem is None


def test_an_annotation_file_that_is_a_folder_is_one_line(tmp_path: Path, content: dict[str, Any]) -> None:
    path = write(tmp_path, content)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=r"instances_val2014\.json: the annotation file cannot be read \("):
        read_coco(tmp_path)


def test_categories_need_ids_of_their_own(tmp_path: Path, content: dict[str, Any]) -> None:
    content["categories"].append({"id": 17, "name": "dog"})
    write(tmp_path, content)
    with pytest.raises(ValueError, match="got one twice"):
        read_coco(tmp_path)


@pytest.mark.parametrize(
    ("value", "crowd"), [(0, False), (1, True), (False, False), (True, True), (0.0, False), (1.0, True)]
)
def test_iscrowd_is_0_or_1(tmp_path: Path, content: dict[str, Any], value: object, crowd: bool) -> None:
    content["annotations"][0]["iscrowd"] = value
    write(tmp_path, content)
    data = read_coco(tmp_path)
    assert data.problems == ()
    assert data.images[0].instances[0].crowd is crowd


@pytest.mark.parametrize("value", ["0", "1", "false", float("nan"), 2, -1, 0.5, None, [], {}])
def test_any_other_iscrowd_leaves_its_annotation_out(
    tmp_path: Path, content: dict[str, Any], value: object
) -> None:
    whole = len(content["annotations"])
    content["annotations"][0]["iscrowd"] = value
    write(tmp_path, content)
    data = read_coco(tmp_path)
    (problem,) = data.problems
    assert problem.endswith(f": iscrowd is {value!r}, neither 0 nor 1: left out")
    assert sum(len(image.instances) for image in data.images) == whole - 1


@pytest.mark.parametrize("value", [True, -1, 1000, 3.5, "7", [7]])
def test_an_image_with_an_imagenet_index_that_is_none_is_left_out(
    tmp_path: Path, content: dict[str, Any], value: object
) -> None:
    content["images"][0]["imagenet_index"] = value
    content["images"][1]["imagenet_index"] = 999
    write(tmp_path, content)
    data = read_coco(tmp_path)
    by_name = {image.path.name: image for image in data.images}
    bad, good = (content["images"][n]["file_name"] for n in (0, 1))
    assert bad not in by_name
    assert (by_name[good].problem, by_name[good].label) == (None, 999)
    (problem,) = (line for line in data.problems if "imagenet_index" in line)
    assert f": image {content['images'][0]['id']}: expected imagenet_index from 0 to 999, got " in problem


@pytest.mark.parametrize("value", ["3", 3.5, True, None])
def test_what_is_no_whole_number_is_not_taken_for_one(
    tmp_path: Path, content: dict[str, Any], value: object
) -> None:
    content["images"][0]["height"] = value
    write(tmp_path, content)
    assert "an image without id, file_name, height and width: left out" in read_coco(tmp_path).problems[0]
    content["categories"][0]["id"] = value
    write(tmp_path, content)
    with pytest.raises(ValueError, match="expected an id and a name"):
        read_coco(tmp_path)


def test_key_points_are_sorted_into_eyes_and_feet(tmp_path: Path, content: dict[str, Any]) -> None:
    content["categories"][0]["keypoints"] = ["left_eye", "R_Eye", "left_front_foot", "right hind paw", "nose"]
    points = [1, 2, 2, 3, 4, 1, 5, 6, 2, 0, 0, 0, 7, 8, 2]
    content["annotations"] = [annotation(1, 3, 16, keypoints=points)]
    del content["annotations"][0]["segmentation"]
    path = write(tmp_path, content)
    data = read_coco_json(path, tmp_path / "val2014", segments=False)
    assert data.images[0].instances[0].parts == {"eye": ((1, 2), (3, 4)), "foot": ((5, 6),)}


@pytest.mark.parametrize("points", [5, "1 2 2", [1, 2], [1, None, 2], [math.nan, 2, 2], [[1, 2, 2]]])
def test_key_points_that_are_no_numbers_are_told(
    tmp_path: Path, content: dict[str, Any], points: object
) -> None:
    bird, cat = content["categories"]
    bird["keypoints"], cat["keypoints"] = ["left_eye"], None
    content["annotations"] = [
        annotation(1, 3, 16, keypoints=points),
        annotation(2, 3, 16, keypoints=None),
        annotation(3, 3, 17, keypoints=points),  # of a category that has none they are not read
    ]
    data = read_coco_json(write(tmp_path, content), tmp_path / "val2014")
    assert [problem.split(": ", 1)[1] for problem in data.problems] == [
        "annotation 1: key points that are not numbers x, y, v: left out"
    ]
    assert [instance.parts for instance in data.images[0].instances] == [{}, {}]


REAL = os.environ.get("PERTURB_COCO")


@pytest.mark.skipif(REAL is None, reason="PERTURB_COCO names no folder with COCO")
def test_real_coco_agrees_with_pycocotools() -> None:
    from pycocotools.coco import COCO

    assert REAL is not None
    for path in sorted(Path(REAL).glob("annotations/instances_*.json")):
        data = read_coco(REAL, path.stem.removeprefix("instances_"))
        oracle = COCO(str(path))
        assert data.problems == ()
        assert [image.id for image in data.images] == sorted(oracle.imgs)
        assert sum(len(image.instances) for image in data.images) == len(oracle.anns)
        for image in data.images[:40]:
            records = oracle.loadAnns(oracle.getAnnIds(imgIds=image.id))
            assert list(image.categories) == sorted({record["category_id"] for record in records})
            for category in image.categories:
                own = [record for record in records if record["category_id"] == category]
                expected = np.max([oracle.annToMask(record) for record in own], axis=0).astype(bool)
                got = union_mask(
                    [i.segmentation for i in image.of(category) if i.segmentation is not None], image.size
                )
                # Equal but for slivers without a pixel's center, which here cover their vertices.
                assert not (expected & ~got).any()
                assert (got & ~expected).sum() <= 20
            assert check_image(image).problem is None
        assert pairs(data.images, imagenet_classes_of())
