"""Where the package's own data files are, what output files are called, and how they are written: whole or not at all.

The project keeps its data in the top-level folder ``data/``. A checkout has that folder beside the package, a
wheel contains it as ``perturb_tutorial/data/``.
"""

from __future__ import annotations

import atexit
import csv
import os
import re
import secrets
import shutil
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

_PACKAGE = Path(__file__).resolve().parent

MOST_BYTES = 240
"""Of a stem in UTF-8, so that a number and .npy still fit into the 255 that file systems take."""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_DEVICES = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{digit}" for port in ("COM", "LPT") for digit in "123456789¹²³"),
}


def resource(relative: str) -> Path:
    """Path of a file or folder of ``data/``, such as ``"paper/fig11.csv"``.

    Raises ``FileNotFoundError`` when neither the wheel's nor the checkout's folder holds it, and
    ``ValueError`` when ``relative`` leads out of the folder.
    """
    parts = Path(relative)
    if parts.is_absolute() or ".." in parts.parts:
        raise ValueError(f"relative: expected a path below data/, got {relative!r}")
    # Beside an installed wheel, in site-packages, another package may have a folder `data/`.
    for folder in (_PACKAGE / "data", _PACKAGE.parent / "data", *_unpacked()):
        if (folder / parts).exists():
            return folder / parts
    raise FileNotFoundError(f"the package's data file {relative} is missing; install perturb_tutorial again")


@cache
def _unpacked() -> list[Path]:
    """The folders ``data/`` of a package that is imported from a zip file, in a copy that this process has."""
    archive = getattr(globals()["__loader__"], "archive", None)  # zipimport's
    if archive is None:
        return []
    inside = _PACKAGE.relative_to(Path(archive).resolve())
    folders = [inside / "data", inside.parent / "data"]
    copy = Path(tempfile.mkdtemp(prefix="perturb_tutorial_"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    with zipfile.ZipFile(archive) as file:
        wanted = tuple(f"{folder.as_posix()}/" for folder in folders)
        file.extractall(copy, [name for name in file.namelist() if name.startswith(wanted)])
    return [copy / folder for folder in folders]


def read_table(relative: str) -> list[dict[str, str]]:
    """Rows of a CSV file of ``data/`` as dictionaries, in the file's order."""
    with resource(relative).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def unique_stems(names: Sequence[str]) -> list[str]:
    """The stem of each name's files, equal ones with _2, _3 and so on.

    Each is a file name on every system: cut to 240 bytes, without control characters, and no name of a Windows device
    such as CON. Case and the composition of accents are ignored in the comparison, as some file systems do.
    """
    taken: set[str] = set()
    stems = []
    for name in names:
        base = _CONTROL.sub("_", Path(name).stem) or "image"
        if base.partition(".")[0].rstrip(" ").upper() in _DEVICES:
            base = f"_{base}"
        while len(base.encode("utf-8", "surrogatepass")) > MOST_BYTES:
            base = base[:-1]
        stem, number = base, 1
        while _as_one_file(stem) in taken:
            number += 1
            stem = f"{base}_{number}"
        taken.add(_as_one_file(stem))
        stems.append(stem)
    return stems


def _as_one_file(stem: str) -> str:
    """Equal for stems that are one file on a file system without case, or with one composition of accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", stem).casefold())


@contextmanager
def whole_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that appears at ``path`` when the block ends without an error, and never half written.

    Raises ``OSError`` with the name of ``path`` where it cannot be written, such as on a full disk.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}")
    with _naming(path, temporary):
        # As open() makes a file, so that the system takes the process's umask off; nobody else's file is opened.
        file = open(temporary, "xb")  # noqa: SIM115  (closed below; a file that was not opened is not removed)
        try:
            with file:
                yield file
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def flush(file: IO[bytes]) -> None:
    """Waits until what was written to ``file`` is on the disk."""
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _naming(path: Path, temporary: Path) -> Iterator[None]:
    """Errors of the system in the block that name no file, or ``temporary``, name ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
