"""Which layers are maps of the image: one small network of each kind that has four dimensions without being one.

The oracle is how the networks are built. Each of them ran through the check "four dimensions, h·w > 1" before.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import perturb_tutorial as pt
from perturb_tutorial import baselines
from perturb_tutorial.activations import learn_activation_masks
from perturb_tutorial.networks.forms import LayerMap, has_shape
from perturb_tutorial.networks.layers import layer_map, layer_maps
from perturb_tutorial.networks.mask_layers import spatial_sizes, stage_layers


def network_of(module: nn.Module, size: int = 32) -> pt.Network:
    return pt.Network(module, input_size=size, device="cpu", name=type(module).__name__)


class Table(nn.Module):
    """A learned table, the same for every image: 1×heads×T×T."""

    def __init__(self, heads: int, tokens: int):
        super().__init__()
        self.values = nn.Parameter(torch.randn(1, heads, tokens, tokens))

    def forward(self):
        return self.values


class Places(nn.Module):
    """A code of the places, expanded to the batch: N×C×h×w, whatever the image."""

    def __init__(self, channels: int, side: int):
        super().__init__()
        self.values = nn.Parameter(torch.randn(1, channels, side, side))

    def forward(self, x):
        return self.values.expand(len(x), -1, -1, -1).clone()


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Second(nn.Module):
    """A pair that begins with something else than a tensor."""

    def forward(self, x):
        return None, x


class Folded(nn.Module):
    """Tokens N×T×C as a map N×C×h×w."""

    def forward(self, x):
        side = int(x.shape[1] ** 0.5)
        return x.transpose(1, 2).reshape(len(x), -1, side, side)


class Transformer(nn.Module):
    """8×8 patches of 4 px, two heads of as many dimensions as there are patches, so that T×d has the image's shape."""

    def __init__(self, tokens: int = 64, heads: int = 2):
        super().__init__()
        torch.manual_seed(0)
        width = heads * tokens
        self.heads = heads
        self.stem = nn.Conv2d(3, width, 4, stride=4)
        self.places = Places(width, 8)
        self.qkv = nn.Linear(width, 3 * width)
        self.k_norm = nn.LayerNorm(tokens)
        self.table = Table(heads, tokens)
        self.attention = nn.Softmax(-1)
        self.gram = nn.Identity()
        self.per_image = nn.Identity()
        self.pair, self.second = Pair(), Second()
        self.norm = nn.LayerNorm(width)
        self.folded = Folded()
        self.turned = nn.Identity()
        self.unused = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.stem(x)
        x = x + 0.1 * self.places(x)
        n, width, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).view(n, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        k = self.k_norm(k)
        matrix = self.attention(q @ k.mT / k.shape[-1] ** 0.5 + self.table())
        tokens = self.norm(tokens + (matrix @ v).transpose(1, 2).reshape(n, h * w, width))
        gram = self.gram(k.mT @ v / (h * w))
        _, tokens = self.pair(tokens)
        _, tokens = self.second(tokens)
        for row in tokens:
            self.per_image(row.T.reshape(1, width, h, w))
        maps = self.folded(tokens)
        turned = self.turned(maps.mT)
        return self.head((maps + turned).mean((2, 3)) + 0.1 * gram.mean((1, 2, 3))[:, None])


def test_of_a_transformer_only_maps_are_maps():
    network = network_of(Transformer())
    expected, tokens = LayerMap(128, 8, 8), LayerMap(128, 8, 8, tokens=True)
    assert layer_maps(network) == {
        "stem": expected,
        "qkv": tokens._replace(channels=384),
        "norm": tokens,
        "pair": tokens,
        "folded": expected,
    }
    assert set(spatial_sizes(network)) == {"stem", "qkv", "norm", "pair", "folded"}
    assert stage_layers(network) == {"folded": (8, 8)}
    with pytest.warns(UserWarning, match=r"grad_cam: .* reads 'folded' \(128×8×8\); layer=NAME"):
        assert baselines.grad_cam(network, torch.rand(2, 3, 32, 32), 0).shape == (2, 1, 8, 8)


REFUSED = {
    "places": "got 1×128×8×8 for one image, whose positions do not respond",
    "k_norm": "got 1×2×64×64 for one image, whose positions do not respond",
    "table": "got 1×2×64×64 for one image and 1×2×64×64 for five",
    "attention": "got 1×2×64×64 for one image, whose positions do not respond",
    "gram": "got 1×2×64×64 for one image, whose positions do not respond",
    "per_image": "got 1×128×8×8 for one image and 1×128×8×8 for five",
    "second": r"got tuple\)",
    "turned": "got 1×128×8×8 for one image, whose positions do not respond",
    "unused": "is not run in the forward pass",
}


@pytest.mark.parametrize("layer", REFUSED)
def test_a_named_layer_that_is_no_map_is_refused_in_one_sentence(layer):
    network, images = network_of(Transformer()), torch.rand(1, 3, 32, 32)
    message = rf"^layer: '{layer}' .*{REFUSED[layer]}.*; layers of Transformer that are maps: folded$"
    for call in (
        lambda: baselines.grad_cam(network, images, 0, layer=layer),
        lambda: baselines.excitation_backprop(network, images, 0, layer=layer),
        lambda: learn_activation_masks(network, images, 0, layer),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


class KeysOnly(nn.Module):
    """As many dimensions a head as not to have the image's shape: the last layer with four dimensions is 64×16."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.k_norm, self.head = nn.Conv2d(3, 32, 4, stride=4), nn.LayerNorm(16), nn.Linear(32, 5)

    def forward(self, x):
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        keys = self.k_norm(tokens.view(len(x), 64, 2, 16).transpose(1, 2))
        return self.head(keys.transpose(1, 2).flatten(2).mean(1))


def test_keys_of_another_shape_are_told_the_shape_of_the_input():
    with pytest.raises(
        ValueError, match=r"'k_norm' .* got 1×2×64×16 .* has not the shape of the input, 32×32\)"
    ):
        layer_map(network_of(KeysOnly()), "k_norm")


class ChannelsLast(nn.Module):
    """As Swin: the stem's map is permuted to N×h×w×C, in which windows are shifted and mixed. ``first``: the same
    network with the channels put back in front after every layer.
    """

    def __init__(self, first: bool = False):
        super().__init__()
        torch.manual_seed(3)
        self.first = first
        self.stem, self.norm, self.block = nn.Conv2d(3, 8, 4, stride=4), nn.LayerNorm(8), nn.Linear(8, 12)
        self.out, self.head = nn.Identity(), nn.Linear(12, 5)

    def forward(self, x):
        x = self.norm(self.stem(x).permute(0, 2, 3, 1))
        x = self.block(torch.roll(x, (1, 1), (1, 2)) + x).relu()
        if self.first:
            return self.head(self.out(x.permute(0, 3, 1, 2)).amax((2, 3)))
        return self.head(self.out(x).amax((1, 2)))


def test_channels_last_is_recognized_and_read_as_what_it_is(noise_images):
    last, first = network_of(ChannelsLast()), network_of(ChannelsLast(first=True))
    assert layer_map(last, "norm") == LayerMap(8, 8, 8, channels_last=True)  # 8×8×8: only place can tell
    assert layer_map(last, "out") == LayerMap(12, 8, 8, channels_last=True)
    assert layer_map(first, "out") == LayerMap(12, 8, 8)
    with pytest.warns(UserWarning, match=r"reads 'out' \(8×8×12\)"):
        maps = baselines.grad_cam(last, noise_images, 2)
    assert maps.max() > 0
    # The same operations on the same numbers in another order: float32's rounding.
    torch.testing.assert_close(
        maps, baselines.grad_cam(first, noise_images, 2, layer="out"), atol=1e-6, rtol=1e-5
    )
    settings = pt.MaskSettings(iterations=8, learning_rate=0.02)
    masks = [learn_activation_masks(net, noise_images, 1, "out", settings) for net in (last, first)]
    assert masks[0].grid.shape == (3, 1, 8, 8)
    assert masks[0].grid.std() > 0.01
    torch.testing.assert_close(masks[0].grid, masks[1].grid, atol=1e-4, rtol=0)  # Adam enlarges rounding


def test_excitation_backprop_takes_no_channels_last():
    network = network_of(ChannelsLast())
    with pytest.raises(
        ValueError, match=r"layer: excitation_backprop reads maps N×C×h×w, 'out' .* \(8×8×12\)"
    ):
        baselines.excitation_backprop(network, torch.rand(1, 3, 32, 32), 0, layer="out")


def test_excitation_backprop_takes_no_tokens():
    network, images = network_of(Transformer()), torch.rand(1, 3, 32, 32)
    for method in (baselines.excitation_backprop, baselines.contrastive_excitation_backprop):
        message = rf"^layer: {method.__name__} reads maps N×C×h×w, 'norm' keeps tokens \(64×128, 8×8\); name another$"
        with pytest.raises(ValueError, match=message):
            method(network, images, 0, layer="norm")


def test_the_weights_of_a_parametrization_are_no_map():
    torch.manual_seed(0)
    convolution = parametrizations.weight_norm(nn.Conv2d(3, 1, 5))  # its weight is 1×3×5×5
    later = parametrizations.orthogonal(nn.Conv2d(1, 5, 5, padding=2))
    module = nn.Sequential(convolution, nn.ReLU(), later, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = network_of(module)
    assert list(layer_maps(network)) == ["0", "1", "2"]
    with pytest.raises(
        ValueError, match=r"parametrizations.weight.0' .* got 1×3×5×5 .* and 1×3×5×5 for five"
    ):
        layer_map(network, "0.parametrizations.weight.0")


class Gate(nn.Module):
    """Squeeze and excitation with strong gates, and a normalization over all places."""

    def __init__(self, channels: int):
        super().__init__()
        self.down, self.up = nn.Linear(channels, channels // 2), nn.Linear(channels // 2, channels)
        self.norm = nn.GroupNorm(1, channels)

    def forward(self, x):
        gate = (4 * self.up(self.down(x.mean((2, 3))).relu())).sigmoid()
        return self.norm(x * gate[:, :, None, None])


def deep(blocks: int, block) -> nn.Module:
    layers = [nn.Conv2d(3, 16, 3, stride=2, padding=1)]
    for _ in range(blocks):
        layers += [block(), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


def test_gates_and_norms_over_all_places_leave_maps_maps():
    torch.manual_seed(0)
    module = deep(6, lambda: nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), Gate(16)))
    network = network_of(module, 64)
    assert list(stage_layers(network)) == ["12"]
    assert layer_map(network, "12") == LayerMap(16, 32, 32)


def test_a_network_whose_signal_fades_keeps_its_maps():
    # Default weights shrink a change some 2.5 times a layer: at the end it is below float32's rounding of the biases.
    torch.manual_seed(0)
    network = network_of(deep(24, lambda: nn.Conv2d(16, 16, 3, padding=1)))
    with torch.no_grad():
        ends = [network.module[:-3](x) for x in torch.rand(2, 1, 3, 32, 32)]
    assert (ends[0] - ends[1]).abs().max() < 1e-5 * ends[0].abs().max()
    assert layer_map(network, "48") == LayerMap(16, 16, 16)


@pytest.mark.parametrize("seed", range(8))
def test_units_wired_to_all_of_the_image_are_no_map(seed):
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 4, stride=4), nn.Flatten(), nn.Linear(256, 8 * 16), nn.Unflatten(1, (8, 4, 4)), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 5),
    )  # fmt: skip
    assert list(layer_maps(network_of(module))) == ["0"]


@pytest.mark.parametrize(
    ("pool", "is_map"), [((1, 1), False), ((1, 2), False), ((2, 2), True), ((3, 3), True)]
)
def test_the_smallest_map_has_four_places(pool, is_map):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(pool), nn.Flatten(), nn.LazyLinear(5))
    with torch.no_grad():
        module(torch.rand(1, 3, 32, 32))
    assert ("1" in layer_maps(network_of(module))) == is_map


@pytest.mark.parametrize(
    ("size", "sides", "fits"),
    [
        ((7, 7), (224, 224), True),
        ((7, 8), (224, 240), True),
        (
            (8, 17),
            (299, 598),
            True,
        ),  # Inception v3's last maps: unpadded convolutions take px from both sides
        ((7, 14), (224, 448), True),
        ((14, 7), (224, 448), False),
        ((7, 768), (224, 224), False),
        ((13, 2), (224, 224), False),
        ((197, 64), (224, 224), False),
        ((14, 14), (224, 448), False),
        ((28, 56), (224, 448), True),
        ((1, 2), (32, 64), False),
    ],
)
def test_a_map_has_the_images_shape(size, sides, fits):
    assert has_shape(size, sides) == fits
    assert has_shape(size[::-1], sides[::-1]) == fits


def test_layers_are_looked_at_once_and_nothing_stays(tiny):
    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tiny.module.modules())

    passes, before = [], hooks()
    handle = tiny.module.register_forward_hook(lambda *call: passes.append(len(call[1][0])))
    generator = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        first = layer_maps(tiny)
    assert passes == [1, 5]
    assert layer_maps(tiny) == first
    assert layer_map(tiny, "3") == LayerMap(12, 16, 16)
    assert passes == [1, 5]
    assert torch.equal(torch.get_rng_state(), generator)
    tiny.module[3] = nn.Conv2d(8, 12, 3, stride=4, padding=1)  # another layer: looked at again
    assert layer_map(tiny, "3") == LayerMap(12, 8, 8)
    handle.remove()
    assert hooks() == before


@pytest.mark.parametrize("name", ["googlenet", "vgg16", "alexnet", "efficientnet_lite0"])
def test_layers_of_the_book_are_maps(name):
    network = pt.seeded_network(name, device="cpu")
    roles = baselines.ROLES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer in {roles.excitation_backprop, roles.grad_cam}:
            assert not layer_map(network, layer).channels_last


@pytest.mark.parametrize("seed", range(6))
def test_a_map_of_few_values_is_one(seed):
    # 2×2 places of 8 channels, pooled from 5×5 with overlap: a single round leaves more to chance than to place.
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        nn.AvgPool2d(2, 1, padding=1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip
    network = network_of(module, 16)
    assert layer_map(network, "5") == LayerMap(8, 5, 5)
    assert layer_map(network, "6") == LayerMap(8, 2, 2)
