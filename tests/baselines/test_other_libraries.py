"""The methods against Captum's and TorchRay's on the same networks: EfficientNet-Lite0, and others of a seed."""

from __future__ import annotations

import copy
import importlib

import pytest
import torch
from small import Plain, correlation, randomize, small_network, smooth_images
from torch import nn
from torch.nn import functional

import perturb_tutorial as pt
from perturb_tutorial import baselines
from perturb_tutorial.networks import torchvision_models

TARGETS = [3, 281]
# Captum guides nn.ReLU modules only, TorchRay torch.relu only, and its excitation backprop presumes a ≥ 0.
CAPTUM_GUIDES = pytest.mark.parametrize("network", ["vgg16", "alexnet"], indirect=True)
TORCHRAY_APPLIES = pytest.mark.parametrize("network", ["googlenet", "vgg16", "alexnet"], indirect=True)
# Two float32 computations of the same quantity, relative to the largest value.
SAME = 1e-3


@pytest.fixture(scope="module", params=["efficientnet_lite0", "googlenet", "vgg16", "alexnet"])
def network(request):
    """One at a time: VGG-16 alone takes half a gigabyte."""
    if request.param == "efficientnet_lite0":
        return request.getfixturevalue("lite0")
    return pt.seeded_network(request.param, seed=1, device="cpu")


@pytest.fixture(scope="module")
def images(network):
    return smooth_images(2, network.input_size, seed=2)


@pytest.fixture(scope="module")
def torchray():
    pytest.importorskip("torchray")
    torchvision_models()  # TorchRay imports torchvision as it is
    return importlib.import_module("torchray.attribution.excitation_backprop"), importlib.import_module(
        "torchray.attribution.guided_backprop"
    )


def logits_module(network):
    """What the other libraries take: a module of its own, normalized inputs, logits."""
    return copy.deepcopy(network.module)


def assert_same(map_, expected):
    assert map_.shape == expected.shape
    assert correlation(map_, expected) >= 0.999
    torch.testing.assert_close(map_, expected, rtol=0, atol=SAME * float(expected.abs().max()))


def test_gradient_is_captums(network, images):
    captum = pytest.importorskip("captum.attr")
    expected = captum.Saliency(network.unfolded_logits).attribute(images.clone().requires_grad_(), TARGETS)
    assert_same(baselines.gradient(network, images, TARGETS), expected.amax(1, keepdim=True))


GRAD_CAM_LAYERS = {"efficientnet_lite0": "_blocks.15", "googlenet": "inception5b"}
GRAD_CAM_LAYERS |= {"vgg16": "features.28", "alexnet": "features.10"}


def test_grad_cam_is_captums(network, images):
    captum = pytest.importorskip("captum.attr")
    layer = GRAD_CAM_LAYERS[network.name.partition(" ")[0]]
    module = logits_module(network)
    for name, child in module.named_modules():
        if name and getattr(child, "inplace", False):
            child.inplace = False  # Captum would see the layer's output after the ReLU had written over it
    cam = captum.LayerGradCam(module, module.get_submodule(layer))
    for target in TARGETS:
        expected = cam.attribute(network.normalize(images), target, relu_attributions=True)
        if expected.abs().max() == 0:
            assert baselines.grad_cam(network, images, target, layer=layer).abs().max() == 0
            continue
        assert_same(baselines.grad_cam(network, images, target, layer=layer), expected.detach())


@CAPTUM_GUIDES
def test_guided_backprop_is_captums(network, images):
    captum = pytest.importorskip("captum.attr")
    module = logits_module(network)
    for child in module.modules():
        if isinstance(child, nn.ReLU):
            child.inplace = False
    inputs = network.normalize(images).requires_grad_()
    signal = captum.GuidedBackprop(module).attribute(inputs, TARGETS)
    expected = (signal / torch.tensor(network.std).view(1, 3, 1, 1)).abs().amax(1, keepdim=True)
    assert_same(baselines.guided_backprop(network, images, TARGETS), expected)


@TORCHRAY_APPLIES
def test_guided_backprop_is_torchrays(network, images, torchray):
    inputs = network.normalize(images).requires_grad_()
    torchray[1].guided_backprop(logits_module(network), inputs, TARGETS)
    expected = (inputs.grad / torch.tensor(network.std).view(1, 3, 1, 1)).abs().amax(1, keepdim=True)
    guided = baselines.guided_backprop(network, images, TARGETS)
    assert_same(guided, expected)
    assert correlation(guided, baselines.gradient(network, images, TARGETS)) < 0.9


@TORCHRAY_APPLIES
def test_excitation_backprop_is_torchrays(network, images, torchray):
    layer = baselines.ROLES[network.name.partition(" ")[0]].excitation_backprop
    expected = torchray[0].excitation_backprop(
        logits_module(network), network.normalize(images), TARGETS, saliency_layer=layer
    )
    for batchnorm in ("pass", "fold"):  # scales of a seed are all 1, so the treatments agree
        assert_same(
            baselines.excitation_backprop(network, images, TARGETS, batchnorm=batchnorm), expected.detach()
        )


CONTRAST_LAYERS = {"googlenet": "avgpool", "vgg16": "classifier.4", "alexnet": "classifier.5"}


def in_float64(network):
    """A copy that computes in float64."""
    network = copy.deepcopy(network)
    network.module.double()
    network.folded.double()
    network.dtype = torch.float64
    return network


@TORCHRAY_APPLIES
def test_contrastive_excitation_backprop_is_torchrays(network, images, torchray):
    # In float32 two inputs of a deep max-pool can be nearer to each other than rounding: the two computations choose
    # another winner, and the contrastive map moves by some 5e-6 of the mass wherever the winner looks.
    network, images = in_float64(network), images.double()
    name = network.name.partition(" ")[0]
    expected = (
        torchray[0]
        .contrastive_excitation_backprop(
            logits_module(network),
            network.normalize(images),
            TARGETS,
            saliency_layer=baselines.ROLES[name].excitation_backprop,
            contrast_layer=CONTRAST_LAYERS[name],
        )
        .detach()
    )
    by_default = baselines.contrastive_excitation_backprop(network, images, TARGETS)
    named = baselines.contrastive_excitation_backprop(
        network, images, TARGETS, contrast_layer=CONTRAST_LAYERS[name]
    )
    assert correlation(by_default, expected) >= 0.999
    # A difference of two masses that nearly cancel, so the mass is the measure. GoogLeNet's maps differ by 3e-9 of it.
    mass = float(baselines.excitation_backprop(network, images, TARGETS).max())
    torch.testing.assert_close(by_default, expected, rtol=0, atol=1e-8 * mass)
    torch.testing.assert_close(named, by_default, rtol=0, atol=1e-12 * mass)


def test_torchrays_residual_rule_agrees_where_it_is_finite(torchray):
    """TorchRay shares a sum by x / (x + y) without a guard; with activations above 0 both rules are one."""
    x, y, mass = (torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(i)) + 0.1 for i in range(3))
    rule = baselines.excitation_rules.Sum(torch.add, torch.add)
    with torchray[0].ExcitationBackpropContext():
        left, right = x.clone().requires_grad_(), y.clone().requires_grad_()
        torchray[0].eltwise_sum(left, right).backward(mass)
    for share, expected in zip(rule.share(mass, [x, y]), (left.grad, right.grad), strict=True):
        torch.testing.assert_close(share, expected)


def captum_occlusion(forward, images, targets):
    """Captum's windows are whole, so the image stands in the corner of one that is 27 px larger."""
    captum = pytest.importorskip("captum.attr")
    padded = functional.pad(images, (0, 27, 0, 27))
    baseline = torch.tensor(forward.mean).view(1, 3, 1, 1).expand_as(padded)
    drops = captum.Occlusion(lambda batch: forward.logits(batch[..., :224, :224])).attribute(
        padded, (3, 35, 35), (3, 8, 8), target=targets, baselines=baseline, perturbations_per_eval=8
    )
    return drops[:, :1, :224, :224]


def test_occlusion_is_captums_on_small_networks():
    module = nn.Sequential(
        nn.Conv2d(3, 6, 16, 8),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(54, 5),
    )
    network = pt.Network(randomize(module, 0), mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3), device="cpu")
    images = smooth_images(3, 224)
    expected = captum_occlusion(network, images, [0, 4, 2])
    assert_same(baselines.occlusion(network, images, [0, 4, 2]), expected)


@pytest.mark.slow
def test_occlusion_is_captums_on_efficientnet_lite(lite0):
    images = smooth_images(1, 224)
    assert_same(baselines.occlusion(lite0, images, [281]), captum_occlusion(lite0, images, [281]))


def test_plain_is_a_fair_network_for_relu6():
    """Some units of the small network lie above 6, so the upper clip is tested too."""
    network, seen = small_network(Plain, 0), []
    handle = network.module.relu6.register_forward_hook(lambda *call: seen.append(call[2]))
    network.unfolded_logits(smooth_images(2, 16))
    handle.remove()
    assert 0.005 < float((seen[0] == 6).float().mean()) < 0.9
