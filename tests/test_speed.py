"""The benchmark's arithmetic by hand, and the stored results: what the speed chapter needs of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from perturb_tutorial.speed import speed_results

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))
import peers
import speed


def test_clock_separates_the_loop_from_what_is_done_once():
    # A start at 0; the first iteration ends at 3, after 2 s of preparation; then 1 s each, one of them disturbed.
    clock = peers.Clock(torch.device("cpu"), start=0.0, ticks=[3.0, 4.0, 9.0, 10.0, 11.0, 12.0], end=13.0)
    assert clock.iteration == 1.0
    assert clock.around == 13.0 - 6 * 1.0


def test_ratios_are_medians_of_rounds():
    times = {"a": [2.0, 30.0, 4.0], "b": [1.0, 10.0, 1.0]}
    assert speed.median_ratio(times, "a", "b") == 3.0  # of 2, 3 and 4; the medians' own ratio would be 4


def test_peers_count_every_iteration(tiny, noise_images):
    settings = speed.HALF.replace(iterations=3)
    assert len(peers.eager_loop(tiny.module, noise_images[:1], 0, 3, settings).ticks) == 3
    assert len(peers.extremal_perturbation(tiny.module, noise_images[:1], 0, 3).ticks) == 3
    assert len(peers.ours(tiny, noise_images, [0, 1, 2], settings).ticks) == 3


def test_results_have_what_the_chapter_shows():
    results = speed_results("cpu")
    assert results
    for result in results.values():
        assert set(result["by_count"]) == {"engine", "16", "64", "256"}
        assert set(result["shares"]) == {"eager", *result["engines"]}
        for shares in result["shares"].values():
            assert sum(shares.values()) == pytest.approx(1)
        assert min(result["seconds"].values()) > 0
        assert {"threads", "cpu"} <= set(result["machine"])
    assert speed_results("abacus") == {}
