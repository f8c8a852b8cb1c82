"""Where data and results lie: a folder of this machine, or one in a bucket. The same code reads and writes both.

DIR    file:///DIR    s3://bucket/folder
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from perturb_tutorial.files import flush, whole_file
from perturb_tutorial.places.buckets import BucketPath
from perturb_tutorial.places.requests import SCHEME, BucketError

Place = Path | BucketPath

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")


def as_place(name: str, value: str | os.PathLike[str] | BucketPath) -> Place:
    """The place that a user means by ``value``, a path or a URL.

    Raises ``ValueError`` that calls it ``name``, and never shows a URL that is refused: it may hold a password.
    """
    if isinstance(value, BucketPath):
        return value
    if not isinstance(value, str):
        path = Path(value)
        if path.parts and path.parts[0] in ("s3:", "file:"):  # what pathlib makes of s3://bucket
            raise ValueError(f"{name}: expected a URL as text, got a path of pathlib, which has no URLs")
        return path
    scheme_part = _URL.match(value)
    if scheme_part is None:
        return Path(value)
    scheme = scheme_part[1].lower()
    if scheme == "file":
        return _local(name, value)
    if f"{scheme}://" != SCHEME:
        raise ValueError(
            f"{name}: expected a folder, file:///folder or {SCHEME}bucket/folder, got a URL of {scheme}://"
        )
    bucket, _, key = value[scheme_part.end() :].partition("/")
    parts = [part for part in key.split("/") if part not in ("", ".")]
    if _BUCKET.fullmatch(bucket) is None or set("?#\0") & set(key) or ".." in parts:
        raise ValueError(
            f"{name}: expected {SCHEME}bucket/folder without user, password, query and .., got another form; "
            "credentials come from the environment, a profile or a role"
        )
    return BucketPath(bucket, "/".join(parts))


def _local(name: str, url: str) -> Path:
    try:
        split = urlsplit(url)
        wrong = split.netloc not in ("", "localhost") or split.query or split.fragment or not split.path
    except ValueError:
        wrong = True
    if wrong or "\0" in unquote(split.path):
        raise ValueError(f"{name}: expected file:///folder, without host and query, got another form")
    return Path(url2pathname(split.path))


def write_whole(path: Place, content: bytes) -> None:
    """Writes ``content`` to ``path``, whole or not at all; it is on the disk when this returns."""
    if isinstance(path, BucketPath):
        path.write(content)
        return
    with whole_file(path) as file:
        file.write(content)
        flush(file)


def write_part(path: Place, content: bytes) -> None:
    """:func:`write_whole`, but what another process has put at ``path`` in a bucket meanwhile is kept.

    In a folder of this machine a lock keeps others out; a bucket's lock may have been lost.
    """
    if not isinstance(path, BucketPath):
        write_whole(path, content)
        return
    try:
        path.write(content, new=True)
    except FileExistsError:
        if not path.is_file():  # it was deleted meanwhile
            raise BucketError(f"{path} is being written and deleted by others; start again") from None


def matching(folder: Place, pattern: str = "*") -> list[Place]:
    """What lies in ``folder`` under a name like ``pattern``, such as "n*/*.jpg", in order."""
    if isinstance(folder, BucketPath):
        return [*sorted(folder.glob(pattern))]
    return [*sorted(folder.glob(pattern))]


def below(path: Place, folder: Place) -> str:
    """The way from ``folder`` to ``path``, which lies in it, with slashes."""
    names: list[str] = []
    while path != folder:
        names, path = [path.name, *names], path.parent
    return "/".join(names)


def lies_there(path: Place) -> bool:
    """Whether anything is at ``path``, also a link to nothing."""
    return path.exists() if isinstance(path, BucketPath) else os.path.lexists(path)


def is_file(path: Place) -> bool:
    """Whether a file is at ``path``; False for a name that no file can have."""
    return path.is_file() if isinstance(path, BucketPath) else os.path.isfile(path)
