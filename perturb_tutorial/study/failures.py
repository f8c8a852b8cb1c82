"""What is wrong with a mask (§6.6), found by rules and stated in words.

The paper shows masks on a part of the object, masks on the context and optimizations that did not converge.
With the saliency h at input size, the pixels O of the object and the logits z:

    g = log Σ_{c∈C} exp z_c − log Σ_{c∉C} exp z_c   (log odds of the target),
    energy inside = Σ_{p∈O} h(p) / Σ_p h(p),   covered = |{p ∈ O: h(p) ≥ ½}| / |O|,
    effect = (s₀ − s) / (s₀ − s∞) in the deletion game, (s − s∞) / (s₀ − s∞) in the preservation game,

s₀ the score of the image, s∞ of the fully perturbed one, s under the mask. An effect of 1 is that of perturbing
everything (keeping everything).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from perturb_tutorial.networks import Network
from perturb_tutorial.objectives import class_sets, class_weights, probability
from perturb_tutorial.results import Masks

EMPTY_AREA = 0.01
"""A smaller mask is empty: 1 % of an image is a square of a tenth of its side, some 3×3 mask px of 28×28."""
FULL_AREA = 0.9
"""A larger mask is everything: it hardly distinguishes one part of the image from another."""
CONTEXT_ENERGY = 0.5
"""With less energy inside than this, most of the saliency is beside the object."""
PART_COVERED = 0.5
"""A mask inside the object that covers less of it than this cannot reach the IoU of ½ of §5."""
WEAK_EFFECT = 0.5
"""With less effect the score stays closer to its start than to its goal."""
SATURATED_GAP = 25 * math.log(2)
"""Log odds from which a float32 softmax is exactly 1: 1 − s < 2⁻²⁵ rounds to 0, and the gradient with it
(17.3).
"""

KINDS = {
    "not finite": "a score or a gradient was not finite",
    "not converged": "the score did not move the way the game asks for",
    "no disc": "no disc suppresses (preserves) the score at the start",
    "weak": "the mask has less than half of the effect that it could have",
    "saturated": "the score is exactly 1 in float32, so the first gradients are next to nothing",
    "empty": "next to nothing is salient",
    "everything": "next to everything is salient",
    "context": "most of the saliency is beside the object, and less than half of the object is covered",
    "wide": "the object is covered, but most of the saliency is beside it",
    "part": "the mask lies on the object but covers less than half of it",
}
"""The kinds of failure, in the order in which they are reported."""


class _Words(NamedTuple):
    """How a game is spoken of: where the score under a mask should be, and what a disc does to the score."""

    wanted: str
    does: str


_WORDS = {
    "deletion": _Words("below {original:.3f}, the image's", "suppresses"),
    "preservation": _Words("above {perturbed:.3f}, with nothing kept", "preserves"),
}

Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Diagnosis:
    """One mask: what was measured, and what is wrong with it (``kinds`` out of ``KINDS``, ``reasons`` in
    words).

    ``log_odds``: g of the image. ``energy_inside``, ``covered`` and ``object_share`` (the object's share of
    the image) are NaN without a ground truth, ``effect`` is where s₀ = s∞.
    """

    index: int
    kinds: tuple[str, ...]
    reasons: tuple[str, ...]
    converged: bool
    area: float
    effect: float
    score_original: float
    score_masked: float
    log_odds: float
    energy_inside: float
    covered: float
    object_share: float

    @property
    def works(self) -> bool:
        """Whether the mask converged, has an effect, and is neither empty nor everything."""
        return not {"not finite", "not converged", "weak", "empty", "everything"} & set(self.kinds)

    def __str__(self) -> str:
        return f"image {self.index}: {'; '.join(self.reasons) or 'nothing found'}"


def box_mask(boxes: ArrayLike, size: tuple[int, int]) -> Bool:
    """Pixels (H×W, bool) inside any of K×4 boxes (x0, y0, x1, y1), inclusive corners in px of ``size`` = (H,
    W).
    """
    covered = np.zeros(size, dtype=np.bool_)
    for x0, y0, x1, y1 in np.asarray(boxes, dtype=np.float64).reshape(-1, 4):
        rows, columns = (
            slice(max(0, math.ceil(a)), max(0, math.floor(b) + 1)) for a, b in ((y0, y1), (x0, x1))
        )
        covered[rows, columns] = True
    return covered


def effects(masks: Masks) -> Tensor:
    """The effect of each mask, N values; NaN where s₀ ≤ s∞, since then there is nothing to delete or to preserve."""
    span = masks.score_original - masks.score_perturbed
    gain = masks.settings.rules.gain(masks.score_masked, masks.score_original, masks.score_perturbed)
    return torch.where(span > 0, gain / span, torch.nan)


def log_odds(network: Network, images: Tensor, targets: Any) -> Tensor:
    """g of each image: log Σ_{c∈C} exp z_c − log Σ_{c∉C} exp z_c, N values on the CPU."""
    sets = class_sets(targets, len(images), network.class_count)
    inside = class_weights(sets, network.class_count) > 0
    with torch.inference_mode():
        parts = [network.logits(part).cpu().double() for part in torch.split(images, 8)]
    if not parts:
        return torch.empty(0, dtype=torch.float64, device="cpu")
    logits = torch.cat(parts)
    return logits.masked_fill(~inside, -torch.inf).logsumexp(1) - logits.masked_fill(
        inside, -torch.inf
    ).logsumexp(1)


def diagnose(
    masks: Masks,
    network: Network,
    images: Tensor,
    targets: Any,
    truth: Sequence[Bool | None] | None = None,
) -> list[Diagnosis]:
    """What is wrong with each of N masks.

    Args:
        masks: N masks.
        network: the network that they were learned on.
        images: N×C×H×W in [0, 1].
        targets: those that the masks were learned for.
        truth: for each image the pixels of its objects (H×W bool, any size: :func:`box_mask`,
            ``metrics.union_mask``), or None where they are not known.

    Returns:
        One diagnosis for each mask.

    Raises:
        ValueError: for different numbers of masks, images and truths.
    """
    network.check_images(images)
    truth = [None] * len(masks) if truth is None else list(truth)
    if not len(masks) == len(images) == len(truth):
        raise ValueError(
            f"images, truth: expected one for each of {len(masks)} masks, got {len(images)} and {len(truth)}"
        )
    odds = log_odds(network, images, targets)
    effect = effects(masks)
    return [
        _diagnosis(masks, row, float(odds[row]), float(effect[row]), truth[row]) for row in range(len(masks))
    ]


def _diagnosis(masks: Masks, row: int, odds: float, effect: float, truth: Bool | None) -> Diagnosis:
    heat = masks[row].saliency[0, 0].cpu().double().numpy()
    inside, covered, share = _on_object(heat, truth)
    original, perturbed, masked = (
        float(probability(value[row], masks.settings.score_scale))
        for value in (masks.score_original, masks.score_perturbed, masks.score_masked)
    )
    converged, area = bool(masks.converged[row]), float(heat.mean())
    steps = torch.isfinite(masks.history.score[row, : masks.iterations[row]]).all()
    finite = bool(steps) and all(map(math.isfinite, (original, perturbed, masked)))
    words = _WORDS[masks.settings.game]
    found: dict[str, str] = {}
    if not finite:
        found["not finite"] = "a score was not finite, the mask was left where it stood in those steps"
    elif not converged:
        wanted = words.wanted.format(original=original, perturbed=perturbed)
        found["not converged"] = f"not converged: score {masked:.3f} under the mask, it should be {wanted}"
    if masks.settings.initialization == "disc" and finite and math.isnan(float(masks.radius[row])):
        found["no disc"] = (
            f"no disc: perturbing everything does not lower the score ({original:.3f} → {perturbed:.3f})"
            if original <= perturbed
            else f"no disc {words.does} 99 %: it began with all perturbed"
        )
    if converged and not effect >= WEAK_EFFECT:
        found["weak"] = (
            f"weak: {effect:.0%} of the effect that it could have"
            if effect == effect
            else "weak: no effect to have"
        )
    if odds >= SATURATED_GAP:
        found["saturated"] = (
            f"saturated: log odds {odds:.1f}, the score is 1 in float32 and has next to no gradient"
        )
    if area < EMPTY_AREA:
        found["empty"] = f"empty: {area:.1%} of the image is salient"
    elif area > FULL_AREA:
        found["everything"] = f"everything: {area:.1%} of the image is salient"
    elif inside < CONTEXT_ENERGY and covered < PART_COVERED:
        found["context"] = (
            f"context: {inside:.0%} of the saliency is on the object, {covered:.0%} of it is covered"
        )
    elif inside < CONTEXT_ENERGY:
        found["wide"] = f"wide: the object is covered, but {1 - inside:.0%} of the saliency is beside it"
    elif covered < PART_COVERED:
        found["part"] = f"part: {covered:.0%} of the object is covered"
    kinds = tuple(kind for kind in KINDS if kind in found)
    return Diagnosis(
        index=row,
        kinds=kinds,
        reasons=tuple(found[kind] for kind in kinds),
        converged=converged,
        area=area,
        effect=effect,
        score_original=original,
        score_masked=masked,
        log_odds=odds,
        energy_inside=inside,
        covered=covered,
        object_share=share,
    )


def _on_object(heat: NDArray[np.float64], truth: Bool | None) -> tuple[float, float, float]:
    """(energy inside, covered, the object's share of the image); NaN without an object or any saliency."""
    if truth is None or not np.asarray(truth).any():
        return math.nan, math.nan, math.nan
    mask = np.asarray(truth, dtype=np.bool_)
    rows, columns = (
        (2 * np.arange(n) + 1) * old // (2 * n) for n, old in zip(heat.shape, mask.shape, strict=True)
    )
    inside = mask[np.ix_(rows, columns)]  # the pixel under each center
    if not inside.any():
        return math.nan, math.nan, float(mask.mean())
    total = float(heat.sum())
    energy = float(heat[inside].sum()) / total if total > 0 else math.nan
    return energy, float((heat[inside] >= 0.5).mean()), float(inside.mean())
