"""Masks of two processors compared: distances by hand, and a run that changed nothing is refused."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import perturb_tutorial as pt

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies"))
import rounding as tool


@pytest.fixture
def masks(tiny, noise_images) -> pt.Masks:
    return pt.learn_masks(tiny, noise_images, [0, 1, 2], pt.MaskSettings(iterations=3))


def test_how_far_two_runs_are_apart_by_hand(masks: pt.Masks) -> None:
    halved = dataclasses.replace(
        masks,
        grid=1 - masks.salient_grid / 2,
        score_masked=masks.score_masked + torch.tensor([0.1, -0.2, 0.0]),
    )
    found = tool.apart(halved, masks)
    # Half a map is as bright everywhere: correlation 1, and half the saliency and area away.
    np.testing.assert_allclose(found["correlation"], 1, atol=1e-5)
    np.testing.assert_allclose(found["saliency"], masks.area / 2, atol=1e-6)
    np.testing.assert_allclose(found["area"], masks.area / 2, atol=1e-6)
    np.testing.assert_allclose(found["score"], [0.1, 0.2, 0.0], atol=1e-6)


def test_summary_has_means_and_the_games_paired_difference() -> None:
    def game(*values: float) -> dict[str, np.ndarray]:
        return {"correlation": np.array(values), "area": np.zeros(3)}

    summary = tool.summed_up({"deletion": game(1.0, 0.9, 0.95), "preservation": game(0.8, 0.6, 0.7)})
    figures = {(f["name"], f["method"]): f["estimate"] for f in summary["figures"]}
    assert figures["correlation", "deletion"] == pytest.approx(0.95)
    assert figures["correlation", "preservation"] == pytest.approx(0.7)
    (gap,) = [d for d in summary["differences"] if d["name"] == "correlation"]
    assert gap["estimate"] == pytest.approx(0.25)
    assert summary["correlations"]["preservation"] == [0.8, 0.6, 0.7]


def test_the_same_instructions_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = pt.Masks.load(tool.sweeps.FOLDER / "deletion.pt")
    monkeypatch.setattr(pt, "learn_masks", lambda *_, **__: stored)
    assert tool.main(["--folder", str(tmp_path)]) == 2
    assert "expected instructions other than those of the stored masks" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
