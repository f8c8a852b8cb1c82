"""The figures of §6: arrangement, several sizes, nothing at all, and what is missing said in its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import perturb_tutorial as pt
from perturb_tutorial import plotting
from perturb_tutorial.activations import learn_activation_masks
from perturb_tutorial.datasets.records import ImageRecord, Instance
from perturb_tutorial.study import figures
from perturb_tutorial.study.architectures import Architectures

QUICK = pt.MaskSettings(iterations=2, initialization="half")
SIZES = [(20, 30), (48, 48), (50, 21)]


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, *size, generator=generator) for size in SIZES]


@pytest.fixture
def masks(tiny, noise_images):
    """Three masks, the second of which did not converge."""
    learned = pt.learn_masks(tiny, noise_images, 0, QUICK)
    return replace(learned, converged=torch.tensor([True, False, True]))


def titles(figure):
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def drawn(axis):
    return np.asarray(axis.images[0].get_array())


TWO = {"preset_comparison": ["default", "localization"], "games": ["preservation", "deletion"]}


@pytest.mark.parametrize("name", TWO)
def test_two_masks_beside_each_photograph(name, pictures, masks):
    figure = getattr(figures, name)(pictures, masks, masks, ["a", "b", "c"])
    figure.canvas.draw()
    assert titles(figure) == ["image", *TWO[name]]
    assert len(figure.axes) == 9
    assert [figure.axes[3 * row].get_ylabel() for row in range(3)] == ["a", "b", "c"]
    # Every panel has its photograph's own size, and every mask lies where the photograph has it.
    assert [drawn(axis).shape[:2] for axis in figure.axes] == [size for size in SIZES for _ in range(3)]
    np.testing.assert_allclose(drawn(figure.axes[0]), plotting.as_picture(pictures[0]))
    resized = torch.nn.functional.interpolate(masks.saliency[:1], size=SIZES[0], mode="bilinear")[0, 0]
    np.testing.assert_allclose(drawn(figure.axes[1]), plotting.overlay(pictures[0], resized), atol=1e-5)
    notes = [figure.axes[3 * row + 1].get_xlabel() for row in range(3)]
    assert ["did not converge" in note for note in notes] == [False, True, False]
    first = f"{masks.score_original[0]:.2f} → {masks.score_masked[0]:.2f}"
    assert notes[0] == first


@pytest.mark.parametrize("name", TWO)
def test_one_photograph_and_one_mask_missing(name, pictures, masks):
    figure = getattr(figures, name)(pictures[:1], masks[0], [None])
    figure.canvas.draw()
    assert not figure.axes[2].images
    assert [text.get_text() for text in figure.axes[2].texts] == [figures.MISSING]
    as_tensor = getattr(figures, name)(pictures[0][None], [masks[1]], masks[0])
    assert figures.NOT_CONVERGED in as_tensor.axes[1].get_xlabel()


@pytest.mark.parametrize("name", TWO)
def test_nothing_to_show(name):
    figure = getattr(figures, name)([], [], [])
    figure.canvas.draw()
    assert titles(figure) == ["image", *TWO[name]]
    assert not any(axis.images for axis in figure.axes)


def test_layers_stand_in_their_order_with_their_sizes(tiny, noise_images, pictures):
    by_layer = {name: learn_activation_masks(tiny, noise_images, 0, name, QUICK) for name in ("2", "5")}
    figure = figures.layers(pictures, by_layer, names={"2": "relu1"})
    figure.canvas.draw()
    assert titles(figure) == ["image", "relu1\n32×32", "5\n16×16"]
    assert len(figure.axes) == 9
    some = figures.layers(pictures[:2], {"2": [None, by_layer["2"][0]], "5": [None, None]})
    assert titles(some) == ["image", "2\n32×32", "5"]
    assert [text.get_text() for text in some.axes[1].texts] == [figures.MISSING]
    figures.layers([], {}).canvas.draw()
    one = figures.layers(pictures[:1], {"5": by_layer["5"][0]}, ["a"])
    one.canvas.draw()
    assert [drawn(axis).shape[:2] for axis in one.axes] == [SIZES[0]] * 2


def test_architectures_show_who_is_here_and_say_who_is_not(noise_images, masks):
    larger = torch.nn.functional.interpolate(noise_images, size=40)
    result = Architectures(
        {"one": noise_images, "two": larger},
        {"one": masks, "two": replace(masks, size=(40, 40))},
        {"three": "three: its weights are not installed"},
    )
    figure = figures.architectures(result, ["a", "b", "c"])
    figure.canvas.draw()
    assert titles(figure) == ["image", "one", "two"]
    assert figure.get_supxlabel() == "not here: three: its weights are not installed"
    # All masks lie on the first network's photographs.
    assert {drawn(axis).shape for axis in figure.axes} == {(32, 32, 3)}
    one = Architectures({"one": noise_images[:1]}, {"one": masks[0]})
    assert [drawn(axis).shape for axis in figures.architectures(one).axes] == [(32, 32, 3)] * 2
    figures.architectures(Architectures(unavailable={"x": "x: not here"})).canvas.draw()
    figures.architectures(Architectures()).canvas.draw()


def polygon(x0, y0, x1, y1):
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


@pytest.fixture
def record():
    """A large and a small bird, the small one inside, one crowd, and a boat; 40×60 px."""
    crowd = {"size": [40, 60], "counts": [0, 40, 2360]}  # column-wise: the first column
    return ImageRecord(
        id=1,
        path=Path("x.jpg"),
        height=40,
        width=60,
        instances=(
            Instance(16, (20, 20, 4, 4), 16, polygon(20, 20, 24, 24)),
            Instance(16, (10, 10, 30, 20), 600, polygon(10, 10, 40, 30)),
            Instance(16, (0, 0, 1, 40), 40, crowd, crowd=True),
            Instance(9, (50, 0, 10, 10), 100, polygon(50, 0, 60, 10)),
            Instance(16, (0, 0, 60, 40), 2400, None),
        ),
    )


def test_segments_are_blocks_of_color(record):
    pytest.importorskip("pycocotools", reason="COCO segments need it")
    image = torch.zeros(3, 40, 60)
    picture = figures.segment_blocks(image, record, 16)
    cover = figures.SEGMENT_COVER
    first, second = (np.array(plotting.mpl.colormaps["tab10"](index)[:3]) for index in (0, 1))
    np.testing.assert_allclose(picture[15, 30], cover * second, atol=1e-6)  # the large bird
    # The small bird lies on the large one, whose color shines through.
    np.testing.assert_allclose(picture[22, 22], (1 - cover) * cover * second + cover * first, atol=1e-6)
    np.testing.assert_allclose(picture[5, 0], cover * np.full(3, 0.5), atol=1e-6)  # the crowd, gray
    assert (picture[5, 55] == 0).all()  # the boat is of another category
    assert (picture[35, 50] == 0).all()
    assert (figures.segment_blocks(image, record)[5, 55] > 0).any()
    # The same image squashed to 20×20: the large bird spans columns 3.3 to 13.3 and rows 5 to 15.
    squashed = figures.segment_blocks(torch.zeros(3, 20, 20), record, 16)
    colored = (squashed[6:14, 1:] > 0).any(2).all(0).nonzero()[0] + 1
    assert [colored.min(), colored.max()] == [3, 12]


@pytest.mark.parametrize("size", [(40, 60), (64, 64), (7, 31)])
def test_an_image_without_segments_stays_as_it_is(record, size):
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(1))
    unmarked = [
        figures.segment_blocks(image, replace(record, instances=())),
        figures.segment_blocks(image, record, 99),
        figures.segment_blocks(image, replace(record, instances=record.instances[-1:])),  # a box, no outline
    ]
    for picture in unmarked:
        np.testing.assert_array_equal(picture, plotting.as_picture(image))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_comparison_grid_of_any_number_size_and_gap(pictures, count):
    heat = torch.rand(28, 28)
    maps = [{"mask": heat, "grad_cam": heat[:7, :7]}, {}, {"mask": torch.full((9, 9), torch.nan)}]
    rows = [plotting.ComparisonRow(image, m) for image, m in zip(pictures, maps, strict=True)][:count]
    figure = plotting.comparison_grid(rows, ["mask", "grad_cam"])
    figure.canvas.draw()
    assert [axis.get_title() for axis in figure.axes[:3]] == ["image", "mask", "grad\ncam"]
    assert [len(axis.images) for axis in figure.axes] == {
        0: [0] * 3,
        1: [1, 1, 1],
        3: [1, 1, 1, 1, 0, 0, 1, 1, 0],
    }[count]
    for row, (height, width) in enumerate(SIZES[:count]):
        for axis in figure.axes[3 * row : 3 * row + 3]:
            for shown in axis.images:
                assert shown.get_extent() == [-0.5, width - 0.5, height - 0.5, -0.5]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_coco_cases_in_pairs(record, count):
    pytest.importorskip("pycocotools", reason="COCO segments need it")
    image = torch.full((3, 40, 60), 0.5)
    heat = torch.rand(1, 28, 28)
    cases = [
        figures.CocoCase(image, record, 16, heat, "bird", notes=("hit",)),
        figures.CocoCase(torch.full((3, 80, 120), 0.5), record, 9, heat, "boat", converged=False),
        figures.CocoCase(image, record, 9, None, "boat"),
    ]
    figure = figures.coco_objects(cases[:count])
    figure.canvas.draw()
    pairs = min(2, max(1, count))
    assert titles(figure) == ["segments", "mask"] * pairs
    assert sum(bool(axis.images) for axis in figure.axes) == {0: 0, 1: 2, 3: 5}[count]
    if count == 3:
        assert [axis.get_xlabel() for axis in figure.axes[:4]] == ["bird", "hit", "boat", "did not converge"]
        assert drawn(figure.axes[2]).shape == (80, 120, 3)
        assert figure.axes[5].texts[0].get_text() == figures.MISSING
        jet = plotting.overlay(image, torch.from_numpy(np.asarray(_resized(heat, (40, 60)))), colormap="jet")
        np.testing.assert_allclose(drawn(figure.axes[1]), jet, atol=1e-5)


def _resized(heat, size):
    return torch.nn.functional.interpolate(heat[None], size=size, mode="bilinear")[0, 0]


def test_the_samples_are_coco_cases():
    pytest.importorskip("pycocotools", reason="COCO segments need it")
    from perturb_tutorial.datasets import read_coco_json
    from perturb_tutorial.datasets.samples import sample_path
    from perturb_tutorial.files import resource

    data = read_coco_json(resource("samples/annotations.json"), ".", check_files=False)
    by_file = {record.path.name: record for record in data.images}
    path = sample_path("coffee")
    record = by_file[path.name]
    image = pt.load_images(path, 224)[0]
    cases = [figures.CocoCase(image, record, c, None, data.categories[c]) for c in record.categories]
    figure = figures.coco_objects(cases)
    figure.canvas.draw()
    changed = np.abs(drawn(figure.axes[0]) - plotting.as_picture(image)).max(2) > 0
    share = sum(i.area for i in record.of(record.categories[0])) / (record.height * record.width)
    # The polygons' area, told by the annotations, is the share of pixels that were colored.
    assert changed.mean() == pytest.approx(share, abs=0.02)


def test_wrong_numbers_are_named(pictures, masks):
    with pytest.raises(ValueError, match="deletion: expected one mask, or None, for each of 3 images, got 2"):
        figures.games(pictures, masks, masks[:2])
    with pytest.raises(ValueError, match="default: expected one mask, or None, for each of 1 images, got 1"):
        figures.preset_comparison(pictures[:1], [masks], [None])
    with pytest.raises(ValueError, match="labels: expected one for each of 3 rows, got 1"):
        figures.games(pictures, masks, masks, ["a"])
    with pytest.raises(ValueError, match="columns: expected a whole number of at least 1, got 0"):
        figures.coco_objects([], columns=0)
