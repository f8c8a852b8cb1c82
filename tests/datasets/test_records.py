"""Records, their pairs, the paper's subset, and the look at a file when it is due."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from perturb_tutorial.datasets import ImageRecord, Instance, Pair, check_image, first_images, pairs


def record(key: int, *categories: int) -> ImageRecord:
    instances = tuple(Instance(category, (0, 0, 1, 1), 1.0) for category in categories)
    return ImageRecord(key, Path(f"{key}.png"), 10, 20, instances)


def test_pairs_name_each_category_of_an_image_once() -> None:
    images = [record(1, 5, 5, 3), record(2), record(3, 5)]
    assert pairs(images) == [Pair(images[0], 3), Pair(images[0], 5), Pair(images[2], 5)]
    assert pairs(images, [3, 8]) == [Pair(images[0], 3)]
    assert [instance.category for instance in images[0].of(5)] == [5, 5]


def test_the_papers_subset_is_the_first_images_of_each_class_by_id() -> None:
    images = [record(9, 1, 2), record(4, 1), record(7, 2), record(2, 1, 3), record(5, 1)]
    chosen = first_images(images, 2)
    # Class 1: ids 2, 4 (not 5, 9); class 2: ids 7, 9; class 3: id 2.
    assert {(pair.image.id, pair.category) for pair in chosen} == {(2, 1), (4, 1), (7, 2), (9, 2), (2, 3)}
    assert [pair.image.id for pair in chosen] == sorted(pair.image.id for pair in chosen)
    assert first_images(images, 2, [3])[0].image.id == 2
    with pytest.raises(ValueError, match="limit"):
        first_images(images, 0)


def save(path: Path, size: tuple[int, int], **options: object) -> Path:
    Image.new("RGB", size, (10, 200, 30)).save(path, **options)
    return path


def test_a_good_file_passes_unchanged_and_an_unknown_size_is_filled_in(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", (20, 10))
    good = ImageRecord(1, path, 10, 20)
    assert check_image(good) == good
    filled = check_image(ImageRecord(1, path))
    assert filled.size == (10, 20)
    with pytest.raises(ValueError, match=r"a\.png: its annotations do not give its size"):
        _ = ImageRecord(1, path).size


def test_bad_files_become_records_with_one_line(tmp_path: Path) -> None:
    cut = save(tmp_path / "cut.png", (200, 100))
    cut.write_bytes(cut.read_bytes()[:-40])
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    empty = tmp_path / "empty.jpg"
    empty.touch()
    other = save(tmp_path / "other.png", (30, 10))
    for path, message in [
        (tmp_path / "gone.png", "gone.png: the image is missing from"),
        (cut, "cut.png: is damaged or cut off"),
        (text, "text.jpg: is not an image that can be read here"),
        (empty, "empty.jpg: is empty"),
        (other, "other.png: the image has 30×10 px, its annotations say 20×10"),
    ]:
        problem = check_image(ImageRecord(1, path, 10, 20)).problem
        assert problem is not None
        assert problem.startswith(message)
        assert "\n" not in problem


def test_the_size_is_that_after_the_exif_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    path = save(tmp_path / "turned.jpg", (20, 10), exif=exif)
    assert check_image(ImageRecord(1, path)).size == (20, 10)
    assert check_image(ImageRecord(1, path, 20, 10)).problem is None


def test_a_known_problem_stays() -> None:
    bad = ImageRecord(1, Path("x.png"), problem="x.png: it was bad before")
    assert check_image(bad) is bad
