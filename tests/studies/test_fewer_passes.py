"""What the masks of the fast settings cost and gain, counted on a tiny network and summed up by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import perturb_tutorial as pt

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies"))
import fewer_passes as tool


def test_everything_is_counted(tiny, noise_images) -> None:
    """Two ends, six radii at most for each of three images, four gradients and 20 iterations with two looks."""
    settings = pt.MaskSettings(iterations=20, game="preservation").fast().replace(tolerance=1e-9)
    with tool.counted(tiny, "torch") as counts:
        masks = pt.learn_masks(tiny, noise_images, [0, 1, 2], settings)
    assert counts.gradients == 3 * 4 + int(masks.iterations.sum())
    looks = int((masks.iterations // 10).sum())
    assert counts.forwards == 3 * (2 + 5 + 1) + looks  # image, background; bisection of 24 sizes; the end
    assert "logits" not in vars(tiny), "the network is as it was"


def test_the_objective_is_the_mean_over_the_shifts(tiny, noise_images) -> None:
    masks = pt.learn_masks(tiny, noise_images, [0, 1, 2], pt.MaskSettings(iterations=3, jitter=28))
    got = tool.mean_objective(tiny, noise_images, [0, 1, 2], masks)
    blurred = pt.perturbations.background_for(masks.settings, noise_images, color=tiny.mean_color)
    total = torch.zeros(3)
    for dx, dy in tool.SHIFTS:
        image, background = (
            torch.nn.functional.pad(x, (dx, 0, dy, 0), mode="replicate")[..., :32, :32]
            for x in (noise_images, blurred)
        )
        pixels = image * masks.mask + background * (1 - masks.mask)
        with torch.no_grad():
            total += tiny.scores(pixels)[range(3), [0, 1, 2]]
    expected = pt.objectives.objective(masks.grid, total / len(tool.SHIFTS), masks.settings)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_gaps_and_shares_by_hand() -> None:
    rows = []
    for game in ("deletion", "preservation"):
        for image, gap in enumerate((0.01, -0.03, 0.05)):
            for kind, objective, gradients, forwards in (
                ("paper", 0.1, 300, 20),
                ("fast", 0.1 + gap, 50, 10),
            ):
                numbers = {"objective": objective, "area": 0.2, "deletion_area": 0.1, "insertion_area": 0.5}
                cost = {"gradients": gradients, "forwards": forwards}
                rows.append({"data": "x", "image": image, "game": game, "kind": kind, **numbers, **cost})
    rows.append({**rows[0], "image": 9})  # of which the fast one is still missing
    found = tool.summed_up(rows, 0.5)
    for game in ("deletion", "preservation"):
        gaps = found["gaps"][game]
        assert gaps["images"] == 3
        assert gaps["mean_gap"] == pytest.approx(0.01)
        assert gaps["worst_gap"] == pytest.approx(0.05)
        assert gaps["share_of_passes"] == pytest.approx(55 / 310)
        assert gaps["largest_area_difference"] == 0
    (difference,) = [
        row for row in found["differences"] if row["name"] == "objective" and row["game"] == "deletion"
    ]
    assert difference["estimate"] == pytest.approx(0.01)
