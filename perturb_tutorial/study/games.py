"""Preservation against deletion (§6.5): both games on the same images, measured the same way.

For each image: the area of the mask, the score under it, whether the mask works (:attr:`Diagnosis.works`),
and the areas under the deletion curve (small is good) and the insertion curve (large is good) of its
saliency, whose perturbation is the mask's own. Scores along the curves are those of the target set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perturb_tutorial.metrics.faithfulness import curve_area, insertion_masks
from perturb_tutorial.networks import Network
from perturb_tutorial.objectives import class_sets, class_weights, target_score
from perturb_tutorial.perturbations import background_for, perturb
from perturb_tutorial.results import Masks
from perturb_tutorial.settings import MaskSettings, check_seed
from perturb_tutorial.study.failures import Bool, Diagnosis, diagnose

CURVE_STEPS = 28
"""Steps of a curve, each of one row of the mask's grid (784 mask px in 28 steps)."""

_PIXELS_AT_ONCE = 16
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GameResult:
    """One game on N images: its masks, a diagnosis of each, and the curves' scores, N×(steps + 1)."""

    masks: Masks
    diagnoses: list[Diagnosis]
    deletion_curve: Floats
    insertion_curve: Floats

    @property
    def works(self) -> Bool:
        """N booleans, :attr:`Diagnosis.works`."""
        return np.array([diagnosis.works for diagnosis in self.diagnoses], dtype=np.bool_)

    @property
    def deletion_area(self) -> Floats:
        """Area under each deletion curve, N values in [0, 1]; small is good."""
        return curve_area(self.deletion_curve)

    @property
    def insertion_area(self) -> Floats:
        """Area under each insertion curve, N values in [0, 1]; large is good."""
        return curve_area(self.insertion_curve)

    def row(self, index: int) -> dict[str, float | bool]:
        """The figures of image ``index`` by name."""
        diagnosis = self.diagnoses[index]
        return {
            "area": diagnosis.area,
            "score_original": diagnosis.score_original,
            "score_masked": diagnosis.score_masked,
            "effect": diagnosis.effect,
            "converged": diagnosis.converged,
            "works": diagnosis.works,
            "deletion_area": float(self.deletion_area[index]),
            "insertion_area": float(self.insertion_area[index]),
        }


@dataclass(frozen=True)
class GameComparison:
    """Both games on the same images."""

    deletion: GameResult
    preservation: GameResult

    @property
    def preservation_fails(self) -> Bool:
        """N booleans: preservation fails where deletion works (§6.5)."""
        return np.asarray(self.deletion.works & ~self.preservation.works, dtype=np.bool_)

    @property
    def deletion_fails(self) -> Bool:
        """N booleans: the other way round."""
        return np.asarray(self.preservation.works & ~self.deletion.works, dtype=np.bool_)

    def table(self) -> list[dict[str, Any]]:
        """One row an image and game: index, game and the figures of :meth:`GameResult.row`."""
        return [
            {"index": index, "game": game, **result.row(index)}
            for index in range(len(self.deletion.masks))
            for game, result in (("deletion", self.deletion), ("preservation", self.preservation))
        ]


def faithfulness_curves(
    network: Network,
    images: Tensor,
    targets: Any,
    saliency: Tensor,
    settings: MaskSettings | None = None,
    *,
    steps: int = CURVE_STEPS,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """The scores along the deletion and the insertion curve of each image.

    Args:
        network: the network whose scores are computed.
        images: N×C×H×W in [0, 1].
        targets: a class index, N indices, or N sets of them.
        saliency: N×1×H×W at input size.
        settings: their perturbation replaces deleted pixels; None is the default.
        steps: of each curve.
        seed: of a perturbation by noise.

    Returns:
        Two arrays N×(``steps`` + 1), deletion and insertion.

    Raises:
        ValueError: for shapes that do not fit.
    """
    network.check_images(images)
    if saliency.shape != (len(images), 1, *images.shape[2:]):
        wanted = "×".join(map(str, (len(images), 1, *images.shape[2:])))
        raise ValueError(f"saliency: expected {wanted}, got {'×'.join(map(str, saliency.shape))}")
    settings, seed = settings or MaskSettings(), check_seed(seed)
    weights = class_weights(class_sets(targets, len(images), network.class_count), network.class_count)
    curves = np.empty((2, len(images), steps + 1))
    for row, (image, heat) in enumerate(
        zip(torch.split(images.to(network.device), 1), saliency.cpu(), strict=True)
    ):
        background = background_for(settings, image, color=network.mean_color, seed=seed)
        revealed = torch.from_numpy(np.stack(list(insertion_masks(heat[0].numpy(), steps))))[:, None]
        kept = torch.cat([~revealed, revealed]).to(image)
        with torch.inference_mode():
            scores = [
                target_score(network.logits(perturb(image, background, part)), weights[row].to(image))
                for part in torch.split(kept, _PIXELS_AT_ONCE)
            ]
        curves[:, row] = torch.cat(scores).view(2, steps + 1).cpu().numpy()
    return curves[0], curves[1]


def measure_game(
    network: Network,
    images: Tensor,
    targets: Any,
    masks: Masks,
    *,
    truth: Sequence[Bool | None] | None = None,
    steps: int = CURVE_STEPS,
    seed: int = 0,
) -> GameResult:
    """One game, measured on masks that were learned before.

    Args:
        network: the network of the masks.
        images: N×C×H×W in [0, 1].
        targets: those that the masks were learned for.
        masks: N masks of one game.
        truth: the objects, for :func:`diagnose`.
        steps: of each curve.
        seed: of a perturbation by noise.
    """
    deletion, insertion = faithfulness_curves(
        network, images, targets, masks.saliency, masks.settings, steps=steps, seed=seed
    )
    return GameResult(masks, diagnose(masks, network, images, targets, truth), deletion, insertion)
