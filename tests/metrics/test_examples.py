"""The examples in the metrics' docstrings run and give what they say."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    "name", ["animal_parts", "faithfulness", "grid_pointing", "heatmaps", "localization", "pointing"]
)
def test_examples_run(name: str) -> None:
    result = doctest.testmod(import_module(f"perturb_tutorial.metrics.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
