"""The sweep's checks on one small network of each kind, and that they find what they are for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import perturb_tutorial as pt
from perturb_tutorial.canvas import ImageCanvas
from perturb_tutorial.networks.layers import layer_map

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
import any_network
import method_checks
import redrawn
from architectures import CLASSES, MOST_PARAMETERS, TIMM, TORCHVISION_LARGER, Architecture, architectures

SIZE = 32


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        Residual(8),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, CLASSES),
    )


class Tokens(nn.Module):
    """A small ViT as libraries leave it: the head is all zeros, the layer scales are 1e-6."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.pos_embed = nn.Parameter(torch.zeros(1, 16, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))
        self.mlp = nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width))
        self.head = nn.Linear(width, CLASSES)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.pos_embed
        y = self.norm1(tokens)
        tokens = tokens + self.gamma * self.attention(y, y, y, need_weights=False)[0]
        return self.head((tokens + self.mlp(self.norm2(tokens))).mean(1))


class ChannelsLast(nn.Module):
    """Like Swin and ConvNeXt: the blocks keep their channels last."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, stride=4)
        self.block = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).permute(0, 2, 3, 1)
        return self.head((y + self.block(y)).mean((1, 2)))


def spoken(module: nn.Module) -> tuple[nn.Module, Tensor, Tensor]:
    """The module with weights drawn again, its images and their normalized form."""
    images = redrawn.noise(2, (SIZE, SIZE), 1)
    inputs = (images - 0.5) / 0.25
    redrawn.redraw(module, inputs)
    return module, images, inputs


def as_network(module: nn.Module) -> pt.Network:
    return pt.Network(module, mean=(0.5,) * 3, std=(0.25,) * 3, input_size=SIZE, device="cpu")


@pytest.mark.parametrize(
    ("build", "refused"),
    [
        (convolutions, set()),
        (Tokens, {"guided_backprop", "excitation_backprop", "contrastive_excitation_backprop"}),
        (ChannelsLast, {"guided_backprop", "excitation_backprop", "contrastive_excitation_backprop"}),
    ],
)
def test_every_method_is_right_or_refused_for_each_kind_of_network(build: Any, refused: set[str]) -> None:
    (architecture,) = [Architecture("small", "here", SIZE, build)]
    parts = list(any_network.examine(architecture))
    found = {name: text for part in parts for name, text in part.get("checks", {}).items()}
    assert set(found) == set(method_checks.CHECKS)
    assert {name for name, text in found.items() if text.startswith("refused: ")} == refused, found
    assert all(text == "right" for name, text in found.items() if name not in refused), found


def test_weights_drawn_again_let_every_block_speak() -> None:
    module, _, inputs = spoken(Tokens())
    top = module(inputs).softmax(1).amax(1)
    assert top.min() >= 0.5
    assert top.max() < 1 - 1e-6
    assert redrawn.silent_blocks(module, lambda: module(inputs).softmax(1).amax(1).sum()) == []
    assert module.gamma.min() >= 0.5
    # As the library left it, the gradient ends at the head.
    silent = redrawn.silent_blocks(mute := Tokens(), lambda: mute(inputs).softmax(1).amax(1).sum())
    assert {"patches", "attention", "mlp"} <= set(silent)


def test_batchnorm_statistics_are_those_of_the_images_and_leave_folding_something_to_do() -> None:
    module, _, inputs = spoken(convolutions())
    norm = module[1]
    values = module[0](inputs).transpose(0, 1).flatten(1)
    assert bool(((norm.running_mean - values.mean(1)).abs() <= 0.25 * values.std(1)).all())
    ratio = norm.running_var / values.var(1)
    assert bool(((ratio > 0.75) & (ratio < 1.3)).all())
    assert not torch.equal(norm.running_var, torch.ones(8))


def test_the_same_seed_draws_the_same_weights() -> None:
    one, other = spoken(convolutions())[0], spoken(convolutions())[0]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_network_that_cannot_speak_is_left_out() -> None:
    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.mean((2, 3))) * float("nan")

    assert list(any_network.examine(Architecture("deaf", "here", SIZE, Deaf)))[-1] == {
        "left_out": "the logits are not finite"
    }


def maps_of(network: pt.Network) -> Any:
    return lambda images, targets: pt.saliency(network, images, targets, "gradient")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda maps: maps[:1], r"\(1, 1, 32, 32\) for 2 images"),
        (lambda maps: maps[..., :16], "32×16 for an input of 32×32"),
        (lambda maps: maps * float("nan"), "not finite"),
        (lambda maps: torch.ones_like(maps), "constant"),
        (lambda maps: maps + 0.1 * len(maps) * maps.amax(), "apart, alone and in a batch"),
    ],
)
def test_a_wrong_map_is_found(spoil: Any, said: str) -> None:
    module, images, _ = spoken(convolutions())
    network = as_network(module)
    right = maps_of(network)
    method_checks.check_maps(network, images, right)
    with pytest.raises(method_checks.Wrong, match=said):
        method_checks.check_maps(network, images, lambda *given: spoil(right(*given)))


def test_an_exported_gradient_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stronger(ImageCanvas):
        def score(self, grid: Tensor, step: Any) -> Tensor:
            return super().score(grid * 1.05, step)

    module, images, _ = spoken(convolutions())
    network, mask = as_network(module), torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    monkeypatch.setitem(method_checks.CANVASES, "onnx", ImageCanvas)
    method_checks.check_exported_gradient(network, images[:1], mask)
    monkeypatch.setitem(method_checks.CANVASES, "onnx", Stronger)
    with pytest.raises(method_checks.Wrong, match="by PyTorch and by the graph"):
        method_checks.check_exported_gradient(network, images[:1], mask)


def test_a_layer_that_turns_the_image_is_found() -> None:
    class Turned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.transpose(2, 3)

    module = spoken(convolutions())[0]
    network = as_network(nn.Sequential(module[0], Turned(), *module[1:]))
    form = layer_map(network, "0")
    method_checks.check_places(network, "0", form)
    with pytest.raises(method_checks.Wrong, match="does not change where the image does"):
        method_checks.check_places(network, "1", form)


def test_outcomes_are_sentences_of_ours_or_errors() -> None:
    def raises(error: Exception) -> Any:
        def check() -> None:
            raise error

        return check

    assert method_checks.outcome(lambda: None) == "right"
    assert method_checks.outcome(raises(method_checks.Wrong("flat"))) == "wrong: flat"
    assert method_checks.outcome(raises(ValueError("layer: no map"))) == "refused: layer: no map"
    assert method_checks.outcome(raises(ValueError("bad split"))) == "error: ValueError: bad split"
    assert method_checks.outcome(raises(KeyError("x"))) == "error: KeyError: 'x'"


def test_rectifiers_are_seen_and_smooth_activations_are_not() -> None:
    image = torch.rand(1, 3, SIZE, SIZE)
    assert method_checks.is_kinked(as_network(convolutions()), image)
    assert not method_checks.is_kinked(as_network(spoken(Tokens())[0]), image)


def test_a_run_goes_on_where_it_was_and_measures_again_what_other_code_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = [Architecture(name, "here", SIZE, convolutions) for name in ("one", "two")]
    measured: list[str] = []

    def row_of(architecture: Architecture, limit: int) -> dict[str, Any]:
        measured.append(architecture.name)
        return {"network": architecture.name, "checks": {"mask": "right"}, "seconds": 1.0, "package": code}

    code = any_network.fingerprint()
    monkeypatch.setattr(any_network, "row_of", row_of)
    monkeypatch.setattr(any_network, "architectures", lambda: iter(two))
    path = tmp_path / "rows.json"
    options = {"jobs": 1, "limit": 1, "minutes": 1.0}
    any_network.sweep(two[:1], path, **options, again=False)
    assert list(any_network.sweep(two, path, **options, again=False)) == ["one", "two"]
    assert measured == ["one", "two"]
    assert [row["network"] for row in json.loads(path.read_text(encoding="utf-8"))] == ["one", "two"]
    any_network.write_rows(path, {"one": {"network": "one", "checks": {}, "package": "other"}})
    any_network.sweep(two[:1], path, **options, again=False)
    assert measured == ["one", "two", "one"]
    any_network.sweep(two[:1], path, jobs=1, limit=1, minutes=0.0, again=True)  # no time is left
    assert measured == ["one", "two", "one"]


def test_the_networks_are_those_that_the_page_promises() -> None:
    names = [one.name for one in architectures()]
    assert len(set(names)) == len(names)
    assert len(TIMM) == 45
    models = pt.networks.torchvision_models()
    wanted = set(models.list_models(module=models))
    assert {one.name for one in architectures() if one.source == "torchvision"} == wanted - set(
        TORCHVISION_LARGER
    )
    assert set(TORCHVISION_LARGER) <= wanted
    # torchvision's tables of weights have each network's size, with 1000 classes.
    for name in wanted:
        weights = next(iter(models.get_model_weights(name)))
        large = weights.meta["num_params"] - 1000 * 4096 > MOST_PARAMETERS
        assert name in TORCHVISION_LARGER or not large or name in ("vgg11_bn", "vgg16"), name
