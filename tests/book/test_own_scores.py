"""The code on the page about own scores runs as it stands, but for the trained weights and the number of iterations."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch

import perturb_tutorial as pt
from perturb_tutorial.networks import torchvision_models

PAGE = Path(__file__).resolve().parents[2] / "book" / "own_scores.md"


def test_every_example_runs() -> None:
    torchvision_models()
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    made: list[tuple[int, ...]] = []
    torch.manual_seed(0)
    for block in blocks:
        code = block.replace('weights="DEFAULT"', "weights=None, weights_backbone=None")
        code = code.replace("pt.MaskSettings()", "pt.MaskSettings(iterations=2, initialization='random')")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exec(compile(code, str(PAGE), "exec"), names)
        if "masks = " in code:
            masks = names["masks"]
            assert isinstance(masks, pt.Masks)
            made.append(tuple(masks.mask.shape))
            assert masks.history.score.isfinite().all()
            expected = abs(masks.score_original) if "relative_score" in code else 1.0
            torch.testing.assert_close(masks.score_original.abs(), torch.as_tensor(expected).expand(1))
    assert made == [(1, 1, 224, 224), (1, 1, 320, 320), (1, 1, 224, 224), (1, 1, 224, 224)]
    assert names["heatmap"].shape[:2] == (1, 1)
