"""Masks on layers against a loop written from §6.4 in float64; the paper's table; its networks' layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_inputs import tiny_module
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial import activations
from perturb_tutorial.activations import layer_settings, learn_activation_masks, spatial_sizes, stage_layers

# §6.4, typed from the protocol: layer → side, λ₁, λ₂.
ALEXNET = {
    "pool1": (27, 0.0001, 0.01),
    "pool2": (13, 0.005, 0.01),
    "relu3": (13, 0.005, 0.01),
    "relu4": (13, 0.005, 0.01),
    "pool5": (6, 0.01, 0.001),
}
VGG16 = {
    "pool1": (112, 0.00005, 0.01),
    "pool2": (56, 0.0001, 0.01),
    "pool3": (28, 0.0001, 0.01),
    "pool4": (14, 0.005, 0.01),
    "pool5": (7, 0.01, 0.001),
}


def slow_masks(network, cut, image, classes, settings):
    """One image, float64: layers up to ``cut``, the mask on what they give, the rest; Adam written out."""
    module = network.module.double()
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (network.mean, network.std))
    activation = module[: cut + 1]((image.double()[None] - mean) / std)
    grid = torch.full((1, 1, *activation.shape[2:]), 0.5, dtype=torch.float64)
    first, second = torch.zeros_like(grid), torch.zeros_like(grid)
    scores = []
    for step in range(1, settings.iterations + 1):
        m = grid.clone().requires_grad_(True)
        # cut + 1 may be an in-place ReLU: it must not reach the kept activation.
        score = module[cut + 1 :](activation * m).softmax(1)[0, list(classes)].sum()
        scores.append(score.item())
        down = nn.functional.pad(m[..., 1:, :] - m[..., :-1, :], (0, 0, 0, 1))
        right = nn.functional.pad(m[..., :, 1:] - m[..., :, :-1], (0, 1))
        tv = ((down**2 + right**2 + 1e-20) ** (settings.tv_exponent / 2)).sum()
        if settings.game == "deletion":
            loss = settings.area_weight * (1 - m).abs().sum() + settings.tv_weight * tv + score
        else:
            loss = settings.area_weight * m.abs().sum() + settings.tv_weight * tv - score
        (gradient,) = torch.autograd.grad(loss, m)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        update = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        grid = (grid - settings.learning_rate * update).clamp(0, 1)
    ends = [module[cut + 1 :](activation * m).softmax(1)[0, list(classes)].sum().item() for m in (1, 0, grid)]
    module.float()
    return grid, scores, ends


# Layer 0 is a convolution that a BatchNorm is folded into, 2 a ReLU, 3 such a convolution again, 5 its ReLU.
@pytest.mark.parametrize("cut", [0, 2, 3, 5])
@pytest.mark.parametrize(("game", "classes"), [("deletion", [2]), ("preservation", [0, 3])])
def test_the_loop_is_the_papers(tiny, noise_images, cut, game, classes):
    # Few steps and a small rate: far from where rounding decides.
    settings = pt.MaskSettings(
        game=game, iterations=8, learning_rate=0.02, initialization="half", area_weight=1e-3
    )
    masks = learn_activation_masks(tiny, noise_images, [classes] * 3, str(cut), settings)
    for row in range(3):
        grid, scores, ends = slow_masks(tiny, cut, noise_images[row], classes, settings)
        torch.testing.assert_close(masks.grid[row : row + 1].double(), grid, atol=2e-4, rtol=0)
        np.testing.assert_allclose(masks.history.score[row].numpy(), scores, atol=1e-5)
        measured = [masks.score_original[row], masks.score_perturbed[row], masks.score_masked[row]]
        np.testing.assert_allclose([value.item() for value in measured], ends, atol=1e-5)


def test_a_layer_before_an_in_place_relu_can_be_masked(noise_images):
    torch.manual_seed(0)
    module = tiny_module()
    in_place = nn.Sequential(*(nn.ReLU(inplace=True) if isinstance(m, nn.ReLU) else m for m in module))
    settings = pt.MaskSettings(iterations=5, initialization="half", learning_rate=0.02)
    plain, same = (
        learn_activation_masks(pt.Network(m, input_size=32, device="cpu"), noise_images, 1, "1", settings)
        for m in (module, in_place)
    )
    torch.testing.assert_close(plain.grid, same.grid, atol=1e-5, rtol=0)


def test_the_grid_is_the_layers_and_the_mask_its_nearest_enlargement(tiny, noise_images):
    masks = learn_activation_masks(
        tiny, noise_images, 1, "3", pt.MaskSettings(iterations=3, initialization="random")
    )
    assert masks.grid.shape == (3, 1, 16, 16)
    assert masks.size == (32, 32)
    assert torch.equal(masks.mask, masks.grid.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert masks.settings.grid_size == 16
    assert (masks.settings.mask_sigma, masks.settings.jitter, masks.settings.perturbation) == (
        0,
        1,
        "constant",
    )
    torch.testing.assert_close(masks.area, 1 - masks.grid.mean((1, 2, 3)))


def test_a_saved_mask_is_read_back(tiny, noise_images, tmp_path):
    masks = learn_activation_masks(tiny, noise_images, 1, "5", pt.MaskSettings(iterations=2))
    masks.save(tmp_path / "layer.pt")
    assert torch.equal(pt.Masks.load(tmp_path / "layer.pt").saliency, masks.saliency)


@pytest.mark.parametrize("game", ["deletion", "preservation"])
def test_the_start_is_the_smallest_disc(tiny, noise_images, game):
    # §2 by hand on the layer: discs at input size, softened, averaged over the layer's 2×2 px cells.
    from scipy import ndimage

    settings = pt.MaskSettings(game=game, iterations=0)
    targets = [0, 3, 4]
    masks = learn_activation_masks(tiny, noise_images, targets, "3", settings)
    y, x = np.mgrid[:32, :32] + 0.5
    network = tiny.module
    found = 0
    for row, target in enumerate(targets):
        with torch.no_grad():
            activation = network[:4](tiny.normalize(noise_images[row : row + 1]))
            score = lambda m, a=activation, t=target: network[4:](a * m).softmax(1)[0, t].item()  # noqa: E731
            whole, empty = score(1.0), score(0.0)
            radius, grid = float("nan"), torch.zeros(1, 1, 16, 16)
            for r in range(0, 180, 5) if whole > empty else ():
                inside = ((x - 16) ** 2 + (y - 16) ** 2 < (r / 7) ** 2).astype(np.float64)
                soft = ndimage.gaussian_filter(inside, 10 / 7, mode="nearest", truncate=4.0)
                disc = torch.from_numpy(soft.reshape(16, 2, 16, 2).mean((1, 3))).float()[None, None]
                m = 1 - disc if game == "deletion" else disc
                share = (score(m) - empty) / (whole - empty)
                if (share <= 0.01) if game == "deletion" else (share >= 0.99):
                    radius, grid, found = float(r), m, found + 1
                    break
        np.testing.assert_equal(masks.radius[row].item(), radius)
        torch.testing.assert_close(masks.grid[row : row + 1], grid, atol=1e-5, rtol=0)
    assert found > 0


def test_an_image_alone_in_a_batch_and_with_another_seed(tiny, noise_images):
    images = torch.cat([noise_images] * 4)[:10]
    targets = [row % 5 for row in range(10)]
    settings = pt.MaskSettings(iterations=3, learning_rate=0.02, initialization="half")
    together = learn_activation_masks(tiny, images, targets, "5", settings, batch_size=10)
    parts = learn_activation_masks(tiny, images, targets, "5", settings, batch_size=3, seed=9)
    # Nothing is drawn here: no jitter, no noise, no random start.
    torch.testing.assert_close(parts.grid, together.grid, atol=1e-4, rtol=0)
    alone = learn_activation_masks(tiny, images[7:8], targets[7], "5", settings)
    torch.testing.assert_close(alone.grid, together.grid[7:8], atol=1e-4, rtol=0)


@pytest.mark.parametrize("layer", ["_blocks.10", "_swish"])
def test_on_a_trained_network_an_image_alone_has_the_very_same_mask(lite0, layer):
    # Without batch invariance the first score of chelsea differs by 2e-7, and 60 steps make 0.09 of it.
    samples = pt.load_samples(names=["dalmatian", "chelsea"])
    settings = layer_settings(lite0, layer).replace(iterations=4, initialization="half")
    together = learn_activation_masks(lite0, samples.images, samples.targets, layer, settings)
    alone = learn_activation_masks(lite0, samples.images[1:], samples.targets[1], layer, settings)
    assert torch.equal(alone.grid, together.grid[1:])
    assert torch.equal(alone.history.score, together.history.score[1:])
    assert torch.equal(alone.score_original, together.score_original[1:])


@pytest.mark.parametrize("count", [1, 3])
def test_a_convolution_whose_rows_are_padded_is_masked_on_its_own_images(tiny, noise_images, count):
    # Layer 3 is a convolution of a map of 16×16 px: alone it works on two images, and the mask has one.
    settings = pt.MaskSettings(iterations=2, initialization="half", learning_rate=0.02)
    masks = learn_activation_masks(tiny, noise_images[:count], 1, "3", settings)
    assert masks.grid.shape == (count, 1, 16, 16)
    slow, _, _ = slow_masks(tiny, 3, noise_images[0], [1], settings)
    torch.testing.assert_close(masks.grid[:1].double(), slow, atol=1e-5, rtol=0)


def test_progress_counts_every_image_iteration(tiny, noise_images):
    seen = []
    settings = pt.MaskSettings(iterations=2, initialization="half")
    learn_activation_masks(
        tiny,
        noise_images,
        0,
        "5",
        settings,
        batch_size=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(2, 6), (4, 6), (5, 6), (6, 6)]


class Twice(nn.Module):
    """One ReLU that runs twice, at 32 px and at 16 px, and a layer that never runs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.relu, self.unused, self.head = nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Linear(6, 5)

    def forward(self, inputs):
        maps = self.relu(self.second(self.relu(self.first(inputs))))
        return self.head(maps.mean((2, 3)))


def test_of_a_layer_that_runs_twice_the_last_run_is_masked(noise_images):
    network = pt.Network(Twice(), input_size=32, device="cpu")
    masks = learn_activation_masks(
        network, noise_images, 1, "relu", pt.MaskSettings(iterations=0, initialization="zeros")
    )
    assert masks.grid.shape[2:] == (16, 16)
    # All of the last maps are deleted: what is left of the network is the bias of its head.
    left = network.module.head.bias.softmax(0)[1].item()
    np.testing.assert_allclose(masks.score_perturbed.numpy(), left, atol=1e-6)


def test_hooks_are_taken_away_also_after_an_error(tiny, noise_images):
    def hooks():
        modules = [m for net in (tiny.module, tiny.folded) for m in net.modules()]
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)

    def stop(done, total):
        raise KeyboardInterrupt

    before = hooks()
    with pytest.raises(KeyboardInterrupt):
        learn_activation_masks(tiny, noise_images, 0, "5", pt.MaskSettings(iterations=2), progress=stop)
    stage_layers(tiny)
    assert hooks() == before


def test_layers_without_places_are_refused_in_one_sentence(tiny, noise_images):
    with pytest.raises(
        ValueError,
        match=r"layer: '8' has no spatial features .* got 1×5 for one image\); .* are maps: 2, 5, 6$",
    ):
        learn_activation_masks(tiny, noise_images, 0, "8")
    with pytest.raises(ValueError, match=r"layer: .* has no layer 'convolution'"):
        learn_activation_masks(tiny, noise_images, 0, "convolution")
    network = pt.Network(Twice(), input_size=32, device="cpu")
    with pytest.raises(ValueError, match=r"layer: 'unused' is not run in the forward pass; layers of Twice"):
        learn_activation_masks(network, noise_images, 0, "unused")
    for changes, message in (
        ({"images": noise_images[:0], "targets": []}, "images: expected at least one image, got none"),
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, got 0"),
        ({"targets": 5}, "targets: expected class indices from 0 to 4, got 5"),
    ):
        arguments = {"images": noise_images, "targets": 0, "layer": "5", **changes}
        with pytest.raises(ValueError, match=message):
            learn_activation_masks(tiny, **arguments)


@pytest.fixture(scope="module")
def alexnet():
    return pt.seeded_network("alexnet", device="cpu")


@pytest.fixture(scope="module")
def vgg16():
    return pt.seeded_network("vgg16", device="cpu")


@pytest.mark.parametrize(("name", "table"), [("alexnet", ALEXNET), ("vgg16", VGG16)])
def test_the_parameter_table_is_the_papers(name, table, request):
    network = request.getfixturevalue(name)
    assert [row.paper_name for row in activations.paper_layers(network)] == list(table)
    assert list(stage_layers(network).values()) == [(side, side) for side, _, _ in table.values()]
    sizes = spatial_sizes(network)
    for row in activations.paper_layers(network):
        # torchvision's layer is of the kind that the paper's name says, and of its size.
        kind = nn.MaxPool2d if row.paper_name.startswith("pool") else nn.ReLU
        assert isinstance(network.layer(row.layer), kind)
        side, area_weight, tv_weight = table[row.paper_name]
        assert sizes[row.layer] == (side, side)
    # The settings, asked for by the paper's own name; every second layer of VGG-16, which is slow.
    for paper_name, (side, area_weight, tv_weight) in list(table.items())[:: 2 if name == "vgg16" else 1]:
        settings = layer_settings(network, paper_name)
        assert (settings.area_weight, settings.tv_weight) == (area_weight, tv_weight)
        assert settings.grid_size == side
        assert (settings.iterations, settings.learning_rate, settings.tv_exponent) == (300, 0.1, 3.0)
        assert (settings.mask_sigma, settings.jitter, settings.perturbation) == (0.0, 1, "constant")


def test_the_table_and_the_papers_numbers_agree():
    # PAPER_LAYERS is what the code uses, numbers.csv what the section prints, its one slip included.
    from perturb_tutorial.datasets.paper import paper_numbers

    printed = {key: n.value for key, n in paper_numbers().items() if key.startswith("layer.")}
    used = {
        f"layer.{network}.{row.paper_name}.{name}": value
        for network, rows in activations.PAPER_LAYERS.items()
        for row in rows
        for name, value in (
            ("side", 13 if (network, row.paper_name) == ("vgg16", "pool4") else row.side),
            ("area_weight", row.area_weight),
            ("tv_weight", row.tv_weight),
        )
    }
    assert used == printed
    assert len(used) == 30


def test_pool_and_relu_numbers_count_as_the_paper_counts(alexnet, vgg16):
    for network in (alexnet, vgg16):
        for row in activations.paper_layers(network):
            number, kind = int(row.paper_name[-1]), row.paper_name[:-1]
            names = [f"features.{index}" for index in range(len(network.module.features))]
            before = names[: names.index(row.layer) + 1]
            convolutions = sum(isinstance(network.layer(name), nn.Conv2d) for name in before)
            pools = sum(isinstance(network.layer(name), nn.MaxPool2d) for name in before)
            if kind == "relu":
                assert convolutions == number
            elif network is vgg16:
                assert pools == number
            else:  # AlexNet's pools are named after the convolution before them: 1, 2, 5
                assert convolutions == number


def test_stages_of_googlenet_and_efficientnet(lite0):
    googlenet = pt.seeded_network("googlenet", device="cpu")
    assert stage_layers(googlenet) == {
        "conv1": (112, 112),
        "conv3": (56, 56),
        "inception3b": (28, 28),
        "inception4e": (14, 14),
        "inception5b": (7, 7),
    }
    assert stage_layers(lite0) == {
        "_blocks.0": (112, 112),
        "_blocks.2": (56, 56),
        "_blocks.4": (28, 28),
        "_blocks.10": (14, 14),
        "_swish": (7, 7),
    }


@pytest.mark.parametrize("side", [32, 16])
def test_another_network_takes_the_vgg_layer_nearest_in_log_size(tiny, side):
    layer = {32: "2", 16: "5"}[side]
    nearest = min(VGG16.values(), key=lambda row: abs(math.log(row[0] ** 2 / side**2)))
    settings = layer_settings(tiny, layer, game="preservation")
    assert (settings.area_weight, settings.tv_weight) == nearest[1:]
    assert nearest[0] == {32: 28, 16: 14}[side]
    assert settings.game == "preservation"


def test_a_mask_on_a_layer_of_a_trained_network_deletes_the_class(lite0):
    # Its 7×7 layer, the paper's weights, 30 steps: the score falls and part of the map stays.
    samples = pt.load_samples(names=["bald_eagle"])
    settings = layer_settings(lite0, "_swish").replace(iterations=30)
    masks = learn_activation_masks(lite0, samples.images, samples.targets, "_swish", settings)
    assert masks.converged.all()
    assert masks.score_masked[0] < 0.1 * masks.score_original[0]
    assert 0.02 < masks.area[0] < 0.98
