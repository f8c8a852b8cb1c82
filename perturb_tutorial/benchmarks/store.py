"""Records on disk: a folder of Parquet files, each renamed into place whole, and the settings that they depend on.

    DIR/settings.json                          what the records depend on; another run must have the same
    DIR/records.parquet/part-00000012.parquet  the rows of batch 12

A file that exists is complete, so nothing is lost, half written or computed twice: a process that is killed leaves at
most a temporary file, whose name begins with a dot and which pandas does not read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from perturb_tutorial.files import whole_file
from perturb_tutorial.reading import open_lock, read_json

if TYPE_CHECKING:
    import pandas as pd

PREFIX, SUFFIX = "part-", ".parquet"
RECORDS, SETTINGS, SUMMARY, LOCK = "records.parquet", "settings.json", "summary.json", ".lock"
JSON_MEGABYTES = 100
"""Of a run's settings and summary, which lists what was left out."""


class BenchmarkError(RuntimeError):
    """Records that cannot be written or read, workers that die; the message is one line that says what to do."""


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


def read_records(folder: str | Path) -> pd.DataFrame:
    """The records under ``folder`` (a run's output, or its records.parquet), one row an image, class and method."""
    parquet()
    import pandas as pd

    path = Path(folder)
    path = path if path.name.endswith(SUFFIX) else path / RECORDS
    if path.is_dir():
        part_numbers(path)
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BenchmarkError(
            f"{path} cannot be read ({reason}); delete the file named and start again"
        ) from error


def part_numbers(folder: Path) -> set[int]:
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
    """The records of one plan under ``folder``; ``columns``: Arrow's type by name, such as "double"."""

    def __init__(self, folder: Path, columns: Mapping[str, str]) -> None:
        self.folder = folder
        self._arrow, self._parquet = parquet()
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

    def append(self, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes the rows of batch ``number``; they are on the disk when this returns."""
        table = self._arrow.Table.from_pylist([dict(row) for row in rows], schema=self._schema)
        try:
            with whole_file(self.folder / f"{PREFIX}{number:08d}{SUFFIX}") as file:
                self._parquet.write_table(table, file)
                _flush(file)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def read(self) -> pd.DataFrame:
        """All rows, ordered by image, class and method."""
        frame = read_records(self.folder)
        return frame.sort_values(["image_id", "category_id", "method"], kind="stable", ignore_index=True)


def _type(arrow: Any, kind: str) -> Any:
    inner = kind.removeprefix("list ")
    alias = arrow.type_for_alias(inner)
    return arrow.list_(alias) if kind != inner else alias


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def unwritable(path: Path, error: OSError) -> BenchmarkError:
    """The error, one line, for a file that could not be written."""
    reason = error.strerror or str(error)
    return BenchmarkError(
        f"{path} cannot be written ({reason}); what is written is whole: make room and start again"
    )


def write_json(path: Path, content: Any) -> None:
    """Writes ``content`` to ``path``, whole or not at all."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with whole_file(path) as file:
            file.write(text.encode("utf-8", "backslashreplace"))  # a folder's name may be no UTF-8
            _flush(file)
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


def claim(folder: Path) -> IO[bytes]:
    """Locks ``folder`` until the returned file is closed or the process ends, for whatever reason."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open_lock(folder / LOCK)
    except OSError as error:
        raise unwritable(folder, error) from error
    with suppress(ImportError):  # not on Windows, where two runs at once are not noticed
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise BenchmarkError(
                f"{folder} is in use by another run; wait for it or give another folder"
            ) from None
        except OSError:
            pass  # a file system without locks
    return file


def agree(path: Path, settings: Mapping[str, Any]) -> None:
    """Writes ``settings`` to ``path``, or compares them with what is there: ``ValueError`` names what differs."""
    wanted = plain(settings)
    if not path.exists():
        write_json(path, wanted)
        return
    try:
        present = read_json(path, JSON_MEGABYTES, depth=100)
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path} cannot be read ({error}); give another folder") from error
    if differences := different_settings(present, wanted):
        raise ValueError(
            f"output: {path.parent} has records of other settings ({differences}); give another folder"
        )


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
