"""One run at a time in one folder.

On this machine that is a lock of the system, which ends with the process. A bucket has none: there it is the object
``.lock``, made if it is absent and renewed four times in :data:`EXPIRY` seconds for as long as the run lasts. Every
version of it names the version that it replaces, so of two runs that want it one has it. A run that was killed no
longer renews it: the next one waits until the rest of its time is over, and takes its place.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from perturb_tutorial._outside import is_number
from perturb_tutorial.benchmarks.errors import BenchmarkError, unwritable
from perturb_tutorial.places import Place
from perturb_tutorial.places.buckets import BucketPath, Stored
from perturb_tutorial.places.requests import BucketError
from perturb_tutorial.reading import open_lock
from perturb_tutorial.sealed import PROGRAM, lock

LOCK = ".lock"
EXPIRY = 60.0
"""Seconds after which a bucket's lock that was not renewed is free."""
LOOK = 0.05
"""Share of them between two looks at somebody else's."""
LARGEST = 10_000
"""Bytes of a lock."""


class Claim:
    """A folder that this process alone writes, until it is closed."""

    def __init__(self, release: Callable[[], None], check: Callable[[], None] = lambda: None) -> None:
        self.close, self.check = release, check

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def claim(folder: Place) -> Claim:
    """Claims ``folder`` until the claim is closed or the process ends, for whatever reason.

    Its ``check`` raises ``BenchmarkError`` where another run has taken over, as may happen after a pause.
    """
    if isinstance(folder, BucketPath):
        return _BucketLock(folder).claim()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open_lock(folder / LOCK)
    except OSError as error:
        raise unwritable(folder, error) from error
    if not lock(file.fileno()):
        file.close()
        raise BenchmarkError(f"{folder} is in use by another run; wait for it or give another folder")
    return Claim(file.close)


class _BucketLock:
    """The object ``.lock`` of a folder; in the hands of this process once :meth:`claim` returns."""

    def __init__(self, folder: BucketPath) -> None:
        self.folder, self.path = folder, folder / LOCK
        self.owner, self.seconds = secrets.token_hex(8), EXPIRY
        self.tag = ""
        """Of the version that this process wrote last; empty where it does not hold the lock."""
        self._renewed = 0.0
        self._one_at_a_time, self._end = threading.Lock(), threading.Event()
        self._beats = threading.Thread(target=self._renew, name=f"lock of {folder}", daemon=True)

    def claim(self) -> Claim:
        began, first = time.monotonic(), ""
        while not self.tag:
            found = self._look()
            if found is None:
                self._put(new=True)
                continue
            note = self._note(found)
            first, before = first or found.tag, first
            if found.tag != first:
                raise BenchmarkError(
                    f"{self.folder} is in use by another run ({note['who']}); wait for it or give another folder"
                )
            if not note["held"] or max(time.monotonic() - began, found.age or 0) > note["seconds"]:
                self._put(over=found.tag)
                continue
            if not before:
                warnings.warn(
                    f"{self.path} is of another run ({note['who']}); waiting for up to {note['seconds']:.0f} s to see "
                    "whether it is alive",
                    stacklevel=4,
                )
            time.sleep(LOOK * note["seconds"])
        self._check_conditions()
        self._beats.start()
        return Claim(self._release, self._check)

    def _look(self) -> Stored | None:
        def check(size: int) -> None:
            if size > LARGEST:
                raise self._foreign()

        try:
            return self.path.stored(check)
        except FileNotFoundError:
            return None

    def _foreign(self) -> BenchmarkError:
        return BenchmarkError(f"{self.path} is not a lock of {PROGRAM}; give another folder")

    def _note(self, found: Stored) -> dict[str, Any]:
        if not found.content:  # a folder of a machine was copied into the bucket
            return {"held": False}
        try:
            note = json.loads(found.content)
        except ValueError:
            raise self._foreign() from None
        if not isinstance(note, dict) or note.get("program") != PROGRAM or not is_number(note.get("seconds")):
            raise self._foreign()
        return {"held": True, "owner": None, "who": "unknown", **note}

    def _put(self, *, over: str | None = None, new: bool = False, held: bool = True) -> None:
        """Writes the lock if it is in the stated version; ``tag`` is empty afterwards where it was not."""
        note = {
            "program": PROGRAM,
            "owner": self.owner,
            "who": f"{platform.node()}, process {os.getpid()}",
            "seconds": self.seconds,
            "held": held,
            "version": secrets.token_hex(4),  # the tag of equal bytes would be the same
        }
        began = time.monotonic()
        try:
            self.tag = self.path.write(json.dumps(note).encode(), over=over, new=new)
        except (FileExistsError, FileNotFoundError):
            # A request that is repeated because its answer was lost meets what it wrote itself.
            found = self._look()
            ours = found is not None and self._note(found).get("owner") == self.owner
            self.tag = found.tag if found is not None and ours else ""
        self._renewed = began

    def _check_conditions(self) -> None:
        """Refuses a store that does not know conditions: there, every request would seem to succeed."""
        for condition in ({"new": True}, {"over": '"00000000000000000000000000000000"'}):
            try:
                self.path.write(b"", **condition)
            except (FileExistsError, FileNotFoundError):
                continue
            raise BenchmarkError(
                f"{self.folder} is in a store that ignores If-None-Match and If-Match, so that two runs could write at "
                "once; give a folder in one that knows them, as Amazon S3 does"
            )

    def _renew(self) -> None:
        while not self._end.wait(self.seconds / 4):
            with self._one_at_a_time, suppress(BucketError):  # which may be over at the next time
                if not self.tag:
                    return
                self._put(over=self.tag)

    def _check(self) -> None:
        with self._one_at_a_time:
            if self.tag and time.monotonic() - self._renewed > self.seconds:
                self._put(over=self.tag)
            if not self.tag:
                raise BenchmarkError(
                    f"{self.folder} was taken over by another run while this one stood still; what it wrote is whole"
                )

    def _release(self) -> None:
        self._end.set()
        with self._one_at_a_time, suppress(BucketError):  # then its time runs out
            if self.tag:
                self._put(over=self.tag, held=False)
                self.tag = ""
