"""Figures and differences against the metrics' own bootstrap, which computes each alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from perturb_tutorial.benchmarks.animal_parts import group_of, mean_ratio
from perturb_tutorial.benchmarks.summary import Figures, keys, wide
from perturb_tutorial.metrics import bootstrap, bootstrap_difference, ratio_of_means

RNG = np.random.default_rng(5)
IMAGES = np.sort(RNG.integers(0, 40, 90))
CLASSES = RNG.integers(0, 6, 90)
FIRST, SECOND = RNG.integers(0, 2, 90).astype(float), RNG.random(90)


def same(found: dict[str, float], expected: object) -> None:
    numbers = ("estimate", "low", "high", "rows", "images")
    assert [found[n] for n in numbers] == pytest.approx([getattr(expected, n) for n in numbers], abs=1e-12)


@pytest.mark.parametrize("classes", [None, CLASSES])
def test_each_figure_is_its_own_bootstrap(classes: np.ndarray | None) -> None:
    figures = Figures(seed=7)
    figures.add_means("rate", {"a": FIRST, "b": SECOND}, IMAGES, classes)
    first, second = figures.figures
    same(first, bootstrap(FIRST, IMAGES, classes, seed=7))
    same(second, bootstrap(SECOND, IMAGES, classes, seed=7))
    (both,) = figures.differences
    same(both, bootstrap_difference(FIRST, SECOND, IMAGES, classes, seed=7))
    assert (both["method"], both["minus"]) == ("a", "b")


def test_a_difference_is_paired_on_the_rows_that_both_have() -> None:
    holes = FIRST.copy()
    holes[::3] = np.nan
    kept = np.isfinite(holes)
    figures = Figures(seed=1)
    figures.add_means("rate", {"a": holes, "b": SECOND}, IMAGES, CLASSES)
    same(figures.figures[0], bootstrap(holes[kept], IMAGES[kept], CLASSES[kept], seed=1))
    same(figures.figures[1], bootstrap(SECOND, IMAGES, CLASSES, seed=1))
    expected = bootstrap_difference(holes[kept], SECOND[kept], IMAGES[kept], CLASSES[kept], seed=1)
    same(figures.differences[0], expected)


def test_a_subset_without_rows_is_empty_and_no_error() -> None:
    figures = Figures(seed=0)
    figures.add_means("rate", {"a": FIRST, "b": SECOND}, IMAGES, CLASSES, rows=np.zeros(90, dtype=bool))
    for found in (*figures.figures, *figures.differences):
        assert (found["rows"], found["images"]) == (0, 0)
        assert np.isnan(found["estimate"])


def test_rows_keep_their_images_and_classes() -> None:
    frame = pd.DataFrame(
        {
            "image_id": [2, 1, 1, 2, 1, 1],
            "category_id": [5, 7, 3, 5, 7, 3],
            "method": ["a", "a", "a", "b", "b", "b"],
            "hit": [True, False, True, False, True, None],
        }
    )
    images, classes = keys(frame)
    assert list(zip(images, classes, strict=True)) == [(1, 3), (1, 7), (2, 5)]
    table = wide(frame, "hit")
    np.testing.assert_array_equal(table["a"], [1, 0, 1])
    np.testing.assert_array_equal(table["b"], [np.nan, 1, 0])
    with pytest.raises(ValueError, match="duplicate"):
        wide(pd.concat([frame, frame.iloc[:1]]), "hit")


def test_the_ratio_of_one_class_is_the_metrics_ratio_of_means() -> None:
    # One key point a row, some missing: sums and numbers of the present ones.
    eyes, feet = RNG.random(30), RNG.random(30)
    eyes[::4] = np.nan
    weights = RNG.integers(0, 3, (50, 30)).astype(float)

    def sums(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.nan_to_num(values), np.isfinite(values).astype(float)

    statistic = mean_ratio(sums(eyes), sums(feet), np.zeros(30))
    np.testing.assert_allclose(statistic(weights), ratio_of_means(feet, eyes)(weights))


def test_classes_count_equally_in_the_mean_ratio() -> None:
    classes = np.array([0, 0, 0, 1])
    eyes, feet = (np.array([1.0, 1, 1, 1]), np.ones(4)), (np.array([2.0, 2, 2, 4]), np.ones(4))
    statistic = mean_ratio(eyes, feet, classes)
    np.testing.assert_allclose(statistic(np.ones((1, 4))), [3.0])
    # A resample without the second class.
    np.testing.assert_allclose(statistic(np.array([[1.0, 0, 2, 0]])), [2.0])


def test_groups_of_the_paper_and_of_taxonomy() -> None:
    # Indigo bunting is among the paper's classes; albatross and bull mastiff are a bird and a dog; 505 is a coffeepot.
    assert [group_of(index) for index in (14, 146, 243, 505)] == ["bird", "bird", "dog", "other"]
