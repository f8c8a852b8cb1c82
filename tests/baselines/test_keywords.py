"""Layers and functions called by keyword are the ones that are called by place."""

from __future__ import annotations

import pytest
import torch
from small import network_of, randomize, smooth_images
from torch import nn
from torch.nn import functional

import perturb_tutorial as pt
from perturb_tutorial import baselines
from perturb_tutorial.networks.batch_invariance import LINEAR_ROWS, batch_invariant

METHODS = [name for name in baselines.METHODS if name != "mask"]
READS_A_LAYER = {"excitation_backprop", "contrastive_excitation_backprop", "grad_cam"}
SETTINGS = pt.MaskSettings(iterations=3)


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.fc1, self.fc2 = nn.Linear(6, 12), nn.Linear(12, 5)
        randomize(self, 4)


class ByPlace(Layers):
    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = torch.add(x, torch.relu(self.bn2(self.conv2(x))))
        x = torch.sub(torch.mul(x, 2.0), 0.5)
        x = torch.flatten(functional.adaptive_avg_pool2d(torch.clamp(x, 0), 1), 1)
        x = functional.relu(self.fc1(x), True)
        return functional.linear(x, self.fc2.weight, self.fc2.bias)


class ByKeyword(Layers):
    def forward(self, x):
        x = functional.relu(input=self.bn1(input=self.conv1(input=x)))
        x = torch.add(input=x, other=torch.relu(input=self.bn2(input=self.conv2(input=x))))
        x = torch.sub(input=torch.mul(input=x, other=2.0), other=0.5)
        x = functional.adaptive_avg_pool2d(input=torch.clamp(input=x, min=0), output_size=(1, 1))
        x = torch.flatten(input=x, start_dim=1)
        x = functional.relu(input=self.fc1(input=x), inplace=True)
        return functional.linear(input=x, weight=self.fc2.weight, bias=self.fc2.bias)


@pytest.fixture
def networks():
    return [pt.Network(kind(), input_size=16, device="cpu") for kind in (ByPlace, ByKeyword)]


def test_every_method_is_the_same(networks):
    images = smooth_images(2, 16)
    for name in METHODS:
        named = {"layer": "conv1"} if name in READS_A_LAYER else {}
        expected, got = (pt.saliency(n, images, [0, 1], method=name, **named) for n in networks)
        assert torch.equal(got, expected), name
    expected, got = (pt.learn_masks(n, images, [0, 1], SETTINGS).grid for n in networks)
    assert torch.equal(got, expected)
    expected, got = (pt.learn_activation_masks(n, images, [0, 1], "conv1", SETTINGS).grid for n in networks)
    assert torch.equal(got, expected)


def test_a_rectifier_in_place_on_a_view_is_guided():
    images = smooth_images(1, 16)
    expected = baselines.guided_backprop(network_of(functional.relu), images, 2)
    network = network_of(lambda x: functional.relu(input=x, inplace=True))
    assert torch.equal(baselines.guided_backprop(network, images, 2), expected)


def test_the_exported_graph_is_the_same(networks, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images = smooth_images(2, 16)
    expected, got = (pt.learn_masks(n, images, [0, 1], SETTINGS, engine="onnx").grid for n in networks)
    assert torch.equal(got, expected)


def test_a_batchnorm_called_by_keyword_is_folded(networks):
    for network in networks:
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in network.folded.modules())


def test_a_linear_layer_called_by_keyword_multiplies_as_many_rows():
    layer, rows = nn.Linear(3, 2), []
    layer.register_forward_hook(lambda *_: rows.append(len(_[-1])))  # sees what the layer itself computes
    value = torch.rand(1, 3)
    expected = layer(value)
    with batch_invariant(layer):
        got = layer(input=value)
    assert rows == [1, LINEAR_ROWS]
    torch.testing.assert_close(got, expected)


def test_the_layer_that_mixes_images_is_named():
    class Mixing(ByKeyword):
        def __init__(self):
            super().__init__()
            self.bn2 = nn.BatchNorm2d(6, track_running_stats=False)

    with pytest.raises(ValueError, match=r"by layer 'bn2' \(BatchNorm2d\)"):
        pt.Network(Mixing(), input_size=16, device="cpu")
