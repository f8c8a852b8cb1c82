"""Where the package's own data files are.

The project keeps them in the top-level folder ``data/``. A checkout has that folder beside the package, a
wheel carries it inside, as ``perturb_tutorial/data/``.
"""

from __future__ import annotations

import csv
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource(relative: str) -> Path:
    """Path of a file or folder of ``data/``, such as ``"paper/fig11.csv"``.

    Raises ``FileNotFoundError`` when neither the wheel's nor the checkout's folder holds it, and
    ``ValueError`` when ``relative`` leads out of the folder.
    """
    parts = Path(relative)
    if parts.is_absolute() or ".." in parts.parts:
        raise ValueError(f"relative: expected a path below data/, got {relative!r}")
    # A wheel has no sibling `data/` of ours, but its parent (site-packages) may hold somebody else's.
    for folder in (_PACKAGE / "data", _PACKAGE.parent / "data"):
        if (folder / parts).exists():
            return folder / parts
    raise FileNotFoundError(f"the package's data file {relative} is missing; install perturb_tutorial again")


def read_table(relative: str) -> list[dict[str, str]]:
    """Rows of a CSV file of ``data/`` as dictionaries, in the file's order."""
    with resource(relative).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
