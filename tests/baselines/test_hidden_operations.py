"""Modules that hide operations from guided and excitation backprop: each right, or refused in one sentence."""

from __future__ import annotations

import threading

import pytest
import torch
from small import EXCITATION, Tokens, network_of, smooth_images
from torch import nn
from torch.distributed._composable import checkpoint as composable_checkpoint
from torch.nn import functional
from torch.utils.checkpoint import CheckpointFunction

import perturb_tutorial as pt
from perturb_tutorial import baselines
from perturb_tutorial.baselines.leaf_pass import running_eagerly
from perturb_tutorial.networks.layers import layer_map


def under_hooks_on_saved_tensors(x):
    with torch.autograd.graph.saved_tensors_hooks(lambda value: value, lambda value: value):
        return functional.relu(x)


class OwnReLU(torch.autograd.Function):
    """A rectifier of which the graph shows only a name."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, signal):
        return signal * (ctx.saved_tensors[0] > 0)


class View(OwnReLU):
    """Named like an operation of torch that only moves values."""


class InPlaceReLU(torch.autograd.Function):
    """Writes into its input."""

    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.clamp_(min=0)

    @staticmethod
    def backward(ctx, signal):
        return signal


def own_in_place_on_a_view(x):
    x = x * 1
    InPlaceReLU.apply(x[..., :5])
    return x


def compiled_without_dynamo(x):
    from functorch.compile import aot_function, nop

    return aot_function(torch.relu, fw_compiler=nop)(x)


HIDDEN = {
    "Function": (OwnReLU.apply, "'OwnReLU', an autograd.Function .* cannot be read; write it with torch's"),
    "View": (View.apply, "'View', an autograd.Function .* cannot be read"),
    "in place": (own_in_place_on_a_view, "in-place operation on a view"),
    "compiled": (
        compiled_without_dynamo,
        "'torch.compile', compiled code .*; pass the module before it is",
    ),
    "re-entrant": (
        lambda x: CheckpointFunction.apply(functional.relu, True, x),
        "'torch.utils.checkpoint', whose operations cannot be read; turn checkpointing off",
    ),
}


@pytest.mark.parametrize("method", ["guided_backprop", *EXCITATION])
def test_what_hides_its_operations_is_refused(method):
    for name, (activate, sentence) in HIDDEN.items():
        layer = None if method == "guided_backprop" else "first"
        with pytest.raises(ValueError, match=rf"^{method}: .*{sentence}") as caught:
            getattr(baselines, method)(network_of(activate), smooth_images(1, 16), 2, layer=layer)
        assert "\n" not in str(caught.value), name


@pytest.mark.parametrize("method", EXCITATION)
def test_excitation_backprop_refuses_what_its_rules_do_not_see(method):
    def run(activate):
        return getattr(baselines, method)(network_of(activate), smooth_images(1, 16), 2, layer="first")

    with pytest.raises(
        ValueError, match=rf"^{method}: .* under hooks on saved tensors, .*; turn checkpointing off"
    ):
        run(under_hooks_on_saved_tensors)
    with pytest.raises(
        ValueError, match=rf"^{method}: no rule for the operation 'ReLU' in a scripted or parallel"
    ):
        run(torch.jit.script(nn.ReLU()))


class Flat(nn.Module):
    """A norm over all values of an image."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x.flatten(1)).view(x.shape)


NAMED = {
    nn.GELU(): "'GELU' in layer 'activate' between",
    nn.SELU(): r"'ELU' in layer 'activate' \(SELU\) between",
    nn.Softmax(-1): "'Softmax' in layer 'activate' between",
    nn.InstanceNorm2d(8): r"'BatchNorm or InstanceNorm' in layer 'activate' \(InstanceNorm2d\) between",
    Flat(nn.RMSNorm(8 * 16 * 16)): r"'\w+' in layer 'activate.norm' \(RMSNorm\) between",
    torch.sqrt: "'sqrt' between",
}


@pytest.mark.parametrize("method", EXCITATION)
def test_an_operation_is_named_as_users_know_it_and_with_its_layer(method):
    for activate, phrase in NAMED.items():
        network = network_of(activate)
        with pytest.raises(ValueError, match=rf"^{method}: no rule for the operation {phrase}"):
            getattr(baselines, method)(network, smooth_images(1, 16), 2, layer="first")


@pytest.mark.parametrize("method", ["gradient", "guided_backprop", *EXCITATION])
def test_a_compiled_part_is_read_as_it_was_written(method):
    """And compiles again afterwards."""
    layer = None if method in ("gradient", "guided_backprop") else "first"
    images = smooth_images(1, 16)
    network = network_of(nn.ReLU())
    expected = getattr(baselines, method)(network, images, 2, layer=layer)
    torch._dynamo.reset()
    graphs = []

    def backend(graph, example):
        graphs.append(graph)
        return graph.forward

    network = network_of(torch.compile(functional.relu, backend=backend))
    assert len(graphs) > 0  # the constructor ran the compiled part
    if layer is not None:
        layer_map(network, layer)  # and so does a look at the layers, with five images
    seen = len(graphs)
    assert torch.equal(getattr(baselines, method)(network, images, 2, layer=layer), expected)
    assert len(graphs) == seen
    torch._dynamo.reset()
    network.unfolded_logits(images)
    assert len(graphs) > seen


def test_passes_in_several_threads_give_the_compiler_back_once():
    torch._dynamo.reset()
    compiled = []

    def backend(graph, example):
        compiled.append(threading.get_ident())
        return graph.forward

    function = torch.compile(lambda x: x.relu() + 1, backend=backend)
    inside, leave = threading.Event(), threading.Event()

    def first():
        with running_eagerly():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(30)
    with running_eagerly():
        leave.set()
        thread.join()
        function(torch.ones(2))
        assert compiled == []  # the first has gone, the second is still under way
    function(torch.ones(2))
    assert compiled == [threading.get_ident()]


def test_checkpoints_of_another_kind_leave_the_gradient_right_or_are_refused():
    """``checkpoint`` itself is met in ``networks/test_checkpoints.py``."""
    images = smooth_images(1, 16)
    expected = baselines.gradient(network_of(nn.ReLU()), images, 2)
    own = baselines.gradient(network_of(OwnReLU.apply), images, 2)
    torch.testing.assert_close(own, expected, rtol=1e-6, atol=0)
    network = network_of(lambda x: CheckpointFunction.apply(functional.relu, True, x))
    with pytest.raises(ValueError, match=r"^module: .* use_reentrant=True .*; turn checkpointing off"):
        baselines.gradient(network, images, 2)
    whole = composable_checkpoint(Tokens(nn.ReLU()))
    assert torch.equal(
        baselines.gradient(pt.Network(whole, input_size=16, device="cpu"), images, 2), expected
    )
    with pytest.raises(ValueError, match=r"^layer: it is read inside a part under torch.utils.checkpoint"):
        baselines.gradient(pt.Network(whole, input_size=16, device="cpu"), images, 2, layer="first")


class Stopped(nn.Module):
    """No gradient comes to the pixels, as from quantized layers."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 5)

    @torch.no_grad()
    def forward(self, x):
        return self.fc(functional.relu(x - 0.5).mean((2, 3)))


@pytest.mark.parametrize("method", ["gradient", "guided_backprop"])
def test_logits_without_a_gradient_are_told(method):
    network = pt.Network(Stopped(), input_size=16, device="cpu")
    with pytest.raises(
        ValueError, match=r"^module: its logits have no gradient by the pixels, .* use occlusion"
    ):
        getattr(baselines, method)(network, smooth_images(1, 16), 2)


class Integers(Tokens):
    """A layer whose values are whole numbers, as a quantized one's are."""

    def __init__(self):
        super().__init__(nn.Identity())
        self.whole = nn.Identity()

    def forward(self, x):
        return super().forward(self.whole(x.mul(255).byte()).float() / 255)


@pytest.mark.parametrize("method", [*EXCITATION, "grad_cam"])
def test_a_layer_of_whole_numbers_is_told(method):
    network = pt.Network(Integers(), input_size=16, device="cpu")
    with pytest.raises(ValueError, match=r"^layer: 'whole' has no spatial features .*torch.uint8"):
        getattr(baselines, method)(network, smooth_images(1, 16), 2, layer="whole")


@pytest.mark.parametrize("method", EXCITATION)
def test_a_layer_that_is_guessed_is_reported_by_the_method_that_was_called(method):
    with pytest.warns(UserWarning, match=rf"^{method}: no layer is known for Tokens"):
        getattr(baselines, method)(network_of(nn.ReLU()), smooth_images(1, 16), 2)
