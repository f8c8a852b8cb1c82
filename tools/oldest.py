"""Write `constraints-oldest.txt`, the oldest direct requirements that pyproject.toml allows: `python tools/oldest.py`.

A bound `name>=1.2` promises that 1.2 works; the workflow's job with these constraints tries it. What the requirements
need in turn stays open, as for a user who holds back one package. Packages of the extra `peers` are left out: they
are compared with, not used.

    python tools/oldest.py [--check]
    python tools/environment.py --constraints constraints-oldest.txt
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "constraints-oldest.txt"
LEFT_OUT = {"peers", "node"}  # node: npm is no part of what the package runs on
BOUND = re.compile(r"([\w.-]+)(?:\[[\w,.-]+\])?>=([\w.]+)(?:,<[\w.]+)?")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write constraints-oldest.txt from pyproject.toml.")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if the file differs")
    text = oldest(ROOT / "pyproject.toml")
    if parser.parse_args(argv).check:
        return int(FILE.read_text(encoding="utf-8") != text)
    FILE.write_text(text, encoding="utf-8")
    return 0


def oldest(pyproject: Path) -> str:
    """One pin a line, of each requirement's lower bound; ``ValueError`` where a requirement has none."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = project.get("optional-dependencies", {})
    wanted = [*project["dependencies"], *(r for name in extras if name not in LEFT_OUT for r in extras[name])]
    lines = ["# The oldest direct requirements of pyproject.toml; tools/oldest.py writes this file."]
    for requirement in wanted:
        bound = BOUND.fullmatch(requirement)
        if bound is None:
            raise ValueError(f"{pyproject}: expected name>=version, got {requirement!r}")
        lines.append(f"{bound[1]}=={bound[2]}")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
