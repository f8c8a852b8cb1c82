"""Guided backprop on every spelling of a rectifier: each right, told in a warning, or refused."""

from __future__ import annotations

import warnings

import pytest
import torch
from small import network_of, smooth_images
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import perturb_tutorial as pt
from perturb_tutorial import baselines


def slow_guided(network, images, target, low=0.0, high=float("inf")):
    """The signal written out by hand in float64, from the logit down, with dense sums."""
    module = network.module.double()
    with torch.no_grad():
        a = module.first(3 * images.double())
        x = a.clamp(low, high).permute(0, 2, 3, 1)
        b = module.second(x)
        signal = (module.fc.weight[target] / b[0, ..., 0].numel()).expand_as(b)
        signal = ((b > low) & (b < high)) * signal.clamp(min=0)
        signal = torch.einsum("nhwo,oi->nihw", signal, module.second.weight)
        signal = ((a > low) & (a < high)) * signal.clamp(min=0)
        padded = torch.zeros(len(images), 3, 18, 18, dtype=torch.float64)
        for row in range(3):
            for column in range(3):
                part = torch.einsum("nohw,oc->nchw", signal, 3 * module.first.weight[:, :, row, column])
                padded[:, :, row : row + 16, column : column + 16] += part
    module.float()
    return padded[:, :, 1:-1, 1:-1].abs().amax(1, keepdim=True)


def part_in_place(x):
    """A view that is not handed on."""
    x[:, 0:].relu_()
    return x


def flat_in_place(x):
    y = x.reshape(-1) if x.is_contiguous() else x.contiguous().view(-1)
    y.clamp_(min=0)
    return y.view(x.shape)


def vmapped(x):
    return torch.vmap(torch.relu)(x)


def checkpointed(x):
    return checkpoint(functional.relu, x, use_reentrant=False)


def maximum(x):
    return torch.maximum(torch.zeros(()), x)


def called_by_functional_call(x):
    return torch.func.functional_call(nn.ReLU(), {}, (x,))


RECTIFIERS = {
    "nn.ReLU": (nn.ReLU(), float("inf")),
    "nn.ReLU in place": (nn.ReLU(inplace=True), float("inf")),
    "F.relu_": (functional.relu_, float("inf")),
    "F.threshold_": (lambda x: functional.threshold_(x, 0.0, 0.0), float("inf")),
    "nn.Threshold in place": (nn.Threshold(0.0, 0.0, inplace=True), float("inf")),
    "part": (part_in_place, float("inf")),
    "flat": (flat_in_place, float("inf")),
    "clamp of a tensor": (lambda x: x.clamp(min=torch.zeros(())), float("inf")),
    "maximum": (maximum, float("inf")),
    "torch.max": (lambda x: torch.max(x, torch.zeros_like(x)), float("inf")),
    "nn.LeakyReLU(0)": (nn.LeakyReLU(0.0, inplace=True), float("inf")),
    "vmap": (vmapped, float("inf")),
    "functional_call": (called_by_functional_call, float("inf")),
    "checkpoint": (checkpointed, float("inf")),
    "scripted": (torch.jit.script(nn.ReLU()), float("inf")),
    "DataParallel": (nn.DataParallel(nn.ReLU()), float("inf")),
    "nn.Hardtanh from 0": (nn.Hardtanh(0.0, 0.3, inplace=True), 0.3),
    "clamp_": (lambda x: x.clamp_(0, 0.3), 0.3),
}


def test_every_readable_rectifier_is_guided():
    images, wrong = smooth_images(2, 16), []
    for name, (activate, high) in RECTIFIERS.items():
        network = network_of(activate)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            guided = baselines.guided_backprop(network, images, 2)
        expected = slow_guided(network_of(activate), images, 2, high=high)
        plain = baselines.gradient(network, images, 2)
        # Float32 against float64 through five operations, relative to the largest value.
        difference = float((guided - expected).abs().max() / expected.abs().max())
        if difference > 1e-5 or torch.allclose(guided, plain, rtol=1e-2):
            wrong.append((name, difference))
    assert wrong == []


def filled(x):
    x = x * 1
    x[x < 0] = 0
    return x


COMPARED = {
    "product": lambda x: x * (x > 0),
    "float product": lambda x: x * (x > 0).float(),
    "inverted": lambda x: x.masked_fill(~(x >= 0), 0.0),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "filled": filled,
}


def test_a_product_with_a_comparison_is_refused():
    for activate in COMPARED.values():
        with pytest.raises(
            ValueError, match=r"guided_backprop: .* comparison of its features, such as x \* "
        ):
            baselines.guided_backprop(network_of(activate), smooth_images(1, 16), 2)
    for activate in (lambda x: -(-x).clamp(max=0), lambda x: -torch.minimum(-x, torch.zeros(()))):
        with pytest.raises(ValueError, match=r"guided_backprop: .* from above at 0"):
            baselines.guided_backprop(network_of(activate), smooth_images(1, 16), 2)


def test_a_comparison_that_makes_no_features_is_no_matter():
    def checked(x):
        assert bool((x > -1e9).all())
        return x.relu()

    expected = baselines.guided_backprop(network_of(torch.relu), smooth_images(1, 16), 2)
    assert torch.equal(baselines.guided_backprop(network_of(checked), smooth_images(1, 16), 2), expected)


class Gated(nn.Module):
    """Blocks of convolution and activation, with a squeeze-and-excite gate."""

    def __init__(self, activate, gate=torch.sigmoid):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.squeeze, self.excite = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.activate, self.gate, self.fc = activate, gate, nn.Linear(8, 5)

    def forward(self, x):
        x = self.activate(self.first(x))
        x = x * self.gate(self.excite(functional.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.fc(self.activate(x).mean((2, 3)))


def hard_sigmoid(x):
    return functional.relu6(x + 3) / 6


def hard_swish(x):
    return x * functional.relu6(x + 3) / 6


def mixed(x):
    return functional.leaky_relu(x[:, :4].relu() - 0.1, 0.1).repeat(1, 2, 1, 1)


@pytest.mark.parametrize(
    ("activate", "sentence"),
    [
        (nn.GELU(), r"1 of 3 activations rectify, all of them in gates .* rest \(GELU\)"),
        (nn.SiLU(), r"1 of 3 activations rectify, all of them in gates .* rest \(SiLU\)"),
        (lambda x: x * x.sigmoid(), r"1 of 3 activations rectify, all of them in gates .* rest \(SiLU\)"),
        (hard_swish, r"1 of 3 activations rectify, all of them in gates .* rest \(Hardswish\)"),
        (nn.PReLU(), r"1 of 3 activations rectify, all of them in gates .* rest \(PReLU\)"),
        (nn.RReLU(), r"1 of 3 activations rectify, all of them in gates .* rest \(RReLU\)"),
        (mixed, r"3 of 5 activations rectify; .* rest \(LeakyReLU\)"),
    ],
)
@pytest.mark.parametrize("gate", [torch.sigmoid, functional.hardsigmoid, hard_sigmoid])
def test_a_map_that_few_rectifiers_guide_is_told_once(activate, sentence, gate):
    network = pt.Network(Gated(activate, gate), input_size=16, device="cpu")
    with pytest.warns(UserWarning, match=f"^guided_backprop: {sentence} as in the plain gradient$") as told:
        baselines.guided_backprop(network, smooth_images(3, 16), 2, batch_size=1)
    assert len(told) == 1


@pytest.mark.parametrize("gate", [torch.sigmoid, functional.hardsigmoid, hard_sigmoid])
def test_squeeze_and_excite_between_rectifiers_is_no_matter(gate):
    network = pt.Network(Gated(nn.ReLU(), gate), input_size=16, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        baselines.guided_backprop(network, smooth_images(1, 16), 2)


def test_no_rectifier_at_all_is_refused_with_what_there_is():
    for activate, named in (
        (nn.GELU(), "GELU"),
        (nn.PReLU(), "PReLU"),
        (hard_swish, "Hardswish"),
        (nn.Identity(), ""),
    ):
        named = rf" \(its activations: {named}\)" if named else ""
        with pytest.raises(ValueError, match=rf"has none on the way{named}; use gradient"):
            baselines.guided_backprop(network_of(activate), smooth_images(1, 16), 2)
