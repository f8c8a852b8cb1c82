"""engine="onnx" on every kind of layer that image classifiers are made of: its gradients are PyTorch's.

What goes wrong in an engine goes wrong for a kind of layer and a shape: OpenVINO once took the weight of a strided
convolution for the one of its backward pass, but only where there are as many inputs as outputs, and Wᵀ for W,
but only where W is square and large. So there are equal channels, square matrices and odd sizes here.
"""

from __future__ import annotations

import pytest
import torch
from engine_inputs import by_autograd, distance, example
from torch import nn
from torch.nn import functional

import perturb_tutorial as pt
from perturb_tutorial.engines.openvino import JointRuntime

SMOOTH, KINKED = 1e-3, 0.02
"""Rounding is some 1e-6 of the largest gradient; a rectifier's input that near to 0 may come out on the other side."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "cache"))


def head(channels):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)


class Dense(nn.Module):
    """Pre-activation layers whose BatchNorms cannot be folded, their outputs concatenated, as in DenseNet."""

    def __init__(self, act):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width), act(), nn.Conv2d(width, 8, 3, padding=1, bias=False))
            for width in (8, 16, 24)
        )
        self.transition = nn.Sequential(nn.BatchNorm2d(32), act(), nn.Conv2d(32, 32, 1), nn.AvgPool2d(2))
        self.head = nn.Sequential(*head(32))

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(self.transition(x))


class Bottleneck(nn.Module):
    """ResNeXt's: the stride is in a grouped convolution of equal channels, and the shortcut is strided, too."""

    def __init__(self, act, groups):
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 32, 3, 2, 1), act()
        self.branch = nn.Sequential(
            nn.Conv2d(32, 16, 1),
            act(),
            nn.Conv2d(16, 16, 3, 2, 1, groups=groups),
            act(),
            nn.Conv2d(16, 32, 1),
        )
        self.shortcut = nn.Conv2d(32, 32, 1, 2)
        self.head = nn.Sequential(*head(32))

    def forward(self, x):
        x = self.act(self.stem(x))
        return self.head(self.act(self.branch(x) + self.shortcut(x)))


class Branches(nn.Module):
    """Inception's: long kernels, average pooling with padding, strided branches concatenated."""

    def __init__(self, act):
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 12, 3, 2), act()
        self.long = nn.Sequential(
            nn.Conv2d(12, 12, (1, 7), padding=(0, 3)), act(), nn.Conv2d(12, 12, (7, 1), padding=(3, 0)), act()
        )
        self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(12, 12, 1), act())
        self.down = nn.Conv2d(24, 24, (1, 7), (1, 2), (0, 3))
        self.across = nn.Conv2d(24, 24, (7, 1), (2, 1), (3, 0))
        self.head = nn.Sequential(*head(24))

    def forward(self, x):
        x = self.act(self.stem(x))
        x = torch.cat([self.long(x), self.pooled(x)], 1)
        return self.head(self.across(self.act(self.down(x))))


class Tokens(nn.Module):
    """A vision transformer's block: attention, square and oblong matrices, LayerNorm, GELU."""

    def __init__(self, width=64, side=16):
        super().__init__()
        self.patches = nn.Conv2d(3, width, side, side)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.square = nn.Linear(width, width)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.mlp(self.norms[1](x))
        x = x + torch.tanh(self.square(self.norms[2](x)))
        return self.head(x.mean(1))


class ChannelsLast(nn.Module):
    """ConvNeXt's block, its step to half the size, and a global pooling of channels that are last in memory."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 4, 4)
        self.depthwise, self.norm = nn.Conv2d(24, 24, 7, padding=3, groups=24), nn.LayerNorm(24)
        self.inner, self.outer = nn.Linear(24, 96), nn.Linear(96, 24)
        self.scale = nn.Parameter(torch.full((24, 1, 1), 0.5))
        self.down, self.last = nn.Conv2d(24, 24, 2, 2), nn.Linear(24, 24)
        self.head = nn.Sequential(*head(24))

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.outer(functional.gelu(self.inner(y))).permute(0, 3, 1, 2)
        x = self.down(x + self.scale * y).permute(0, 2, 3, 1)
        return self.head(self.last(x).permute(0, 3, 1, 2))


class Excitation(nn.Module):
    """MobileNetV3's and EfficientNet's: a strided depthwise convolution and a gate for each channel."""

    def __init__(self, act, gate):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), act())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 5, 2, 2, groups=16), act())
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), act(), nn.Conv2d(16, 16, 1), gate()
        )
        self.multiplied = nn.Conv2d(16, 32, 3, 2, 1, groups=16)
        self.head = nn.Sequential(*head(32))

    def forward(self, x):
        x = self.depthwise(self.stem(x))
        return self.head(self.multiplied(x * self.gate(x)))


class Shuffle(nn.Module):
    """ShuffleNet's: half of the channels pass a branch, then the halves are interleaved."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.branch = nn.Sequential(
            nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ReLU()
        )
        self.down = nn.Conv2d(16, 16, 3, 2, 1, groups=4)
        self.head = nn.Sequential(*head(16))

    def forward(self, x):
        for _ in range(2):  # with the same weights
            left, right = self.stem(x).chunk(2, 1) if x.shape[1] == 3 else x.chunk(2, 1)
            x = torch.stack([left, self.branch(right)], 2).flatten(1, 2)
        return self.head(self.down(x))


class Shared(nn.Module):
    """One square weight as W and as Wᵀ, one kernel strided and not."""

    def __init__(self, width=192):
        super().__init__()
        self.stem, self.kernel = nn.Conv2d(3, 16, 3, 2, 1), nn.Parameter(0.1 * torch.randn(16, 16, 3, 3))
        self.patches, self.weight = (
            nn.Conv2d(16, width, 8, 8),
            nn.Parameter(torch.randn(width, width) / width**0.5),
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = torch.tanh(functional.conv2d(torch.tanh(self.stem(x)), self.kernel, padding=1))
        x = torch.tanh(functional.conv2d(x, self.kernel, stride=2, padding=1))
        x = self.patches(functional.interpolate(x, scale_factor=2, mode="nearest")).flatten(2).transpose(1, 2)
        x = torch.tanh(torch.tanh(x @ self.weight) @ self.weight.T)
        return self.head(torch.tanh(functional.linear(x, self.weight)).mean(1))


class Enlarged(nn.Module):
    """Maps brought to another size, as positions of tokens and pyramids are, and less common activations."""

    def __init__(self):
        super().__init__()
        self.stem, self.mixed = nn.Conv2d(3, 12, 3, 4, 1), nn.Conv2d(36, 12, 3, 2, 1)
        self.wide, self.slopes = nn.Conv2d(12, 24, 1), nn.PReLU(12)
        self.head = nn.Sequential(*head(12))

    def forward(self, x):
        x = functional.glu(self.wide(torch.tanh(self.stem(x))), 1)
        sizes = [
            functional.interpolate(x, size=(23, 20), mode="bilinear"),
            functional.interpolate(x, size=(23, 20), mode="bicubic", align_corners=True),
            functional.interpolate(x, size=(23, 20), mode="nearest"),
        ]
        x = functional.logsigmoid(functional.mish(self.mixed(torch.cat(sizes, 1))))
        return self.head(functional.rms_norm(self.slopes(x), x.shape[1:]))


NETWORKS = {
    "strided, equal channels": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(), *head(16)
    ),
    "strided, equal channels, smooth": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1), nn.SiLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.Tanh(), *head(16)
    ),
    "strides of every shape": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, (2, 1), 1), nn.GELU(), nn.Conv2d(16, 16, (3, 5), (1, 3), (1, 0)), nn.GELU(),
        nn.Conv2d(16, 16, 2, 2), nn.GELU(), nn.Conv2d(16, 16, 1, 2), nn.GELU(), *head(16),
    ),
    "dilated": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 2, dilation=2), nn.SiLU(), nn.Conv2d(16, 16, 3, 2, 2, dilation=2), nn.SiLU(),
        nn.Conv2d(16, 16, 3, 1, 1, dilation=3, groups=2), nn.SiLU(), *head(16),
    ),
    "depthwise, strided": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU6(), nn.Conv2d(16, 16, 3, 2, 1, groups=16), nn.ReLU6(),
        nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, 2, 0, groups=16), nn.ReLU6(), *head(16),
    ),
    "valid padding": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, "valid"), nn.SiLU(), nn.Conv2d(16, 16, 3, 2, "valid", groups=16), nn.SiLU(), *head(16),
    ),
    "max pooling": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(16, 16, 3), nn.MaxPool2d(2),
        nn.ReLU(), nn.MaxPool2d((3, 2), (2, 1), ceil_mode=True), *head(16),
    ),
    "average pooling": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.SiLU(), nn.AvgPool2d(3, 2, 1), nn.Conv2d(16, 16, 3),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), nn.SiLU(), nn.AdaptiveAvgPool2d((3, 2)),
        nn.Flatten(), nn.Linear(96, 10),
    ),
    "square matrices": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 8, 8), nn.Tanh(), nn.Flatten(), nn.Linear(1024, 256), nn.Tanh(), nn.Linear(256, 256),
        nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 10),
    ),
    "bottleneck": lambda: Bottleneck(nn.ReLU, 1),
    "grouped bottleneck": lambda: Bottleneck(nn.SiLU, 4),
    "branches": lambda: Branches(nn.ReLU),
    "dense, smooth": lambda: Dense(nn.SiLU),
    "dense": lambda: Dense(nn.ReLU),
    "normalized by groups": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.Softplus(), nn.Conv2d(16, 16, 3, 2, 1),
        nn.GroupNorm(1, 16), nn.Mish(), *head(16),
    ),
    "tokens": lambda: Tokens(),
    "wide tokens": lambda: Tokens(192),
    "channels last": lambda: ChannelsLast(),
    "excitation": lambda: Excitation(nn.Hardswish, nn.Hardsigmoid),
    "excitation, smooth": lambda: Excitation(nn.SiLU, nn.Sigmoid),
    "enlarged": lambda: Enlarged(),
    "shuffled": lambda: Shuffle(),
    "shared": lambda: Shared(),
}  # fmt: skip
KINKS = (nn.PReLU, nn.ReLU, nn.ReLU6, nn.MaxPool2d, nn.Hardswish, nn.Hardsigmoid)


def drawn(name, seed=0):
    """The network with BatchNorms that are not the identity."""
    torch.manual_seed(seed)
    module = NETWORKS[name]()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.5, 0.5)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.3, 0.3)
    return module


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_torch(name):
    module = drawn(name)
    bound = KINKED if any(isinstance(layer, KINKS) for layer in module.modules()) else SMOOTH
    network = pt.Network(module, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), input_size=64, device="cpu")
    settings = pt.MaskSettings(mask_scale=16)
    inputs = example(network, 3, settings)
    expected_score, expected, _ = by_autograd(network, settings, *inputs)
    for rows in (slice(0, 3), slice(1, 2)):
        score, gradient = JointRuntime(network, settings, rows.stop - rows.start)(*(x[rows] for x in inputs))
        torch.testing.assert_close(score, expected_score[rows], atol=0, rtol=1e-4)
        assert distance(gradient, expected[rows]) <= bound
