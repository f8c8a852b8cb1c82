"""Small networks that spell the same operations in different ways."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

import perturb_tutorial as pt

EXCITATION = ["excitation_backprop", "contrastive_excitation_backprop"]
BACKWARD = ["gradient", "guided_backprop", *EXCITATION, "grad_cam"]
"""The methods that go backward through a network."""


class Plain(nn.Module):
    """Convolutions of all kinds, ReLU6, pools; activations ≥ 0 from the first rectifier on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.relu1 = nn.ReLU(inplace=True)
        self.pool1 = nn.MaxPool2d(3, 2, 1)
        self.grouped = nn.Conv2d(6, 8, 3, padding=1, groups=2)
        self.relu6 = nn.ReLU6(inplace=True)
        self.depthwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False)
        self.pool2 = nn.AvgPool2d(2, 1, padding=1)
        self.pool3 = nn.AdaptiveAvgPool2d(2)
        self.drop = nn.Dropout()
        self.fc1 = nn.Linear(32, 16)
        self.fc2 = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.relu6(4 * self.grouped(x))
        x = functional.relu(self.depthwise(x))
        x = self.pool3(self.pool2(x)).flatten(1)
        return self.fc2(self.drop(torch.relu(self.fc1(x))))


class Signed(nn.Module):
    """BatchNorm, residual sums of signed activations in three spellings, concatenation, a spatial mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(6)
        self.conv3 = nn.Conv2d(6, 6, 1, groups=3)
        self.conv4 = nn.Conv2d(6, 6, 3, padding=2, dilation=2)
        self.conv5 = nn.Conv2d(12, 8, 3, stride=2)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        start = self.bn1(self.conv1(x))  # signed: a linear bottleneck
        x = start + self.bn2(self.conv2(functional.relu6(start)))
        y = self.conv3(x)
        y += x
        y = functional.relu(y, inplace=True)
        z = torch.add(self.conv4(y), y)
        x = torch.cat([y, z], 1)
        x = functional.dropout(self.conv5(x), 0.5, self.training)
        return self.fc(x.mean((2, 3)))


class Tokens(nn.Module):
    """Convolution, activation, and a linear layer over N×H×W×C, after which the activation may find a view."""

    def __init__(self, activate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 8)
        self.activate, self.fc = activate, nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activate(self.first(3 * x)).permute(0, 2, 3, 1)
        return self.fc(self.activate(self.second(x)).mean((1, 2)))


def network_of(activate: Callable[[Tensor], Tensor]) -> pt.Network:
    """Tokens at 16 px."""
    return pt.Network(Tokens(activate), input_size=16, device="cpu")


def randomize(module: nn.Module, seed: int, negative_scales: bool = True) -> nn.Module:
    """Weights of some seed; BatchNorms far from the identity, every third scale below 0 if asked."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = layer.weight[0].numel()
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
            if layer.bias is not None:
                layer.bias.data = torch.randn(layer.bias.shape, generator=generator) * 0.1
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = torch.rand(layer.running_mean.shape, generator=generator) - 0.5
            layer.running_var = torch.rand(layer.running_var.shape, generator=generator) + 0.5
            layer.weight.data = torch.rand(layer.weight.shape, generator=generator) + 0.5
            layer.bias.data = torch.rand(layer.bias.shape, generator=generator) - 0.5
            if negative_scales:
                layer.weight.data[::3] *= -1
    return module


def small_network(kind: type[nn.Module], seed: int, **options: bool) -> pt.Network:
    """16 px, 5 classes, pixels as they are."""
    return pt.Network(randomize(kind(), seed, **options), input_size=16, device="cpu")


def smooth_images(count: int, size: int, seed: int = 0) -> Tensor:
    """Smooth random images in [0, 1]."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)


def correlation(left: Tensor, right: Tensor) -> float:
    """Pearson's r of two maps."""
    return float(torch.corrcoef(torch.stack((left.double().flatten(), right.double().flatten())))[0, 1])
