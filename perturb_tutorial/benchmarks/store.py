"""Records: a folder of Parquet files, each put into place whole, and the settings that they depend on.

    DIR/settings.json                          what the records depend on; another run must have the same
    DIR/records.parquet/part-00000012.parquet  the rows of batch 12

The folder is one of this machine or of a bucket (module ``places``). A file that exists is complete, so nothing is
lost, half written or computed twice: a process that is killed leaves at most a temporary file, whose name begins with
a dot and which pandas does not read; a bucket's objects are there whole or not at all. A part that is damaged or has
rows of another plan is set aside as ``_damaged-part-….parquet``, which pandas does not read either, and its batch is
done again. Settings and summary are files of module ``sealed``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perturb_tutorial._words import counted
from perturb_tutorial.benchmarks.claims import Claim as Claim
from perturb_tutorial.benchmarks.claims import claim as claim
from perturb_tutorial.benchmarks.errors import BenchmarkError as BenchmarkError
from perturb_tutorial.benchmarks.errors import unwritable
from perturb_tutorial.benchmarks.parts import DamagedPart, packed, unpacked
from perturb_tutorial.places import Place, as_place, lies_there, matching, write_part
from perturb_tutorial.places.buckets import BucketPath, ahead
from perturb_tutorial.places.requests import BucketError as BucketError
from perturb_tutorial.sealed import MARKS, marked, read_own, write_own

if TYPE_CHECKING:
    import pandas as pd

PREFIX, SUFFIX = "part-", ".parquet"
RECORDS, SETTINGS, SUMMARY = "records.parquet", "settings.json", "summary.json"
PARTS_AT_ONCE = 1000
"""Parts that are read before they become one table: each by itself takes some kilobytes beside its rows."""
NO_CHECKSUM = "it has no checksum"
KEYS = ("image_id", "category_id", "method")
"""Columns that no two records of a run have in common."""
Key = tuple[int | str, int, str]
"""Their values in one record."""

_SETTINGS_KEYS = {"benchmark", "methods", "network", "data"}
_SUMMARY_KEYS = {"benchmark", "about", "records", "figures"}
"""Of files from before these were marked as the program's own."""


def parquet() -> tuple[Any, Any]:
    """The modules ``pyarrow`` and ``pyarrow.parquet``; ``ImportError`` gives the command that installs them."""
    try:
        import pandas  # noqa: F401  (the summary needs it: better missing now than after hours)
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "benchmarks need the packages pandas and pyarrow: pip install 'perturb_tutorial[benchmarks]'"
        ) from error
    return pyarrow, pyarrow.parquet


def read_records(folder: str | Path | BucketPath) -> pd.DataFrame:
    """The records under ``folder`` (a run's output, or its records.parquet), one row an image, class and method.

    The folder may be a URL, ``file:///…`` or ``s3://bucket/…``.
    """
    parquet()
    path = as_place("folder", folder)
    path = path if path.name.endswith(SUFFIX) else path / RECORDS
    files = [path]
    if path.is_dir():
        part_numbers(path)
        files = matching(path, f"{PREFIX}*{SUFFIX}")
    if not files:
        raise BenchmarkError(f"{path} has no records; start the run's command again")
    parts = dict(zip(files, (part() for part in ahead(_part, files)), strict=True))
    signed = [file for file, (_, has_checksum) in parts.items() if has_checksum]
    for file in parts if signed else ():  # those of earlier versions have no checksum, all of them
        if file not in signed:
            raise _damaged(file, NO_CHECKSUM)
    return _together([table for table, _ in parts.values()], path)


def _part(path: Place) -> tuple[Any, bool]:
    try:
        return unpacked(path)
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be read ({error.strerror or error})") from error
    except DamagedPart as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Place, why: str) -> BenchmarkError:
    return BenchmarkError(
        f"{path} is damaged: {why}; start the run's command again, which does its records again"
    )


def _together(tables: Sequence[Any], path: Place) -> pd.DataFrame:
    arrow, _ = parquet()
    try:
        frame: pd.DataFrame = arrow.concat_tables(tables).to_pandas()
    except ValueError as error:
        raise BenchmarkError(f"{path} has parts of different columns; are they of one run?") from error
    return frame


def part_numbers(folder: Place) -> set[int]:
    """The numbers of the batches whose files are in ``folder``.

    ``BenchmarkError`` names a file that is no part of the records, such as a copy: pandas would read it, too.
    """
    numbers = set()
    for entry in folder.iterdir():
        if entry.name.startswith((".", "_")):  # pandas does not read these
            continue
        found = re.fullmatch(rf"{PREFIX}(\d{{8,}}){re.escape(SUFFIX)}", entry.name)
        if found is None:
            raise BenchmarkError(
                f"{entry} is no part of the run's records; move it elsewhere and start again"
            )
        numbers.add(int(found[1]))
    return numbers


class Store:
    """The records of one plan under ``folder``; ``columns``: Arrow's type by name, such as "double".

    ``held``: the claim on the folder, without which nothing is written any more.
    """

    def __init__(self, folder: Place, columns: Mapping[str, str], held: Claim | None = None) -> None:
        self.folder, self._held = folder, held
        self._arrow, _ = parquet()
        self._schema = self._arrow.schema(
            [(name, _type(self._arrow, kind)) for name, kind in columns.items()]
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for entry in folder.iterdir():
                # The unfinished file of a run that was killed.
                if entry.name.startswith(f".{PREFIX}"):
                    entry.unlink()
        except OSError as error:
            raise unwritable(folder, error) from error

    def done(self) -> set[int]:
        """Numbers of the batches that are finished."""
        return part_numbers(self.folder)

    def check(self, expected: Callable[[int], Sequence[Key]]) -> list[str]:
        """Sets aside each part that is damaged, or has other rows than ``expected`` of its number; a line for each.

        ``expected`` gives the keys of a batch's rows in their order. Errors: ``BenchmarkError`` where a part cannot be
        read or renamed.
        """
        lines = []
        numbers = sorted(self.done())
        paths = [self._path(number) for number in numbers]
        for number, path, part in zip(numbers, paths, ahead(unpacked, paths), strict=True):
            try:
                table, signed = part()
                wrong = self._wrong(table, expected(number)) if signed else NO_CHECKSUM
            except OSError as error:
                raise BenchmarkError(f"{path} cannot be read ({error.strerror or error})") from error
            except DamagedPart as error:
                wrong = str(error)
            if wrong is not None:
                aside = path.with_name(f"_damaged-{path.name}")
                try:
                    path.replace(aside)  # type: ignore[arg-type]  # of one kind: made from each other
                except OSError as error:
                    raise unwritable(self.folder, error) from error
                again = counted(len(expected(number)), "record")
                lines.append(f"{path} is damaged: {wrong}; it is {aside.name} now, {again} of it done again")
        return lines

    def _wrong(self, table: Any, expected: Sequence[Key]) -> str | None:
        if table.schema != self._schema:
            return "it has other columns than this run"
        columns = (table[name].to_pylist() for name in KEYS)
        return None if list(zip(*columns, strict=True)) == list(expected) else "its rows are not of this run"

    def _path(self, number: int) -> Place:
        return self.folder / f"{PREFIX}{number:08d}{SUFFIX}"

    def append(self, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes the rows of batch ``number``; they are on the disk when this returns."""
        content = packed(rows, self._schema)
        if self._held is not None:
            self._held.check()
        try:
            write_part(self._path(number), content)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def read(self) -> pd.DataFrame:
        """All rows, ordered by image, class and method."""
        paths = [self._path(number) for number in sorted(self.done())]
        tables = [self._schema.empty_table()]
        for count, part in enumerate(ahead(_part, paths), 1):
            tables.append(part()[0])
            if count % PARTS_AT_ONCE == 0:
                tables = [self._arrow.concat_tables(tables).combine_chunks()]
        frame = _together(tables, self.folder)
        return frame.sort_values(list(KEYS), kind="stable", ignore_index=True)


def _type(arrow: Any, kind: str) -> Any:
    inner = kind.removeprefix("list ")
    alias = arrow.type_for_alias(inner)
    return arrow.list_(alias) if kind != inner else alias


def write_json(path: Place, content: Mapping[str, Any]) -> None:
    """Writes ``content`` to ``path`` with its checksum, whole or not at all."""
    try:
        write_own(path, content)
    except OSError as error:
        raise unwritable(path, error) from error


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it; NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if -float("inf") < value < float("inf") else None
    return value


def check_own(folder: Place) -> None:
    """``ValueError`` where ``folder`` holds settings, a summary or records that are somebody else's, or damaged."""
    for name, keys in ((SETTINGS, _SETTINGS_KEYS), (SUMMARY, _SUMMARY_KEYS)):
        with suppress(FileNotFoundError):
            _read_own(folder / name, keys)
    if not (folder / SETTINGS).exists():
        for name in (SUMMARY, RECORDS):
            if lies_there(folder / name):
                raise ValueError(f"output: {folder} holds {name} without {SETTINGS}; give another folder")


def _read_own(path: Place, keys: set[str]) -> Any:
    try:
        return read_own(path, lambda content: isinstance(content, dict) and content.keys() >= keys)
    except FileNotFoundError:
        raise
    except ValueError as error:
        raise ValueError(f"output: {error}; give another folder") from error


def present_settings(path: Place) -> dict[str, Any]:
    """The settings at ``path``; empty where there are none yet."""
    try:
        return dict(_read_own(path, _SETTINGS_KEYS))
    except FileNotFoundError:
        return {}


def agree(path: Place, settings: Mapping[str, Any]) -> None:
    """Writes ``settings`` to ``path``, or compares them with what is there: ``ValueError`` names what differs."""
    wanted = plain(marked(settings))
    present = present_settings(path)
    if not present:
        write_json(path, wanted)
        return
    if differences := different_settings(compared(present), compared(wanted)):
        raise ValueError(
            f"output: {path.parent} has records of other settings ({differences}); give another folder"
        )


def compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` and the package's version, without the other marks of the file."""
    return {key: value for key, value in settings.items() if key == "version" or key not in MARKS}


def different_settings(present: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first three differences between two tables of settings, in words; empty where they are equal."""
    old, new = _flat(present), _flat(wanted)
    different = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    differences = "; ".join(f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in different[:3])
    return differences + (f" and {len(different) - 3} more" if len(different) > 3 else "")


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, dict):
        return {prefix: content}
    parts = [_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in content.items()]
    return {name: value for part in parts for name, value in part.items()}
