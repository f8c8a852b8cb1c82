"""What was measured on data that cannot be shipped: COCO, ImageNet, animal parts.

A benchmark on them takes hours, so a chapter reads its summary from ``data/measured/NAME.json``, which
``studies/measured.py`` makes from a run's own summary. Each file states the command that measured it; COCO, IMAGENET
and ANIMAL_PARTS in it stand for the reader's own folders.

>>> grid = measured("grid_pointing_game")
>>> 0 < grid.figure("share", "mask", subset="all").estimate < 1
True
>>> grid.difference("share", "mask", "gradient", subset="all").low < 1
True
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from perturb_tutorial.files import resource
from perturb_tutorial.metrics.intervals import Interval

FOLDER = "measured"
_NUMBERS = ("estimate", "low", "high", "rows", "images")
_NO_LABELS = (*_NUMBERS, "reason")


@dataclass(frozen=True)
class Measured:
    """One run: the ``command`` that measured it, a ``note``, the ``versions`` of what it ran on, its ``summary``.

    ``summary`` is the run's summary.json without what no chapter needs: ``figures`` and ``differences`` (lists),
    ``records`` (counts, and the mean seconds of a record by method), ``settings``, and further tables of the benchmark.
    """

    name: str
    command: str
    note: str
    versions: Mapping[str, str]
    summary: Mapping[str, Any]

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that have figures, in the run's order."""
        return tuple(dict.fromkeys(str(row["method"]) for row in self._rows("figures")))

    @property
    def seconds(self) -> dict[str, float]:
        """Mean seconds of a record by method."""
        return {str(name): float(value) for name, value in self.summary["records"]["seconds"].items()}

    def figure(self, name: str, method: str, **labels: Any) -> Interval:
        """The figure ``name`` of ``method`` with its 95 % interval; ``labels`` such as ``subset="difficult"``.

        Errors: ``ValueError`` where not exactly one figure matches.
        """
        return self._one("figures", {"name": name, "method": method, **labels})

    def difference(self, name: str, first: str, second: str, **labels: Any) -> Interval:
        """The paired difference of the figure ``name``, ``first`` minus ``second``, with its 95 % interval.

        The two methods may be given in either order. Errors: ``ValueError`` where not exactly one difference matches.
        """
        wanted = {"name": name, "method": second, "minus": first, **labels}
        if any(_agrees(row, wanted) for row in self._rows("differences")):
            found = self._one("differences", wanted)
            return Interval(-found.estimate, -found.high, -found.low, found.rows, found.images)
        return self._one("differences", {"name": name, "method": first, "minus": second, **labels})

    def _rows(self, kind: str) -> Sequence[Mapping[str, Any]]:
        rows: Sequence[Mapping[str, Any]] = self.summary.get(kind, ())
        return rows

    def _one(self, kind: str, wanted: Mapping[str, Any]) -> Interval:
        rows = self._rows(kind)
        found = [row for row in rows if _agrees(row, wanted)]
        if len(found) == 1:
            return _interval(found[0])
        wanted_text = ", ".join(f"{key} {value}" for key, value in wanted.items())
        near = found or [row for row in rows if row["name"] == wanted["name"]] or rows
        labels: dict[str, dict[str, None]] = {}
        for row in near:
            for key, value in row.items():
                if key not in _NO_LABELS:
                    labels.setdefault(key, {})[str(value)] = None
        present = "; ".join(f"{key}: {', '.join(values)}" for key, values in labels.items())
        raise ValueError(
            f"{self.name} has {len(found)} {kind} with {wanted_text}; there are {present or 'none'}"
        )


def measured_names() -> tuple[str, ...]:
    """The names of all that was measured, in alphabetical order."""
    return tuple(sorted(path.stem for path in resource(FOLDER).glob("*.json")))


@cache
def measured(name: str) -> Measured:
    """The stored run called ``name``; ``ValueError`` lists the stored ones if it is not among them."""
    names = measured_names()
    if name not in names:
        raise ValueError(f"name: expected one of {', '.join(names)}, got {name!r}")
    content = json.loads(resource(f"{FOLDER}/{name}.json").read_text(encoding="utf-8"))
    return Measured(name, content["command"], content["note"], content["versions"], content["summary"])


def _agrees(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(key in row and row[key] == value for key, value in wanted.items())


def _interval(row: Mapping[str, Any]) -> Interval:
    # A figure without a measurement is null in JSON.
    estimate, low, high = (float("nan") if row[key] is None else float(row[key]) for key in _NUMBERS[:3])
    return Interval(estimate, low, high, int(row["rows"]), int(row["images"]))
