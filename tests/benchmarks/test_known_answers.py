"""Every benchmark from end to end with maps that are known in advance, so that the figures follow by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark_cases import (
    CLASSES,
    HEIGHT,
    WIDTH,
    color_network,
    difference,
    fake_method,
    figure,
    records_of,
    tiny_network,
    write_coco,
    write_colors,
)
from PIL import Image
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial.benchmarks import (
    BenchmarkData,
    BenchmarkSettings,
    read_data,
    read_records,
    run_benchmark,
)
from perturb_tutorial.datasets import ImageRecord, Instance
from perturb_tutorial.images import load_images

pytest.importorskip("pycocotools", reason="COCO needs the extra coco")

LEFT, RIGHT = (4.0, 4.0, 12.0, 12.0), (60.0, 40.0, 12.0, 12.0)
"""x, y, width, height: at the top left and at the bottom right, both further than 15 px from the center."""


def corner_map(i: int, targets: list[int]) -> torch.Tensor:
    """Peaks at the top left, whatever is asked."""
    heat = torch.zeros(32, 32)
    heat[3:6, 3:6] = 1
    return heat


def settings(*methods: str, **more) -> BenchmarkSettings:
    return BenchmarkSettings(methods=methods, batch_size=3, **more)


def test_pointing_game(tmp_path, monkeypatch) -> None:
    # The map peaks on category 1, at the left, and misses category 2, at the right; the center misses both.
    fake_method(monkeypatch, "corner", corner_map)
    data = write_coco(tmp_path, 4, [(1, LEFT), (2, RIGHT)])
    outcome = run_benchmark("pointing-game", data, tiny_network(), tmp_path / "out", settings("corner"))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary.pop("checksum")
    assert summary == outcome.summary
    both = {"subset": "all", "maximum": "mean"}
    found = figure(summary, name="precision", method="corner", **both)
    assert (found["estimate"], found["rows"], found["images"]) == (0.5, 8, 4)
    # Every image has one hit and one miss, so no resample differs.
    assert (found["low"], found["high"]) == (0.5, 0.5)
    assert figure(summary, name="precision", method="center", **both)["estimate"] == 0
    assert difference(summary, name="precision", method="center", minus="corner", **both)["estimate"] == -0.5
    assert {(c["category"], c["precision"]) for c in summary["classes"] if c["method"] == "corner"} == {
        ("one", 1),
        ("two", 0),
    }
    # Two categories on 288 of 4,800 px²: difficult by either definition.
    for subset in ("difficult", "difficult_boxes"):
        assert figure(summary, name="precision", method="corner", subset=subset, maximum="mean")["rows"] == 8
    frame = read_records(tmp_path / "out")
    assert len(frame) == 16
    own = frame[frame["method"] == "corner"]
    seen = figure(summary, name="hit_rate", method="corner", subset="recognized", maximum="mean")["rows"]
    assert seen == sum(score >= 0.1 for score in own["score"])
    faint = figure(summary, name="hit_rate", method="corner", subset="faint", maximum="mean")["rows"]
    assert faint == sum(score <= 0.001 for score in own["score"])
    assert 0 < seen <= 8
    # Input pixel 4 is at (4 + ½)·80/32 − ½ = 10.75 and at (4 + ½)·60/32 − ½ = 7.9375: the middle of 3×3 equal maxima.
    np.testing.assert_allclose(own["x"], 10.75, atol=1.5)
    np.testing.assert_allclose(own["y"], 7.9375, atol=1.5)


def test_precision_is_the_mean_over_classes_and_the_hit_rate_over_pairs(tmp_path, monkeypatch) -> None:
    fake_method(monkeypatch, "corner", corner_map)
    data = write_coco(tmp_path, 4, [(1, LEFT), (2, RIGHT)])
    # Category 2 is in one image only: hits 4/4 and 0/1.
    images = tuple(
        replace(image, instances=image.instances[: 2 if k == 0 else 1])
        for k, image in enumerate(data.dataset.images)
    )
    data = BenchmarkData(replace(data.dataset, images=images), CLASSES)
    summary = run_benchmark(
        "pointing-game", data, tiny_network(), tmp_path / "out", settings("corner")
    ).summary
    both = {"subset": "all", "maximum": "mean", "method": "corner"}
    assert figure(summary, name="precision", **both)["estimate"] == pytest.approx((1 + 0) / 2)
    assert figure(summary, name="hit_rate", **both)["estimate"] == pytest.approx(4 / 5)
    # Only the first image shows two categories.
    assert (
        figure(summary, name="hit_rate", subset="difficult", maximum="mean", method="corner")["estimate"]
        == 0.5
    )


def test_mean_of_the_maxima_against_the_first(tmp_path, monkeypatch) -> None:
    def two_peaks(i: int, targets: list[int]) -> torch.Tensor:
        heat = torch.zeros(HEIGHT, WIDTH)
        heat[10, 10] = heat[46, 66] = 1
        return heat

    fake_method(monkeypatch, "peaks", two_peaks)
    data = write_coco(tmp_path, 2, [(1, LEFT)])
    summary = run_benchmark(
        "pointing-game", data, tiny_network(), tmp_path / "out", settings("peaks")
    ).summary
    # The first maximum is on the object, the mean of both between them.
    own = {"method": "peaks", "subset": "all", "name": "precision"}
    assert figure(summary, maximum="first", **own)["estimate"] == 1
    assert figure(summary, maximum="mean", **own)["estimate"] == 0
    assert figure(summary, name="precision_mean_minus_first", method="peaks", subset="all")["estimate"] == -1


def test_a_mask_points_by_its_saturated_cells_and_its_softened_peak_is_told_beside(
    tmp_path, monkeypatch
) -> None:
    """Salient are the cell at the top left, saturated, and eight at the right, of which one is just below 1."""
    salient = torch.zeros(8, 8)
    salient[0, 0] = 1
    salient[4:6, 4:8] = 1
    salient[5, 7] = 0.99

    def learned(network, images, *_: object, **__: object) -> pt.Masks:
        masks = pt.learn_masks(network, images, 0, pt.MaskSettings(iterations=1, mask_scale=28))
        return replace(masks, grid=(1 - salient).expand(len(images), 1, 8, 8))

    monkeypatch.setattr("perturb_tutorial.benchmarks.worker.learn_masks", learned)
    data, network = write_coco(tmp_path, 2, [(1, LEFT), (2, RIGHT)]), tiny_network()
    summary = run_benchmark("pointing-game", data, network, tmp_path / "out", settings("mask")).summary
    own = records_of(tmp_path / "out").query("method == 'mask'")
    # Cells of 10×7.5 px of the photograph; a bilinear enlargement holds a saturated value from the center of the first
    # saturated cell to that of the last one, and from the border on where the cell is the outermost.
    pixels = [(x, y) for y in range(HEIGHT) for x in range(WIDTH) if _at_one(x, y)]
    np.testing.assert_allclose(own["x"], np.mean([x for x, _ in pixels]))
    np.testing.assert_allclose(own["y"], np.mean([y for _, y in pixels]))
    assert own["first_x"].tolist() == own["first_y"].tolist() == [0, 0, 0, 0]
    # Softened, the lone cell at the top left loses; the right border repeats the last value, so the block peaks there:
    # (79, 37), 12 px from the object at the right (60 to 72, 40 to 52) and far from the other.
    by_category = dict(zip(own["category_id"], own["softened_hit"], strict=False))
    assert by_category == {1: False, 2: True}
    found = figure(summary, name="hit_rate", method="mask", subset="all", maximum="softened")
    assert (found["estimate"], found["rows"]) == (0.5, 4)
    assert figure(summary, name="hit_rate", method="mask", subset="with_mask", maximum="mean")["rows"] == 4


def _at_one(x: int, y: int) -> bool:
    """Whether all cells that pixel (x, y) lies between are saturated: positions in cells, centers at whole numbers."""
    u, v = min(max((x + 0.5) / 10 - 0.5, 0), 7), min(max((y + 0.5) / 7.5 - 0.5, 0), 7)
    if u == v == 0:
        return True
    cells = {
        (row, column) for row in (math.floor(v), math.ceil(v)) for column in (math.floor(u), math.ceil(u))
    }
    return all(row in (4, 5) and column >= 4 and (row, column) != (5, 7) for row, column in cells)


@pytest.mark.parametrize(("height", "width", "channels"), [(32, 32, 3), (24, 40, 1), (40, 16, 4)])
def test_variable_occlusion_points_by_itself(tmp_path: Path, height: int, width: int, channels: int) -> None:
    from perturb_tutorial.baselines import variable_occlusion_points

    data, network = write_coco(tmp_path, 1, [(2, LEFT)]), tiny_network((height, width), channels)
    run_benchmark("pointing-game", data, network, tmp_path / "out", settings("variable_occlusion", seed=3))
    image = load_images([data.dataset.images[0].path], (height, width), channels=channels)
    ((x, y),) = variable_occlusion_points(network, image, [[1, 2]], seed=3).tolist()
    row = records_of(tmp_path / "out").query("method == 'variable_occlusion'").iloc[0]
    # The outer edges of the image stay on each other: x + ½ scales with the width.
    assert row["x"] + 0.5 == pytest.approx((x + 0.5) * WIDTH / width)
    assert row["y"] + 0.5 == pytest.approx((y + 0.5) * HEIGHT / height)
    assert not row["usable"] or math.isfinite(row["x"])


def test_a_dead_map_is_a_miss_and_is_counted(tmp_path, monkeypatch) -> None:
    whole = (0.0, 0.0, float(WIDTH), float(HEIGHT))
    fake_method(monkeypatch, "dead", lambda i, targets: torch.zeros(7, 7))
    fake_method(monkeypatch, "broken", lambda i, targets: torch.full((7, 7), math.nan))
    data = write_coco(tmp_path, 2, [(1, whole)])
    summary = run_benchmark(
        "pointing-game", data, tiny_network(), tmp_path / "out", settings("dead", "broken")
    ).summary
    for method, expected in (("dead", 0), ("broken", 0), ("center", 1)):
        assert (
            figure(summary, name="precision", method=method, subset="all", maximum="mean")["estimate"]
            == expected
        )
    assert summary["records"]["unusable_maps"] == {"dead": 2, "broken": 2}


class WithoutNumbers(nn.Module):
    """Classes by the mean color; no logit of an image with much red is a number."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        color = inputs.mean((2, 3))
        logits = torch.cat((color, color[:, :2]), 1)
        return torch.where(color[:, :1] > 0.9, torch.nan, logits)


@pytest.mark.parametrize("name", ["pointing-game", "localization", "animal-parts"])
def test_a_mask_of_scores_that_are_no_numbers_is_a_miss(tmp_path, name: str) -> None:
    # It deletes everything: its peak would be the center, its box the whole image, which the object fills.
    plain = write_coco(tmp_path, 3, [(1, (0.0, 0.0, float(WIDTH), float(HEIGHT)))])
    Image.new("RGB", (WIDTH, HEIGHT), "red").save(plain.dataset.images[0].path)
    parts = {"eye": ((40.0, 30.0),), "foot": ((42.0, 50.0),)}
    images = [
        replace(image, label=3, instances=tuple(replace(i, parts=parts) for i in image.instances))
        for image in plain.dataset.images
    ]
    data = BenchmarkData(replace(plain.dataset, images=tuple(images)), CLASSES)
    network = pt.Network(WithoutNumbers(), input_size=32, device="cpu", name="red")
    methods = ("mask", "initial_disc") if name == "animal-parts" else ("mask",)
    asked = settings(*methods, minimum_images=0)
    asked = asked.replace(mask=asked.mask.replace(iterations=2))
    summary = run_benchmark(name, data, network, tmp_path / "out", asked).summary
    frame = records_of(tmp_path / "out")
    bad = frame[frame["image_id"].eq(1) & frame["method"].isin(methods)]
    if name == "pointing-game":
        assert not bad[["hit", "first_hit", "softened_hit"]].any(axis=None)
        assert bad[["x", "first_x"]].isna().all(axis=None)
    elif name == "localization":
        assert {*bad["right_value"].sum(), *bad["right_energy"].sum(), *bad["right_mean"].sum()} == {"0"}
    else:
        assert [len(values) for values in (*bad["eyes"], *bad["feet"])] == [0] * 4
        assert bad["outside"].eq(0).all()  # the key points lie in the image; there is no value at them
    assert summary["records"]["unusable_maps"] == {"mask": 1}


def test_localization(tmp_path, monkeypatch) -> None:
    # The object is the left half, which the map gives at 1 over a background of 0.4: of the value thresholds all from
    # α = 0.05 up are right, since (0.4 − 0.4) / 0.6 = 0; at α = 0 the whole image has an IoU of ½ and is right as well.
    def half(i: int, targets: list[int]) -> torch.Tensor:
        heat = torch.full((32, 32), 0.4)
        heat[:, :16] = 1
        return heat

    fake_method(monkeypatch, "half", half)
    fake_method(monkeypatch, "corner", corner_map)
    data = write_coco(tmp_path, 10, [(1, (0.0, 0.0, WIDTH / 2, float(HEIGHT)))])
    asked = settings("half", "corner", held_out_share=0.5)
    summary = run_benchmark("localization", data, tiny_network(), tmp_path / "out", asked).summary
    frame = records_of(tmp_path / "out").query("method == 'half'")
    assert set(frame["right_value"]) == {"1" * 20}
    # Mean 0.7: the whole image is kept at α = 0 and 0.5 (0.4 ≥ 0.35), the left half at 1; then nothing is left, which
    # is the whole image again, with an IoU of ½.
    assert set(frame["right_mean"]) == {"1" * 21}
    found = figure(summary, name="error", threshold="value", method="half")
    assert (found["estimate"], found["alpha"], found["rows"], found["held_out_rows"]) == (0, 0.0, 5, 5)
    # The corner's 3×3 of 32×32 never fits, but at α = 0 the whole image does.
    corner = records_of(tmp_path / "out").query("method == 'corner'")
    assert set(corner["right_value"]) == {"1" + "0" * 19}
    assert figure(summary, name="error", threshold="value", method="corner")["alpha"] == 0
    # The box around everything is asked without being named; it fits half an image by just ½, whatever α.
    whole = records_of(tmp_path / "out").query("method == 'whole_image'")
    assert set(whole["right_value"]) == {"1" * 20}
    assert set(whole["right_mean"]) == {"1" * 21}
    assert difference(summary, threshold="mean", method="half", minus="whole_image")["rows"] == 5
    # The curves are of all ten images, held out or not.
    (curve,) = [c for c in summary["curves"] if (c["method"], c["threshold"]) == ("corner", "value")]
    assert (curve["rows"], curve["errors"]) == (10, [0.0] + [1.0] * 19)
    assert curve["alphas"][:3] == [0, 0.05, 0.1]


def test_the_whole_image_is_wrong_for_a_small_object(tmp_path, monkeypatch) -> None:
    # One row less than half of the image.
    data = write_coco(tmp_path, 10, [(1, (0.0, 0.0, float(WIDTH), HEIGHT / 2 - 1))])
    asked = settings("whole_image", held_out_share=0.5)
    summary = run_benchmark("localization", data, tiny_network(), tmp_path / "out", asked).summary
    assert figure(summary, name="error", threshold="value", method="whole_image")["estimate"] == 1


def test_what_too_few_images_cannot_carry_is_left_out_with_the_reason(tmp_path: Path) -> None:
    data = write_coco(tmp_path, 9, [(1, (0.0, 0.0, WIDTH / 2, float(HEIGHT)))])
    asked = settings("gradient", held_out_share=0.5)  # 4 of 9 images
    summary = run_benchmark("localization", data, tiny_network(), tmp_path / "out", asked).summary
    assert len(summary["figures"]) == 3 * 2  # thresholds by methods
    for row in summary["figures"]:
        assert (row["estimate"], row["low"], row["high"], row["images"]) == (None, None, None, 5)
        assert row["reason"].startswith("no α*: 4 held-out images, and the search needs 5; ")
    assert summary["differences"] == []
    assert len(summary["curves"]) == 3 * 2
    # One image: its own mean, and no interval of the one resample that there is.
    limited = asked.replace(limit=1)
    summary = run_benchmark("faithfulness", data, tiny_network(), tmp_path / "one", limited).summary
    for row in summary["figures"]:
        assert (row["low"], row["high"], row["images"]) == (None, None, 1)
        assert row["estimate"] is not None
        assert row["reason"] == "no interval: it needs 2 images"


@pytest.mark.parametrize(("peak", "right"), [(2, True), (1, False)])
def test_localization_on_an_image_smaller_than_the_input(
    tmp_path, monkeypatch, peak: int, right: bool
) -> None:
    # The object is one pixel of a 16×16 image, that is 2×2 of the input's 32×32: a box of one pixel has an IoU of ¼.
    def dot(i: int, targets: list[int]) -> torch.Tensor:
        heat = torch.zeros(32, 32)
        heat[8 : 8 + peak, 10 : 10 + peak] = 1
        return heat

    fake_method(monkeypatch, "dot", dot)
    plain = write_coco(tmp_path, 2, [(1, LEFT)])
    images = []
    for image in plain.dataset.images:
        Image.new("RGB", (16, 16)).save(image.path)
        images.append(
            replace(image, height=16, width=16, instances=(), label=0, truth=((5.0, 4.0, 5.0, 4.0),))
        )
    data = BenchmarkData(replace(plain.dataset, images=tuple(images)))
    run_benchmark("localization", data, tiny_network(), tmp_path / "out", settings("dot"))
    frame = records_of(tmp_path / "out").query("method == 'dot'")
    assert set(frame["right_value"].str[10]) == {"01"[right]}


def test_the_localization_preset_asks_the_mask_for_the_best_predicted_classes(tmp_path) -> None:
    from perturb_tutorial.metrics import right_by_alpha

    data, network = write_coco(tmp_path, 2, [(1, (8.0, 4.0, 40.0, 40.0))]), tiny_network()
    asked = BenchmarkSettings.preset("localization", methods=("mask",), batch_size=2)
    assert asked.target_count == 5
    asked = asked.replace(mask=asked.mask.replace(iterations=8), target_count=2)
    run_benchmark("localization", data, network, tmp_path / "out", asked)
    images = load_images([image.path for image in data.dataset.images], 32)
    masks = pt.learn_masks(network, images, pt.top_classes(network, images, 2), asked.mask)
    frame = records_of(tmp_path / "out").query("method == 'mask'")
    for heat, text in zip(masks.saliency[:, 0].numpy(), frame["right_energy"], strict=True):
        right = right_by_alpha(heat, [(8, 4, 47, 43)], (HEIGHT, WIDTH), "energy")
        assert text == "".join("01"[int(r)] for r in right)


def test_of_five_classes_the_localization_preset_leaves_one_out(tmp_path, monkeypatch) -> None:
    # The scores of all five sum to 1 on any image.
    sets = []

    def learn(
        network: pt.Network, images: torch.Tensor, targets: list[list[int]], *rest, **options
    ) -> pt.Masks:
        sets.extend(targets)
        return pt.learn_masks(network, images, targets, *rest, **options)

    monkeypatch.setattr("perturb_tutorial.benchmarks.worker.learn_masks", learn)
    data, network = write_coco(tmp_path, 2, [(1, (8.0, 4.0, 40.0, 40.0))]), tiny_network()
    asked = BenchmarkSettings.preset("localization", methods=("mask",))
    asked = asked.replace(mask=asked.mask.replace(iterations=1))
    run_benchmark("localization", data, network, tmp_path / "out", asked)
    assert sets == pt.top_classes(network, load_images([i.path for i in data.dataset.images], 32), 4)


def test_grid_pointing_game(tmp_path, monkeypatch) -> None:
    # Of the mass 9 + 1·3, three quarters lie in the top left cell; negative values do not count.
    def top_left(i: int, targets: list[int]) -> torch.Tensor:
        heat = torch.full((32, 32), -1.0)
        heat[3:6, 3:6] = 1
        heat[20, 20:23] = 1
        return heat

    fake_method(monkeypatch, "corner", top_left)
    data, network = write_colors(tmp_path), color_network()
    # The last image is red and labeled black: the network gets it wrong, and it is in no mosaic.
    asked = settings("corner", mosaics=5)
    summary = run_benchmark("grid-pointing-game", data, network, tmp_path / "out", asked).summary
    frame = records_of(tmp_path / "out")
    assert len(frame) == 5 * 4
    shares = dict(frame.groupby("cell")["share"].mean())
    assert shares == {0: pytest.approx(9 / 12), 1: 0, 2: 0, 3: pytest.approx(3 / 12)}
    found = figure(summary, name="share", subset="all", method="corner")
    assert (found["estimate"], found["chance"]) == (pytest.approx(0.25), 0.25)
    assert figure(summary["recognition"], name="accuracy")["estimate"] == pytest.approx(12 / 13)
    assert "13" not in {image for images in frame["images"] for image in images}
    # Distinct classes, each in its own cell.
    assert (frame.groupby("image_id")["category_id"].nunique() == 4).all()


@pytest.mark.parametrize(("height", "width", "channels"), [(32, 32, 3), (24, 40, 1)])
def test_a_mosaic_is_squashed_to_the_input(tmp_path: Path, height: int, width: int, channels: int) -> None:
    from perturb_tutorial.benchmarks.plan import Mosaic
    from perturb_tutorial.benchmarks.worker import load_scene
    from perturb_tutorial.metrics import mosaic

    data = write_coco(tmp_path, 4, [(1, LEFT)])
    shape = (height, width)
    images = load_images([image.path for image in data.dataset.images], shape, channels=channels)
    scene = load_scene(Mosaic("m", data.dataset.images, 2), shape, channels)
    whole = mosaic(images.numpy(), 2).astype(np.float64)
    expected = whole.reshape(channels, height, 2, width, 2).mean((2, 4))
    assert scene.size == (2 * height, 2 * width)
    assert scene.image is not None
    np.testing.assert_allclose(scene.image.numpy(), expected, atol=1e-6)


def test_every_benchmark_of_a_gray_rectangle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_network((24, 40), channels=1)
    box = (20.0, 15.0, 30.0, 25.0)

    def on_the_object(i: int, targets: list[int]) -> torch.Tensor:
        heat = torch.zeros(24, 40)  # pixels of 2×2.5 px of the photograph
        heat[6:16, 10:25] = 1
        return heat

    fake_method(monkeypatch, "known", on_the_object)
    plain = write_coco(tmp_path, 4, [(1, box)])
    parts = {"eye": ((30.0, 30.0),), "foot": ((60.0, 50.0),)}
    images = load_images([image.path for image in plain.dataset.images], (24, 40), channels=1)
    with torch.inference_mode():
        tops = network.logits(images).argmax(1).tolist()
    labeled = [
        replace(image, label=top, instances=tuple(replace(i, parts=parts) for i in image.instances))
        for image, top in zip(plain.dataset.images, tops, strict=True)
    ]
    animals = BenchmarkData(replace(plain.dataset, images=tuple(labeled)))
    asked = settings("known", "mask", mask=pt.MaskSettings(iterations=2), minimum_images=0, steps=4)
    frames = {}
    for name in ("pointing-game", "localization", "faithfulness", "animal-parts"):
        data = animals if name == "animal-parts" else plain
        run_benchmark(name, data, network, tmp_path / name, asked)
        assert run_benchmark(name, data, network, tmp_path / name, asked).computed == 0, (
            "of the same settings"
        )
        frames[name] = records_of(tmp_path / name).query("method == 'known'")
        assert records_of(tmp_path / name)["problem"].isna().all()
        assert len(records_of(tmp_path / name).query("method == 'mask'")) == 4
    assert frames["pointing-game"]["hit"].all()
    assert frames["localization"]["right_value"].str.contains("1").all()
    # Inside the map there is nothing left of the mask, outside all of it.
    assert [list(value) for value in frames["animal-parts"]["eyes"]] == [[0.0]] * 4
    assert [list(value) for value in frames["animal-parts"]["feet"]] == [[1.0]] * 4
    curves = frames["faithfulness"].sort_values("image_id")["deletion"]
    scores = network.scores(images)[:, 0].tolist()
    np.testing.assert_allclose([curve[0] for curve in curves], scores, atol=1e-5)
    other = tiny_network((40, 24), channels=1)
    with pytest.raises(ValueError, match=r"network\.input_size was \[24, 40\], is \[40, 24\]"):
        run_benchmark("faithfulness", plain, other, tmp_path / "faithfulness", asked)


def test_animal_parts(tmp_path, monkeypatch) -> None:
    # The map is 1 at the left, ½ at the right: mask values 0 and ½ where eyes are, 1 − 0 = 1 in the middle at the feet.
    def sides(i: int, targets: list[int]) -> torch.Tensor:
        heat = torch.zeros(HEIGHT, WIDTH)
        heat[:, :20] = 2
        heat[:, 60:] = 1
        return heat

    fake_method(monkeypatch, "sides", sides)
    plain = write_coco(tmp_path, 4, [(1, LEFT)])
    images: list[ImageRecord] = []
    for k, image in enumerate(plain.dataset.images):
        # In even images both eyes are at the left and at the right, in odd ones one eye is at the right.
        eyes = ((10.0, 30.0), (70.0, 30.0)) if k % 2 == 0 else ((70.0, 30.0),)
        instance = Instance(3, (0, 0, 9, 9), 81.0, parts={"eye": eyes, "foot": ((40.0, 30.0), (45.0, 20.0))})
        images.append(replace(image, label=3, instances=(instance,)))
    data = BenchmarkData(replace(plain.dataset, images=tuple(images)))
    network = tiny_network()
    # The map has the input's form in the end; here it comes at another one and is resized like any other.
    asked = settings("sides", minimum_images=3)
    summary = run_benchmark("animal-parts", data, network, tmp_path / "out", asked).summary
    (row,) = summary["classes"]
    assert (row["eyes"], row["feet"], row["images"], row["category"]) == (6, 8, 4, "tiger shark")
    assert row["mean_feet"] == pytest.approx(1)
    # Eyes: 0, ½, ½, 0, ½, ½.
    assert row["mean_eyes"] == pytest.approx(2 / 6)
    assert row["stderr_eyes"] == pytest.approx(np.std([0, 0.5, 0.5] * 2) / math.sqrt(6))
    found = figure(summary, name="feet_to_eyes", group="all")
    assert found["estimate"] == pytest.approx(3)
    # Eyes have 0.25 or 0.5, feet 1: lower in every image.
    assert figure(summary, name="eyes_lower", group="all")["estimate"] == 1
    # 1 − 0.25 in two images, 1 − 0.5 in two.
    assert figure(summary, name="feet_minus_eyes", group="all")["estimate"] == pytest.approx(0.625)
    # One class only: pooled is the same.
    assert figure(summary, name="feet_to_eyes_pooled", group="all")["estimate"] == pytest.approx(3)
    # Images of eyes 0, ½ only would give 4, of ½ only 2.
    assert 2 <= found["low"] < 3 < found["high"] <= 4
    with pytest.raises(ValueError, match="no class has more than 4"):
        run_benchmark("animal-parts", data, network, tmp_path / "two", asked.replace(minimum_images=4))


def test_the_initial_disc_is_the_mask_before_the_first_step(tmp_path) -> None:
    from perturb_tutorial.metrics import resize_map, window_means

    data, network = write_coco(tmp_path, 2, [(1, LEFT)]), tiny_network()
    parts = {"eye": ((40.0, 30.0),), "foot": ((42.0, 55.0),)}
    images = tuple(
        replace(image, label=3, instances=(Instance(3, (0, 0, 9, 9), 81.0, parts=parts),))
        for image in data.dataset.images
    )
    data = BenchmarkData(replace(data.dataset, images=images))
    asked = settings("initial_disc", minimum_images=0)
    run_benchmark("animal-parts", data, network, tmp_path / "out", asked)
    frame = records_of(tmp_path / "out")
    for (_, row), image in zip(frame.iterrows(), images, strict=True):
        pixels = load_images([image.path], 32)
        masks = pt.learn_masks(network, pixels, 3, pt.MaskSettings(iterations=0))
        mask = resize_map(masks.mask[0, 0].numpy(), (HEIGHT, WIDTH))
        assert row["eyes"] == pytest.approx(window_means(mask, parts["eye"]), abs=1e-6)
        assert row["feet"] == pytest.approx(window_means(mask, parts["foot"]), abs=1e-6)


def test_animals_without_a_class_of_their_own(tmp_path) -> None:
    """An auklet is asked for as the birds; an animal that nobody can name is not; a bystander's eyes do not count."""
    from perturb_tutorial.benchmarks.animal_parts import AnimalParts, group_of
    from perturb_tutorial.datasets import imagenet_classes_of

    (tmp_path / "images").mkdir()
    points = ["left_eye", "right_eye", "left_hind_foot", "right_hind_foot"]
    images, annotations = [], []
    # Species of each image's animals: whether it shows an eye and a foot, and its class in ImageNet.
    shown = [
        ([("least auklet", True)], None),
        ([("cat", True), ("least auklet", False)], None),
        ([("okapi", True)], None),
        ([("albatross", True), ("cat", False)], 146),
    ]
    categories = {"okapi": 1, "least auklet": 5, "albatross": 7, "cat": 9}
    for k, (animals, index) in enumerate(shown, start=1):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / f"{k}.png")
        images.append(
            {"id": k, "file_name": f"{k}.png", "height": HEIGHT, "width": WIDTH, "imagenet_index": index}
        )
        for species, both in animals:
            keypoints = [10.0, 10.0, 2, 0.0, 0.0, 0, 20.0, 30.0, 2 * both, 0.0, 0.0, 0]
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": k, "category_id": categories[species],
                    "bbox": [0, 0, 40, 40], "keypoints": keypoints,
                }
            )  # fmt: skip
    kinds = {"least auklet": "bird", "albatross": "bird"}
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": key, "name": name, "supercategory": kinds.get(name, "animal"), "keypoints": points}
            for name, key in categories.items()
        ],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    data = read_data("animal-parts", tmp_path)
    asked = AnimalParts().questions(data, BenchmarkSettings(minimum_images=0))
    found = [(q.image.id, q.category, q.name, group_of(q.category)) for q in asked]
    assert found == [
        (1, 1016, "bird", "bird"),
        (2, 1017, "cat", "medium_mammal"),
        (4, 146, "albatross", "bird"),
    ]
    assert asked[0].targets == imagenet_classes_of()[16]
    assert asked[2].targets == (146,)
    for question in asked:
        assert isinstance(question.image, ImageRecord)
        assert len(question.image.instances) == 1


def test_faithfulness(tmp_path, monkeypatch) -> None:
    from perturb_tutorial.perturbations import fully_perturbed

    generator = torch.Generator().manual_seed(0)
    heat = torch.rand(32, 32, generator=generator)
    fake_method(monkeypatch, "noise", lambda i, targets: heat)
    data, network = write_coco(tmp_path, 2, [(2, LEFT)]), tiny_network()
    run_benchmark("faithfulness", data, network, tmp_path / "out", settings("noise", steps=4))
    for k, row in records_of(tmp_path / "out").iterrows():
        image = load_images([data.dataset.images[k].path], 32)
        background = fully_perturbed(image, "blur", color=network.mean_color)
        order = heat.flatten().argsort(descending=True)
        for name in ("deletion", "insertion"):
            expected = []
            for step in range(5):
                salient = torch.zeros(1024, dtype=torch.bool)
                salient[order[: 256 * step]] = True
                kept = (salient if name == "insertion" else ~salient).view(1, 1, 32, 32)
                expected.append(network.scores(torch.where(kept, image, background))[0, [1, 2]].sum().item())
            np.testing.assert_allclose(row[name], expected, atol=1e-5)
            area = (sum(expected) - (expected[0] + expected[-1]) / 2) / 4
            assert row[f"{name}_area"] == pytest.approx(area, abs=1e-5)
        assert row["deletion"][0] == pytest.approx(row["score"], abs=1e-5)
