"""What all studies are: questions that are asked once, and one file in data/measured that a chapter reads.

A study is a function from the command's options to a :class:`Study`. What takes hours is kept line by line in a file of
the user's (:class:`Kept`), so that a second start goes on. A mistake of the user's ends in one line and status 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from measured import FOLDER, write_measured

from perturb_tutorial.benchmarks.store import BenchmarkError


class Study(NamedTuple):
    """What was found: its file's ``name``, the ``command`` that finds it, a ``note`` for readers, the ``summary``."""

    name: str
    command: str
    note: str
    summary: Mapping[str, Any]


def parser_of(description: str, *, runs: bool = False, splits: str | None = None) -> argparse.ArgumentParser:
    """A parser, for COCO's folder and RUN… or SPLIT… where a study reads them; ``splits``: an example of one."""
    parser = argparse.ArgumentParser(description=description)
    if runs or splits:
        parser.add_argument("data", type=Path, metavar="COCO", help="COCO's folder")
    if runs:
        parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="output folder of a run")
    if splits:
        parser.add_argument("splits", nargs="+", metavar="SPLIT", help=f"such as {splits}")
    return parser


def keeps_records(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """``parser`` with ``--records FILE``, for a study that goes on where it was stopped."""
    parser.add_argument("--records", type=Path, required=True, metavar="FILE", help="created, or continued")
    return parser


def run_study(
    parser: argparse.ArgumentParser,
    study: Callable[[argparse.Namespace], Study],
    argv: Sequence[str] | None = None,
) -> int:
    """Makes a study's file and returns the exit status."""
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the file goes")
    options = parser.parse_args(argv)
    try:
        path = write_measured(*study(options), options.folder)
    except (ValueError, OSError, BenchmarkError) as error:
        print(f"{study.__name__}: {error}", file=sys.stderr)
        return 2
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
    return 0


class Kept:
    """Rows that were found, one line of JSON for those that were found together."""

    def __init__(self, file: Path) -> None:
        self.file = file
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        self.rows: list[dict[str, Any]] = [row for line in lines for row in json.loads(line)]

    def add(self, found: list[dict[str, Any]]) -> None:
        """Keeps some more rows."""
        self.rows += found
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")


def split_names(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The splits of runs with these settings."""
    return [each["data"]["name"].removeprefix("instances_") for each in settings]
