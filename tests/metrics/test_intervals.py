"""Bootstrap intervals: the resampling, against slow references and theory."""

from __future__ import annotations

import numpy as np
import pytest

from perturb_tutorial.metrics import (
    bootstrap,
    bootstrap_difference,
    class_mean_of,
    interval,
    mean_of,
    ratio_of_means,
)
from perturb_tutorial.metrics.intervals import row_weights


def test_weights_are_counts_of_images_drawn_with_replacement() -> None:
    images = np.array([7, 7, 3, 9, 3])
    weights = np.concatenate(list(row_weights(images, resamples=4000, seed=1)))
    assert weights.shape == (4000, 5)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 4]).all()
    # Three images, three draws.
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    # Binomial(3, 1/3): mean 1, variance 2/3; the errors of 4,000 draws are 0.013 and 0.02.
    assert weights[:, 3].mean() == pytest.approx(1.0, abs=0.06)
    assert weights[:, 3].var() == pytest.approx(2 / 3, abs=0.09)


@pytest.mark.parametrize("with_classes", [False, True])
def test_statistics_equal_repeating_the_rows(with_classes: bool) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 15, 60)
    classes = rng.integers(0, 40, 60)  # rare enough to be absent from many resamples
    values = rng.random(60)
    statistic = class_mean_of(values, classes) if with_classes else mean_of(values)
    weights = np.concatenate(list(row_weights(images, resamples=50, seed=2)))
    for row, got in zip(weights, statistic(weights), strict=True):
        repeated, labels = np.repeat(values, row.astype(int)), np.repeat(classes, row.astype(int))
        expected = (
            np.mean([repeated[labels == name].mean() for name in np.unique(labels)])
            if with_classes
            else repeated.mean()
        )
        assert got == pytest.approx(expected, abs=1e-12)


def test_the_interval_of_a_mean_agrees_with_theory() -> None:
    values = np.random.default_rng(3).normal(size=400)
    result = bootstrap(values, np.arange(400))
    error = values.std() / 20
    assert result.estimate == pytest.approx(values.mean(), abs=1e-12)
    # ±1.96 SE; the percentiles of 2,000 resamples are uncertain by some 5 % of SE.
    assert result.low == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert result.high == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)
    assert (result.rows, result.images) == (400, 400)


def test_images_are_the_unit_not_rows() -> None:
    # Ten copies of each row say nothing new: the interval stays as wide as that of the images.
    values = np.random.default_rng(4).random(50)
    alone = bootstrap(values, np.arange(50))
    copied = bootstrap(np.repeat(values, 10), np.repeat(np.arange(50), 10))
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=1e-9)
    assert (copied.rows, copied.images) == (500, 50)


def test_a_paired_difference_is_tighter_than_two_intervals() -> None:
    rng = np.random.default_rng(5)
    base = rng.random(100)
    first, second = base + 0.05 + 0.01 * rng.normal(size=100), base
    result = bootstrap_difference(first, second, np.arange(100))
    assert 0.04 < result.low < result.estimate < result.high < 0.06
    alone = bootstrap(first, np.arange(100))
    assert alone.high - alone.low > 5 * (result.high - result.low)


def test_the_seed_decides() -> None:
    values, images = np.random.default_rng(6).random(30), np.arange(30)
    assert bootstrap(values, images, seed=1) == bootstrap(values, images, seed=1)
    assert bootstrap(values, images, seed=1) != bootstrap(values, images, seed=2)


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.arange(40)
    whole = np.concatenate(list(row_weights(images, 100, seed=0)))
    monkeypatch.setattr("perturb_tutorial.metrics.intervals._CELLS_AT_ONCE", 40 * 7)
    np.testing.assert_array_equal(np.concatenate(list(row_weights(images, 100, seed=0))), whole)


def test_ratio_of_means_skips_what_is_not_there() -> None:
    feet, eyes = [0.6, np.nan, 0.2, np.nan], [np.nan, 0.1, np.nan, 0.3]
    statistic = ratio_of_means(feet, eyes)
    assert statistic(np.ones((1, 4)))[0] == pytest.approx(0.4 / 0.2)
    assert statistic(np.array([[1.0, 2.0, 0.0, 1.0]]))[0] == pytest.approx(0.6 / (0.5 / 3))
    result = interval(statistic, [0, 0, 1, 1])
    assert result.low <= result.estimate <= result.high


def test_empty_and_broken_input() -> None:
    empty = bootstrap([], [], [])
    assert np.isnan(empty.estimate)
    assert (empty.rows, empty.images) == (0, 0)
    with pytest.raises(ValueError, match="values: expected finite values"):
        bootstrap([1.0, np.nan], [0, 1])
    with pytest.raises(ValueError, match="first: expected one value for each of 2 rows, got 1"):
        bootstrap_difference([1.0], [1.0, 2.0], [0, 1])
    with pytest.raises(ValueError, match="level"):
        bootstrap([1.0], [0], level=1.0)


def test_the_papers_size_takes_seconds() -> None:
    import time

    rng = np.random.default_rng(7)
    images, classes = rng.integers(0, 20_721, 30_989), rng.integers(0, 80, 30_989)
    start = time.perf_counter()
    bootstrap(rng.random(30_989) > 0.6, images, classes)
    # Some 3 s on a laptop's core; the bound leaves room for a busy machine.
    assert time.perf_counter() - start < 30
