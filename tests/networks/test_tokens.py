"""Tokens as maps of the image, on small transformers; the oracle is how they are built."""

from __future__ import annotations

import warnings
from collections import OrderedDict

import pytest
import torch
from small_transformers import Hidden, TinyMixer, TinySwin, TinyViT
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial import baselines
from perturb_tutorial.networks.forms import LayerMap, candidates
from perturb_tutorial.networks.influence import read_maps
from perturb_tutorial.networks.layers import _clear_forms, layer_map, layer_maps
from perturb_tutorial.networks.mask_layers import spatial_sizes, stage_layers
from perturb_tutorial.networks.outputs import first_tensor, with_first_tensor
from perturb_tutorial.networks.places import Response


def network_of(module: nn.Module) -> pt.Network:
    return pt.Network(module, input_size=32, device="cpu", name=type(module).__name__)


def tokens(channels: int, side: int = 8, extra: int = 0, at: int = 0) -> LayerMap:
    return LayerMap(channels, side, side, tokens=True, extra=extra, extra_at=at)


@pytest.mark.parametrize(
    ("shape", "sides", "expected"),
    [
        ((1, 197, 768), (224, 224), {(14, 14, 1)}),
        ((1, 198, 768), (224, 224), {(14, 14, 2)}),
        ((1, 261, 384), (224, 224), {(16, 16, 5)}),
        ((1, 64, 8), (32, 32), {(8, 8, 0), (7, 7, 15)}),
        ((1, 129, 8), (32, 64), {(8, 16, 1)}),
        ((1, 375, 8), (240, 320), {(17, 22, 1)}),  # patches of 14 px
        ((1, 8, 8), (32, 64), {(2, 4, 0)}),
        ((1, 77, 8), (32, 32), {(8, 8, 13)}),
        ((1, 500, 8), (32, 32), {(22, 22, 16)}),
        ((1, 505, 8), (16, 64), {(11, 45, 10)}),
        ((1, 3, 64), (32, 32), set()),
        ((64, 65, 8), (32, 32), set()),
        ((65, 1, 8), (32, 32), set()),
    ],
)
def test_the_number_of_tokens_leaves_these_maps(shape, sides, expected):
    found = candidates(shape, sides)
    assert {(form.height, form.width, form.extra) for form in found} == expected
    assert all(form.channels == shape[2] and form.tokens for form in found)
    for form in found:
        count = form.height * form.width
        same = {other.extra_at for other in found if (other.size, other.extra) == (form.size, form.extra)}
        assert same == ({0, count // 2, count} if form.extra else {0})


@pytest.mark.parametrize("where", ["first", "middle", "last"])
@pytest.mark.parametrize("extra", [1, 2, 5])
def test_extra_tokens_are_found_where_they_are(extra, where):
    module = TinyViT(extra, where)
    found = layer_maps(network_of(module))
    for name in ("blocks.0", "blocks.0.norm1", "blocks.1.norm1", "blocks.1", "norm"):
        assert found[name] == tokens(16, extra=extra, at=module.at), name
    assert found["stem"] == LayerMap(16, 8, 8)


def test_layers_with_as_many_tokens_agree_on_their_form():
    first, last = tokens(16, extra=1), tokens(16, extra=1, at=64)

    def seen(*elsewhere: float) -> Response:
        """A layer whose response elsewhere is this share of that in the changed quadrant, by the form."""
        changes = [share + (1 - share) * torch.eye(4, dtype=torch.float64) for share in elsewhere]
        return Response((5, 65, 16), {first: [changes[0]], last: [changes[1]]}, 1.0)

    early, late = seen(0.1, 0.3), seen(0.6, 0.5)
    assert _clear_forms({"early": early}) == {"early": first}
    assert _clear_forms({"late": late}) == {"late": last}
    assert _clear_forms({"early": early, "late": late}) == {"early": first, "late": first}
    no_map = seen(1.0, 0.5)
    assert _clear_forms({"early": early, "other": no_map}) == {"early": first}


def test_tokens_without_extra_ones_and_of_several_sizes():
    assert layer_map(network_of(TinyMixer()), "blocks.1") == tokens(16)
    found = layer_maps(network_of(TinySwin()))
    assert found["first"] == tokens(16)
    assert found["second"] == found["norm"] == tokens(32, side=4)


def test_the_sides_of_a_form_are_each_others_inverse():
    form = LayerMap(3, 2, 4, tokens=True, extra=2, extra_at=4)
    output = torch.randn(5, 10, 3, generator=torch.Generator().manual_seed(0))
    maps = form.channels_first(output)
    assert maps.shape == (5, 3, 2, 4)
    assert torch.equal(maps[1, :, 0, 3], output[1, 3])  # the first row ends before the extra tokens
    assert torch.equal(maps[1, :, 1, 0], output[1, 6])
    assert torch.equal(form.as_output(maps, output), output)
    mask = form.as_output(torch.full((1, 1, 2, 4), 0.5))
    assert mask.flatten().tolist() == [0.5] * 4 + [1, 1] + [0.5] * 4


class Turned(nn.Module):
    """Tokens as T×N×C and as N×C×T, and an average that is no map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.batch_second, self.channels_second = (
            nn.Conv2d(3, 64, 4, stride=4),
            nn.Identity(),
            nn.Identity(),
        )
        self.head = nn.Linear(64, 5)

    def forward(self, x):
        x = self.batch_second(self.stem(x).flatten(2).permute(2, 0, 1))
        return self.head(self.channels_second(x.permute(1, 2, 0)).mean(2))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("batch_second", r"got 64×1×64 for one image, more than one row\)"),
        ("channels_second", "got 1×64×64 for one image, whose positions do not respond"),
    ],
)
def test_turned_tokens_are_refused(layer, message):
    with pytest.raises(ValueError, match=rf"^layer: '{layer}' .* {message}"):
        layer_map(network_of(Turned()), layer)


def test_tokens_of_another_number_are_refused():
    module = nn.Sequential(
        nn.Conv2d(3, 3, 4, stride=4), nn.Flatten(2), nn.Linear(64, 8), nn.Flatten(), nn.Linear(24, 5)
    )
    with pytest.raises(
        ValueError, match=r"'2' .* got 1×3×8 for one image, whose tokens have not the shape of the inp"
    ):
        layer_map(network_of(module), "2")


def test_a_default_before_tokens_that_are_not_read_says_so():
    with pytest.warns(
        UserWarning, match=r"reads 'stem' \(64×8×8\); layers after it give tokens \(1×64×64\), which"
    ):
        baselines.grad_cam(network_of(Turned()), torch.rand(1, 3, 32, 32), 0)


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ((torch.zeros(1), None), tuple),
        (Hidden(torch.zeros(1), 3), Hidden),
        ([torch.zeros(1), 2], list),
        (OrderedDict(hidden=torch.zeros(1), other=3), OrderedDict),
    ],
)
def test_the_first_tensor_is_replaced_and_the_rest_stays(output, kind):
    before = first_tensor(output)
    changed = with_first_tensor(output, torch.ones(1))
    assert type(changed) is kind
    assert first_tensor(changed) == 1
    assert first_tensor(output) is before
    rest = list(output.values() if kind is OrderedDict else output)[1:]
    assert list(changed.values() if kind is OrderedDict else changed)[1:] == rest


def test_a_tensor_that_occurs_twice_is_replaced_twice_and_other_outputs_have_none():
    twice = torch.zeros(1)
    assert [x.item() for x in with_first_tensor((twice, twice, torch.zeros(1)), torch.ones(1))] == [1, 1, 0]
    for output in (None, (), (None, twice), {}, {"count": 3, "hidden": twice}, 4):
        assert first_tensor(output) is None


DEFAULTS = {
    "class token": (lambda: TinyViT(1), "blocks.1.norm1", "65×16, 8×8 after 1 extra token"),
    "registers": (lambda: TinyViT(5), "blocks.1.norm1", "69×16, 8×8 after 5 extra tokens"),
    "at the end": (lambda: TinyViT(2, "last"), "blocks.1.norm1", "66×16, 8×8 before 2 extra tokens"),
    "mean": (lambda: TinyViT(0, head="mean"), "norm", "64×16, 8×8"),
    "mean of all": (lambda: TinyViT(1, head="mean"), "norm", "65×16, 8×8 after 1 extra token"),
    "tuples": (lambda: TinyViT(1, output="tuple"), "blocks.1.norm1", "65×16, 8×8 after 1 extra token"),
    "mixer": (TinyMixer, "norm", "64×16, 8×8"),
    "swin": (TinySwin, "norm", "16×32, 4×4"),
}


@pytest.mark.parametrize("kind", DEFAULTS)
def test_the_default_layer_is_the_last_map_that_is_read(kind):
    build, layer, form = DEFAULTS[kind]
    network = network_of(build())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        maps = baselines.grad_cam(
            network, torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)), [0, 1]
        )
    assert [str(warning.message) for warning in caught] == [
        f"grad_cam: no layer is known for {network.name}, it reads {layer!r} ({form}); layer=NAME is another"
    ]
    assert maps.shape[2:] == read_maps(network)[layer].size
    assert maps.amax() > 0


def test_layers_that_masks_may_lie_on():
    network = network_of(TinyViT(1))
    sizes = spatial_sizes(network)
    assert "blocks.0" in sizes
    assert "blocks.1.norm1" in sizes
    # The last tokens of the patches are computed, but nobody reads them; qkv is inside attention.
    assert not {"blocks.1", "blocks.1.mlp.2", "norm", "blocks.0.attn.qkv", "blocks.0.attn.proj"} & set(sizes)
    assert {"blocks.1", "norm", "blocks.0.attn.qkv"} <= set(layer_maps(network))
    assert stage_layers(network) == {"blocks.1.norm1": (8, 8)}
    assert stage_layers(network_of(TinySwin())) == {"first": (8, 8), "norm": (4, 4)}


class MyAttentionModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = TinyViT(1)

    def forward(self, x):
        return self.inner(x)


class Wrapper(nn.Module):
    """All of it lies in a module that is called attention."""

    def __init__(self) -> None:
        super().__init__()
        self.model = MyAttentionModel()

    def forward(self, x):
        return self.model(x)


def test_without_a_map_outside_attention_those_inside_are_read():
    assert list(read_maps(network_of(MyAttentionModel())))[-1] == "inner.blocks.1.norm1"
    assert list(read_maps(network_of(Wrapper())))[-1] == "model.inner.blocks.1.attn.qkv"


def test_the_backward_pass_is_made_once_and_leaves_nothing():
    network = network_of(TinyViT(1))
    layer_maps(network)
    passes = []
    handle = network.module.register_forward_hook(lambda *call: passes.append(1))
    with torch.no_grad():
        first = read_maps(network)
    assert read_maps(network) == first
    assert len(passes) == 1
    handle.remove()
    assert not any(len(m._forward_hooks) for m in network.module.modules())
    assert all(value.grad is None for value in network.module.parameters())


class Detached(nn.Module):
    """No gradient reaches its layers: then each map may be read as far as the package can see."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.stem(x).mean((2, 3)).detach())


def test_a_network_without_gradients_keeps_its_maps():
    assert list(read_maps(network_of(Detached()))) == ["stem"]
