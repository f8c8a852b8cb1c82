"""results.json: what ``explain`` writes beside its pictures, and which files of the folder are the program's own.

    {…marks of module ``sealed``, "files": ["cat.png", "cat.npy", …], "entries": [{"image": "cat.jpg", …}, …]}

results.csv has the same entries as a table. ``files`` are what this run and earlier ones wrote, or are about to
write, in the folder. Only these are replaced.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from perturb_tutorial.files import whole_file
from perturb_tutorial.reading import read_bytes
from perturb_tutorial.sealed import LARGEST, lock, marked, read_own, write_own

NAME = "results.json"
TABLE = "results.csv"
SUFFIXES = (".png", ".npy")
"""Of the files that one image gets."""

_OLDER = {"image", "target", "method", "network", "seconds"}
"""Keys of each entry from the first on, when results.json was the list of them."""


class ResultFile:
    """results.json of one folder, while this process alone writes there: see :func:`result_file`."""

    def __init__(self, output: Path) -> None:
        self.output, self.path = output, output / NAME
        self._present = self._bytes()
        self._files: set[str] = set()
        self._entries: Sequence[Mapping[str, Any]] = []
        if self._present is not None:
            try:
                content = read_own(self.path, _is_older)
            except ValueError as error:
                raise ValueError(f"output: {error}; give another folder") from error
            self._entries = content["entries"] if isinstance(content, dict) else content
            self._files = _files_of(content)

    def check(self, names: Iterable[str], given: Iterable[Path]) -> None:
        """``ValueError`` where a file called one of ``names`` is there that no run wrote, or is one of ``given``."""
        photographs = {os.path.realpath(path) for path in given}  # resolve() raises on a link to itself
        for name in names:
            file = self.output / name
            taken = os.path.lexists(file) and name not in self._files
            if taken or os.path.realpath(file) in photographs:
                raise ValueError(
                    f"output: {self.output} holds {name}, which would be overwritten; give another folder"
                )

    def announce(self, files: Iterable[str]) -> None:
        """Makes the names ``files`` the program's own before they are written: so a later run may replace what a run
        that is stopped leaves. The entries stay as they are.
        """
        self._files |= set(files)
        self._write()

    def forget(self, files: Iterable[str]) -> None:
        """The names ``files`` were not written after all; the next :meth:`write` leaves them out."""
        self._files -= set(files)

    def write(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Writes ``entries`` in place of those that are there."""
        self._entries = entries
        self._write()

    def _write(self) -> None:
        """Errors: ``OSError`` where it cannot be written, ``ValueError`` where another process has written it."""
        if self._bytes() != self._present:
            raise ValueError(f"output: {self.path} was written by another run; give another folder")
        self._files.add(TABLE)
        content = {"files": sorted(self._files), "entries": list(self._entries)}
        self._present = write_own(self.path, marked(content))
        with whole_file(self.output / TABLE) as file:
            file.write(table(self._entries).encode("utf-8", "backslashreplace"))  # names as in JSON

    def _bytes(self) -> bytes | None:
        try:
            return read_bytes(self.path, LARGEST)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ValueError(f"output: {self.path} cannot be read ({error.strerror})") from error


def table(entries: Iterable[Mapping[str, Any]]) -> str:
    """``entries`` as CSV with a row each, for spreadsheets and data frames.

    A value inside another has a column of its own (``target.name``, ``settings.iterations``), the values of a list
    are joined by "; ", and a value that is None is an empty cell. Numbers are written as in JSON, so that none loses
    a digit.

    Examples:
        >>> print(table([{"image": "a.jpg", "target": {"index": [1, 2]}, "area": 0.25, "seed": None}]), end="")
        image,target.index,area,seed
        a.jpg,1; 2,0.25,
    """
    rows = [dict(_cells(entry)) for entry in entries]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    if columns:
        writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _cells(entry: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in entry.items():
        if isinstance(value, Mapping):
            yield from _cells(value, f"{before}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{before}{name}", "; ".join(map(_cell, value))
        else:
            yield f"{before}{name}", _cell(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _is_older(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(e, dict) and e.keys() >= _OLDER for e in content)


def _files_of(content: Any) -> set[str]:
    if isinstance(content, dict):
        return set(content["files"])
    return {Path(str(entry["image"])).stem + suffix for entry in content for suffix in SUFFIXES}


@contextmanager
def result_file(output: Path) -> Iterator[ResultFile]:
    """The results of ``output``, an existing folder, for one process at a time.

    Errors: ``ValueError`` where another process writes there, or where results.json is somebody else's, or damaged.
    """
    folder = None
    with suppress(OSError):  # Windows opens no folders
        folder = os.open(output, os.O_RDONLY)
    try:
        if folder is not None and not lock(folder):
            raise ValueError(f"output: {output} is in use by another run; wait for it or give another folder")
        yield ResultFile(output)
    finally:
        if folder is not None:
            os.close(folder)
