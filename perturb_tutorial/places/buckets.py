"""Objects in a bucket (Amazon S3, or a store that speaks its protocol), under paths that are used like pathlib's.

    s3://bucket/folder/name

What a bucket has no word for is left out: links, modes, folders without content. An object is written by one request,
whole or not at all. Nothing is asked of a bucket before somebody uses a path of it.
"""

from __future__ import annotations

import errno
import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypeVar

from perturb_tutorial.places.requests import SCHEME, age, answers, broken_off, client

AT_ONCE = 16
"""Requests in flight where many objects are read."""
TRIES = 3
"""Of an object whose content breaks off; requests themselves are repeated by boto3."""

T = TypeVar("T")


class _Listing(NamedTuple):
    """What lies directly in a folder."""

    folders: frozenset[str]
    files: frozenset[str]


class Stored(NamedTuple):
    """An object: its bytes, the tag of this version of it, and how many seconds ago it was written, if known."""

    content: bytes
    tag: str
    age: float | None


_known: ContextVar[dict[BucketPath, _Listing] | None] = ContextVar("_known", default=None)


@contextmanager
def listed_once() -> Iterator[None]:
    """Within the block each folder of a bucket is listed once: for data that nobody changes meanwhile."""
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


@dataclass(frozen=True, slots=True)
class BucketPath:
    """An object or a folder in a bucket; ``key`` has no slash at its ends, and is empty for the bucket itself."""

    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}" if self.key else f"{SCHEME}{self.bucket}"

    def __truediv__(self, name: str) -> BucketPath:
        parts = [part for part in f"{self.key}/{name}".split("/") if part not in ("", ".")]
        return BucketPath(self.bucket, "/".join(parts))

    def __lt__(self, other: BucketPath) -> bool:
        return (self.bucket, self.key.split("/")) < (other.bucket, other.key.split("/"))

    @property
    def name(self) -> str:
        """The last part; empty for the bucket."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its last suffix."""
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        """The name's last suffix, with its dot."""
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> BucketPath:
        """The folder that it is in; the bucket's own is the bucket."""
        return BucketPath(self.bucket, self.key.rpartition("/")[0])

    def with_name(self, name: str) -> BucketPath:
        """Another name in the same folder."""
        return self.parent / name

    def absolute(self) -> BucketPath:
        """Itself."""
        return self

    def iterdir(self) -> Iterator[BucketPath]:
        """What lies in the folder, by name."""
        listing = self._listing()
        return (self / name for name in sorted(listing.folders | listing.files))

    def glob(self, pattern: str) -> Iterator[BucketPath]:
        """What matches a pattern such as "n*/*.jpg", without ``**``."""
        first, _, rest = pattern.partition("/")
        if rest and not set(first) & set("*?["):
            yield from (self / first).glob(rest)
            return
        listing = self._listing()
        for name in sorted(listing.folders | (frozenset() if rest else listing.files)):
            if fnmatchcase(name, first):
                yield from (self / name).glob(rest) if rest else [self / name]

    def is_dir(self) -> bool:
        """Whether anything lies in it; a bucket that is there counts as well."""
        known = _known.get() or {}
        if self in known:
            return bool(known[self].folders or known[self].files)
        if self.parent in known and self.key:
            return self.name in known[self.parent].folders
        prefix = f"{self.key}/" if self.key else ""
        return self._first_key(prefix) is not None or not self.key

    def is_file(self) -> bool:
        """Whether it is an object."""
        if _known.get() is not None:
            return self.name in self.parent._listing().files
        return bool(self.key) and self._first_key(self.key) == self.key

    def exists(self) -> bool:
        """Whether it is an object or a folder."""
        return self.is_file() or self.is_dir()

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Nothing: a folder is there as soon as something is in it."""

    def read(self, check: Callable[[int], None]) -> bytes:
        """The object's content, after ``check`` of its number of bytes; ``FileNotFoundError`` where there is none."""
        return self.stored(check).content

    def stored(self, check: Callable[[int], None]) -> Stored:
        """The object. Errors: those of :meth:`read`."""
        if not self.key:
            raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file")
        for left in reversed(range(TRIES)):
            with answers(self.bucket, self):
                answer = client().get_object(Bucket=self.bucket, Key=self.key)
            with answer["Body"] as body:
                check(answer["ContentLength"])
                with answers(self.bucket, self):
                    try:
                        return Stored(body.read(), answer["ETag"], age(answer))
                    except broken_off():
                        if not left:
                            raise
        raise AssertionError

    def write(self, content: bytes, *, over: str | None = None, new: bool = False) -> str:
        """Writes the object, whole or not at all.

        Args:
            content: its bytes.
            over: the tag of the version that is to be replaced, and no other.
            new: whether there may be none yet.

        Returns:
            The tag of the new version.

        Raises:
            FileExistsError: where another version, or any with ``new``, is there.
        """
        condition = {"IfNoneMatch": "*"} if new else {} if over is None else {"IfMatch": over}
        with answers(self.bucket, self):
            answer = client().put_object(Bucket=self.bucket, Key=self.key, Body=content, **condition)
            return str(answer["ETag"])

    def replace(self, target: BucketPath) -> None:
        """Moves the object. A copy is made before the original is deleted, so that one of them is always there."""
        with answers(self.bucket, self):
            s3 = client()
            source = {"Bucket": self.bucket, "Key": self.key}
            s3.copy_object(Bucket=target.bucket, Key=target.key, CopySource=source)
            s3.delete_object(**source)

    def unlink(self) -> None:
        """Deletes the object."""
        with answers(self.bucket, self):
            client().delete_object(Bucket=self.bucket, Key=self.key)

    def _first_key(self, prefix: str) -> str | None:
        with answers(self.bucket, self):
            answer = client().list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=1)
        return next((str(item["Key"]) for item in answer.get("Contents", ())), None)

    def _listing(self) -> _Listing:
        known = _known.get()
        if known is not None and self in known:
            return known[self]
        prefix = f"{self.key}/" if self.key else ""
        folders, files = set(), set()
        with answers(self.bucket, self):
            pages = client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/"):
                folders |= {str(item["Prefix"])[len(prefix) : -1] for item in page.get("CommonPrefixes", ())}
                files |= {str(item["Key"])[len(prefix) :] for item in page.get("Contents", ())}
        # An object that ends in a slash is how consoles show an empty folder.
        listing = _Listing(frozenset(folders - {"", ".", ".."}), frozenset(files - {"", ".", ".."}))
        if known is not None:
            known[self] = listing
        return listing


def opened(content: bytes) -> io.BufferedReader:
    """The bytes of an object as an open file."""
    return io.BufferedReader(io.BytesIO(content))


def ahead(read: Callable[[Any], T], paths: Sequence[Any]) -> Iterator[Callable[[], T]]:
    """For each path a call that gives, or raises, what ``read(path)`` does; of a bucket's some are read at once."""
    if not any(isinstance(path, BucketPath) for path in paths):
        yield from ((lambda path=path: read(path)) for path in paths)
        return
    pool, waiting = ThreadPoolExecutor(AT_ONCE), deque[Any]()
    try:
        for path in paths:
            waiting.append(pool.submit(read, path))
            if len(waiting) > AT_ONCE:
                yield waiting.popleft().result
        while waiting:
            yield waiting.popleft().result
    finally:
        pool.shutdown(cancel_futures=True)
