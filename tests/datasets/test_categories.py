"""COCO category → ImageNet classes: every row against wnids and names, and the traps."""

from __future__ import annotations

import re

from data_rows import check_rows

from perturb_tutorial.datasets import category_matches, imagenet_classes_of, imagenet_indices, imagenet_names
from perturb_tutorial.files import read_table

COCO_IDS = set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
"""Ids of COCO's 80 categories: 1 to 90 without the ten that were never annotated."""

LEMMAS = {
    "bicycle": r"bicycle|bike",
    "bench": r"bench",
    "zebra": r"zebra",
    "elephant": r"elephant",
    "bear": r"bear",
    "cat": r"\bcat\b|tabby",
    "umbrella": r"umbrella",
    "backpack": r"backpack",
    "tie": r"\btie\b|bow-tie|bola",
    "sports ball": r"ball",
    "bottle": r"bottle",
    "cup": r"cup|mug",
    "bowl": r"bowl",
    "spoon": r"spoon",
    "traffic light": r"traffic light",
    "parking meter": r"parking meter",
    "banana": r"banana",
    "orange": r"orange",
    "broccoli": r"broccoli",
    "hot dog": r"hotdog",
    "pizza": r"pizza",
    "couch": r"couch",
    "dining table": r"dining table",
    "mouse": r"computer mouse",
    "remote": r"remote",
    "keyboard": r"keyboard",
    "cell phone": r"cellphone|cell phone",
    "laptop": r"laptop|notebook computer",
    "microwave": r"microwave",
    "toaster": r"toaster",
    "refrigerator": r"refrigerator",
    "clock": r"clock",
    "vase": r"vase",
    "teddy bear": r"teddy bear",
    "hair drier": r"hair drier",
    "sink": r"washbasin",
}
"""A pattern that the names of a category's ImageNet classes match."""


def lemmas() -> dict[int, str]:
    return {int(row["index"]): row["names"].lower() for row in read_table("imagenet_classes.csv")}


def test_all_80_categories_are_there_each_with_a_reason() -> None:
    rows = category_matches()
    assert {row.category_id for row in rows} == COCO_IDS
    assert all(row.reason and row.match in ("exact", "near", "none") for row in rows)
    assert len({(row.category_id, row.match) for row in rows}) == len(rows)
    for row in rows:
        assert bool(row.wnids) == (row.match != "none")
        assert len(set(row.wnids)) == len(row.wnids)
    none = {row.category_id for row in rows if row.match == "none"}
    assert none.isdisjoint(row.category_id for row in rows if row.match != "none")
    names = {row.category_id: row.category for row in rows}
    assert (names[1], names[38], names[90]) == ("person", "kite", "toothbrush")


def test_some_54_categories_have_an_exact_match() -> None:
    assert 52 <= len(imagenet_classes_of()) <= 58


def test_wnids_are_known_and_indices_are_theirs() -> None:
    known = imagenet_indices()
    for row in category_matches():
        assert row.indices == tuple(sorted(known[wnid] for wnid in row.wnids))


def test_a_class_belongs_to_one_category_exactly() -> None:
    seen: dict[int, int] = {}
    for category, classes in imagenet_classes_of().items():
        for index in classes:
            assert index not in seen, f"{index} is in {seen.get(index)} and {category}"
            seen[index] = category


def test_near_matches_are_off_by_default_and_add() -> None:
    exact, near = imagenet_classes_of(), imagenet_classes_of(near=True)
    assert set(exact) < set(near)
    assert all(set(classes) <= set(near[category]) for category, classes in exact.items())
    assert 1 not in exact  # nobody is told to be a person by a scuba diver's mask
    assert all(list(classes) == sorted(set(classes)) for classes in near.values())


def test_lemmas_say_what_the_category_says() -> None:
    names = lemmas()

    def check(category: str) -> None:
        (row,) = (row for row in category_matches() if row.category == category and row.match == "exact")
        other = {i: names[i] for i in row.indices if not re.search(LEMMAS[category], names[i])}
        assert row.indices
        assert other == {}

    check_rows({category: category for category in LEMMAS}, check)


def test_the_traps() -> None:
    by_name = {row.category: row.category_id for row in category_matches()}
    near = imagenet_classes_of(near=True)
    names = imagenet_names()
    bird, kite = by_name["bird"], by_name["kite"]
    assert kite not in near  # ImageNet's kite is a bird
    assert names[21] == "kite"
    assert 21 in near[bird]
    assert names[134] == names[517] == "crane"
    assert 134 in near[bird]
    assert all(517 not in classes for classes in near.values())
    assert 705 not in near[by_name["car"]]  # a passenger car is a railroad car
    assert 544 not in near.get(by_name["oven"], ())  # a Dutch oven is a pot
    assert all(850 not in near[by_name[animal]] for animal in ("bear",))  # a teddy is no bear


def test_birds_dogs_and_cats_are_whole_ranges() -> None:
    by_name = {row.category: row.category_id for row in category_matches()}
    exact = imagenet_classes_of()
    assert exact[by_name["dog"]] == tuple(range(151, 269))
    assert exact[by_name["cat"]] == tuple(range(281, 286))
    birds = exact[by_name["bird"]]
    assert birds == (*range(7, 25), *range(80, 101), *range(127, 147))
    assert len(birds) == 59
    # The neighbors on both sides are no birds and no dogs.
    names = imagenet_names()
    assert [names[k] for k in (6, 25, 79, 101, 126, 147, 150, 269, 280, 286)] == [
        "stingray",
        "European fire salamander",
        "centipede",
        "tusker",
        "isopod",
        "grey whale",
        "sea lion",
        "timber wolf",
        "grey fox",
        "cougar",
    ]
