"""Scores of the user's own: segmentation, detection, regression, several labels; and what is refused."""

from __future__ import annotations

import pytest
import torch
from small_inputs import tiny_module
from torch import Tensor, nn

import perturb_tutorial as pt
from perturb_tutorial.activations import spatial_sizes
from perturb_tutorial.baselines import METHODS, saliency
from perturb_tutorial.networks.scored import Score

SETTINGS = pt.MaskSettings(iterations=12, tv_weight=0.01)
CLASS = 3
READS_GRADIENTS = [
    name for name in METHODS if name not in ("mask", "excitation_backprop", "contrastive_excitation_backprop")
]


def network_of(module: nn.Module) -> pt.Network:
    return pt.Network(module, mean=(0.5, 0.4, 0.3), std=(0.25, 0.3, 0.2), input_size=32, device="cpu")


class Brightness(nn.Module):
    """A map of how much brighter each px is than gray, N×1×H×W, smoothed; pixels come normalized around 0.4."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x.mean(1, keepdim=True), 3, 1, 1).relu()


class Segmenter(nn.Module):
    """Like torchvision's: a dictionary with N×K×H×W logits, here of "bright" and "not"."""

    def __init__(self) -> None:
        super().__init__()
        self.bright = Brightness()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        bright = self.bright(x)
        return {"out": torch.cat([bright, -bright], 1)}


class Detector(nn.Module):
    """Like torchvision's: a list with boxes and scores of each image; here one box a half of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.bright = Brightness()

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        halves = self.bright(x).unflatten(3, (2, 16)).mean((1, 2, 4))
        boxes = x.new_tensor([[0, 0, 16, 32], [16, 0, 32, 32]])
        return [{"boxes": boxes, "scores": row.tanh()} for row in halves]


class Regressor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bright = Brightness()

    def forward(self, x: Tensor) -> Tensor:
        return self.bright(x).mean((1, 2, 3))[:, None]


def spots(row: int, column: int) -> Tensor:
    """A white 8×8 square on dark, 32 px."""
    image = torch.full((1, 3, 32, 32), 0.2)
    image[:, :, row : row + 8, column : column + 8] = 1.0
    return image


def test_a_classs_probability_as_own_score_gives_the_very_masks_of_that_class(noise_images: Tensor) -> None:
    network = network_of(tiny_module())
    expected = pt.learn_masks(network, noise_images, CLASS, SETTINGS)
    found = pt.learn_masks(
        network,
        noise_images,
        None,
        SETTINGS,
        score=lambda logits: logits.softmax(1)[:, CLASS],
        relative_score=False,
    )
    torch.testing.assert_close(found.grid, expected.grid, rtol=0, atol=1e-5)  # sums in another order
    torch.testing.assert_close(found.history.score, expected.history.score, rtol=0, atol=1e-5)


def test_a_relative_score_is_divided_by_its_size_on_the_image(noise_images: Tensor) -> None:
    network = network_of(tiny_module())

    def score(logits: Tensor) -> Tensor:
        return 50 * logits.softmax(1)[:, CLASS]

    few = SETTINGS.replace(iterations=3)
    masks = pt.learn_masks(network, noise_images, None, few, score=score)
    torch.testing.assert_close(masks.score_original, torch.ones(3))
    value = score(network.logits(noise_images)).detach()
    # The same by hand: λ₁ and λ₂ times the value of the score, and the score as it is.
    for row in range(3):
        scale = float(value[row])
        settings = few.replace(area_weight=SETTINGS.area_weight * scale, tv_weight=SETTINGS.tv_weight * scale)
        part = noise_images[row : row + 1]
        by_hand = pt.learn_masks(network, part, None, settings, score=score, relative_score=False)
        # Adam divides the gradient by its size; a few cells whose gradient is near its ε = 1e-8 differ.
        same = (masks.grid[row] - by_hand.grid[0]).abs() < 1e-3
        assert same.float().mean() > 0.97
        torch.testing.assert_close(
            masks.history.score[row] * scale, by_hand.history.score[0], rtol=1e-3, atol=0
        )


@pytest.mark.parametrize("method", READS_GRADIENTS)
@pytest.mark.filterwarnings("ignore:grad_cam")
def test_a_classs_logit_as_own_score_gives_the_map_of_that_class(method: str, noise_images: Tensor) -> None:
    network = network_of(tiny_module())
    expected = saliency(network, noise_images, CLASS, method)
    found = saliency(network, noise_images, None, method, score=lambda logits: logits[:, CLASS])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("module", "score"),
    [
        (Segmenter(), lambda output: output["out"][:, 0].mean((1, 2))),
        (Detector(), lambda boxes: torch.stack([box["scores"].max() for box in boxes])),
        (Regressor(), lambda value: value),
    ],
    ids=["segmentation", "detection", "regression"],
)
def test_modules_without_classes_are_explained_where_the_evidence_lies(
    module: nn.Module, score: Score
) -> None:
    network = network_of(module)
    images = torch.cat([spots(4, 4), spots(18, 20)])
    settings = pt.MaskSettings(iterations=80, area_weight=1e-3, tv_weight=0.01, mask_scale=56.0)
    masks = pt.learn_masks(network, images, None, settings, score=score)
    assert bool(masks.converged.all())
    gradient = saliency(network, images, None, "gradient", score=score)
    occlusion = saliency(network, images, None, "blur_occlusion", score=score)
    for row, (top, left) in enumerate(((4, 4), (18, 20))):
        for heatmap in (masks.saliency[row, 0], gradient[row, 0], occlusion[row, 0]):
            y, x = divmod(int(heatmap.argmax()), 32)
            # The smoothing of brightness and of the mask reaches a few px beyond the square.
            assert top - 4 <= y < top + 12
            assert left - 4 <= x < left + 12


def test_one_label_of_several_is_a_sigmoid() -> None:
    network = network_of(tiny_module())
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    masks = pt.learn_masks(network, images, None, SETTINGS, score=lambda logits: logits.sigmoid()[:, CLASS])
    assert masks.history.score.isfinite().all()


def test_masks_on_a_layer_take_a_score_too() -> None:
    network = network_of(tiny_module())
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    layer = next(iter(spatial_sizes(network)))
    found = saliency(
        network,
        images,
        None,
        "mask",
        layer=layer,
        settings=SETTINGS,
        score=lambda logits: logits[:, CLASS].sigmoid(),
    )
    assert found.shape == (2, 1, 32, 32)


@pytest.mark.parametrize(
    ("score", "line"),
    [
        ("age", r"^score: expected a function of the module's output, got str"),
        (lambda logits: logits, r"^score: expected a number for each image \(N or N×1\), got 1×5"),
        (lambda logits: logits.sum(), r"^score: expected a number for each image \(N or N×1\), got one"),
        (lambda logits: logits[:1, 0], r"^score: expected a number for each image, got 1 for 2"),
        (lambda logits: logits.argmax(1), r"^score: expected a float tensor .* got torch.int64"),
        (lambda logits: [row[0] for row in logits], r"^score: expected a float tensor .* got list"),
        (lambda logits: logits["out"], r"^score: it fails on the module's output \(IndexError"),
        (
            lambda logits: logits[:, 0] - logits[:, 0].mean(),
            r"^module: expected scores of an image that do not",
        ),
        (
            lambda logits: logits[:, 0] + torch.rand(()),
            r"^module: expected the same scores of an image each time",
        ),
        (
            lambda logits: 0 * logits[:, 0],
            r"^score: expected a finite value other than 0 .* relative_score=False",
        ),
        (lambda logits: logits[:, 0].detach(), r"^network: expected logits with a gradient"),
    ],
)
def test_a_score_that_cannot_be_explained_is_refused_in_one_sentence(score: Score, line: str) -> None:
    network = network_of(tiny_module())
    with pytest.raises(ValueError, match=line) as caught:
        pt.learn_masks(network, torch.rand(1, 3, 32, 32), None, SETTINGS, score=score)
    assert "\n" not in str(caught.value)


def test_what_does_not_go_together_is_refused() -> None:
    network, images = network_of(tiny_module()), torch.rand(1, 3, 32, 32)

    def score(logits: Tensor) -> Tensor:
        return logits[:, 0]

    with pytest.raises(ValueError, match=r"^targets: expected None with score="):
        pt.learn_masks(network, images, 2, SETTINGS, score=score)
    with pytest.raises(ValueError, match=r"^targets: expected None with score="):
        saliency(network, images, 2, "gradient", score=score)
    with pytest.raises(ValueError, match=r"^engine: expected 'torch' with score=, got 'onnx'"):
        pt.learn_masks(network, images, None, SETTINGS, score=score, engine="onnx")
    for method in ("excitation_backprop", "contrastive_excitation_backprop"):
        with pytest.raises(
            ValueError, match=rf"^score: expected None with {method}, whose rules begin at logits"
        ):
            saliency(network, images, None, method, score=score)


@pytest.mark.parametrize("module", [Segmenter(), Detector(), Regressor()], ids=["dict", "list", "one logit"])
def test_what_needs_logits_refuses_a_module_without_them_and_names_the_way(module: nn.Module) -> None:
    network, images = network_of(module), spots(4, 4)
    uses = [
        lambda: pt.learn_masks(network, images, 0, SETTINGS),
        lambda: pt.top_classes(network, images),
        lambda: network.scores(images),
        lambda: network.unfolded_logits(images),
        *(lambda name=name: saliency(network, images, 0, name) for name in METHODS),
    ]
    for use in uses:
        with pytest.raises(
            ValueError, match=r"^module: expected .*; score=FUNCTION explains another output$"
        ):
            use()
    assert "classes=None" in repr(network)
