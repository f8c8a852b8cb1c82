"""Every benchmark on real photographs: the package's samples, and the user's folders where PERTURB_* names them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_cases import figure, records_of

import perturb_tutorial as pt
from perturb_tutorial.benchmarks import BenchmarkData, BenchmarkSettings, read_data, run_benchmark
from perturb_tutorial.benchmarks.summary import LEAST_IMAGES
from perturb_tutorial.datasets.samples import sample_path

pytest.importorskip("pycocotools", reason="COCO needs the extra coco")

FAST = ("gradient", "grad_cam")
PLACES = {
    "pointing-game": ("PERTURB_COCO",),
    "grid-pointing-game": ("PERTURB_COCO", "PERTURB_IMAGENET"),
    "localization": ("PERTURB_COCO", "PERTURB_IMAGENET_BOXES"),
    "animal-parts": ("PERTURB_ANIMAL_PARTS",),
    "faithfulness": ("PERTURB_COCO", "PERTURB_IMAGENET"),
}
CASES = [(name, place) for name, places in PLACES.items() for place in ("samples", *places)]


def find(place: str, benchmark: str) -> BenchmarkData:
    if place == "samples":
        try:
            sample_path("bull_mastiff"), sample_path("chelsea"), sample_path("china")
        except ValueError:
            pytest.skip("needs the extra samples")
        return read_data(benchmark)
    folder = os.environ.get(place)
    if place == "PERTURB_IMAGENET_BOXES" and not folder and os.environ.get("PERTURB_IMAGENET"):
        folder = f"{os.environ['PERTURB_IMAGENET'].rstrip('/')}_boxes"
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{place} names no folder")
    split = None
    if place == "PERTURB_COCO":
        (split, *_) = sorted(
            p.stem.removeprefix("instances_") for p in Path(folder).glob("annotations/instances_val*")
        )
    return read_data(benchmark, folder, split)


@pytest.mark.parametrize(("name", "place"), CASES)
def test_a_limited_number_of_images(name: str, place: str, lite0: pt.Network, tmp_path: Path) -> None:
    data = find(place, name)
    limit = {"grid-pointing-game": 24, "localization": 12}.get(name, 6)
    settings = BenchmarkSettings(methods=FAST, limit=limit, minimum_images=0, steps=4, held_out_share=0.5)
    summary = run_benchmark(name, data, lite0, tmp_path, settings).summary
    frame = records_of(tmp_path)
    counts = summary["records"]
    assert counts["finished"] == counts["planned"] == len(frame)
    assert counts["bad_images"] == 0, counts["problems"]
    assert counts["unusable_maps"] == {}
    assert not frame.duplicated(["image_id", "category_id", "method"]).any()
    if name != "grid-pointing-game":
        assert 1 < frame["image_id"].nunique() <= limit
    assert frame["score"].between(0, 1).all()
    for found in summary["figures"]:
        if found["rows"]:
            assert found["estimate"] is not None
            if found["images"] < LEAST_IMAGES:
                assert (found["low"], found["high"]) == (None, None)
                assert found["reason"]
            else:
                assert found["low"] <= found["estimate"] <= found["high"]
            assert 1 <= found["images"] <= found["rows"]


def by_method(summary: dict[str, Any], **wanted: Any) -> dict[str, float]:
    return {method: figure(summary, method=method, **wanted)["estimate"] for method in FAST}


def test_grad_cam_is_where_the_class_is_in_mosaics_of_samples(lite0: pt.Network, tmp_path: Path) -> None:
    # The plain gradient is nearly blind to the class asked for (chance ¼), Grad-CAM is not.
    data = find("samples", "grid-pointing-game")
    summary = run_benchmark(
        "grid-pointing-game", data, lite0, tmp_path, BenchmarkSettings(methods=FAST)
    ).summary
    shares = by_method(summary, name="share", subset="all")
    assert shares["grad_cam"] > 0.5 > shares["gradient"]
    (gap,) = [d for d in summary["differences"] if d["subset"] == "all"]
    assert {gap["method"], gap["minus"]} == set(FAST)
    assert gap["low"] * gap["high"] > 0


def test_deleting_what_grad_cam_says_takes_the_score_away_sooner(lite0: pt.Network, tmp_path: Path) -> None:
    data = find("samples", "faithfulness")
    settings = BenchmarkSettings(methods=FAST, limit=8, steps=8)
    summary = run_benchmark("faithfulness", data, lite0, tmp_path, settings).summary
    deleted, inserted = (by_method(summary, name=f"{curve}_area") for curve in ("deletion", "insertion"))
    assert deleted["grad_cam"] < inserted["grad_cam"]
    assert inserted["grad_cam"] > inserted["gradient"]


def test_the_mask_is_the_packages_own(lite0: pt.Network, tmp_path: Path) -> None:
    # What points is the grid that learn_masks gives for the same image, targets and settings.
    from perturb_tutorial.metrics import point_on_image

    data = find("samples", "pointing-game")
    settings = BenchmarkSettings(methods=("mask",), limit=2, seed=1)
    settings = settings.replace(mask=settings.mask.replace(iterations=5))
    run_benchmark("pointing-game", data, lite0, tmp_path, settings)
    rows = records_of(tmp_path).query("method == 'mask'")
    images = {image.id: image for image in data.dataset.images}
    targets = [sorted(data.classes[c]) for c in rows["category_id"]] if data.classes else []
    pixels = pt.load_images([images[i].path for i in rows["image_id"]], 224)
    masks = pt.learn_masks(lite0, pixels, targets, settings.mask, seed=1)
    for heat, (_, row) in zip(masks.salient_grid[:, 0], rows.iterrows(), strict=True):
        point = point_on_image(heat.numpy(), images[row["image_id"]].size)
        assert point is not None
        assert (row["x"], row["y"]) == pytest.approx(point, abs=1e-6)
    assert torch.equal(masks.converged, torch.tensor(rows["converged"].astype(bool).to_numpy()))
