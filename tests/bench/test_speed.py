"""The benchmark's arithmetic by hand, and the stored results: what the speed chapter needs of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from perturb_tutorial.settings import PRECISIONS
from perturb_tutorial.study.speed import speed_results

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
import data_set
import gpu
import on_card
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


@pytest.fixture
def on_gpu(tiny, noise_images):
    """The measurements of a GPU with the small network, on the CPU."""
    small = object.__new__(on_card.OnGpu)
    small.network, small.pictures, small.targets = tiny, noise_images, [0, 1, 2]
    return small


def test_precisions_are_measured_against_passes_of_their_own(on_gpu, monkeypatch):
    monkeypatch.setattr(on_card, "ITERATIONS", 3)
    monkeypatch.setattr(gpu, "whole_masks", lambda bench, eager, count: [])
    found = gpu.iterations(on_gpu, batches=(2,), compiled_batches=(), rounds=1)
    assert [(row["engine"], row["precision"], row["batch"]) for row in found["rows"]] == [
        ("torch", precision, 2) for precision in PRECISIONS
    ]
    for row in found["rows"]:
        assert row["over_passes"] == pytest.approx(row["seconds"] / row["passes_seconds"])
        assert row["over_eager"] == pytest.approx(found["eager_mask_seconds"] / (300 * row["seconds"]))


def test_the_largest_batch_is_the_last_that_is_not_split(on_gpu, monkeypatch):
    real = on_gpu.network.normalized_logits

    def small_memory(inputs):
        if len(inputs) > 11:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return real(inputs)

    monkeypatch.setattr(on_gpu.network, "normalized_logits", small_memory)
    assert gpu.largest_batch(on_gpu, start=2) == 8
    assert gpu.largest_batch(on_gpu, start=2, limit=4) == 4


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


def test_a_gpus_results_have_what_the_chapter_shows():
    for result in speed_results("cuda").values():
        rows = result["iterations"]["rows"]
        assert {row["precision"] for row in rows} == set(PRECISIONS)
        assert min(row["seconds"] for row in rows) > 0
        assert set(result["agreement"]) == {"deletion", "preservation"}
