"""The interface of a benchmark: its questions, the measurement on a map, and the figures computed from the records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from perturb_tutorial.baselines.registry import METHODS
from perturb_tutorial.benchmarks.data import BenchmarkData, read_photographs, read_samples
from perturb_tutorial.benchmarks.plan import Question
from perturb_tutorial.benchmarks.settings import BenchmarkSettings
from perturb_tutorial.networks import Network
from perturb_tutorial.places import Place

if TYPE_CHECKING:
    import pandas as pd

COMPARED = (
    "mask",
    "gradient",
    "guided_backprop",
    "excitation_backprop",
    "contrastive_excitation_backprop",
    "grad_cam",
    "occlusion",
)
"""The paper's method and the six that it is compared with (§3)."""

COMMON = {
    "category_id": "int64",
    "category": "string",
    "method": "string",
    "problem": "string",
    "usable": "bool",
    "converged": "bool",
    "score": "double",
    "seconds": "double",
}
"""Columns of every record beside image_id: ``problem`` is what is wrong with the image (then nothing is measured),
``usable`` whether the map is finite and not all zero, ``converged`` of a mask, ``score`` that of the targets on the
image."""


@dataclass(frozen=True, eq=False)
class View:
    """One method's result for one question, with the image (C×H×W) and its ``size`` (height, width) in its file.

    ``heat`` is h×w, raw scale; None for a method that has none. ``point``: (x, y) in px of the input, of a method
    that chooses a point itself. ``score``: of the targets, ``top``: the class with the highest score.
    """

    question: Question
    image: Tensor
    size: tuple[int, int]
    method: str
    heat: NDArray[np.float32] | None
    point: tuple[float, float] | None
    score: float
    top: int
    network: Network
    settings: BenchmarkSettings


class Benchmark(ABC):
    """One of the paper's measurements, or an additional one.

    Attributes:
        name: as the command line and records call it.
        about: the question that it answers, one line.
        methods: evaluated where the settings name none.
        own_methods: names of methods that only this benchmark has.
        columns: the columns of :meth:`measure`, Arrow's types by name.
        points: whether a method that chooses a point itself is evaluated by that point instead of its map.
        reads_grid: whether the map of a learned mask is the grid that was optimized, which saturates at exactly 1,
            instead of the softened mask on the image.
        predicted_targets: whether a mask is learned for the best predicted classes instead of the question's, where the
            settings' ``target_count`` is above 1.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    methods: ClassVar[tuple[str, ...]] = COMPARED
    own_methods: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[dict[str, str]]
    points: ClassVar[bool] = False
    reads_grid: ClassVar[bool] = False
    predicted_targets: ClassVar[bool] = False

    def chosen_methods(self, settings: BenchmarkSettings) -> tuple[str, ...]:
        """The methods that are evaluated; ``ValueError`` lists the known ones if a name is unknown."""
        known = (*self.own_methods, *METHODS)
        for name in settings.methods:
            if name not in known:
                raise ValueError(f"methods: expected some of {', '.join(known)}, got {name!r}")
        return settings.methods or self.methods

    def read(
        self, root: Place, split: str | None = None, *, images: str | Place | None = None, near: bool = False
    ) -> BenchmarkData:
        """The data in the folder ``root``, for which ``read_data`` has the arguments."""
        return read_photographs(root, split, near=near)

    def read_samples(self) -> BenchmarkData:
        """The package's own photographs."""
        return read_samples()

    def first_step(self) -> Benchmark | None:
        """What is measured before, since this benchmark's questions depend on it; None where they do not."""
        return None

    def questions(self, data: BenchmarkData, settings: BenchmarkSettings) -> list[Question]:
        """The questions for every method, image by image, before ``settings.limit``."""
        return data.questions()

    def questions_after(
        self, questions: list[Question], records: pd.DataFrame, settings: BenchmarkSettings
    ) -> list[Question]:
        """What is asked after the first step, from its questions and records."""
        return questions

    @abstractmethod
    def measure(self, view: View) -> dict[str, Any]:
        """The record's ``columns`` for one result."""

    @abstractmethod
    def figures(self, records: pd.DataFrame, settings: BenchmarkSettings) -> dict[str, Any]:
        """The content of summary.json, from the records of images without a problem: figures and differences."""
