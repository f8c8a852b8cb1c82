"""The plan: which method computes which questions about which images, in which batch.

Questions q_0 … q_{Q−1} are cut into chunks of B; batch k is chunk ⌊k / M⌋ by method k mod M, for M methods. The plan is
a pure function of data and settings, so a batch is the same whichever process computes it and when.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from perturb_tutorial.datasets.records import ImageRecord
from perturb_tutorial.settings import check_seed


@dataclass(frozen=True, slots=True)
class Mosaic:
    """cells × cells images in reading order, shown to the network as one."""

    id: str
    parts: tuple[ImageRecord, ...]
    cells: int


@dataclass(frozen=True, slots=True)
class Question:
    """Where is ``category`` in ``image``? ``targets``: the network's classes that stand for it (eq. 2).

    ``cell``: its cell in a mosaic. ``name``: the category's name.
    """

    image: ImageRecord | Mosaic
    category: int
    name: str
    targets: tuple[int, ...]
    cell: int = 0


class Batch(NamedTuple):
    """One method on some questions; ``number`` names the file of its records."""

    number: int
    questions: tuple[Question, ...]
    method: str


@dataclass(frozen=True)
class Plan:
    """Questions and methods, in batches of ``batch_size`` questions."""

    questions: tuple[Question, ...]
    methods: tuple[str, ...]
    batch_size: int

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.questions) // self.batch_size) * len(self.methods)

    @property
    def records(self) -> int:
        """Number of records, one for each question and method."""
        return len(self.questions) * len(self.methods)

    def batch(self, number: int) -> Batch:
        """Batch ``number``, from 0 to len(plan) − 1."""
        chunk, method = divmod(number, len(self.methods))
        start = chunk * self.batch_size
        return Batch(number, self.questions[start : start + self.batch_size], self.methods[method])

    def keys(self, number: int) -> list[tuple[int | str, int, str]]:
        """(image, category, method) of each record of batch ``number``, in their order; none beyond the last batch."""
        questions = self.batch(number).questions
        return [(question.image.id, question.category, self.batch(number).method) for question in questions]

    def without(self, done: set[int]) -> Iterator[Batch]:
        """The batches that are not ``done``, chunk by chunk."""
        return (self.batch(number) for number in range(len(self)) if number not in done)


def digest(questions: Sequence[Question]) -> str:
    """A short fingerprint of the questions: images, sizes, classes, targets, boxes and key points."""
    sha = hashlib.sha256()
    for question in questions:
        image = question.image
        content: list[object] = [str(image.id), question.category, list(question.targets), question.cell]
        if isinstance(image, ImageRecord):
            places = [
                [i.category, i.box, i.area, {k: list(v) for k, v in i.parts.items()}] for i in image.instances
            ]
            content += [image.path.name, image.height, image.width, image.label, image.truth, places]
        sha.update(json.dumps(content).encode())
    return sha.hexdigest()[:16]


def limited(questions: Sequence[Question], limit: int | None, seed: int) -> list[Question]:
    """The questions about at most ``limit`` images, drawn by ``seed``; a smaller limit is part of a larger one."""
    seed = check_seed(seed)
    ids = list(dict.fromkeys(str(question.image.id) for question in questions))
    if limit is None or limit >= len(ids):
        return list(questions)
    drawn = {ids[place] for place in np.random.default_rng(seed).permutation(len(ids))[:limit]}
    return [question for question in questions if str(question.image.id) in drawn]
