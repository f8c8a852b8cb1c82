"""A chapter's title, its promise and its time, read from the stored notebook.

The map of the book on the welcome page and the sums on the teachers' page are made from these, so that each time is
written once, in its chapter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

TIME_FORM = "**Time** 15 min to read, 1 min to run (quick run: 20 s, set `ITERATIONS = 50`)."
_TIME = re.compile(
    r"\*\*Time\*\*\s+(?P<read>\d+ min) to read, (?P<run>\d+ (?:min|s)) to run "
    r"\(quick run: (?P<quick>\d+ (?:min|s))(?:, (?P<how>[^)]+))?\)"
)
WORDS_A_MINUTE = 200  # of prose, read with care
LINES_A_MINUTE = 20  # of code that is open on the page
_HIDDEN = ("hide-input", "remove-cell", "remove-input", "solution")


class ChapterFactsError(ValueError):
    """A chapter lacks what the map of the book needs; the message names the chapter and the expected form."""


@dataclass(frozen=True)
class ChapterFacts:
    """Title and promise in the chapter's Markdown; the times in minutes, as the chapter states them."""

    name: str
    title: str
    promise: str
    read: float
    run: float
    quick: float
    how: str


def chapter_facts(path: Path) -> ChapterFacts:
    """Title, promise and times of the stored chapter at ``path``. Errors: :class:`ChapterFactsError`, one line."""
    notebook = nbformat.read(path, as_version=4)
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    opening = re.match(r"# ([^\n]+)\n\n\*([^*\n]+)\*", text)
    if opening is None:
        raise ChapterFactsError(f"{path.name}: expected a title and, below it, the promise in italics")
    time = _TIME.search(" ".join(text.split()))
    if time is None:
        raise ChapterFactsError(f"{path.name}: expected its time in the form `{TIME_FORM}`")
    return ChapterFacts(
        name=path.stem,
        title=opening.group(1),
        promise=opening.group(2),
        read=minutes(time["read"]),
        run=minutes(time["run"]),
        quick=minutes(time["quick"]),
        how=time["how"] or "",
    )


def minutes(text: str) -> float:
    """``"2 min"`` → 2.0, ``"30 s"`` → 0.5."""
    number, unit = text.split()
    return float(number) if unit == "min" else float(number) / 60


def spoken(value: float) -> str:
    """A time in minutes in words: 0.5 → ``"30 s"``, 95 → ``"1 h 35 min"``."""
    if value < 1:
        return f"{round(value * 60)} s"
    whole = round(value)
    return f"{whole} min" if whole < 60 else f"{whole // 60} h {whole % 60:02d} min"


def reading_minutes(notebook: NotebookNode) -> float:
    """An estimate from the length of prose and open code, for a check of the stated one."""
    words = lines = 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if any(tag in _HIDDEN for tag in tags):
            continue
        if cell.cell_type == "markdown":
            words += len(re.findall(r"\w+", cell.source))
        else:
            lines += sum(bool(line.strip()) for line in cell.source.splitlines())
    return words / WORDS_A_MINUTE + lines / LINES_A_MINUTE
