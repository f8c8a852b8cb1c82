"""Inputs that are not square and images of one or four channels: every method, both engines, files and pictures.

The oracles are symmetry (a network and images with rows and columns exchanged have maps with rows and columns
exchanged) and networks that do the same from images of another number of channels. Slow references on rectangles are
beside those on squares: test_optimizer, test_initialization, baselines/test_occlusions, engines/test_joint_graph.
"""

from __future__ import annotations

import copy
import json
import re

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from small_inputs import tiny_module
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial import baselines, plotting
from perturb_tutorial.baselines.registry import METHODS
from perturb_tutorial.canvas import ImageCanvas
from perturb_tutorial.explain import Request, explain_files
from perturb_tutorial.masks import upsample
from perturb_tutorial.networks.mask_layers import spatial_sizes
from perturb_tutorial.sizes import scaled, square_cells

SHAPE = (24, 40)
LAYERS = {"excitation_backprop": "2", "contrastive_excitation_backprop": "2", "grad_cam": "5"}
"""Rectifiers of ``tiny_module``, by the methods that read a layer."""
MEAN, STD = (0.5, 0.4, 0.3, 0.6), (0.25, 0.3, 0.2, 0.3)


def shaped(shape=SHAPE, channels=3, module=None):
    """A tiny network of ``shape`` and ``channels``."""
    return pt.Network(
        tiny_module(channels=channels) if module is None else module,
        mean=MEAN[:channels],
        std=STD[:channels],
        input_size=shape,
        device="cpu",
        name="shaped",
    )


def smooth(shape=SHAPE, channels=3, count=2):
    coarse = torch.rand(count, channels, 6, 6, generator=torch.Generator().manual_seed(3))
    return nn.functional.interpolate(coarse, size=shape, mode="bicubic").clamp(0, 1)


def turned_module(module):
    """The same module for images whose rows and columns are exchanged."""
    turned = copy.deepcopy(module)
    for layer in turned:
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.transpose(2, 3).contiguous()
    last = turned[-1].weight  # of 12 channels of 2×2
    last.data = last.data.view(-1, 12, 2, 2).transpose(2, 3).flatten(1).contiguous()
    return turned


def maps_of(network, images, method, settings=None):
    """Of any method, whose ``layer`` is that of the table."""
    if method == "mask":
        return pt.learn_masks(network, images, [1, {0, 3}], settings).saliency
    return pt.saliency(network, images, [1, {0, 3}], method=method, layer=LAYERS.get(method))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_the_same_with_rows_and_columns_exchanged(method, channels):
    network = shaped(channels=channels)
    turned = shaped(SHAPE[::-1], channels, turned_module(network.module))
    images = smooth(channels=channels)
    # Shifts are drawn for x and y in turn, so there are none here; few steps, far from where rounding decides.
    settings = pt.MaskSettings(iterations=5, learning_rate=0.02, jitter=1)
    maps = maps_of(network, images, method, settings)
    other = maps_of(turned, images.transpose(2, 3), method, settings)
    assert maps.isfinite().all()
    assert maps.std() > 0
    if method == "variable_occlusion":  # its discs are drawn from distributions that differ in x and y
        assert maps.shape == (2, 1, *SHAPE) == other.transpose(2, 3).shape
        return
    # float32 sums in another order; a drop in logit is a difference of two numbers of about 1.
    close = 1e-4 * float(maps.abs().max()) + 2e-6
    torch.testing.assert_close(other.transpose(2, 3), maps, rtol=0, atol=close)


@pytest.mark.parametrize("initialization", ["disc", "half", "random"])
@pytest.mark.parametrize("game", ["deletion", "preservation"])
def test_masks_on_a_rectangle(game, initialization):
    settings = pt.MaskSettings(game=game, iterations=4, initialization=initialization, jitter=28)
    masks = pt.learn_masks(shaped(), smooth(), [1, 2], settings)
    # 28 · √(24/40) = 21.7 and 28 · √(40/24) = 36.1: 792 cells of 1.09×1.11 px, 784 of them on a square.
    assert masks.grid.shape == (2, 1, 22, 36)
    assert masks.size == SHAPE
    assert masks.mask.shape == masks.saliency.shape == (2, 1, *SHAPE)
    sigma = 5 * np.sqrt(24 * 40) / 224
    torch.testing.assert_close(masks.mask, upsample(masks.grid, SHAPE, sigma).clamp(0, 1), atol=1e-6, rtol=0)
    assert masks.resized([(48, 80), (10, 10)])[0].shape == (48, 80)


@pytest.mark.parametrize("channels", [1, 4])
def test_the_exported_graph_gives_the_same_masks(channels):
    settings = pt.MaskSettings(iterations=5, learning_rate=0.02, jitter=28)
    network, images = shaped(channels=channels), smooth(channels=channels)
    masks, exported = (
        pt.learn_masks(network, images, [1, 2], settings, engine=engine) for engine in ("torch", "onnx")
    )
    torch.testing.assert_close(exported.grid, masks.grid, atol=2e-4, rtol=0)
    torch.testing.assert_close(exported.history.score, masks.history.score, atol=1e-5, rtol=0)


def test_a_file_and_rows_of_masks_on_a_rectangle(tmp_path):
    parts = [
        pt.learn_masks(shaped(), smooth(count=1), target, pt.MaskSettings(iterations=2)) for target in (0, 1)
    ]
    masks = pt.Masks.concatenate(parts)
    masks.save(tmp_path / "masks.pt")
    loaded = pt.Masks.load(tmp_path / "masks.pt")
    assert loaded.size == SHAPE
    assert torch.equal(loaded.mask, masks.mask)
    assert loaded.agrees_with(masks)
    torch.testing.assert_close(loaded[1].area, parts[1].area)
    turned = pt.learn_masks(
        shaped(SHAPE[::-1]), smooth(SHAPE[::-1], count=1), 0, pt.MaskSettings(iterations=2)
    )
    message = r"parts: expected masks of one size, got \(24, 40\) and \(40, 24\)"
    with pytest.raises(ValueError, match=message):
        pt.Masks.concatenate([masks, turned])


def test_masks_on_a_layer_of_a_rectangle():
    network, images = shaped(channels=4), smooth(channels=4)
    assert spatial_sizes(network)["5"] == (12, 20)
    masks = pt.learn_activation_masks(network, images, [1, 2], "5")
    assert masks.grid.shape == (2, 1, 12, 20)
    torch.testing.assert_close(
        masks.mask, nn.functional.interpolate(masks.grid, size=SHAPE, mode="nearest"), atol=1e-6, rtol=0
    )
    turned = shaped(SHAPE[::-1], 4, turned_module(network.module))
    settings = masks.settings.replace(iterations=5, learning_rate=0.02)
    grids = [
        pt.learn_activation_masks(net, x, [1, 2], "5", settings).grid
        for net, x in ((network, images), (turned, images.transpose(2, 3)))
    ]
    torch.testing.assert_close(grids[1].transpose(2, 3), grids[0], atol=2e-4, rtol=0)


class Gray(nn.Module):
    """The mean of the colors, then ``inner``, which takes one channel."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.mean(1, keepdim=True))


class FirstThree(nn.Module):
    """``inner`` without the fourth channel."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x[:, :3])


@pytest.mark.parametrize("perturbation", ["blur", "constant"])
def test_a_gray_network_is_the_one_that_averages_three_equal_colors(perturbation):
    inner = tiny_module(channels=1)
    gray = pt.Network(inner, mean=(0.4,), std=(0.3,), input_size=SHAPE, device="cpu")
    color = pt.Network(Gray(inner), mean=(0.4,) * 3, std=(0.3,) * 3, input_size=SHAPE, device="cpu")
    images = smooth(channels=1)
    colors = images.expand(-1, 3, -1, -1)
    settings = pt.MaskSettings(perturbation=perturbation, iterations=5, learning_rate=0.02)
    one, three = (pt.learn_masks(net, x, 1, settings) for net, x in ((gray, images), (color, colors)))
    torch.testing.assert_close(one.grid, three.grid, atol=2e-4, rtol=0)
    for method in (baselines.occlusion, baselines.blur_occlusion):
        torch.testing.assert_close(method(gray, images, 1), method(color, colors, 1), atol=1e-5, rtol=1e-4)
    # Each of the three colors has a third of the gradient.
    torch.testing.assert_close(
        baselines.gradient(gray, images, 1), 3 * baselines.gradient(color, colors, 1), atol=1e-6, rtol=1e-4
    )


def test_a_channel_that_the_network_leaves_out_changes_nothing():
    inner, images = tiny_module(), smooth(channels=4)
    three, four = shaped(module=inner), shaped(channels=4, module=FirstThree(inner))
    settings = pt.MaskSettings(iterations=5, learning_rate=0.02)
    masks, same = (pt.learn_masks(net, x, 1, settings) for net, x in ((three, images[:, :3]), (four, images)))
    torch.testing.assert_close(same.grid, masks.grid, atol=2e-4, rtol=0)
    torch.testing.assert_close(
        baselines.gradient(four, images, 1), baselines.gradient(three, images[:, :3], 1)
    )
    torch.testing.assert_close(
        baselines.variable_occlusion(four, images, 1), baselines.variable_occlusion(three, images[:, :3], 1)
    )


@pytest.mark.parametrize("kind", ["blur", "constant", "noise"])
@pytest.mark.parametrize("channels", [1, 4])
def test_each_channel_is_perturbed_alone(kind, channels):
    settings = pt.MaskSettings(perturbation=kind, iterations=0, initialization="zeros")
    network, images = shaped(channels=channels), smooth(channels=channels)
    canvas = ImageCanvas(network, images, torch.ones(2, 5), settings, seed=0)
    assert canvas.background.shape == images.shape
    if kind == "constant":
        for channel in range(channels):
            assert (canvas.background[:, channel] == MEAN[channel]).all()
    if kind == "blur":  # of σ 10 · 31/224 px, which keeps a channel's mean but for the edges
        torch.testing.assert_close(canvas.background.mean((2, 3)), images.mean((2, 3)), atol=0.03, rtol=0)


def test_the_windows_and_the_area_of_a_rectangle():
    settings = pt.MaskSettings(iterations=12, jitter=40)
    canvas = ImageCanvas(shaped(channels=4), smooth(channels=4), torch.ones(2, 5), settings, seed=0)
    (shifts,) = canvas.windows.shifts
    assert len(set(shifts)) > 6
    for step in range(12):  # by its number, and by a tensor as in a recorded iteration
        window = canvas.windows(canvas.pictures, step)
        assert window.shape == (2, 2, 4, *SHAPE)
        assert torch.equal(canvas.windows(canvas.pictures, torch.tensor([step])), window)
    grid = torch.rand(2, 1, 22, 36, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(canvas.kept(grid), canvas.upsampled(grid).mean((1, 2, 3)))


@pytest.mark.parametrize(
    ("size", "across", "cells"),
    [(224, 28, (28, 28)), ((112, 448), 28, (14, 56)), ((448, 112), 30, (60, 15)), ((8, 2000), 4, (1, 63))],
)
def test_cells_stay_square_and_as_many(size, across, cells):
    assert square_cells(across, size) == cells
    settings = pt.MaskSettings(mask_scale=224 / across)
    assert settings.grid_shape(size) == cells


def test_lengths_scale_with_the_side_of_the_square_of_equal_area():
    settings = pt.MaskSettings()
    assert settings.lengths((112, 448)) == settings.lengths((448, 112)) == settings.lengths(224) == (5.0, 4)
    assert scaled(10.0, (56, 224)) == 5.0


class Crop(nn.Module):
    """``inner`` on the middle of an image."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x[..., 2:34, 8:40])


def test_a_network_that_crops_has_the_square_ones_gradient_inside_and_none_outside(tiny, noise_images):
    wide = pt.Network(Crop(tiny.module), mean=tiny.mean, std=tiny.std, input_size=(36, 48), device="cpu")
    images = nn.functional.pad(noise_images, (8, 8, 2, 2), mode="replicate")
    torch.testing.assert_close(wide.scores(images), tiny.scores(noise_images))
    for method in (baselines.gradient, baselines.guided_backprop):
        inside = nn.functional.pad(method(tiny, noise_images, 1), (8, 8, 2, 2))
        torch.testing.assert_close(method(wide, images, 1), inside)


def test_the_size_and_the_channels_of_a_network():
    assert shaped((32, 32)).input_size == 32
    assert shaped((32, 32)).input_shape == (32, 32)
    network = shaped([24, 40], channels=1)
    assert (network.input_size, network.input_shape, network.channels) == (SHAPE, SHAPE, 1)
    assert network.mean_color.tolist() == [0.5]
    assert "input_size=(24, 40)" in repr(network)
    assert network.to("cpu").input_shape == SHAPE


@pytest.mark.parametrize("size", [4, 24.0, True, "24", (24,), (24, 40, 3), (24, 7), (24.0, 40), None])
def test_a_size_of_another_form_is_named(size):
    message = re.escape("at least 8 image px, or (height, width) of two such numbers, got " + repr(size))
    with pytest.raises(ValueError, match=f"^input_size: expected a whole number of {message}$"):
        shaped(size)
    with pytest.raises(ValueError, match=f"^size: expected a whole number of {message}$"):
        pt.load_images([], size)


def test_images_of_another_shape_are_named():
    network = shaped(channels=1)
    wanted = (
        "images: expected a float tensor N×1×24×40 in [0, 1] (load_images(paths, size=(24, 40), channels=1) makes "
        "one), got torch.float32 "
    )
    for shape, got in (
        ((2, 3, 24, 40), "2×3×24×40"),
        ((2, 1, 40, 24), "2×1×40×24"),
        ((1, 24, 40), "1×24×40"),
    ):
        with pytest.raises(ValueError, match=re.escape(wanted + got)):
            pt.learn_masks(network, torch.zeros(shape), 0)
        with pytest.raises(ValueError, match=re.escape(wanted + got)):
            pt.saliency(network, torch.zeros(shape), 0, method="gradient")


@pytest.mark.parametrize(
    ("takes", "given", "remedy"),
    [
        (1, 3, "it takes 1 channel: give mean and std with one number each"),
        (3, 1, "it takes 3 channels: give mean and std with three numbers each"),
        (4, 3, "it takes 4 channels: give mean and std with four numbers each"),
    ],
)
def test_a_module_of_another_number_of_channels_is_answered_with_the_mend(takes, given, remedy):
    with pytest.raises(ValueError, match=rf"^module: it fails on an input of 1×{given}×24×40 .*; {remedy}$"):
        shaped(channels=given, module=tiny_module(channels=takes))


def test_sides_that_are_the_wrong_way_round_are_answered_with_the_mend():
    module = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(2), nn.Linear(60, 2), nn.Flatten(), nn.Linear(6, 2))
    fixed = nn.Sequential(nn.AvgPool2d((4, 40)), nn.Flatten(), nn.Linear(18, 2))
    assert shaped(module=module).class_count == shaped(module=fixed).class_count == 2
    with pytest.raises(
        ValueError, match=r"1×3×40×24 .*; it takes the sides .*: input_size is \(height, width\)$"
    ):
        shaped(SHAPE[::-1], module=fixed)


@pytest.fixture
def photograph(tmp_path):
    """64×48 px (width×height), a smooth picture with color."""
    coarse = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)
    image.save(tmp_path / "photograph.png")
    return image, tmp_path / "photograph.png"


def test_photographs_of_any_shape_and_one_three_or_four_channels(photograph, tmp_path):
    image, path = photograph
    for channels, mode in ((1, "L"), (3, "RGB"), (4, "RGBA")):
        loaded = pt.load_images(path, SHAPE, channels=channels)
        small = np.asarray(image.convert(mode).resize((40, 24), Image.Resampling.BOX), dtype=np.float32)
        expected = torch.from_numpy(small / 255).view(24, 40, channels).permute(2, 0, 1)
        torch.testing.assert_close(loaded[0], expected, atol=1e-6, rtol=0)
    color = pt.load_images(path, SHAPE)
    assert torch.equal(pt.load_images(path, SHAPE, channels=4)[0, :3], color[0])
    # ITU-R 601's luminance, of 8 bits before and after shrinking.
    luminance = (torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1) * color[0]).sum(0)
    gray = pt.load_images(path, SHAPE, channels=1)
    torch.testing.assert_close(gray[0, 0], luminance, atol=2 / 255, rtol=0)
    assert pt.load_images([], SHAPE, channels=4).shape == (0, 4, *SHAPE)
    for channels in (2, 5, True, "RGB"):
        with pytest.raises(ValueError, match=r"channels: expected 1 \(gray\), 3 \(RGB\) or 4 \(RGBA\)"):
            pt.load_images(path, SHAPE, channels=channels)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (30, 90)])
def test_the_middle_of_a_rectangles_shape_is_cut_out(photograph, tmp_path, shape):
    image, path = photograph
    height, width = shape
    scale = min(64 / width, 48 / height)
    left, top = (64 - width * scale) / 2, (48 - height * scale) / 2
    box = (left, top, 64 - left, 48 - top)
    method = Image.Resampling.BOX if scale >= 1 else Image.Resampling.BILINEAR
    expected = np.asarray(image.resize((width, height), method, box=box), dtype=np.float32) / 255
    loaded = pt.load_images(path, shape, crop="center")[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(loaded, expected, atol=1.01 / 255)  # a box by another rounding


def test_transparency_and_16_bits_in_one_and_four_channels(tmp_path):
    # The right half is red and cannot be seen, the left half is blue and can.
    image = Image.new("RGBA", (80, 48), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 37, 48))
    image.save(tmp_path / "half.png")
    four = pt.load_images(tmp_path / "half.png", SHAPE, channels=4)[0]
    assert (four[:, :, 0] == torch.tensor([0.0, 0, 1, 1])[:, None]).all()
    assert (four[3, :, -1] == 0).all()
    # Column 18 of 40 holds one column of each half: half as opaque, and nothing of its red, which nobody can see.
    assert (four[0, :, :19] == 0).all()
    torch.testing.assert_close(four[3, :, 18], torch.full((24,), 0.5), atol=1.01 / 255, rtol=0)
    gray = pt.load_images(tmp_path / "half.png", SHAPE, channels=1)[0, 0]
    assert (gray[:, -1] == 1).all(), "over white"
    values = np.full((48, 80), 12_345, np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    deep = pt.load_images(tmp_path / "deep.png", SHAPE, channels=1)
    torch.testing.assert_close(deep, torch.full((1, 1, *SHAPE), 12_345 / 65_535))
    with_alpha = pt.load_images(tmp_path / "deep.png", SHAPE, channels=4)[0]
    torch.testing.assert_close(with_alpha[:3], deep[0].expand(3, *SHAPE))
    assert (with_alpha[3] == 1).all()


def test_pictures_of_gray_and_transparent_images():
    gray = torch.rand(1, *SHAPE)
    assert np.array_equal(plotting.as_picture(gray), plotting.as_picture(gray.expand(3, *SHAPE)))
    clear = torch.cat([torch.rand(3, *SHAPE), torch.ones(1, *SHAPE)])
    assert np.array_equal(plotting.as_picture(clear), plotting.as_picture(clear[:3]))
    clear[3] = 0.25
    expected = 0.75 + 0.25 * clear[:3].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(plotting.as_picture(clear), expected, atol=1e-6)
    figure = plotting.explanation(clear, torch.rand(SHAPE), target="cat", masked=clear)
    FigureCanvasAgg(figure).draw()
    for axis in figure.axes:
        box = axis.get_window_extent()
        assert box.width / box.height == pytest.approx(40 / 24, rel=0.02)


@pytest.mark.parametrize(("channels", "method"), [(1, "mask"), (4, "grad_cam")])
def test_files_of_explanations_of_a_rectangle(photograph, tmp_path, channels, method):
    request = Request(
        shaped(channels=channels), pt.MaskSettings(iterations=2), method=method, layer=LAYERS.get(method)
    )
    (tmp_path / "out").mkdir()
    outcome = explain_files([photograph[1]], request, tmp_path / "out")
    assert outcome.errors == []
    array = np.load(tmp_path / "out" / "photograph.npy")
    assert array.shape == SHAPE
    images = pt.load_images(photograph[1], SHAPE, channels=channels)
    (target,) = outcome.entries[0]["target"]["index"]
    if method == "mask":
        expected = pt.learn_masks(request.network, images, target, request.settings).saliency
    else:
        expected = pt.saliency(request.network, images, target, method=method, layer=request.layer)
        expected = nn.functional.interpolate(expected, size=SHAPE, mode="bilinear")
    np.testing.assert_allclose(array, expected[0, 0].numpy(), atol=1e-5)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["entries"] == outcome.entries
    assert Image.open(tmp_path / "out" / "photograph.png").size[0] > 300


def test_samples_of_a_rectangle():
    square = pt.load_samples(40, names=["chelsea"])
    wide = pt.load_samples(SHAPE, names=["chelsea"], channels=1)
    assert wide.images.shape == (1, 1, *SHAPE)
    expected = np.array(square.boxes[0]) * [1, 24 / 40, 1, 24 / 40]
    np.testing.assert_allclose(wide.boxes[0], expected)
