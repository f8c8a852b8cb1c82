"""The study of agreement: counts and calibration by hand, and a whole run on a tiny network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import perturb_tutorial as pt

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies"))
import agreement as tool


def test_pixels_are_counted_by_the_draws_that_were_asked() -> None:
    asked, held_out = torch.zeros(8, 1, 4), torch.zeros(8, 1, 4)
    asked[:3, 0, 1] = asked[:8, 0, 2] = asked[5:, 0, 3] = 0.6  # in 0, 3, 8 and 3 of them
    held_out[:4, 0, 1] = held_out[:7, 0, 2] = held_out[:1, 0, 0] = 0.6
    found = tool.counted(asked, held_out)
    assert found["pixels"] == [1, 0, 0, 2, 0, 0, 0, 0, 1]
    assert found["evidence"] == [1, 0, 0, 4, 0, 0, 0, 0, 7]
    calibration = tool.calibration([found, found])
    shares = calibration["share_held_out"]
    assert (shares[0], shares[3], shares[8]) == (1 / 8, 4 / 16, 7 / 8)
    assert shares[1] is None
    assert calibration["pixels"] == [2, 0, 0, 4, 0, 0, 0, 0, 2]
    assert calibration["mean_error"] == pytest.approx(1 / 8)
    assert calibration["largest_error"] == pytest.approx(1 / 8)


def test_the_peak_lies_in_a_box() -> None:
    heat = torch.zeros(4, 6)
    heat[2, 5] = 1
    assert tool.in_a_box(heat, [(0, 0, 1, 1), (5, 2, 6, 3)])
    assert not tool.in_a_box(heat, [(0, 0, 5, 4)])
    assert not tool.in_a_box(heat, [])


def test_a_run_measures_the_mean_of_eight_draws_and_one(
    tiny: pt.Network, noise_images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = []
    learn_masks = pt.learn_masks

    def quick(network, images, targets, settings, **options):  # type: ignore[no-untyped-def]
        learned.append(learn_masks(network, images, targets, settings.replace(iterations=3), **options))
        return learned[-1]

    class Samples:
        images, boxes = noise_images[1:2], ([(0, 0, 32, 32)],)

    monkeypatch.setattr(pt, "learn_masks", quick)
    monkeypatch.setattr(pt, "load_network", lambda *_, **__: tiny)
    monkeypatch.setattr(pt, "load_samples", lambda *_, **__: Samples)
    records = tmp_path / "records"
    line = ["deletion", "--records", str(records), "--folder", str(tmp_path), "--engine", "torch"]
    assert tool.main(line) == 0
    (path,) = tmp_path.glob("*.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    calibration = found["summary"]["calibration"]["deletion"]
    assert (calibration["photographs"], sum(calibration["pixels"])) == (20, 20 * 32 * 32)
    masks = learned[0]
    assert masks.draw_count == 16
    # Draw 0 is a run of one draw, whose objective the package computes.
    alone = quick(
        tiny, noise_images[1:2], [pt.top_classes(tiny, noise_images[1:2], k=1)[0][0]], masks.settings
    )
    row = json.loads(records.read_text(encoding="utf-8").splitlines()[0])[0]
    assert row["one"]["objective"] == pytest.approx(float(alone.objective), abs=1e-5)
    assert row["one"]["in_box"] == row["mean"]["in_box"] == 1
    votes = (tool.saliency_of(masks, 0, 8) > 0.5).sum(0)
    assert row["pixels"] == np.bincount(votes.flatten(), minlength=9).tolist()
    assert tool.main(line) == 0
    assert len(learned) == 21, "a second start has nothing to learn"
