"""What the tools that make files of the site's pages share: their command line, and files written whole."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class LiveError(Exception):
    """Something that the live page needs is missing; the message says what to do."""


def command(
    name: str,
    what: str,
    stored: Path,
    precompute: Callable[[], Any],
    make: Callable[[Path], None],
    argv: list[str] | None,
    made: Path,
) -> int:
    """A tool that brings the folder ``made`` up to date, or with an option computes the file ``stored`` anew."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--precompute", action="store_true", help=f"compute {stored.relative_to(ROOT)} anew")
    options = parser.parse_args(argv)
    try:
        if options.precompute:
            write_whole(stored, json.dumps(precompute(), separators=(",", ":")).encode() + b"\n")
        else:
            make(made)
    except LiveError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


def write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
