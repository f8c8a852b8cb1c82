"""Scores without a gradient: whatever needs one refuses the network in one sentence, and occlusions still work."""

from __future__ import annotations

import pytest
import torch
from small import smooth_images
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial import baselines
from perturb_tutorial.engines.compiled import compiled_logits

OCCLUSIONS = [name for name in baselines.METHODS if "occlusion" in name]
LEARNED = r"^network: expected logits with a gradient, got some that do not depend on the mask"
PIXELS = r"^module: its logits have no gradient by the pixels, .* use occlusion, blur_occlusion or variable_occlusion$"
LAYER = r"^layer: the logits do not depend on its output, or without a gradient, .* or use occlusion, "


class Cut(nn.Module):
    """A classifier without a gradient by its input; ``cut`` says how."""

    def __init__(self, cut):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc, self.cut = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 5), cut

    def plain(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))

    def forward(self, x):
        return self.cut(self, x)


def under(mode):
    def cut(module, x):
        with mode():
            return module.plain(x)

    return cut


def quantized(module, x):
    features = torch.quantize_per_tensor(module.conv(x).relu().mean((2, 3)), 0.001, 0, torch.qint8)
    return module.fc(features.dequantize())


def of_its_own_leaf(module, x):
    """The logits have a gradient, but by another tensor than the pixels."""
    with torch.enable_grad():
        features = module.conv(x).relu().mean((2, 3))
        return module.fc(features.detach().requires_grad_())


CUTS = {
    "no_grad": under(torch.no_grad),
    "inference_mode": under(torch.inference_mode),
    "detach": lambda module, x: module.plain(x).detach(),
    "numbers": lambda module, x: torch.tensor(module.plain(x).tolist()),
    "quantized": quantized,
    "own leaf": of_its_own_leaf,
}


@pytest.fixture(params=CUTS.values(), ids=CUTS.keys())
def network(request):
    return pt.Network(Cut(request.param), input_size=16, device="cpu")


def one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_what_needs_a_gradient_refuses_the_network(network, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images = smooth_images(2, 16)
    one_sentence(lambda: pt.learn_masks(network, images, 1), LEARNED)
    one_sentence(lambda: pt.learn_activation_masks(network, images, 1, "conv"), LEARNED)
    one_sentence(lambda: compiled_logits(network, images), LEARNED)  # before anything is compiled
    for name in ("gradient", "guided_backprop"):
        one_sentence(lambda name=name: pt.saliency(network, images, 1, method=name), PIXELS)
    for name in baselines.METHODS:
        if name != "mask" and name not in OCCLUSIONS:
            one_sentence(lambda name=name: pt.saliency(network, images, 1, method=name, layer="conv"), LAYER)


def test_the_exported_graph_refuses_it_too(network, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one_sentence(lambda: pt.learn_masks(network, smooth_images(1, 16), 1, engine="onnx"), LEARNED)


def test_occlusions_need_none(network):
    images = smooth_images(2, 16)
    plain = pt.Network(Cut(Cut.plain), input_size=16, device="cpu")
    for name in OCCLUSIONS:
        got, expected = (pt.saliency(n, images, 1, method=name) for n in (network, plain))
        # Quantized features are a thousandth apart.
        assert (got - expected).abs().max() < 0.2 * expected.abs().max() + 1e-3, name
