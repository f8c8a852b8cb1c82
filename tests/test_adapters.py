"""Our methods called as Captum's and Quantus' are: the same maps as from our own calls, in the peers' forms."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from small_inputs import tiny_module
from torch import Tensor, nn

import perturb_tutorial as pt
from perturb_tutorial import adapters

NORMALIZED = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.3, 0.2)}


@pytest.fixture
def module() -> nn.Module:
    return tiny_module().eval()


@pytest.fixture
def inputs(noise_images: Tensor) -> Tensor:
    mean, std = (torch.tensor(NORMALIZED[name]).reshape(1, 3, 1, 1) for name in ("mean", "std"))
    return (noise_images - mean) / std


def own_maps(module: nn.Module, images: Tensor, targets: list[int], **options: Any) -> Tensor:
    network = pt.Network(module, input_size=32, device="cpu", **NORMALIZED)
    heat = pt.saliency(network, images, targets, **options)
    return nn.functional.interpolate(heat, size=(32, 32), mode="bilinear")


@pytest.mark.parametrize("method", ["gradient", "occlusion", "mask"])
def test_maps_are_those_of_our_own_calls(
    module: nn.Module, inputs: Tensor, noise_images: Tensor, method: str
) -> None:
    options = {"settings": pt.MaskSettings(iterations=2)} if method == "mask" else {}
    expected = own_maps(module, noise_images, [0, 3, 1], method=method, **options)
    captums = adapters.Attribution(module, method=method, **NORMALIZED, **options)
    found = captums.attribute(inputs, target=torch.tensor([0, 3, 1]))
    assert found.shape == inputs.shape
    tolerance = {
        "rtol": 1e-3,
        "atol": 1e-3 * float(expected.abs().max()),
    }  # images went through the normalization and back
    torch.testing.assert_close(found.sum(1, keepdim=True), expected, **tolerance)
    quantus = adapters.explain(
        module, inputs.numpy(), np.array([0, 3, 1]), method=method, **NORMALIZED, **options
    )
    torch.testing.assert_close(torch.from_numpy(quantus), expected, **tolerance)


def test_calls_are_captums(module: nn.Module, inputs: Tensor) -> None:
    captum = pytest.importorskip("captum.attr", reason="needs the extra tests")
    theirs = captum.Saliency(module)
    ours = adapters.Attribution(module, method="gradient", **NORMALIZED)
    names = list(inspect.signature(captum.Saliency).parameters)[:1]
    assert list(inspect.signature(adapters.Attribution).parameters)[:1] == names == ["forward_func"]
    for target in (2, [0, 3, 1], torch.tensor([0, 3, 1])):
        maps = [method.attribute(inputs, target=target) for method in (theirs, ours)]
        assert maps[0].shape == maps[1].shape
        # Captum's gradient is with respect to the normalized input, ours to the pixel, and of the largest channel.
        std = torch.tensor(NORMALIZED["std"]).reshape(1, 3, 1, 1)
        torch.testing.assert_close(maps[1].sum(1), (maps[0] / std).amax(1), rtol=1e-3, atol=1e-6)


def test_without_a_target_each_input_has_its_best_class(module: nn.Module, inputs: Tensor) -> None:
    ours = adapters.Attribution(module, method="gradient", **NORMALIZED)
    best = module(inputs).argmax(1)
    torch.testing.assert_close(ours.attribute(inputs), ours.attribute(inputs, target=best))


def test_the_module_is_the_one_of_the_moment(module: nn.Module, inputs: Tensor) -> None:
    """Quantus changes the weights between two calls; a copy made once would explain the old network."""
    ours = adapters.Attribution(module, method="gradient", **NORMALIZED)
    before = ours.attribute(inputs, target=0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(-0.5)
    assert not torch.allclose(before, ours.attribute(inputs, target=0))


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (
            lambda x: x * 10,
            r"inputs: expected images in \[0, 1\] normalized by mean and std, got values from -",
        ),
        (lambda x: x[:, :1], "mean: expected as many numbers as the inputs have channels, 1, got 3"),
        (lambda x: x[0], r"inputs: expected N×C×H×W, got shape \(3, 32, 32\)"),
        (lambda x: x * float("nan"), "inputs: expected images"),
    ],
)
def test_inputs_that_are_no_images_are_refused(
    module: nn.Module, inputs: Tensor, change: Any, wrong: str
) -> None:
    with pytest.raises(ValueError, match=wrong):
        adapters.Attribution(module, method="gradient", **NORMALIZED).attribute(change(inputs), target=0)
    with pytest.raises(ValueError, match=wrong):
        adapters.explain(module, change(inputs).numpy(), [0, 0, 0], method="gradient", **NORMALIZED)


def test_an_unknown_method_is_refused_at_once(module: nn.Module) -> None:
    with pytest.raises(ValueError, match="method"):
        adapters.Attribution(module, method="magic", **NORMALIZED)


def test_quantus_measures_our_maps(module: nn.Module, inputs: Tensor) -> None:
    quantus = pytest.importorskip("quantus", reason="needs the extra peers")
    options = {**NORMALIZED, "method": "gradient"}
    metric = quantus.MPRT(disable_warnings=True, display_progressbar=False)
    scores = metric(
        model=module,
        x_batch=inputs.numpy(),
        y_batch=np.array([0, 3, 1]),
        explain_func=adapters.explain,
        explain_func_kwargs=options,
        device="cpu",
    )
    # Correlations with the maps of randomized networks: below 1 where the module handed over is the one explained.
    assert any(np.any(np.asarray(values) < 0.99) for values in scores.values())
    captums = quantus.Complexity(disable_warnings=True, display_progressbar=False)(
        model=module,
        x_batch=inputs.numpy(),
        y_batch=np.array([0, 3, 1]),
        explain_func=adapters.explain,
        explain_func_kwargs=options,
        device="cpu",
    )
    assert np.isfinite(captums).all()
