"""Every number of the supplement beside ours: on which data, how comparable, and by which command.

``data/paper/numbers.csv`` has the printed numbers (:mod:`perturb_tutorial.datasets.paper`). This module gives, for each
of its keys, the source of ours: an expression of the package, such as
``perturb_tutorial.settings: MaskSettings().iterations``, or a figure of a run that is stored in ``data/measured``.
Nothing is typed in by hand; a number that was not measured has a note that says why.

A row's label is one of

    reproduced      the same quantity by the same rule: a setting that is used, or a table computed again
    scaled down     the same rule on less data, or with another network
    slip            printed by mistake; ours is what the argument leads to (see the book's page on slips)
    not measured    the reason is in the note
"""

from __future__ import annotations

import math
from typing import NamedTuple

from perturb_tutorial.datasets.paper import paper_numbers
from perturb_tutorial.study.measured import Measured, measured, measured_names
from perturb_tutorial.study.our_rows import Computed, Figure, Missing, Row, rows

LABELS = ("reproduced", "scaled down", "slip", "not measured")


class OurNumber(NamedTuple):
    """Our number for one key: ``value`` in the paper's unit (None where not measured) with its 95 % interval where it
    is a measurement, the data, its label, the command that computes it, and a remark.
    """

    key: str
    value: float | None
    low: float | None
    high: float | None
    on: str
    label: str
    command: str
    note: str


def our_number(key: str) -> OurNumber:
    """Our number for the printed number ``key``; ``ValueError`` for an unknown key."""
    known = rows()
    if key not in known:
        raise ValueError(f"key: no printed number {key!r}; there are {', '.join(known)}")
    return _resolved(key, known[key])


def our_numbers() -> dict[str, OurNumber]:
    """Our numbers for all printed ones, in the paper's order."""
    known = rows()
    return {key: _resolved(key, known[key]) for key in paper_numbers()}


def _resolved(key: str, row: Row) -> OurNumber:
    if isinstance(row, Computed):
        return OurNumber(key, float(row.value()), None, None, row.on, row.label, row.command, row.note)
    if isinstance(row, Figure) and row.run in measured_names():
        run = measured(row.run)
        on = _on(run)
        if callable(row.figure):
            return OurNumber(key, row.figure(run), None, None, on, row.label, run.command, row.note)
        if row.minus:
            found = run.difference(row.figure, row.method, row.minus, **row.labels)
        else:
            found = run.figure(row.figure, row.method, **row.labels)
        if math.isnan(found.estimate):
            return _missing(key, "the stored run has no such pair yet")
        numbers = (row.scale * value for value in (found.estimate, found.low, found.high))
        value, low, high = numbers
        counted = f"{on}, {found.images} images" if found.images else on
        return OurNumber(key, value, low, high, counted, row.label, run.command, row.note)
    return _missing(key, row.note if isinstance(row, Missing) else f"no run {row.run} is stored")


def _missing(key: str, why: str) -> OurNumber:
    return OurNumber(key, None, None, None, "", "not measured", "", why)


def _on(run: Measured) -> str:
    data = run.summary.get("data", {})
    return str(data.get("name", run.name)).replace("instances_", "COCO ").replace("_", " ")
