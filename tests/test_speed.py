"""The benchmark's arithmetic by hand, and the stored results: what the speed chapter needs of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from perturb_tutorial.speed import speed_results

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))
import data_set
import gpu
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


@pytest.fixture
def bench(tiny, noise_images):
    """A benchmark of the small network."""
    small = object.__new__(speed.Bench)
    small.network, small.rounds, small.engines = tiny, 1, ["torch"]
    small.pictures, small.targets = noise_images, [0, 1, 2]
    return small


def test_precisions_are_measured_against_passes_of_their_own(bench):
    found = gpu.by_precision(bench, speed.HALF.replace(iterations=3), batches=(2, 5))
    assert set(found) == {"float32", "bfloat16"}
    for rows in found.values():
        assert set(rows) == {"2", "5"}
        for row in rows.values():
            assert set(row) == {"seconds", "over_network", "over_eager"}
            assert min(row.values()) > 0


def test_the_largest_batch_is_the_last_that_is_not_split(bench, monkeypatch):
    real = bench.network.normalized_logits

    def small_memory(inputs):
        if len(inputs) > 11:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return real(inputs)

    monkeypatch.setattr(bench.network, "normalized_logits", small_memory)
    assert gpu.largest_batch(bench, speed.HALF, start=2) == 8
    assert gpu.largest_batch(bench, speed.HALF, start=2, limit=4) == 4
    peaks = iter([0, 7.0, 0, 7.0, 0, 7.0, 0, 14.0])  # of the warm-up and three counts, before and after each
    found = gpu.past_the_largest(bench, speed.HALF, 8, lambda: next(peaks))
    assert found["memory"] == {"8": 1, "16": 1, "32": 2}
    assert found["time"]["8"] == 1
    assert set(found["time"]) == {"8", "16", "32"}


def test_the_papers_masks_are_extrapolated_from_whole_ones():
    found = data_set.paper_data_set(torch.device("cpu"), 2, iterations=1)
    assert found["hours_of_paper"] == pytest.approx(found["seconds"] / 2 * 30_989 / 3600)
    assert found["masks"] == 2
    assert found["network"].startswith("googlenet")


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
        assert [row["engine"] for row in result["paper"]] == result["engines"]
    assert speed_results("abacus") == {}
