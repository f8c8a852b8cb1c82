"""Each backward rule against the same rule written out in float64 with dense matrices."""

from __future__ import annotations

import copy

import pytest
import torch
from reference import fold_by_hand, lite_masses, reference_signal
from small import Plain, Signed, small_network, smooth_images

from perturb_tutorial import baselines
from perturb_tutorial.baselines.excitation_backprop import excite
from perturb_tutorial.baselines.leaf_pass import send_back

# Float32 against float64 through some ten operations, relative to the largest value of a map.
TOLERANCE = 2e-5
TARGETS = [{1}, {0, 3, 4}]


def mean_logit(targets, classes=5):
    weights = torch.zeros(len(targets), classes)
    for row, members in zip(weights, targets, strict=True):
        row[list(members)] = 1 / len(members)
    return weights


def assert_same(map_, expected):
    assert map_.shape == expected.shape
    assert expected.abs().max() > 0
    torch.testing.assert_close(map_.double(), expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))


@pytest.mark.parametrize("kind", [Plain, Signed])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("method", "rules"), [("gradient", "gradient"), ("guided_backprop", "guided")])
def test_gradients(kind, seed, method, rules):
    network, images = small_network(kind, seed), smooth_images(2, 16, seed)
    signal = reference_signal(copy.deepcopy(network.module), images, mean_logit(TARGETS), rules, None)
    assert_same(getattr(baselines, method)(network, images, TARGETS), signal.abs().amax(1, keepdim=True))


PLACES = [(Plain, "conv1"), (Plain, "pool1"), (Plain, "grouped"), (Plain, "depthwise"), (Plain, "pool2")]
PLACES += [(Signed, "conv1"), (Signed, "conv2"), (Signed, "conv3"), (Signed, "conv4"), (Signed, "conv5")]


@pytest.mark.parametrize(("kind", "layer"), PLACES)
@pytest.mark.parametrize("seed", [0, 1])
def test_excitation_with_batchnorm_passed(kind, layer, seed):
    network, images = small_network(kind, seed), smooth_images(2, 16, seed)
    expected = reference_signal(
        copy.deepcopy(network.module), images, mean_logit(TARGETS), "excitation", layer
    )
    map_ = baselines.excitation_backprop(network, images, TARGETS, layer=layer, batchnorm="pass")
    assert_same(map_, expected.sum(1, keepdim=True))


def folded_by_hand(module):
    folded = copy.deepcopy(module)
    for conv_name, norm_name in (("conv1", "bn1"), ("conv2", "bn2")):
        conv, norm = getattr(folded, conv_name), getattr(folded, norm_name)
        bias = norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt()
        conv.weight = torch.nn.Parameter(fold_by_hand(conv, norm).float(), requires_grad=False)
        conv.bias = torch.nn.Parameter(bias.detach().float(), requires_grad=False)
        setattr(folded, norm_name, torch.nn.Dropout(0.0))  # a name without an effect
    return folded


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv4"])
def test_excitation_with_batchnorm_folded(layer):
    network, images = small_network(Signed, 3), smooth_images(2, 16)
    signal = mean_logit(TARGETS)
    expected = reference_signal(folded_by_hand(network.module), images, signal, "excitation", layer)
    assert_same(
        baselines.excitation_backprop(network, images, TARGETS, layer=layer), expected.sum(1, keepdim=True)
    )


def test_the_two_treatments_of_batchnorm_differ_where_a_scale_is_negative_and_only_there():
    images = smooth_images(2, 16)
    for negative in (True, False):
        network = small_network(Signed, 5, negative_scales=negative)
        fold, passed = (
            baselines.excitation_backprop(network, images, 2, layer="conv1", batchnorm=name)
            for name in ("fold", "pass")
        )
        assert torch.allclose(fold, passed, atol=1e-6) is not negative


@pytest.mark.parametrize(("kind", "layer"), [(Plain, "pool1"), (Signed, "conv1")])
def test_contrastive_excitation(kind, layer):
    """By linearity below the contrast: the mass under W less that under −W, then the positive part.

    Activations below the classifier are the same in the copy whose classifier is negated.
    """
    network, images = small_network(kind, 4), smooth_images(2, 16)
    negated = copy.deepcopy(network.module)
    getattr(negated, "fc2" if kind is Plain else "fc").weight.neg_()
    speaking, against = (
        reference_signal(module, images, mean_logit(TARGETS), "excitation", layer)
        for module in (copy.deepcopy(network.module), negated)
    )
    expected = (speaking - against).sum(1, keepdim=True).clamp(min=0)
    map_ = baselines.contrastive_excitation_backprop(network, images, TARGETS, layer=layer, batchnorm="pass")
    assert_same(map_, expected)


def test_grad_cam():
    network, images = small_network(Signed, 6), smooth_images(2, 16)
    module = copy.deepcopy(network.module)
    gradient = reference_signal(module, images, mean_logit(TARGETS), "gradient", "conv5")
    kept = []
    module.conv5.register_forward_hook(lambda *call: kept.append(call[2]))
    with torch.no_grad():
        module(images.double())
    features = kept[0]
    expected = torch.zeros(2, 1, *features.shape[2:], dtype=torch.float64)
    for channel in range(features.shape[1]):
        alpha = gradient[:, channel].mean((1, 2))
        expected[:, 0] += alpha[:, None, None] * features[:, channel]
    assert_same(baselines.grad_cam(network, images, TARGETS, layer="conv5"), expected.clamp(min=0))


def test_efficientnet_lite_block_by_block(lite0):
    """Trained, signed, with its own padding: the whole network in float64, block by block."""
    images = smooth_images(1, 224)
    signal = torch.zeros(1, 1000)
    signal[0, [5, 281]] = 0.5
    expected = lite_masses(copy.deepcopy(lite0.module), lite0.normalize(images), signal)
    for index in (0, 4, 10, 15):
        map_ = baselines.excitation_backprop(lite0, images, [{5, 281}], layer=f"_blocks.{index}")
        reference = expected[index].sum(1, keepdim=True)
        # A unit near 0 wins or wins nothing by its last bits, hence more room than in the small networks.
        torch.testing.assert_close(map_.double(), reference, rtol=0, atol=1e-3 * float(reference.max()))


@pytest.mark.parametrize("batchnorm", ["fold", "pass"])
@pytest.mark.parametrize(
    ("kind", "layers"),
    [(Plain, ["conv1", "pool1", "grouped", "depthwise", "pool2"]), (Signed, ["conv1", "bn1", "conv5"])],
)
def test_mass_is_conserved_layer_by_layer(kind, layers, batchnorm):
    """Mass in = mass out + the mass that stopped at sums of 0; layers that all paths cross."""
    stopped = 0.0
    for seed in range(4):
        network, images = small_network(kind, seed), smooth_images(2, 16, seed)
        for layer in layers:
            run = excite(network, images, layer, batchnorm)
            mass = send_back(run.logits, mean_logit(TARGETS), run.read)
            assert mass.min() >= 0
            lost = sum(rule.lost for rule in run.sums)
            torch.testing.assert_close(mass.sum((1, 2, 3)) + lost, torch.ones(2), rtol=0, atol=1e-5)
            stopped += float(lost.sum())
    if kind is Signed:
        assert stopped > 1e-3  # so the count has something to count


def test_mass_is_conserved_on_efficientnet_lite(lite0):
    images = smooth_images(2, 224)
    for layer in ("_blocks.0", "_blocks.4", "_blocks.10", "_conv_head"):
        run = excite(lite0, images, layer, "fold")
        mass = send_back(run.logits, mean_logit([{3}, {7, 9}], 1000), run.read)
        lost = sum(rule.lost for rule in run.sums)
        # A thousand channels and 49 places are summed in float32 in each of some 40 operations.
        torch.testing.assert_close(mass.sum((1, 2, 3)) + lost, torch.ones(2), rtol=0, atol=1e-4)
