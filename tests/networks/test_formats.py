"""Modules in other number formats than float32: the right answer within that format's rounding, or one sentence."""

from __future__ import annotations

import copy

import pytest
import torch
from small_inputs import tiny_module
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial import baselines

METHODS = [name for name in baselines.METHODS if name != "mask"]
READS_A_LAYER = {"excitation_backprop", "contrastive_excitation_backprop", "grad_cam"}
SETTINGS = pt.MaskSettings(iterations=3)
HALF = [torch.float16, torch.bfloat16]


class Former(nn.Module):
    """A transformer of 64 patches with a class token, whose first parameter is that token."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.fc(self.block(torch.cat([self.token.to(x).expand(len(x), -1, -1), x], 1))[:, 0])


KINDS = {"convolutional": (tiny_module, "2"), "transformer": (Former, "patch")}


def network_of(module):
    return pt.Network(module, input_size=32, device="cpu")


def answers(module, layer, images):
    """Of every method, as float64; the sentence where a method refuses the module."""
    network = network_of(module)
    found = {"logits": network.logits(images), "unfolded": network.unfolded_logits(images)}
    found["top"] = torch.tensor(pt.top_classes(network, images, 5))
    for name in METHODS:
        named = {"layer": layer} if name in READS_A_LAYER else {}
        try:
            found[name] = pt.saliency(network, images, [0, 1, 2], method=name, **named)
        except ValueError as error:
            found[name] = str(error)
    for kind, masks in {
        "masks": pt.learn_masks(network, images, [0, 1, 2], SETTINGS),
        "activations": pt.learn_activation_masks(network, images, [0, 1, 2], layer, SETTINGS),
    }.items():
        assert masks.grid.dtype == masks.mask.dtype == masks.history.score.dtype == torch.float32
        found |= {kind: masks.grid, f"{kind}: score": masks.score_masked}
    return {name: value.double() if torch.is_tensor(value) else value for name, value in found.items()}


@pytest.mark.parametrize(("make", "layer"), KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("dtype", HALF)
def test_a_module_in_half_precision_is_its_weights_in_float32(make, layer, dtype, noise_images):
    expected = answers(make().to(dtype).float(), layer, noise_images)
    for name, value in answers(make().to(dtype), layer, noise_images).items():
        assert value == expected[name] if isinstance(value, str) else torch.equal(value, expected[name]), name


@pytest.mark.parametrize("dtype", HALF)
def test_its_logits_are_those_of_the_module_within_its_rounding(dtype, noise_images):
    module = tiny_module().to(dtype).eval()
    with torch.no_grad():
        expected = module(noise_images.to(dtype)).float()
    network = network_of(module)
    assert next(module.parameters()).dtype == dtype  # the caller's module is not touched
    for logits in (network.logits(noise_images), network.unfolded_logits(noise_images)):
        # Some five roundings of each value.
        torch.testing.assert_close(logits, expected, rtol=0, atol=5 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(("make", "layer"), KINDS.values(), ids=KINDS.keys())
def test_a_module_in_float64_computes_in_float64(make, layer, noise_images):
    network = network_of(make().double())
    assert network.dtype == network.logits(noise_images).dtype == torch.float64
    expected = answers(make(), layer, noise_images)
    for name, value in answers(make().double(), layer, noise_images).items():
        if isinstance(value, str):
            assert value == expected[name]
            continue
        # Float32 against float64, relative to the largest value. An occlusion's drop is a small difference of logits,
        # of a thousandth of them here.
        tolerance = 1e-3 if "occlusion" in name else 2e-5
        distance = (value - expected[name]).abs().max() / expected[name].abs().max()
        assert distance < tolerance, (name, float(distance))


def test_the_exported_graph_of_other_formats(tmp_path, monkeypatch, noise_images):
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for module in (tiny_module().half(), tiny_module().double()):
        network = network_of(module)
        by_torch, by_onnx = (
            pt.learn_masks(network, noise_images, 1, SETTINGS, engine=engine).grid
            for engine in ("torch", "onnx")
        )
        torch.testing.assert_close(by_onnx, by_torch, rtol=0, atol=1e-4)


class Mixed(nn.Module):
    """Layers of several formats; ``cast``: what the head asks for, None to take it from its weights."""

    def __init__(self, convolution, head, cast=None, first=None):
        super().__init__()
        torch.manual_seed(5)
        if first is not None:
            self.scale = nn.Parameter(torch.ones(8, dtype=first))
        self.convolution = nn.Conv2d(3, 8, 3, padding=1).to(convolution)
        self.fc, self.cast = nn.Linear(8, 5).to(head), cast

    def forward(self, x):
        x = self.convolution(x).relu()
        if hasattr(self, "scale"):
            x = x * self.scale.to(x)[:, None, None]
        return self.fc(x.mean((2, 3)).to(self.cast or self.fc.weight.dtype))


def test_a_mixed_module_gets_the_input_with_which_it_runs(noise_images):
    half, single, double = torch.float16, torch.float32, torch.float64
    plain = network_of(Mixed(single, single)).logits(noise_images)
    for module, dtype in (
        (Mixed(single, double), single),
        (Mixed(double, single), double),
        (Mixed(single, double, cast=double), single),
        (Mixed(single, torch.bfloat16), single),
        (Mixed(single, single, first=double), single),
        (Mixed(half, half, first=double), single),
    ):
        network = network_of(module)
        assert network.dtype == dtype
        torch.testing.assert_close(network.logits(noise_images).float(), plain, rtol=0, atol=5e-3)
        assert torch.isfinite(pt.saliency(network, noise_images, 1, method="gradient")).all()
        assert pt.learn_masks(network, noise_images, 1, SETTINGS).grid.dtype == single


def test_a_module_that_asks_for_half_precision_is_warned_of_or_refused(noise_images):
    with pytest.warns(
        UserWarning, match=r"^module: its forward pass does not run in float32 .* bfloat16, 0.4 %"
    ):
        network = network_of(Mixed(torch.float32, torch.bfloat16, cast=torch.bfloat16))
    plain = network_of(Mixed(torch.float32, torch.float32))
    torch.testing.assert_close(network.scores(noise_images), plain.scores(noise_images), rtol=0, atol=5e-3)
    for name in ("gradient", "grad_cam", "excitation_backprop"):
        named = {"layer": "convolution"} if name in READS_A_LAYER else {}
        got, expected = (pt.saliency(n, noise_images, 1, method=name, **named) for n in (network, plain))
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, expected, rtol=0, atol=0.01 * float(expected.abs().max()))
    with pytest.raises(
        ValueError, match=r"^module: .*got float16, .* does not run in float32 .*bfloat16\(\)"
    ) as caught:
        network_of(Mixed(torch.float32, torch.float16, cast=torch.float16))
    assert "\n" not in str(caught.value)


def test_a_module_that_runs_in_no_format_is_told_as_ever():
    module = copy.deepcopy(tiny_module()).half()
    module.append(nn.Linear(7, 5).half())
    with pytest.raises(ValueError, match=r"^module: it fails on an input of 1×3×32×32 \(RuntimeError: mat1"):
        network_of(module)
