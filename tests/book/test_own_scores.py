"""The code on the page about own scores runs as it stands, but for the trained weights and the number of iterations."""

from __future__ import annotations

from typing import Any

import torch
from page_code import run_page

import perturb_tutorial as pt


def test_every_example_runs() -> None:
    made: list[tuple[int, ...]] = []
    torch.manual_seed(0)

    def check(code: str, names: dict[str, Any]) -> None:
        if "masks = " in code:
            masks = names["masks"]
            assert isinstance(masks, pt.Masks)
            made.append(tuple(masks.mask.shape))
            assert masks.history.score.isfinite().all()
            expected = abs(masks.score_original) if "relative_score" in code else 1.0
            torch.testing.assert_close(masks.score_original.abs(), torch.as_tensor(expected).expand(1))

    names = run_page(
        "own_scores.md",
        {
            'weights="DEFAULT"': "weights=None, weights_backbone=None",
            "pt.MaskSettings()": "pt.MaskSettings(iterations=2, initialization='random')",
        },
        check,
    )
    assert made == [(1, 1, 224, 224), (1, 1, 320, 320), (1, 1, 224, 224), (1, 1, 224, 224)]
    assert names["heatmap"].shape[:2] == (1, 1)
