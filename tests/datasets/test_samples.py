"""The sample photographs: where they are, and what is said when they are not."""

from __future__ import annotations

import importlib.util

import pytest

import perturb_tutorial as pt
from perturb_tutorial.datasets import samples


def test_the_network_recognizes_the_photographs(lite0):
    loaded = pt.load_samples()
    assert loaded.images.shape == (len(loaded.names), 3, 224, 224)
    foolbox = [row for row, name in enumerate(loaded.names) if samples.find_sample(name).package == "foolbox"]
    top = pt.top_classes(lite0, loaded.images[foolbox], k=1)
    right = sum([loaded.targets[row]] == best for row, best in zip(foolbox, top, strict=True))
    assert right >= 19  # the convertible is not called a jeep


def test_chosen_samples_keep_their_order_and_size():
    loaded = pt.load_samples(96, names=["coffee", "chelsea"])
    assert loaded.names == ["coffee", "chelsea"]
    assert loaded.targets == [967, 285]
    assert loaded.images.shape == (2, 3, 96, 96)


def test_boxes_are_squashed_with_their_photograph():
    loaded = pt.load_samples(100, names=["chelsea", "jeep"])
    ((x0, y0, x1, y1),) = loaded.boxes[0]  # one cat, at the file's 451×300 px
    record = next(r for r in samples._records()["images"] if r["name"] == "chelsea")
    (box,) = [a["bbox"] for a in samples._records()["annotations"] if a["image_id"] == record["id"]]
    assert (x0 * 4.51, y0 * 3, (x1 - x0) * 4.51, (y1 - y0) * 3) == pytest.approx(box)
    assert len(loaded.boxes[1]) >= 1
    assert all(0 <= v <= 100.001 for boxes in loaded.boxes for box in boxes for v in box)


def test_samples_without_a_class_are_left_out_and_named():
    assert "astronaut" not in pt.load_samples(16).names
    with pytest.raises(ValueError, match="sample: astronaut shows no ImageNet class"):
        pt.load_samples(names=["astronaut"])
    assert samples.sample_path("astronaut").is_file()


def test_unknown_sample_lists_what_there_is():
    with pytest.raises(ValueError, match=r"sample: expected one of bull_mastiff, .*, got 'cat'"):
        pt.load_samples(names=["cat"])


def test_a_missing_package_is_named_with_its_mend(monkeypatch):
    monkeypatch.setattr(
        samples, "find_spec", lambda module: None if module == "skimage" else importlib.util.find_spec(module)
    )
    with pytest.raises(
        ValueError,
        match=r"chelsea is carried by scikit-image; run: pip install 'perturb_tutorial\[samples\]'",
    ):
        pt.load_samples(names=["chelsea"])
    assert samples.find_sample("chelsea").path is None
    assert samples.find_sample("grace_hopper").path is not None
