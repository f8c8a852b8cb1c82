"""Masks on tokens, against the same network with its tokens as a map N×C×h×w, and by way of ``reshape``."""

from __future__ import annotations

import pytest
import torch
from small_transformers import TinyMixer, TinyViT
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial.activations import layer_settings, learn_activation_masks
from perturb_tutorial.networks import reshape as reshapes
from perturb_tutorial.networks.layers import example_image

SETTINGS = pt.MaskSettings(iterations=8, learning_rate=0.02)


def network_of(module: nn.Module) -> pt.Network:
    return pt.Network(module, input_size=32, device="cpu", name=type(module).__name__)


def to_map(tokens):
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (8, 8))


@pytest.mark.parametrize("output", ["tensor", "tuple", "dict"])
def test_a_mask_on_tokens_is_the_mask_on_the_map_they_are(output, noise_images):
    folded = learn_activation_masks(network_of(TinyViT(1, folded=True)), noise_images, 1, "as_map", SETTINGS)
    network = network_of(TinyViT(1, output=output))
    tokens = learn_activation_masks(network, noise_images, 1, "blocks.0", SETTINGS)
    assert tokens.grid.shape == (3, 1, 8, 8)
    assert tokens.grid.std() > 0.01
    torch.testing.assert_close(tokens.grid, folded.grid, atol=1e-4, rtol=0)  # Adam enlarges rounding
    torch.testing.assert_close(tokens.score_perturbed, folded.score_perturbed, atol=1e-6, rtol=0)
    reshaped = learn_activation_masks(network, noise_images, 1, "blocks.0", SETTINGS, reshape=to_map)
    torch.testing.assert_close(reshaped.grid, folded.grid, atol=1e-4, rtol=0)
    saliency = pt.saliency(
        network, noise_images, 1, "mask", layer="blocks.0", settings=SETTINGS, reshape=to_map
    )
    assert torch.equal(saliency, reshaped.saliency)


def test_a_fully_deleted_map_leaves_the_class_token(noise_images):
    module = TinyViT(1)
    settings = pt.MaskSettings(iterations=0, initialization="zeros")
    masks = learn_activation_masks(network_of(module), noise_images, 1, "blocks.0", settings)
    with torch.no_grad():
        tokens = module.blocks[0](module.embedded(noise_images))
        tokens[:, 1:] = 0
        left = module.classified(module.blocks[1](tokens)).softmax(1)[:, 1]
    torch.testing.assert_close(masks.score_perturbed, left, atol=1e-6, rtol=0)
    assert (masks.score_perturbed - masks.score_original).abs().min() > 1e-3


def test_reshape_takes_other_layouts_and_some_of_the_channels(noise_images):
    network = network_of(TinyMixer())
    turned = network_of(TurnedMixer())
    expected = learn_activation_masks(network, noise_images, 1, "blocks.0", SETTINGS)

    def way(x):  # T×N×C
        return x.permute(1, 2, 0).unflatten(2, (8, 8))

    given = learn_activation_masks(turned, noise_images, 1, "turned", SETTINGS, reshape=way)
    torch.testing.assert_close(given.grid, expected.grid, atol=1e-4, rtol=0)
    # Of the first four channels alone, and of half of the rows.

    def part(x):
        return x[:, :32, :4].mT.unflatten(2, (4, 8))

    some = learn_activation_masks(network, noise_images, 1, "blocks.0", SETTINGS, reshape=part)
    assert some.grid.shape == (3, 1, 4, 8)
    with torch.no_grad():
        tokens = network.module.blocks[0](network.module.stem(noise_images).flatten(2).mT)
        tokens[:, :32, :4] = 0
        left = network.module.head(network.module.norm(network.module.blocks[1](tokens)).mean(1)).softmax(1)[
            :, 1
        ]
    torch.testing.assert_close(some.score_perturbed, left, atol=1e-6, rtol=0)


class TurnedMixer(TinyMixer):
    """The same network, whose tokens pass an identity as T×N×C."""

    def __init__(self) -> None:
        super().__init__()
        self.turned = nn.Identity()

    def forward(self, x):
        tokens = self.blocks[0](self.stem(x).flatten(2).transpose(1, 2))
        tokens = self.turned(tokens.transpose(0, 1)).transpose(0, 1)
        return self.head(self.norm(self.blocks[1](tokens)).mean(1))


def test_the_factor_is_the_mask_at_the_elements_that_are_taken():
    output = torch.zeros(2, 5, 3)
    mask = torch.tensor([[0.1, 0.2], [0.3, 0.4]])[None, None].requires_grad_()

    def way(x):
        return x[:, 1:, 1:].mT.unflatten(2, (2, 2))

    factor = reshapes.factor(way, output, mask)
    assert factor.shape == (2, 5, 3)
    torch.testing.assert_close(factor[1, :, 1], torch.tensor([1, 0.1, 0.2, 0.3, 0.4]))
    assert (factor[:, :, 0] == 1).all()
    (slope,) = torch.autograd.grad(factor.sum(), mask)
    assert (slope == 4).all()  # two images, two channels
    with torch.no_grad():
        assert not reshapes.factor(way, output, mask).requires_grad


@pytest.mark.parametrize(
    "reshape",
    [
        lambda x: 2 * to_map(x),
        lambda x: -to_map(x),
        lambda x: to_map(x) + 1,
        lambda x: to_map(x).relu(),
        lambda x: to_map(x) ** 2,
        lambda x: torch.cat([to_map(x), to_map(x)], 1),
        lambda x: nn.functional.avg_pool2d(to_map(x), 2),
        # The mean of two neighbors, at both of them: the adjoint of 1 is 1, but it is no selection.
        lambda x: (to_map(x) + to_map(x).unflatten(3, (4, 2)).flip(4).flatten(3)) / 2,
        lambda x: to_map(x) - to_map(x).mean(1, keepdim=True),
        # A reflection, which is its own inverse and whose columns sum to 1.
        lambda x: 2 * to_map(x).mean(1, keepdim=True) - to_map(x),
    ],
)
def test_a_mask_needs_a_selection(reshape, noise_images):
    with pytest.raises(
        ValueError, match=r"^reshape: expected a callable that selects and .* Grad-CAM takes any$"
    ):
        learn_activation_masks(network_of(TinyViT(1)), noise_images, 1, "blocks.0", SETTINGS, reshape=reshape)


def test_a_mask_without_an_effect_is_refused(noise_images):
    message = r"^layer: the logits do not depend on its output at the positions of '{}', .* such as 'blocks.1.norm1'$"
    for layer, way in (("blocks.1", None), ("norm", None), ("blocks.1.mlp.2", None), ("norm", to_map)):
        with pytest.raises(ValueError, match=message.format(layer)):
            learn_activation_masks(network_of(TinyViT(1)), noise_images, 1, layer, reshape=way)
    with pytest.raises(ValueError, match=message.format("norm")):
        layer_settings(network_of(TinyViT(1)), "norm")


class Dead(nn.Module):
    """A ReLU that no unit passes on a gray image: no gradient there, but a map all the same."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.relu, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.Linear(8, 5)
        with torch.no_grad():
            self.stem.bias -= 3
            self.stem.weight *= 3

    def forward(self, x):
        return self.head(self.relu(self.stem(x)).mean((2, 3)))


def test_a_map_without_a_gradient_on_the_example_can_be_masked(noise_images):
    network = network_of(Dead())
    assert not network.module.relu(network.module.stem(example_image(network))).any()
    masks = learn_activation_masks(network, noise_images, 1, "stem", pt.MaskSettings(iterations=1))
    assert masks.grid.shape == (3, 1, 8, 8)


def test_a_layer_that_is_not_run_is_refused_with_reshape(noise_images):
    module = TinyViT(1)
    module.extra_layer = nn.Identity()
    with pytest.raises(
        ValueError, match=r"^layer: 'extra_layer' is not run in the forward pass; name another$"
    ):
        learn_activation_masks(network_of(module), noise_images, 1, "extra_layer", reshape=to_map)


def test_masks_on_tokens_go_the_whole_way_of_a_command(noise_images, tmp_path):
    network = network_of(TinyViT(1))
    assert layer_settings(network, "blocks.0").grid_size == layer_settings(network, "stem").grid_size
    masks = learn_activation_masks(network, noise_images, [0, 1, 2], "blocks.0", SETTINGS, batch_size=2)
    masks.save(tmp_path / "masks.pt")
    assert pt.Masks.load(tmp_path / "masks.pt").layer == "blocks.0"
