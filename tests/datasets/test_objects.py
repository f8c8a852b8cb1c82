"""How large and how crowded objects are: by hand on rectangles, and against a loop over pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perturb_tutorial.datasets.objects import box_pixels, object_facts
from perturb_tutorial.datasets.records import ImageRecord, Instance
from perturb_tutorial.metrics.segments import segment_mask

pytest.importorskip("pycocotools", reason="COCO segments need it")


def thing(category, x, y, width, height, **more):
    polygon = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    return Instance(category, (x, y, width, height), width * height, polygon, **more)


def record(*instances):
    return ImageRecord(1, Path("x.jpg"), height=40, width=60, instances=instances)


ALONE = record(thing(1, 0, 0, 30, 20))
CROWDED = record(
    thing(1, 0, 0, 30, 20),  # the largest of its category
    thing(1, 40, 20, 10, 10),  # far from it
    thing(2, 20, 0, 20, 10),  # covers 10×10 px of its box, which are the object's own by its segment
    thing(3, 30, 20, 10, 10),  # touches a corner: no overlap
)
# A triangle: the half of its box beyond the diagonal is free for others.
TRIANGLE = record(
    Instance(1, (0, 0, 20, 20), 200, [[0, 0, 20, 0, 0, 20]]),
    thing(2, 10, 10, 10, 10),
)


def test_by_hand():
    assert object_facts(ALONE, 1).share == pytest.approx(600 / 2400)
    assert (object_facts(ALONE, 1).instances, object_facts(ALONE, 1).neighbors) == (1, 0)
    assert object_facts(ALONE, 1).crowding == 0
    found = object_facts(CROWDED, 1)
    assert found.share == pytest.approx(700 / 2400)
    assert (found.instances, found.neighbors) == (2, 1)
    # What another object's outline shares with the object's own is the object's.
    assert found.crowding == 0
    assert object_facts(CROWDED, 2).neighbors == 1
    assert object_facts(CROWDED, 2).crowding == 0
    # 10×10 px of the box are the other's, but for those on the triangle's edge.
    assert object_facts(TRIANGLE, 1).crowding == pytest.approx(100 / 400, abs=0.03)


def test_against_a_loop_over_pixels_on_the_samples():
    from perturb_tutorial.benchmarks.data import read_samples

    data = read_samples().dataset
    image = next(r for r in data.images if r.path.name == "coffee.png")
    spoon = next(c for c in image.categories if data.categories[c] == "spoon")
    (own,) = image.of(spoon)
    mask = segment_mask(own.segmentation, image.size)
    others = [segment_mask(i.segmentation, image.size) for i in image.instances if i is not own]
    x, y, width, height = own.box
    inside = foreign = 0
    for row in range(image.height):
        for column in range(image.width):
            if x <= column + 0.5 < x + width and y <= row + 0.5 < y + height:
                inside += 1
                foreign += not mask[row, column] and any(other[row, column] for other in others)
    found = object_facts(image, spoon)
    assert found.crowding == pytest.approx(foreign / inside)
    assert found.share == pytest.approx(mask.mean())
    assert found.neighbors == len(others) == 3


def test_boxes_are_the_pixels_whose_centers_they_hold():
    np.testing.assert_array_equal(np.argwhere(box_pixels((1.0, 0.0, 2.0, 1.0), (3, 5))), [[0, 1], [0, 2]])
    np.testing.assert_array_equal(np.argwhere(box_pixels((0.6, 0.4, 1.0, 0.2), (3, 5))), [[0, 1]])
    assert not box_pixels((-4.0, -4.0, 3.0, 3.0), (3, 5)).any()


def test_a_crowd_counts_and_an_outline_that_is_missing_does_not():
    crowd = Instance(1, (0, 0, 2, 40), 80, {"size": [40, 60], "counts": [0, 80, 2320]}, crowd=True)
    found = object_facts(record(thing(1, 10, 10, 5, 5), crowd, Instance(1, (0, 0, 9, 9), 81, None)), 1)
    assert found.instances == 2
    assert found.share == pytest.approx(105 / 2400)
    with pytest.raises(ValueError, match=r"category: expected one with a segment in x\.jpg, got 7"):
        object_facts(ALONE, 7)
