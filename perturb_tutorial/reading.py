"""Files from elsewhere: regular files of a stated size, opened without waiting; and JSON of a stated depth.

Reading a named pipe, a socket or a device may wait for ever or never end, also where a link leads to one. Every file
that the package did not write or install is therefore opened here. Errors are ``OSError`` with a ``strerror`` that goes
into "… cannot be read (…)", and ``ValueError`` for content that is no JSON.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from perturb_tutorial.places.buckets import BucketPath, opened

_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_KINDS = {
    stat.S_IFDIR: "it is a folder, not a file",
    stat.S_IFIFO: "it is a named pipe, not a file",
    stat.S_IFSOCK: "it is a socket, not a file",
    stat.S_IFCHR: "it is a device, not a file",
    stat.S_IFBLK: "it is a device, not a file",
}


def open_regular(path: str | Path | BucketPath, megabytes: int) -> BufferedReader:
    """The regular file at ``path``, or at the end of its links, open for reading; an object of a bucket is read whole.

    Raises:
        OSError: where there is none, it is something else than a file, or it has more than ``megabytes`` · 10⁶ bytes.
    """
    if isinstance(path, BucketPath):
        return opened(read_bytes(path, megabytes))
    try:
        _check(os.stat(path), megabytes)  # merely to open some devices acts on them
    except ValueError:  # a zero byte in the name
        raise OSError(errno.EINVAL, "its name is not one of a file") from None
    return os.fdopen(_opened(path, os.O_RDONLY, megabytes), "rb")


def open_lock(path: Path) -> IO[bytes]:
    """A file to lock, made where there is none. Errors: those of :func:`open_regular`."""
    return os.fdopen(_opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, megabytes=1), "ab")


def _opened(path: str | Path, flags: int, megabytes: int) -> int:
    """A descriptor; a pipe that has taken the place of the file is not waited for."""
    handle = os.open(path, flags | _AT_ONCE, 0o666)
    try:
        _check(os.fstat(handle), megabytes)
    except OSError:
        os.close(handle)
        raise
    return handle


def _check(status: os.stat_result, megabytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        code = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        raise OSError(code, _KINDS.get(stat.S_IFMT(status.st_mode), "it is not a regular file"))
    _check_size(status.st_size, megabytes)


def _check_size(size: int, megabytes: int) -> None:
    if size > megabytes * 10**6:
        raise OSError(errno.EFBIG, f"it has {size / 1e6:,.1f} MB, more than {megabytes:,}")


def read_bytes(path: str | Path | BucketPath, megabytes: int) -> bytes:
    """The content of a regular file of at most ``megabytes``. Errors: those of :func:`open_regular`."""
    if isinstance(path, BucketPath):
        return path.read(lambda size: _check_size(size, megabytes))
    with open_regular(path, megabytes) as file:
        # The size that the file has now: those of the system's folders that never end have 0 bytes.
        return file.read(os.fstat(file.fileno()).st_size)


def read_json(path: str | Path | BucketPath, megabytes: int, *, depth: int | None = None) -> Any:
    """The content of a JSON file in UTF-8, UTF-16 or UTF-32.

    Args:
        path: the file.
        megabytes: its largest size.
        depth: how deeply lists and objects may be nested in each other; None is as deeply as Python reads them.

    Raises:
        OSError: those of :func:`open_regular`.
        ValueError: for other content; the message is the reason without the file's name.
    """
    content = read_bytes(path, megabytes)
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError:
        raise
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not {error.encoding}") from None
    except ValueError:  # Python's limit on the digits of whole numbers
        raise ValueError("it holds a number of thousands of digits") from None
    if depth is not None and _deeper(value, depth):
        raise ValueError(f"it is nested more than {depth} deep")
    return value


def _deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested in each other more than ``depth`` times."""
    level = [value]
    for _ in range(depth + 1):
        level = [whole for whole in level if isinstance(whole, dict | list)]
        if not level:
            return False
        level = [item for whole in level for item in (whole.values() if isinstance(whole, dict) else whole)]
    return True
