"""The JSON files that the program writes and reads again: marked as its own, with a format, a version and a checksum.

    {"program": "perturb-tutorial", "format": 1, "version": "0.1.0", …, "checksum": "…"}

The checksum is of the content, not of its layout. A file without the mark is somebody else's, and is neither read nor
replaced; what this program wrote before there were marks is recognized by its structure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from perturb_tutorial import __version__
from perturb_tutorial.places import Place, write_whole
from perturb_tutorial.reading import read_json

PROGRAM = "perturb-tutorial"
FORMAT = 1
CHECKSUM = "checksum"
MARKS = ("program", "format", "version", CHECKSUM)
LARGEST = 1_000
"""MB of the largest file that is read."""


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of plain values, whatever their order; ``checksum`` itself is left out."""
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def marked(content: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` with the program's name, the format and the package's version before it."""
    return {"program": PROGRAM, "format": FORMAT, "version": __version__, **content}


def write_own(path: Place, content: Mapping[str, Any]) -> bytes:
    """Writes :func:`marked` content and its checksum to ``path``, whole or not at all; returns the file's bytes."""

    # Bytes of a file name that are no UTF-8 become \udc.., which JSON reads back unchanged.
    text = (
        json.dumps({**content, CHECKSUM: digest(content)}, indent=2, ensure_ascii=False, allow_nan=False)
        + "\n"
    )
    written = text.encode("utf-8", "backslashreplace")
    write_whole(path, written)
    return written


def read_own(path: Place, older: Callable[[Any], bool]) -> Any:
    """The content of a file that :func:`write_own` wrote, without the checksum.

    ``older`` recognizes the content of a file that the program wrote before there were marks.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: for any other file; the message is one sentence that begins with ``path``.
    """
    try:
        content = read_json(path, LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read (not whole JSON: {error})") from error
    if not isinstance(content, dict) or not any(mark in content for mark in MARKS):
        if older(content):
            return content
        raise ValueError(f"{path} is not a file that {PROGRAM} wrote")
    if content.get("program") != PROGRAM:
        raise ValueError(f"{path} is not a file that {PROGRAM} wrote")
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{path} has the format {content.get('format')!r}, this version of {PROGRAM} reads {FORMAT}"
        )
    if content.pop(CHECKSUM, None) != digest(content):
        raise ValueError(f"{path} is damaged: its checksum is not that of its content")
    return content


def lock(file: int) -> bool:
    """Whether this process now holds the open ``file`` alone, until it is closed; also where locks do not exist."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True
