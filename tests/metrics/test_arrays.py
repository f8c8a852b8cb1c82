"""What the metrics read: arrays, lists and tensors in every state; what is no number is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from perturb_tutorial import metrics
from perturb_tutorial.metrics.heatmaps import as_array, as_whole
from perturb_tutorial.plotting import as_heat, as_picture

VALUES = np.array([[0.0, 0.5, 0.25], [1.0, -2.0, 0.125]])  # exact in bfloat16 and float16


def inference() -> torch.Tensor:
    with torch.inference_mode():
        return torch.from_numpy(VALUES) * 1


STATES: dict[str, Callable[[], Any]] = {
    "gradient": lambda: torch.from_numpy(VALUES).requires_grad_(),
    "a result with gradient": lambda: torch.from_numpy(VALUES).requires_grad_() * 1,
    "bfloat16": lambda: torch.from_numpy(VALUES).bfloat16(),
    "float16": lambda: torch.from_numpy(VALUES).half().requires_grad_(),
    "inference mode": inference,
    "rows": lambda: list(torch.from_numpy(VALUES).bfloat16().requires_grad_()),
    "numbers": lambda: [
        [value.requires_grad_() for value in row] for row in torch.from_numpy(VALUES).float()
    ],
    "transposed": lambda: torch.from_numpy(VALUES.T.copy()).T,
    "objects": lambda: VALUES.astype(object),
    "float32": lambda: VALUES.astype(np.float32),
}


@pytest.mark.parametrize("state", STATES)
def test_tensors_in_every_state_are_read(state: str) -> None:
    np.testing.assert_array_equal(as_array(STATES[state](), "heat"), VALUES)
    assert metrics.maximum_point(STATES[state]()) == (0.0, 1.0)
    np.testing.assert_array_equal(
        metrics.resize_map(STATES[state](), (4, 6)), metrics.resize_map(VALUES, (4, 6))
    )
    np.testing.assert_array_equal(metrics.cell_shares(STATES[state](), 1), [[1.0]])
    np.testing.assert_array_equal(metrics.curve_area(STATES[state]()), metrics.curve_area(VALUES))


def test_every_metric_takes_tensors() -> None:
    hits = torch.tensor([1, 0, 1]).bfloat16().requires_grad_()
    assert metrics.precision(hits, torch.tensor([1, 1, 2])) == 0.75
    assert metrics.bootstrap(hits, torch.tensor([1, 2, 3]), resamples=50).estimate == pytest.approx(2 / 3)
    box = torch.tensor([[0, 0, 9, 9.0]], requires_grad=True)
    assert metrics.iou(box, [[0, 0, 9, 4]]) == [[0.5]]
    assert metrics.window_means(torch.ones(3, 3, requires_grad=True), box[:, :2], 1) == [1.0]
    mask = torch.ones(4, 4, dtype=torch.bool)
    assert metrics.is_hit(torch.tensor([1.0, 2.0], requires_grad=True), mask)  # type: ignore[arg-type]
    assert metrics.scale_boxes(box, torch.Size([10, 10]), (20, 20)).tolist() == [[0, 0, 19, 19]]
    assert as_heat(torch.ones(2, 2).bfloat16().requires_grad_()).tolist() == [[1, 1], [1, 1]]
    assert as_picture(torch.ones(3, 2, 2).bfloat16()).shape == (2, 2, 3)


@pytest.mark.parametrize(
    "values",
    [
        [[1j, 2]], torch.ones(2, 2, dtype=torch.complex64), [["1", "2"]], [[None, 1.0]], [[1], [1, 2]], "map", None,
        torch.ones(2, 2).to_sparse(), torch.ones(2, 2, device="meta"), {"a": 1},
    ],
    ids=lambda values: str(type(values).__name__),
)  # fmt: skip
def test_what_holds_no_real_numbers_is_refused_in_a_line(values: Any) -> None:
    with pytest.raises(ValueError, match=r"^heat: expected real numbers") as refusal:
        metrics.maximum_point(values)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("classes", [[1.5], [float("nan")], [float("inf")]])
def test_half_a_class_is_refused(classes: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^classes: expected whole numbers"):
        metrics.precision([1], classes)
    assert as_whole([2.0, 3.0], "classes").dtype == np.int64


@pytest.mark.parametrize("size", [(0, 3), (2.5, 3), (float("inf"), 3), (True, True), (3,), "33"])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match=r"^size: expected"):
        metrics.resize_map(VALUES, size)
