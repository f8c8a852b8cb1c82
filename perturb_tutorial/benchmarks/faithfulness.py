"""Deletion and insertion curves (Petsiuk et al., BMVC 2018): does the score fall and rise with the salient pixels?

The score is the sum of the targets' softmax probabilities. Pixels are perturbed as the mask's settings say (blur).
A record has both curves and their areas; a map that is all zero or not finite has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from perturb_tutorial.benchmarks.base import Benchmark, View
from perturb_tutorial.benchmarks.settings import BenchmarkSettings
from perturb_tutorial.benchmarks.summary import Figures, keys, wide
from perturb_tutorial.metrics import (
    curve_area,
    deletion_masks,
    insertion_masks,
    is_usable,
    resize_map,
)
from perturb_tutorial.metrics.heatmaps import Bool
from perturb_tutorial.objectives import class_weights, target_score
from perturb_tutorial.perturbations import background_for, perturb

if TYPE_CHECKING:
    import pandas as pd

AT_ONCE = 16
"""Masked images in one pass."""
AREAS = ("deletion_area", "insertion_area")


class Faithfulness(Benchmark):
    """Areas under the curves."""

    name = "faithfulness"
    about = "Does the score follow the map when pixels are deleted and inserted? (Petsiuk et al., 2018)"
    columns = {  # noqa: RUF012  (ClassVar in the base)
        "deletion": "list double",
        "insertion": "list double",
        **dict.fromkeys(AREAS, "double"),
    }

    def measure(self, view: View) -> dict[str, Any]:
        """Both curves, from all pixels of the input to none and from none to all, and their areas."""
        if view.heat is None or not is_usable(view.heat):
            return {}
        image, network, settings = view.image[None].to(view.network.device), view.network, view.settings
        background = background_for(settings.mask, image, color=network.mean_color, seed=settings.seed)
        heat = resize_map(view.heat, network.input_shape)
        row: dict[str, Any] = {}
        for name, masks in (("deletion", deletion_masks), ("insertion", insertion_masks)):
            scores = _scores(view, image, background, masks(heat, settings.steps))
            row[name] = scores
            row[f"{name}_area"] = float(curve_area(scores))
        return row

    def figures(self, records: pd.DataFrame, settings: BenchmarkSettings) -> dict[str, Any]:
        """The mean of each area."""
        images, _ = keys(records)
        result = Figures(settings.seed)
        for area in AREAS:
            result.add_means(area, wide(records, area), images, labels={"steps": settings.steps})
        return result.to_dict()


def _scores(view: View, image: Tensor, background: Tensor, masks: Iterable[Bool]) -> list[float]:
    network = view.network
    weights = class_weights([list(view.question.targets)], network.class_count).to(network.device)
    scores: list[float] = []
    rest = iter(masks)
    with torch.inference_mode():
        while part := list(islice(rest, AT_ONCE)):
            kept = torch.from_numpy(np.stack(part)).to(image)[:, None]
            scores += target_score(network.logits(perturb(image, background, kept)), weights).tolist()
    return scores
