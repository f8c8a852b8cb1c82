"""Eyes and feet in both forms: the VGG data set's XML and COCO key points."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from perturb_tutorial.datasets import (
    ImageRecord,
    Instance,
    check_image,
    imagenet_names,
    read_animal_parts,
    shows,
    with_both_parts,
)

ROBIN, LION = "n01558993", "n02129165"


def xml(name: str, *points: tuple[str, float, float]) -> str:
    marks = "".join(f"<point><class>{part}</class><x>{x}</x><y>{y}</y></point>" for part, x, y in points)
    box = "<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>44</xmax><ymax>25</ymax></bndbox>"
    return f"<annotation><object><name>{name}</name>{box}{marks}</object></annotation>"


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40)).save(path, format="JPEG")


def test_the_vgg_form(tmp_path: Path) -> None:
    for part in ("eye", "foot"):
        (tmp_path / "xml" / part).mkdir(parents=True)
    eye, foot = tmp_path / "xml" / "eye", tmp_path / "xml" / "foot"
    images = tmp_path / "ilsvrc"
    image(images / "train" / ROBIN / f"{ROBIN}_12.JPEG")
    image(images / "val" / "ILSVRC2012_val_00000007.JPEG")
    image(images / "val" / LION / "ILSVRC2012_val_00000009.JPEG")
    (eye / f"{ROBIN}_12.xml").write_text(xml("robin", ("eye", 10.5, 11)))
    (foot / f"{ROBIN}_12.xml").write_text(xml("robin", ("foot", 20, 21), ("foot", 22, 23)))
    (eye / "ILSVRC2012_val_00000007.xml").write_text(xml(LION, ("eye", 1, 2), ("eye", 3, 4)))
    (foot / "ILSVRC2012_val_00000009.xml").write_text(xml("lion", ("foot", 5, 6)))
    (eye / f"{ROBIN}_13.xml").write_text(xml("robin", ("eye", 1, 1)))
    (eye / f"{ROBIN}_14.xml").write_text(xml("robin", ("wing", 1, 1)))
    (images / "val.txt").write_text("ILSVRC2012_val_00000009.JPEG 291\n")

    data = read_animal_parts(tmp_path, images)
    by_id = {record.id: record for record in data.images}
    robin = by_id[f"{ROBIN}_12"]
    assert imagenet_names()[robin.label or -1] == "robin"
    assert robin.problem is None
    assert robin.instances[0].parts == {"eye": ((10.5, 11.0),), "foot": ((20.0, 21.0), (22.0, 23.0))}
    assert robin.instances[0].box == (5, 6, 40, 20)
    assert check_image(robin).size == (40, 60)
    # A validation image's class: from the object's name, or from the official list.
    assert by_id["ILSVRC2012_val_00000007"].label == 291
    assert by_id["ILSVRC2012_val_00000009"].label == 291
    assert by_id["ILSVRC2012_val_00000009"].path.parent.name == LION
    assert by_id["ILSVRC2012_val_00000009"].problem is None
    assert by_id[f"{ROBIN}_13"].problem == f"{ROBIN}_13.JPEG: the image is missing from {images}"
    assert "expected points of class eye or foot" in (by_id[f"{ROBIN}_14"].problem or "")
    assert [record.id for record in with_both_parts(data.images, 0)] == [f"{ROBIN}_12"]
    assert shows(robin, "eye")
    assert not shows(by_id["ILSVRC2012_val_00000007"], "foot")


def test_the_coco_form(tmp_path: Path) -> None:
    names = ["left_eye", "right_eye", "left_hind_foot"]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60, "imagenet_index": 15}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 4,
                "bbox": [0, 0, 60, 40],
                "keypoints": [1, 2, 2, 0, 0, 0, 7, 8, 1],
            }
        ],
        "categories": [{"id": 4, "name": "robin", "keypoints": names}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    image(tmp_path / "images" / "a.jpg")
    record = read_animal_parts(tmp_path).images[0]
    assert record.label == 15
    assert record.instances[0].parts == {"eye": ((1, 2),), "foot": ((7, 8),)}


def test_a_folder_of_neither_form_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected xml/eye and xml/foot \(VGG\) or annotations\.json"):
        read_animal_parts(tmp_path)
    (tmp_path / "xml" / "eye").mkdir(parents=True)
    with pytest.raises(ValueError, match="expected the folders xml/eye and xml/foot"):
        read_animal_parts(tmp_path)


def test_classes_need_more_than_the_minimum() -> None:
    def record(key: int, category: int, *parts: str) -> ImageRecord:
        points = dict.fromkeys(parts, ((1.0, 1.0),))
        return ImageRecord(key, Path("x"), 9, 9, (Instance(category, (0, 0, 1, 1), 1.0, parts=points),))

    images = [record(k, 1, "eye", "foot") for k in range(11)]
    images += [record(20 + k, 2, "eye", "foot") for k in range(10)]
    images += [record(40 + k, 3, "eye") for k in range(30)]
    assert {r.instances[0].category for r in with_both_parts(images)} == {1}
    assert len(with_both_parts(images)) == 11
    # The eye and the foot must be of one class.
    mixed = ImageRecord(
        99,
        Path("x"),
        9,
        9,
        (
            Instance(5, (0, 0, 1, 1), 1.0, parts={"eye": ((1.0, 1.0),)}),
            Instance(6, (0, 0, 1, 1), 1.0, parts={"foot": ((1.0, 1.0),)}),
        ),
    )
    assert with_both_parts([mixed], 0) == []


REAL = os.environ.get("PERTURB_ANIMAL_PARTS")


@pytest.mark.skipif(REAL is None, reason="PERTURB_ANIMAL_PARTS names no folder with key points")
def test_real_animal_parts_are_read() -> None:
    assert REAL is not None
    data = read_animal_parts(REAL)
    usable = [record for record in data.images if record.problem is None]
    assert usable
    for record in usable[:100]:
        height, width = check_image(record).size
        for instance in record.instances:
            for points in instance.parts.values():
                assert all(0 <= x <= width and 0 <= y <= height for x, y in points)
    assert with_both_parts(usable, 0)
