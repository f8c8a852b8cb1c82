"""What the methods promise on any network: layers, spellings, what is given back, batches, bad input."""

from __future__ import annotations

import copy
import threading
import warnings

import pytest
import torch
from small import BACKWARD, Plain, Signed, correlation, small_network, smooth_images
from small_inputs import FailsOnBlack
from torch import nn
from torch.nn import functional

import perturb_tutorial as pt
from perturb_tutorial import baselines
from perturb_tutorial.activations import learn_activation_masks
from perturb_tutorial.baselines.layers import resolve_layer


class Spelled(nn.Module):
    """A rectifier, spelled by ``rectify``, between two convolutions."""

    def __init__(self, rectify):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2)
        self.rectify = rectify
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.rectify(self.first(x))
        return self.fc(self.rectify(self.second(x)).mean((2, 3)))


def discarded(x):
    """In place, and the result thrown away."""
    x.relu_()
    return x


RELUS = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "F.relu": functional.relu,
    "F.relu in place": lambda x: functional.relu(x, inplace=True),
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "tensor.relu": lambda x: x.relu(),
    "tensor.relu_": lambda x: x.relu_(),
    "discarded": discarded,
    "clamp": lambda x: x.clamp(min=0),
    "clamp_": lambda x: x.clamp_(min=0),
    "threshold": nn.Threshold(0.0, 0.0),
}
RELU6S = {
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6 in place": nn.ReLU6(inplace=True),
    "F.relu6": functional.relu6,
    "F.hardtanh": lambda x: functional.hardtanh(x, 0.0, 6.0),
    "clamp": lambda x: x.clamp(0, 6),
}


def spelled(rectify, scale=1.0):
    torch.manual_seed(0)
    module = Spelled(rectify)
    module.first.weight.data *= scale
    return pt.Network(module, input_size=16, device="cpu")


@pytest.mark.parametrize("method", BACKWARD)
@pytest.mark.parametrize(("rectifiers", "scale"), [(RELUS, 1.0), (RELU6S, 30.0)])
def test_every_spelling_of_a_rectifier_is_one_rectifier(method, rectifiers, scale):
    images, maps = smooth_images(2, 16), {}
    for name, rectify in rectifiers.items():
        if name == "threshold" and "excitation" in method:
            continue  # no rule of excitation backprop; it says so, tested below
        layer = None if method in ("gradient", "guided_backprop") else "first"
        maps[name] = getattr(baselines, method)(spelled(rectify, scale), images, 2, layer=layer)
    first = next(iter(maps.values()))
    assert first.abs().max() > 0
    for name, map_ in maps.items():
        torch.testing.assert_close(map_, first, rtol=0, atol=1e-6 * float(first.max()), msg=name)


@pytest.mark.parametrize("rectifiers", [RELUS, RELU6S])
def test_guided_backprop_is_not_the_gradient(rectifiers):
    images = smooth_images(2, 16)
    for rectify in rectifiers.values():
        network = spelled(rectify, 3.0)
        guided, plain = (
            getattr(baselines, name)(network, images, 2) for name in ("guided_backprop", "gradient")
        )
        assert correlation(guided, plain) < 0.99


@pytest.mark.parametrize("other", [nn.GELU(), nn.SiLU(), nn.Tanh(), nn.LeakyReLU(), nn.Hardtanh()])
def test_guided_backprop_says_that_a_network_has_no_rectifier(other):
    with pytest.raises(ValueError, match=r"guided_backprop: expected a network with ReLU.* Spelled has none"):
        baselines.guided_backprop(spelled(other), smooth_images(1, 16), 0)


class Swish(torch.autograd.Function):
    """A function of the user's own, of which torch only knows the two directions."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx, signal):
        return signal


@pytest.mark.parametrize(
    ("operation", "named"),
    [
        (torch.sigmoid, "Sigmoid"),
        (lambda x: x * x, "mul"),
        (lambda x: x - 2 * x, "sub"),
        (functional.gelu, "GELU"),
        (lambda x: functional.hardtanh(x, -1, 1), "Hardtanh"),
        (nn.Threshold(0.0, 0.0), "Threshold"),
        (Swish.apply, "Swish"),
        (nn.LayerNorm(16), None),
    ],
)
def test_excitation_backprop_names_an_operation_without_a_rule(operation, named):
    network = spelled(lambda x: x)
    network.module.rectify = network.folded.rectify = operation
    if named is None:
        network.module.first = network.folded.first = nn.Conv2d(3, 8, 1)
        network.module.second = network.folded.second = nn.Conv2d(8, 8, 1)
        named = "LayerNorm"
    for name in ("excitation_backprop", "contrastive_excitation_backprop"):
        with pytest.raises(ValueError, match=rf"^{name}: no rule for the operation '{named}"):
            getattr(baselines, name)(network, smooth_images(1, 16), 0, layer="first")


def test_the_layers_of_the_paper_and_their_sizes(lite0):
    expected = {
        "googlenet": (("maxpool2", 28), ("inception5b", 7)),
        "vgg16": (("features.23", 14), ("features.29", 14)),
        "alexnet": (("features.5", 13), ("features.11", 13)),
    }
    for name, places in expected.items():
        network = pt.seeded_network(name, device="cpu")
        for role, (layer, side) in zip(("excitation_backprop", "grad_cam"), places, strict=True):
            assert resolve_layer(network, None, role) == layer
            map_ = getattr(baselines, role)(network, smooth_images(1, network.input_size), 0)
            assert map_.shape == (1, 1, side, side)
    for method, side in (
        ("excitation_backprop", 28),
        ("contrastive_excitation_backprop", 28),
        ("grad_cam", 7),
    ):
        assert getattr(baselines, method)(lite0, smooth_images(1, 224), 0).shape == (1, 1, side, side)


@pytest.mark.parametrize("number", [1, 2])
def test_the_larger_lites_have_the_same_layers(number):
    network = pt.seeded_network(f"efficientnet_lite{number}", device="cpu")
    images = smooth_images(1, network.input_size)
    for method, stride in (("excitation_backprop", 8), ("grad_cam", 32)):
        side = -(-network.input_size // stride)
        assert getattr(baselines, method)(network, images, 0).shape == (1, 1, side, side)
        network_as_guest = copy.copy(network)
        network_as_guest.name = "guest"
        with pytest.warns(UserWarning, match="no layer is known for guest"):
            assert resolve_layer(network_as_guest, None, method) == getattr(
                baselines.ROLES[network.name.split()[0]], method
            )


def test_the_last_use_of_lites_shared_relu6_is_its_last_features(lite0):
    """Grad-CAM of a network that ends in an average is its class activation map (Selvaraju et al., 2017)."""
    images, kept = smooth_images(1, 224), []
    handle = lite0.module._avg_pooling.register_forward_hook(lambda *call: kept.append(call[1][0]))
    with torch.no_grad():
        lite0.unfolded_logits(images)
    handle.remove()
    cam = (kept[0] * lite0.module._fc.weight[7].view(1, -1, 1, 1)).sum(1, keepdim=True) / 49
    torch.testing.assert_close(baselines.grad_cam(lite0, images, 7), cam.clamp(min=0), rtol=1e-3, atol=1e-4)


def test_an_unknown_network_gets_a_sensible_layer_and_says_which():
    module = pt.networks.torchvision_models().resnet18(weights=None)
    network = pt.Network(module, device="cpu")
    for role, layer, shape in (
        ("excitation_backprop", "layer2", "128×28×28"),
        ("grad_cam", "layer4", "512×7×7"),
    ):
        with pytest.warns(UserWarning, match=rf"{role}: .* ResNet, it reads '{layer}' \({shape}\)"):
            assert resolve_layer(network, None, role) == layer
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            baselines.excitation_backprop(network, smooth_images(1, 224), 0, layer="layer2").shape[-1] == 28
        )


def state(network):
    return {
        "hooks": sum(
            len(layer._forward_hooks) + len(layer._backward_hooks) for layer in network.module.modules()
        )
        + sum(len(layer._forward_hooks) for layer in network.folded.modules()),
        "modes": [layer.training for layer in network.module.modules()],
        "gradients": [value.requires_grad for value in network.module.parameters()],
        "weights": [
            value.clone() for value in (*network.module.state_dict().values(), *network.folded.parameters())
        ],
    }


def assert_given_back(network, before):
    after = state(network)
    for name in ("hooks", "modes", "gradients"):
        assert after[name] == before[name]
    assert all(
        torch.equal(left, right) for left, right in zip(after["weights"], before["weights"], strict=True)
    )
    assert all(value.grad is None for value in network.module.parameters())


@pytest.mark.parametrize("method", BACKWARD)
def test_what_is_borrowed_is_given_back_also_after_an_error(method, monkeypatch):
    network, images = small_network(Signed, 0), smooth_images(2, 16)
    layer = None if method in ("gradient", "guided_backprop") else "conv1"
    before, generator = state(network), torch.get_rng_state()
    getattr(baselines, method)(network, images, 1, layer=layer)
    assert_given_back(network, before)
    assert torch.equal(torch.get_rng_state(), generator)

    for module in {network.module, network.folded}:
        monkeypatch.setattr(
            module.fc, "forward", lambda x: (_ for _ in ()).throw(KeyError("a network that fails"))
        )
    with pytest.raises(KeyError):
        getattr(baselines, method)(network, images, 1, layer=layer)
    assert_given_back(network, before)
    assert functional.relu(torch.tensor([-1.0], requires_grad=True)).grad_fn.name().startswith("Relu")


@pytest.mark.parametrize("method", BACKWARD)
def test_precision_and_modes_of_the_caller_change_nothing(method):
    network, images = small_network(Plain, 0), smooth_images(2, 16)
    function = getattr(baselines, method)
    layer = None if method in ("gradient", "guided_backprop") else "grouped"
    expected = function(network, images, [1, {2, 3}], layer=layer)
    assert expected.dtype == torch.float32
    assert not expected.requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(function(network, images, [1, {2, 3}], layer=layer), expected)
    with torch.no_grad():
        assert torch.equal(function(network, images, [1, {2, 3}], layer=layer), expected)
    with torch.inference_mode():
        assert torch.equal(function(network, images.clone(), [1, {2, 3}], layer=layer), expected)
    assert torch.equal(function(network, images.clone().requires_grad_(), [1, {2, 3}], layer=layer), expected)


@pytest.mark.parametrize("method", BACKWARD)
def test_an_image_alone_and_in_a_batch(method):
    network, images = small_network(Signed, 1), smooth_images(5, 16)
    function = getattr(baselines, method)
    layer = None if method in ("gradient", "guided_backprop") else "conv1"
    targets = [0, 1, {2, 3}, 4, {0, 4}]
    together = function(network, images, targets, layer=layer)
    assert len(together) == 5
    alone = torch.cat(
        [function(network, images[i : i + 1], targets[i : i + 1], layer=layer) for i in range(5)]
    )
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * float(together.max()))
    torch.testing.assert_close(
        function(network, images, targets, layer=layer, batch_size=2),
        together,
        rtol=0,
        atol=1e-5 * float(together.max()),
    )


def test_another_thread_on_the_same_network_is_not_disturbed():
    network, images = small_network(Signed, 2), smooth_images(4, 16)
    expected = [baselines.excitation_backprop(network, images[i : i + 1], i, layer="conv1") for i in range(4)]
    wrong = []

    def work(index):
        for _ in range(10):
            map_ = baselines.excitation_backprop(network, images[index : index + 1], index, layer="conv1")
            if not torch.allclose(map_, expected[index], atol=1e-6):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_saliency_is_each_method_by_its_name():
    network, images = small_network(Plain, 0), smooth_images(2, 16)
    for name, method in baselines.METHODS.items():
        assert method.about
        assert method.source.startswith("§")
        if name == "mask":
            continue
        layer = "grouped" if name in BACKWARD[2:] else None
        expected = getattr(baselines, name)(network, images, 1, layer=layer)
        assert torch.equal(pt.saliency(network, images, 1, name, layer=layer), expected)
    settings = pt.MaskSettings(iterations=3)
    mask = pt.saliency(network, images, 1, "mask", settings=settings, seed=4)
    assert torch.equal(mask, pt.learn_masks(network, images, 1, settings, seed=4).saliency)
    inside = pt.saliency(network, images, 1, "mask", layer="grouped", settings=settings, seed=4)
    expected = learn_activation_masks(network, images, 1, "grouped", settings, seed=4).saliency
    assert torch.equal(inside, expected)
    assert not torch.equal(inside, mask)
    draws = [pt.saliency(network, images, 1, "variable_occlusion", seed=seed) for seed in (0, 1)]
    assert not torch.equal(*draws)


def small(**options):
    return small_network(Plain, 0), smooth_images(1, 16)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda n, x: pt.saliency(n, x, 0, "lime"),
            "method: expected one of mask, gradient, guided_backprop, exc",
        ),
        (
            lambda n, x: pt.saliency(n, x, 0, "gradient", speed=1),
            "gradient: expected options out of layer, batch_si",
        ),
        (
            lambda n, x: baselines.grad_cam(n, x, 0, layer="conv9"),
            "layer: Plain has no layer 'conv9'; near .*conv1",
        ),
        (
            lambda n, x: baselines.grad_cam(n, x, 0, layer="fc1"),
            "layer: 'fc1' has no spatial features .* got 1×16",
        ),
        (
            lambda n, x: baselines.excitation_backprop(n, x, 0, layer="fc2"),
            "layer: 'fc2' has no spatial features",
        ),
        (
            lambda n, x: baselines.excitation_backprop(n, x, 0, layer="conv1", batchnorm="drop"),
            "batchnorm: expected one of fold, pass, got 'drop'",
        ),
        (
            lambda n, x: baselines.contrastive_excitation_backprop(
                n, x, 0, layer="pool3", contrast_layer="conv1"
            ),
            "layer: the logits do not depend on its output",
        ),
        (lambda n, x: baselines.gradient(n, x[:, :2], 0), "images: expected a float tensor N×3×16×16"),
        (lambda n, x: baselines.gradient(n, x[:0], 0), "images: expected at least one image, got none"),
        (lambda n, x: baselines.gradient(n, x, 5), "targets: expected class indices from 0 to 4, got 5"),
        (
            lambda n, x: baselines.gradient(n, x, 0, batch_size=0),
            "batch_size: expected a whole number of at least 1",
        ),
    ],
)
def test_bad_input_gets_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(*small())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", BACKWARD[2:])
def test_a_network_without_spatial_features_is_told(method):
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8), nn.ReLU(), nn.Linear(8, 5))
    network = pt.Network(module, input_size=16, name="perceptron", device="cpu")
    with pytest.raises(ValueError, match=r"needs spatial features .* no layer of perceptron has any"):
        getattr(baselines, method)(network, smooth_images(1, 16), 0)
    assert baselines.gradient(network, smooth_images(1, 16), 0).shape == (1, 1, 16, 16)


def test_maps_of_zeros_and_nans_are_results():
    network = small_network(Plain, 0)
    zero = copy.deepcopy(network.module)
    zero.fc2.weight.data.zero_()
    still = pt.Network(zero, input_size=16, device="cpu")
    fails = pt.Network(FailsOnBlack(network.module), input_size=16, device="cpu")
    for method in BACKWARD:
        layer = None if method in ("gradient", "guided_backprop") else "grouped"
        assert getattr(baselines, method)(still, smooth_images(1, 16), 0, layer=layer).abs().max() == 0
        broken = smooth_images(2, 16).clamp(0.1, 1)
        broken[0] = 0
        named = layer and f"inner.{layer}"
        maps = getattr(baselines, method)(fails, broken, 0, layer=named)
        assert maps[0].isnan().any()
        torch.testing.assert_close(
            maps[1:], getattr(baselines, method)(network, broken[1:], 0, layer=layer), rtol=1e-4, atol=1e-6
        )
