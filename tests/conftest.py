"""Networks, photographs and masks that tests share; what takes long is made once a run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial.datasets.samples import all_samples

NEEDED = {"foolbox", "scikit-image", "scikit-learn"}


def tiny_module(classes: int = 5, seed: int = 0) -> nn.Module:
    """A small convolutional network with BatchNorms that are not the identity."""
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, classes),
    )
    for layer in module:
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.5, 0.5)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.3, 0.3)
    nn.init.normal_(module[-1].weight, std=0.8)
    return module


@pytest.fixture
def tiny() -> pt.Network:
    """Five classes, 32 px."""
    return pt.Network(tiny_module(), mean=(0.5, 0.4, 0.3), std=(0.25, 0.3, 0.2), input_size=32, device="cpu")


@pytest.fixture
def noise_images() -> torch.Tensor:
    """Three smooth random images of 32 px."""
    coarse = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(coarse, size=32, mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="session")
def lite0() -> pt.Network:
    """EfficientNet-Lite0 as trained on ImageNet."""
    return pt.load_network("efficientnet_lite0", device="cpu")


@pytest.fixture(scope="session")
def foolbox_photographs():  # type: ignore[no-untyped-def]
    """The 20 ImageNet photographs that foolbox carries."""
    names = [sample.name for sample in all_samples().values() if sample.package == "foolbox"]
    assert len(names) == 20
    return pt.load_samples(names=names)


@pytest.fixture(scope="session")
def deletion_masks(lite0, foolbox_photographs) -> pt.Masks:  # type: ignore[no-untyped-def]
    """Default settings on the 20 photographs."""
    return pt.learn_masks(lite0, foolbox_photographs.images, foolbox_photographs.targets)


@pytest.fixture(scope="session")
def preservation_masks(lite0, foolbox_photographs) -> pt.Masks:  # type: ignore[no-untyped-def]
    """The preservation game on the 20 photographs."""
    settings = pt.MaskSettings(game="preservation")
    return pt.learn_masks(lite0, foolbox_photographs.images, foolbox_photographs.targets, settings)
