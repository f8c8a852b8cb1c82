"""Where the package's own data files are, and how output files are written: whole or not at all.

The project keeps its data in the top-level folder ``data/``. A checkout has that folder beside the package, a
wheel contains it as ``perturb_tutorial/data/``.
"""

from __future__ import annotations

import csv
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_PACKAGE = Path(__file__).resolve().parent


def resource(relative: str) -> Path:
    """Path of a file or folder of ``data/``, such as ``"paper/fig11.csv"``.

    Raises ``FileNotFoundError`` when neither the wheel's nor the checkout's folder holds it, and
    ``ValueError`` when ``relative`` leads out of the folder.
    """
    parts = Path(relative)
    if parts.is_absolute() or ".." in parts.parts:
        raise ValueError(f"relative: expected a path below data/, got {relative!r}")
    # Beside an installed wheel, in site-packages, another package may have a folder `data/`.
    for folder in (_PACKAGE / "data", _PACKAGE.parent / "data"):
        if (folder / parts).exists():
            return folder / parts
    raise FileNotFoundError(f"the package's data file {relative} is missing; install perturb_tutorial again")


def read_table(relative: str) -> list[dict[str, str]]:
    """Rows of a CSV file of ``data/`` as dictionaries, in the file's order."""
    with resource(relative).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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


@contextmanager
def _naming(path: Path, temporary: Path) -> Iterator[None]:
    """Errors of the system in the block that name no file, or ``temporary``, name ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
