"""The contact sheet of a class: what it says over each photograph, and what a bad file does to it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from small_inputs import tiny_module

import perturb_tutorial as pt
from perturb_tutorial.study import gallery as module
from perturb_tutorial.study.gallery import (
    Gallery,
    contact_sheet,
    gallery,
    image_files,
    learn_gallery,
    save_png,
)

QUICK = {"iterations": 2, "initialization": "half"}


@pytest.fixture
def folder(tmp_path):
    """Five photographs of several sizes and kinds, one that is cut off, and what is no image."""
    generator = np.random.default_rng(0)
    for index, (size, suffix) in enumerate(
        [((40, 30), ".png"), ((64, 64), ".JPEG"), ((33, 90), ".bmp"), ((20, 20), ".PNG")]
    ):
        pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}{suffix}")
    Image.fromarray(generator.integers(0, 256, (50, 50), dtype=np.uint8)).save(tmp_path / "4_gray.jpg")
    whole = (tmp_path / "1.JPEG").read_bytes()
    (tmp_path / "2_cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "labels.csv").write_text("file,class\n")
    (tmp_path / "more.png").mkdir()
    return tmp_path


def labels(figure):
    return [[text.get_text() for text in axis.texts] for axis in figure.axes]


def test_image_files_are_known_by_their_endings(folder, tmp_path):
    assert [path.name for path in image_files(folder)] == [
        "0.png",
        "1.JPEG",
        "2.bmp",
        "2_cut.jpg",
        "3.PNG",
        "4_gray.jpg",
    ]
    with pytest.raises(ValueError, match=r"folder: expected image files .* found none among 0 entries"):
        image_files(folder / "more.png")
    with pytest.raises(ValueError, match=r"folder: expected a folder with images, .*labels\.csv is a file"):
        image_files(folder / "labels.csv")
    with pytest.raises(ValueError, match="nowhere is not there"):
        image_files(tmp_path / "nowhere")


def test_probability_and_c_or_i_are_the_networks(tiny, folder, monkeypatch):
    monkeypatch.setattr(module, "_IMAGES_AT_ONCE", 2)  # several batches, one with a bad file
    paths = image_files(folder)
    seen = []
    result = learn_gallery(tiny, paths, 2, changes=QUICK, progress=seen.append)
    good = [path for path in paths if "cut" not in path.name]
    images = pt.load_images(good, 32)
    scores = tiny.scores(images)
    assert result.names == [path.name for path in good]
    np.testing.assert_allclose(result.probability, scores[:, 2].numpy(), atol=1e-6)
    assert result.correct == (scores.argmax(1) == 2).tolist()
    assert result.recall == pytest.approx((scores.argmax(1) == 2).double().mean().item())
    (line,) = result.errors
    assert "2_cut.jpg" in line
    assert "\n" not in line
    np.testing.assert_allclose(result.pictures / 255, images, atol=0.5 / 255 + 1e-6)
    assert seen == sorted(seen)
    assert seen[-1] == len(paths) * 2
    # The masks are those that learn_masks gives, under either preset.
    alone = pt.learn_masks(tiny, images, 2, pt.MaskSettings().replace(**QUICK))
    torch.testing.assert_close(result.masks["default"].grid, alone.grid, atol=1e-4, rtol=0)
    settings = pt.MaskSettings.preset("localization").replace(**QUICK)
    # Five classes are all that there are; their scores sum to 1 on any image, so one is left out.
    four = pt.learn_masks(tiny, images, pt.top_classes(tiny, images, 4), settings)
    torch.testing.assert_close(
        result.masks["localization"].score_original, four.score_original, atol=1e-5, rtol=0
    )


def test_the_sheet_has_a_block_a_preset_and_a_label_a_photograph(tiny, folder):
    result = learn_gallery(tiny, image_files(folder), "class 2", changes=QUICK)
    figure = result.figure(columns=3)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["default", "localization"]
    for block, name in zip(labels(figure), result.masks, strict=True):
        expected = [
            f"{p:.3f} {'C' if c else 'I'}{'' if ok else '*'}"
            for p, c, ok in zip(
                result.probability, result.correct, result.masks[name].converged.tolist(), strict=True
            )
        ]
        assert block == expected
    assert figure.get_suptitle().startswith("class 2, ")
    # The first photograph's pixels are where its tile is: gray where nothing is salient.
    everything_kept = result.masks["default"].grid.clone().fill_(1)
    plain = Gallery(
        **{**vars(result), "masks": {"default": replace(result.masks["default"], grid=everything_kept)}}
    )
    sheet = np.asarray(contact_sheet(plain).axes[0].images[0].get_array())
    tile = sheet[module._LABEL : module._LABEL + module._TILE - 4, : module._TILE - 4]
    assert np.ptp(tile, axis=2).max() < 1e-5
    assert tile.mean() == pytest.approx((result.pictures[0].float() / 255).mean().item(), abs=0.02)


def test_a_class_may_be_called_by_broken_mathematics(tiny, folder):
    figure = Gallery(
        **{**vars(learn_gallery(tiny, image_files(folder)[:1], 2, changes=QUICK)), "label": r"$\frac$"}
    ).figure()
    figure.canvas.draw()
    assert figure.get_suptitle().startswith(r"$\frac$, ")


@pytest.mark.parametrize("count", [0, 1])
def test_one_photograph_and_none(tiny, folder, count):
    figure = gallery(tiny, image_files(folder)[:count], 0, ["localization"], changes=QUICK)
    figure.canvas.draw()
    assert [len(block) for block in labels(figure)] == [count]
    empty = learn_gallery(tiny, [], 0)
    assert len(empty) == 0
    assert math.isnan(empty.recall)


def test_a_photograph_without_a_prediction_and_a_sheet_without_masks(tiny, folder):
    class NaNs(torch.nn.Module):
        def forward(self, inputs):
            means = inputs.mean((2, 3))
            return torch.where(means[:, :1] > 0.9, torch.nan, means)

    network = pt.Network(NaNs(), mean=(0, 0, 0), std=(1, 1, 1), input_size=32, device="cpu")
    Image.new("RGB", (40, 40), "white").save(folder / "white.png")
    paths = [folder / "white.png", folder / "0.png"]
    result = learn_gallery(network, paths, 0, ["default"], changes=QUICK)
    (block,) = labels(result.figure())
    assert block[0] == "–*"
    assert block[1].startswith(f"{result.probability[1]:.3f} ")
    # Without masks: the photographs as they are.
    bare = Gallery(**{**vars(learn_gallery(tiny, paths, 0, ["default"], changes=QUICK)), "masks": {}})
    figure = contact_sheet(bare)
    figure.canvas.draw()
    assert [len(block) for block in labels(figure)] == [2]
    sheet = np.asarray(figure.axes[0].images[0].get_array())
    tile = sheet[module._LABEL : module._LABEL + module._TILE - 4, : module._TILE - 4]
    mean = (bare.pictures[0].float() / 255).mean((1, 2))
    np.testing.assert_allclose(tile.mean((0, 1)), mean, atol=0.02)


def test_gray_rectangles_keep_their_shape_on_the_sheet(folder):
    network = pt.Network(tiny_module(channels=1), mean=(0.5,), std=(0.25,), input_size=(20, 40), device="cpu")
    result = learn_gallery(network, image_files(folder)[:1], 0, ["default"], changes=QUICK)
    assert result.pictures.shape == (1, 1, 20, 40)
    sheet = contact_sheet(replace(result, masks={})).axes[0].images[0].get_array()
    drawn = (np.asarray(sheet) < 1).any(2).nonzero()
    height, width = (int(np.ptp(axis)) + 1 for axis in drawn)
    assert abs(width - 2 * height) <= 2, "white above and below"


def test_only_bad_files_leave_lines(tiny, folder):
    result = learn_gallery(tiny, [folder / "2_cut.jpg", folder / "absent.png"], 0, changes=QUICK)
    assert [len(result), len(result.errors)] == [0, 2]
    result.figure().canvas.draw()


def test_a_mask_that_did_not_converge_has_an_asterisk(tiny, folder):
    result = learn_gallery(tiny, image_files(folder)[:2], 0, ["default"], changes=QUICK)
    masks = replace(result.masks["default"], converged=torch.tensor([True, False]))
    figure = contact_sheet(Gallery(**{**vars(result), "masks": {"default": masks}}))
    (block,) = labels(figure)
    assert figure.get_suptitle().endswith("* did not converge")
    assert [text.endswith("*") for text in block] == [False, True]


def test_the_file_is_written_whole_and_never_too_large(tiny, folder, monkeypatch):
    figure = gallery(tiny, image_files(folder)[:1], 0, ["default"], changes=QUICK)
    path = folder / "sheet.png"
    save_png(figure, path)
    with Image.open(path) as picture:
        large = picture.size
    monkeypatch.setattr(module, "MAX_PIXELS", 40_000)
    save_png(figure, path)
    with Image.open(path) as picture:
        assert picture.size[0] * picture.size[1] <= 41_000 < large[0] * large[1]
    before = path.read_bytes()
    monkeypatch.setattr(figure, "savefig", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_png(figure, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "zebra"}, "zebra"),
        ({"presets": ["both"]}, "preset: expected one of default, localization, got 'both'"),
        ({"presets": []}, "presets: expected some of default, localization, each once, got none"),
        ({"presets": ["default", "default"]}, "each once, got default, default"),
        ({"changes": {"steps": 3}}, "settings: expected .* got steps"),
    ],
)
def test_wrong_arguments_are_named(tiny, folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        learn_gallery(tiny, image_files(folder), **{"target": 0, **arguments})


def test_only_a_gallery_is_replaced(tmp_path):
    path = tmp_path / "sheet.png"
    module.check_replaceable(path)
    save_png(Figure(figsize=(1, 1)), path)
    module.check_replaceable(path)
    Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(
        ValueError, match=r"^output: .*sheet\.png is there, and perturb-tutorial did not write it"
    ):
        module.check_replaceable(path)
    path.write_text("notes")
    with pytest.raises(ValueError, match="did not write it"):
        module.check_replaceable(path)
