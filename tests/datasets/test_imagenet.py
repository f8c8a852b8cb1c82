"""ImageNet validation images in the forms that people keep them, boxes and black list."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from perturb_tutorial.datasets import check_image, imagenet_indices, imagenet_names, read_imagenet

TENCH, CRANE_BIRD, CRANE_MACHINE = "n01440764", "n02012849", "n03126707"

XML = """<annotation>
    <filename>{name}</filename><size><width>500</width><height>375</height></size>
    <object><name>{wnid}</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>50</xmax><ymax>60</ymax></bndbox></object>
    <object><name>{wnid}</name><bndbox><xmin>7</xmin><ymin>8</ymin><xmax>9</xmax><ymax>10</ymax></bndbox></object>
</annotation>"""
SIDES = ("xmin", "ymin", "xmax", "ymax")


def name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}"


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(path, format="JPEG")
    return path


def flat(folder: Path) -> None:
    for number in (1, 2, 3):
        image(folder / "val" / f"{name(number)}.JPEG")


def test_classes_are_sorted_wnids_and_two_are_called_crane() -> None:
    indices = imagenet_indices()
    assert [indices[wnid] for wnid in sorted(indices)] == list(range(1000))
    names = imagenet_names()
    assert names[indices[CRANE_BIRD]] == names[indices[CRANE_MACHINE]] == "crane"
    assert (indices[TENCH], names[0]) == (0, "tench")


def test_folders_by_wnid(tmp_path: Path) -> None:
    image(tmp_path / "val" / CRANE_BIRD / f"{name(5)}.JPEG")
    image(tmp_path / "val" / TENCH / f"{name(9)}.JPEG")
    (tmp_path / "val" / TENCH / "readme.txt").write_text("no image")
    data = read_imagenet(tmp_path)
    assert [(record.id, record.label) for record in data.images] == [(name(5), 134), (name(9), 0)]
    assert all(record.truth == () and record.problem is None for record in data.images)
    assert check_image(data.images[0]).size == (6, 8)
    # The folder of classes itself works too.
    assert len(read_imagenet(tmp_path / "val").images) == 2


@pytest.mark.parametrize("form", ["solution", "val.txt", "synsets", "devkit"])
def test_flat_with_each_official_list(tmp_path: Path, form: str) -> None:
    flat(tmp_path)
    wnids = [TENCH, CRANE_MACHINE, CRANE_BIRD]
    if form == "solution":
        rows = [f"{name(k + 1)},{wnid} 1 2 3 4 {wnid} 5 6 7 8 " for k, wnid in enumerate(wnids)]
        (tmp_path / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")
    elif form == "val.txt":
        rows = [f"{name(k + 1)}.JPEG {imagenet_indices()[wnid]}" for k, wnid in enumerate(wnids)]
        (tmp_path / "val.txt").write_text("\n".join(rows))
    elif form == "synsets":
        (tmp_path / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(wnids))
    else:
        kit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
        kit.mkdir(parents=True)
        (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("490\n7\n122\n")
        with pytest.raises(ValueError, match=r"map_clsloc\.txt"):
            read_imagenet(tmp_path)
        (kit / "map_clsloc.txt").write_text(
            f"{TENCH} 490 tench\n{CRANE_MACHINE} 7 crane\n{CRANE_BIRD} 122 crane\n"
        )
    data = read_imagenet(tmp_path)
    assert [record.label for record in data.images] == [0, 517, 134]
    boxes = ((1, 2, 3, 4), (5, 6, 7, 8)) if form == "solution" else ()
    assert all(record.truth == boxes for record in data.images)


def test_flat_without_a_list_is_a_problem_of_each_image(tmp_path: Path) -> None:
    flat(tmp_path)
    data = read_imagenet(tmp_path)
    assert len(data.images) == 3
    assert all(
        r.problem == f"{r.path.name}: its class is unknown: no official list names it" for r in data.images
    )


def test_boxes_from_xml_and_their_disagreement(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        image(tmp_path / "val" / TENCH / f"{name(number)}.JPEG")
    xml = tmp_path / "Annotations" / "CLS-LOC" / "val"
    xml.mkdir(parents=True)
    (xml / f"{name(1)}.xml").write_text(XML.format(name=name(1), wnid=TENCH))
    (xml / f"{name(2)}.xml").write_text(XML.format(name=name(2), wnid=CRANE_BIRD))
    (xml / f"{name(3)}.xml").write_text(XML.format(name=name(3), wnid=TENCH)[:200])
    first, second, third = read_imagenet(tmp_path).images
    assert first.truth == ((3, 4, 50, 60), (7, 8, 9, 10))
    assert first.problem is None
    assert second.problem == f"{name(2)}.JPEG: its folder or list says {TENCH}, its boxes are of {CRANE_BIRD}"
    assert third.problem is not None
    assert "the XML file cannot be read" in third.problem
    # The same from a folder that is named.
    elsewhere = tmp_path / "elsewhere"
    xml.rename(elsewhere)
    assert read_imagenet(tmp_path, boxes=elsewhere).images[0].truth == first.truth
    with pytest.raises(ValueError, match=r"boxes: .* does not exist"):
        read_imagenet(tmp_path, boxes=tmp_path / "nowhere")


def test_names_used_again_by_other_classes_or_endings_are_images_of_their_own(tmp_path: Path) -> None:
    # As in ImageNet-R and ImageNet-Sketch; a list of boxes goes by names and means one class's image.
    for path in (
        f"{TENCH}/art_0.jpg",
        f"{TENCH}/art_0.png",
        f"{CRANE_BIRD}/art_0.jpg",
        f"{CRANE_BIRD}/art_1.jpg",
    ):
        image(tmp_path / "val" / path)
    (tmp_path / "LOC_val_solution.csv").write_text(f"ImageId,PredictionString\nart_0,{TENCH} 1 2 3 4\n")
    records = read_imagenet(tmp_path).images
    assert [(record.id, record.label, len(record.truth)) for record in records] == [
        (f"{TENCH}/art_0.jpg", 0, 1),
        (f"{TENCH}/art_0.png", 0, 1),
        (f"{CRANE_BIRD}/art_0.jpg", 134, 0),
        (f"{CRANE_BIRD}/art_1.jpg", 134, 0),
    ]
    assert all(record.problem is None for record in records)


def test_a_box_or_file_that_is_no_good_is_its_images_problem_alone(tmp_path: Path) -> None:
    corners = ["1 2 3 4", "3 2 1 4", "1 4 3 2", "1 2 nan 4", "1 2 inf 4", "5 5 5 5"]
    xml = tmp_path / "Annotations" / "CLS-LOC" / "val"
    xml.mkdir(parents=True)
    sides = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
    box = f"<object><name>{{}}</name><bndbox>{sides}</bndbox></object>"
    for number, text in enumerate(corners):
        image(tmp_path / "val" / TENCH / f"{name(number)}.JPEG")
        (xml / f"{name(number)}.xml").write_text(
            f"<annotation>{box.format(TENCH, *text.split())}</annotation>"
        )
    image(tmp_path / "val" / TENCH / f"{name(6)}.JPEG")
    (xml / f"{name(6)}.xml").write_text('<?xml version="1.0" encoding="nonsense"?><annotation/>')
    problems = [record.problem or "" for record in read_imagenet(tmp_path).images]
    assert [bool(problem) for problem in problems] == [False, True, True, True, True, False, True]
    assert all("a box that is not x0 ≤ x1, y0 ≤ y1" in problem for problem in problems[1:5])
    assert "the XML file cannot be read" in problems[6]
    assert not any("\n" in problem for problem in problems)


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16", "UTF-16LE", "UTF-16BE", "ISO-8859-1", "IBM037"])
@pytest.mark.parametrize(
    "kind", ['[<!ENTITY b "b"><!ENTITY c "&b;&b;">]', "", 'SYSTEM "other.dtd"', "[<!ATTLIST a b CDATA 'c'>]"]
)
def test_xml_with_a_document_type_is_refused_in_any_encoding(
    tmp_path: Path, encoding: str, kind: str
) -> None:
    """In UTF-16 and in EBCDIC the bytes of DOCTYPE and ENTITY are not in the file."""
    image(tmp_path / "val" / TENCH / f"{name(1)}.JPEG")
    folder = tmp_path / "xml"
    folder.mkdir()
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a {kind}><annotation/>'
    (folder / f"{name(1)}.xml").write_bytes(text.encode(encoding))
    problem = read_imagenet(tmp_path, boxes=folder).images[0].problem
    assert problem is not None
    # expat reads only those encodings that have ASCII's letters in ASCII's places.
    assert ("without DOCTYPE" in problem) != (encoding == "IBM037")


def test_xml_in_utf_16_is_read_and_boxes_that_are_no_file_are_refused(tmp_path: Path) -> None:
    image(tmp_path / "val" / TENCH / f"{name(1)}.JPEG")
    folder = tmp_path / "xml"
    folder.mkdir()
    sides = "".join(f"<{side}>{at}</{side}>" for side, at in zip(SIDES, (1, 2, 3, 4), strict=True))
    text = f"<annotation><object><name>{TENCH}</name><bndbox>{sides}</bndbox></object></annotation>"
    (folder / f"{name(1)}.xml").write_bytes(text.encode("utf-16"))
    assert read_imagenet(tmp_path, boxes=folder).images[0].truth == ((1, 2, 3, 4),)
    with pytest.raises(ValueError, match="boxes: /dev/null is neither a file nor a folder"):
        read_imagenet(tmp_path, boxes="/dev/null")


def test_the_black_list_leaves_images_out_and_counts_them(tmp_path: Path) -> None:
    for number in (1, 2, 36):
        image(tmp_path / "val" / TENCH / f"{name(number)}.JPEG")
    (tmp_path / "ILSVRC2014_clsloc_validation_blacklist.txt").write_text("36\n50\n2\n")
    data = read_imagenet(tmp_path)
    assert [record.id for record in data.images] == [name(1)]
    assert data.problems == ("2 images on the black list: left out",)
    bad = tmp_path / "black.txt"
    bad.write_text("thirty-six")
    with pytest.raises(ValueError, match="expected the number of a validation image a line"):
        read_imagenet(tmp_path, black_list=bad)


def test_broken_lists_and_empty_folders_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a folder"):
        read_imagenet(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="expected images in folders by wnid"):
        read_imagenet(tmp_path)
    flat(tmp_path)
    solution = tmp_path / "LOC_val_solution.csv"
    for row in (f"{name(1)},{TENCH} 1 2 3", f"{name(1)},", f"{name(1)},{TENCH} 1 2 3 4 {CRANE_BIRD} 1 2 3 4"):
        solution.write_text(f"ImageId,PredictionString\n{row}\n")
        with pytest.raises(ValueError, match="line 2: expected ImageId"):
            read_imagenet(tmp_path)
    # A quote that is never closed: the rest of the file is one field, longer than the csv module takes.
    rows = "\n".join(f"{name(1)},{TENCH} 1 2 3 4" for _ in range(4000))
    solution.write_text(f'ImageId,PredictionString\n{name(1)},"{TENCH} 1 2 3 4\n{rows}\n')
    with pytest.raises(
        ValueError, match=r"LOC_val_solution\.csv: the list of boxes cannot be read \(field larger"
    ):
        read_imagenet(tmp_path)
    solution.write_bytes(b"ImageId,PredictionString\n\xff\xfe,1")
    with pytest.raises(ValueError, match=r"LOC_val_solution\.csv: the list of boxes cannot be read"):
        read_imagenet(tmp_path)
    solution.unlink()
    (tmp_path / "val.txt").write_text(f"{name(1)}.JPEG 1000")
    with pytest.raises(ValueError, match="an index from 0 to 999"):
        read_imagenet(tmp_path)


REAL = os.environ.get("PERTURB_IMAGENET")


@pytest.mark.skipif(REAL is None, reason="PERTURB_IMAGENET names no folder with ImageNet images")
def test_real_imagenet_folders_are_read() -> None:
    assert REAL is not None
    folders = [Path(REAL), Path(REAL).parent / f"{Path(REAL).name}_boxes"]
    for folder in (folder for folder in folders if folder.is_dir()):
        data = read_imagenet(folder)
        for record in data.images[:60]:
            checked = check_image(record)
            assert checked.problem is None
            assert record.label == imagenet_indices()[record.path.parent.name]
            height, width = checked.size
            for x0, y0, x1, y1 in record.truth:
                assert 0 <= x0 <= x1 < width
                assert 0 <= y0 <= y1 < height
    boxed = [record for record in data.images if record.truth]
    assert boxed or not folders[1].is_dir()
