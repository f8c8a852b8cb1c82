"""What the area is weighed against: the three scales by hand, in every engine, and the empty masks that they mend."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

import perturb_tutorial as pt
from perturb_tutorial import objectives

SCALES = ("softmax", "relative", "logit")
TARGETS = [[0, 3], [1], [2]]


def test_log_odds_are_those_of_the_probability() -> None:
    """In float64 from the softmax, for one class and for a set; and where the softmax rounds to 0 or 1."""
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) * 3
    weights = objectives.class_weights([[0], [5], [1, 2], [0, 1, 2, 3, 4]], 6)
    p = (logits.double().softmax(1) * weights).sum(1)
    expected = (p / (1 - p)).log()
    torch.testing.assert_close(objectives.log_odds(logits, weights), expected.float(), atol=1e-5, rtol=1e-5)
    far = torch.tensor([[200.0, 0.0], [-200.0, 0.0]])
    got = objectives.log_odds(far, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert got.tolist() == [200.0, -200.0]


def test_scaled_scores_by_hand() -> None:
    score, original, perturbed = torch.tensor([[0.2, 0.2], [0.4, 0.4], [0.1, 0.1]])
    assert objectives.scaled_score(score, original, perturbed, "softmax") is score
    relative = objectives.scaled_score(score, original, perturbed, "relative")
    assert relative.tolist() == pytest.approx([0.5, 0.5])
    # From log-odds of 4 to −6 a score of −1 is half way; a way of less than 1 counts as 1.
    score, original, perturbed = torch.tensor([[-1.0, 0.5], [4.0, 0.4], [-6.0, 0.1]])
    logit = objectives.scaled_score(score, original, perturbed, "logit")
    assert logit.tolist() == pytest.approx([0.5, 0.4])


@pytest.mark.parametrize("game", ["deletion", "preservation"])
@pytest.mark.parametrize("scale", ["relative", "logit"])
def test_a_scale_is_the_papers_objective_with_another_score(tiny, noise_images, scale, game) -> None:
    """The gradient in the loop is that of the score by hand: one plain step of Adam has its sign."""
    settings = pt.MaskSettings(
        game=game, iterations=1, initialization="half", score_scale=scale, jitter=1, area_weight=1e-3
    )
    masks = pt.learn_masks(tiny, noise_images, TARGETS, settings)
    grid = torch.full((3, 1, 28, 28), 0.5, requires_grad=True)
    blurred = pt.perturbations.background_for(settings, noise_images, color=tiny.mean_color)
    mask = pt.masks.upsample(grid, 32, settings.lengths(32).mask_sigma)

    def p(pixels: torch.Tensor) -> torch.Tensor:
        return (tiny.logits(pixels).double().softmax(1) * objectives.class_weights(TARGETS, 5)).sum(1)

    s, s0, s1 = p(blurred + (noise_images - blurred) * mask), p(noise_images), p(blurred)
    if scale == "relative":
        value, raw = s / s0, (s0, s1)
    else:
        ell, ell0, ell1 = (torch.log(x / (1 - x)) for x in (s, s0, s1))
        value, raw = (ell - ell1) / (ell0 - ell1).clamp(min=1), (ell0, ell1)
    sign = 1 if game == "deletion" else -1
    loss = (1e-3 * settings.rules.salient(grid)).sum() + sign * value.sum()  # TV of a flat mask: gradient 0
    (gradient,) = torch.autograd.grad(loss, grid)
    clear = gradient.abs() > 1e-6
    assert clear.float().mean() > 0.9
    np.testing.assert_allclose((masks.grid - 0.5)[clear], -0.1 * gradient[clear].sign(), atol=1e-3)
    for got, expected in zip((masks.score_original, masks.score_perturbed), raw, strict=True):
        torch.testing.assert_close(got, expected.float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scale", ["relative", "logit"])
def test_the_exported_graph_has_the_scale(tiny, noise_images, scale, tmp_path, monkeypatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = pt.MaskSettings(iterations=3, score_scale=scale)
    plain, exported = (
        pt.learn_masks(tiny, noise_images, TARGETS, settings, engine=engine) for engine in ("torch", "onnx")
    )
    torch.testing.assert_close(exported.history.score, plain.history.score, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("scale", ["relative", "logit"])
def test_masks_on_a_layer_take_the_scale(tiny, noise_images, scale) -> None:
    layer = next(name for name in tiny.layers if name)
    settings = pt.activations.layer_settings(tiny, layer).replace(iterations=3)
    plain = pt.learn_activation_masks(tiny, noise_images, TARGETS, layer, settings)
    scaled = pt.learn_activation_masks(
        tiny, noise_images, TARGETS, layer, settings.replace(score_scale=scale)
    )
    assert not torch.equal(plain.grid, scaled.grid)
    p = scaled.score_original.sigmoid() if scale == "logit" else scaled.score_original
    torch.testing.assert_close(p, plain.score_original, atol=1e-5, rtol=0)


def faint(scale: float = 1.0) -> pt.Network:
    """Two classes; the first has evidence in the upper left corner, and a probability of 1e-4 with it."""

    class Faint(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            corner = 8 * x[:, :, :12, :12].mean((1, 2, 3)) - 4 + math.log(1e-4)
            return torch.stack([corner, torch.zeros_like(corner)], 1)

    return pt.Network(Faint(), input_size=32, device="cpu")


def test_a_small_score_has_an_empty_mask_a_warning_and_a_mend() -> None:
    image = torch.zeros(2, 3, 32, 32)
    image[:, :, :12, :12] = 0.5
    settings = pt.MaskSettings(iterations=40, perturbation="constant")
    with pytest.warns(UserWarning, match=r"^2 of 2 masks are empty: .*score_scale='relative'") as caught:
        empty = pt.learn_masks(faint(), image, 0, settings)
    assert len(caught) == 1, "one a call"
    assert caught[0].filename == __file__
    assert empty.empty.all()
    for scale in ("relative", "logit"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            masks = pt.learn_masks(faint(), image, 0, settings.replace(score_scale=scale))
        assert not masks.empty.any(), scale
        assert masks.saliency[:, :, :12, :12].mean() > 5 * masks.saliency[:, :, 16:, 16:].mean(), scale
        assert masks.converged.all()


def test_a_score_of_ones_own_has_its_own_scale(tiny, noise_images) -> None:
    with pytest.raises(ValueError, match=r"score_scale: expected 'softmax' with score=, .* got 'logit'"):
        pt.learn_masks(
            tiny, noise_images, None, pt.MaskSettings(score_scale="logit"), score=lambda logits: logits[:, 0]
        )
