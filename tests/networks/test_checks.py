"""A module whose logits of an image are not a function of that image is refused; every other one is not."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
import torch
from small_inputs import FailsOnBlack, tiny_module
from torch import Tensor, nn
from torch.nn import functional

import perturb_tutorial as pt
from perturb_tutorial.baselines import METHODS


def network_of(module):
    return pt.Network(module, mean=(0.5, 0.4, 0.3), std=(0.25, 0.3, 0.2), input_size=32, device="cpu")


def seed_all():
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the generator that modules draw from


class Between(nn.Module):
    """``change`` between the convolutions of a small network and its classifier; C = 12 at 16×16."""

    def __init__(self, change, features=12):
        super().__init__()
        torch.manual_seed(3)
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.out = nn.Linear(features, 5)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        x = self.change(torch.relu(self.conv2(torch.relu(self.conv1(x)))))
        return self.out(x.mean((2, 3)) if x.dim() == 4 else x)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class GhostNorm(nn.Module):
    """Statistics of parts of the batch, also in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        parts = [(part - part.mean((0, 2, 3), keepdim=True)) / part.std() for part in x.split(4)]
        return torch.cat(parts)


class StuckInTraining(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> nn.Module:
        return super().train(True)


class BatchAttention(nn.Module):
    """Tokens × channels where attention reads batch × tokens: the batch attends to itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.attention = nn.MultiheadAttention(12, 2)  # batch_first is False

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens)[0].mean(1)


MIXES = {
    "BatchNorm without statistics": nn.BatchNorm2d(12, track_running_stats=False),
    "BatchNorm stuck in training": StuckInTraining(12),
    "functional.batch_norm": Function(lambda x: functional.batch_norm(x, None, None, training=True)),
    "ghost BatchNorm": GhostNorm(),
    "mean over the batch": Function(lambda x: x - x.mean(0)),
    "weak mean": Function(lambda x: x + 0.003 * x.mean(0)),
    "largest of the batch": Function(lambda x: x / x.amax()),
    "quantile of the batch": Function(lambda x: x.clamp(max=x.flatten()[:8000].quantile(0.9))),
    "normalized along the batch": Function(lambda x: functional.normalize(x, dim=0)),
    "softmax along the batch": Function(lambda x: x * x.mean((2, 3), keepdim=True).softmax(0)),
    "attention along the batch": BatchAttention(),
    "cumulative": Function(lambda x: x.cumsum(0)),
    "rolled": Function(lambda x: x + x.roll(1, 0)),
    "deviation of the batch": Function(lambda x: x * x.std(0, correction=0).mean()),
}


@pytest.mark.parametrize("change", MIXES.values(), ids=MIXES.keys())
def test_a_module_that_mixes_images_is_refused_and_the_layer_named(change):
    with pytest.raises(
        ValueError, match=r"^module: expected logits of an image that do not depend on"
    ) as caught:
        network_of(Between(change))
    assert f"by layer 'change' ({type(change).__name__})" in str(caught.value)
    assert "track_running_stats=True" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_that_divides_by_the_number_of_images_is_refused():
    for function in (lambda x: x / len(x), lambda x: x * len(x) ** 0.5):
        with pytest.raises(
            ValueError, match=r"do not depend on the rest of its batch.* beside another image"
        ):
            network_of(Between(Function(function)))


def test_running_statistics_are_the_mend():
    assert network_of(Between(nn.BatchNorm2d(12))).class_count == 5


class RarelyDropped(nn.Module):
    """Stochastic depth left on: the branch of the whole batch is left out now and then, by each kind of generator."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return x if self.draw() < 0.15 else 1.5 * x


def noisy(x: Tensor) -> Tensor:
    return x + 0.01 * torch.randn_like(x)


RANDOM = {
    "dropout left on": Function(lambda x: functional.dropout(x, 0.5)),
    "dropout of channels": Function(lambda x: functional.dropout2d(x, 0.1)),
    "noise": Function(noisy),
    "stochastic depth, torch": RarelyDropped(lambda: float(torch.rand(()))),
    "stochastic depth, Python": RarelyDropped(random.random),
    "stochastic depth, NumPy": RarelyDropped(lambda: np.random.rand()),  # noqa: NPY002
}


@pytest.mark.parametrize("change", RANDOM.values(), ids=RANDOM.keys())
def test_a_module_that_is_random_in_evaluation_mode_is_refused(change):
    seed_all()
    with pytest.raises(
        ValueError, match=r"^module: expected the same logits of an image each time"
    ) as caught:
        network_of(Between(change))
    assert f"by layer 'change' ({type(change).__name__}); switch dropout and noise off" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_random_numbers_without_effect_are_nobodys_fault():
    assert network_of(Between(Function(lambda x: x + 0 * torch.randn_like(x)))).class_count == 5


class KeepsState(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x * self.seen


def test_a_module_that_remembers_is_refused():
    with pytest.raises(ValueError, match="expected the same logits of an image each time"):
        network_of(Between(KeepsState()))


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (
            lambda x: x.mean((2, 3)).view(1, 12),
            "got one that takes 1 and fails on 2 (RuntimeError: shape '[1, 12]'",
        ),
        (lambda x: x.mean((0, 2, 3)).view(1, 12), "got logits of shape (1, 5) for 2 images"),
        (lambda x: x.view(12, -1).mean(1)[None], "got logits of shape (1, 5) for 2 images"),
    ],
)
def test_a_fixed_number_of_images_is_told(function, got):
    with pytest.raises(ValueError, match=re.escape(got)) as caught:
        network_of(Between(Function(function)))
    assert "-1 in place of a fixed number of images" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_that_fails_in_many_lines_is_told_in_one():
    def fails(x: Tensor) -> Tensor:
        raise ValueError("first\nsecond\n" + "x" * 1000)

    with pytest.raises(
        ValueError, match=r"it fails on an input of 1×3×32×32 \(ValueError: first second x+…\)$"
    ):
        network_of(Between(Function(fails)))


class Experts(nn.Module):
    """Each image goes through one of two layers: matrices of a changing number of rows."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.gate, self.experts = nn.Linear(12, 2), nn.ModuleList([nn.Linear(12, 12), nn.Linear(12, 12)])

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        chosen, result = self.gate(x).argmax(1), torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            result[chosen == index] = expert(x[chosen == index])
        return result


class Chaos(nn.Module):
    """Magnifies the last digit of its input to the first; an honest function of each image all the same."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.sigmoid()
        for _ in range(40):
            x = 3.9 * x * (1 - x)
        return x


HONEST = {
    "BatchNorm": nn.BatchNorm2d(12),
    "BatchNorm without weights": nn.BatchNorm2d(12, affine=False),
    "GroupNorm": nn.GroupNorm(3, 12),
    "one group": nn.GroupNorm(1, 12),
    "LayerNorm": nn.LayerNorm([12, 16, 16]),
    "InstanceNorm": nn.InstanceNorm2d(12, affine=True),
    "InstanceNorm with statistics": nn.InstanceNorm2d(12, track_running_stats=True),
    "local response": nn.LocalResponseNorm(5),
    "dropout": nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.5), nn.AlphaDropout(0.5)),
    "largest of the image": Function(lambda x: x / x.amax((1, 2, 3), keepdim=True)),
    "experts": Experts(),
    "chaos": Chaos(),
    "nothing": Function(torch.zeros_like),
    "constant": Function(torch.ones_like),
    "tiny logits": Function(lambda x: 1e-30 * x),
    "large logits": Function(lambda x: 1e30 * x),
    "not finite": Function(lambda x: x * torch.nan),
    "not finite on black": FailsOnBlack(nn.Identity()),
}


@pytest.mark.parametrize("change", HONEST.values(), ids=HONEST.keys())
def test_what_is_a_function_of_the_image_is_taken(change):
    assert network_of(Between(change)).class_count == 5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_number_formats_meet_the_check_no_worse(dtype):
    module, example = tiny_module().to(dtype).eval(), torch.rand(1, 3, 32, 32, dtype=dtype)
    checks = pt.networks.checks
    logits = checks.example_logits(module, example)
    checks.check_function_of_the_image(module, example, checks.other_images(3, (32, 32)).to(dtype), logits)
    mixing = Between(nn.BatchNorm2d(12, track_running_stats=False)).to(dtype).eval()
    with pytest.raises(ValueError, match="by layer 'change'"):
        checks.check_function_of_the_image(
            mixing,
            example,
            checks.other_images(3, (32, 32)).to(dtype),
            checks.example_logits(mixing, example),
        )


def test_a_network_is_made_under_another_default_format():
    torch.set_default_dtype(torch.float64)
    try:
        assert network_of(tiny_module()).class_count == 5
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_check_leaves_the_callers_random_numbers_alone():
    def drawn():
        return torch.rand(1).item(), random.random(), np.random.rand()  # noqa: NPY002

    module = Between(nn.Dropout())
    seed_all()
    expected = drawn()
    seed_all()
    network_of(module)
    assert drawn() == expected


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_pixels_that_are_not_finite_are_refused_by_every_method(tiny, noise_images, value):
    images = noise_images.clone()
    images[0, 1, 2, 3] = images[2, 0, 0, 0] = value
    told = r"^images: .*got NaN or infinite pixels in rows 0, 2 of 3; leave them out$"
    settings = pt.MaskSettings(iterations=1)
    for method in METHODS:
        with pytest.raises(ValueError, match=told):
            pt.saliency(tiny, images, 0, method, settings=settings)
    others = {
        "masks": lambda: pt.learn_masks(tiny, images, 0, settings),
        "onnx": lambda: pt.learn_masks(tiny, images, 0, settings, engine="onnx"),
        "layer": lambda: pt.learn_activation_masks(tiny, images, 0, "2"),
        "points": lambda: pt.baselines.variable_occlusion_points(tiny, images, 0),
        "classes": lambda: pt.top_classes(tiny, images, k=2),
    }
    for call in others.values():
        with pytest.raises(ValueError, match=told):
            call()


def test_many_bad_rows_are_counted():
    images = torch.full((30, 3, 32, 32), torch.nan)
    images[0] = 0.5
    with pytest.raises(ValueError, match=r"in rows 1, 2, 3, 4, 5, 6, 7, 8 and 21 more of 30"):
        network_of(tiny_module()).check_images(images)
