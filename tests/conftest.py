"""Networks, photographs and masks that tests share; what takes long is made once a run."""

from __future__ import annotations

import pytest
import torch
from small_inputs import tiny_module

import perturb_tutorial as pt
from perturb_tutorial.datasets import stored
from perturb_tutorial.datasets.samples import all_samples


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
def foolbox_photographs():
    """The 20 ImageNet photographs that foolbox carries."""
    names = [sample.name for sample in all_samples().values() if sample.package == "foolbox"]
    assert len(names) == 20
    return pt.load_samples(names=names)


@pytest.fixture(scope="session")
def deletion_masks() -> pt.Masks:
    """Default settings on the 20 photographs, as stored."""
    return _stored("deletion")


@pytest.fixture(scope="session")
def preservation_masks() -> pt.Masks:
    """The preservation game on the 20 photographs, as stored."""
    return _stored("preservation")


def _stored(sweep: str) -> pt.Masks:
    """The rows of foolbox's photographs among the 25 with a class, in the order of studies/sweeps.py."""
    packages = [sample.package for sample in all_samples().values() if sample.class_index is not None]
    masks = stored(sweep)
    assert len(masks) == len(packages)
    return masks[[row for row, package in enumerate(packages) if package == "foolbox"]]
