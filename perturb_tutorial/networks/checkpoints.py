"""Parts under ``torch.utils.checkpoint`` run like any other part.

A checkpointed part is computed a second time during the backward pass: with ``use_reentrant=True`` in a graph of its
own, through which ``torch.autograd.grad`` does not go, and in both forms when the hooks and rules of this package have
ended. Checkpoints save memory in training; the passes here are of few images and do without them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils import checkpoint

_REENTRANT, _OTHER = "CheckpointFunction", "_checkpoint_without_reentrant_generator"
"""What ``torch.utils.checkpoint.checkpoint`` looks up in its module for either form."""

_lock = threading.Lock()
_passes = 0
_torchs: dict[str, Any] = {}
_off = threading.local()


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """Within the block ``torch.utils.checkpoint.checkpoint`` in this thread runs its function once and plainly.

    Torch has no such switch, so the two names are replaced in its module, by the first of all threads' passes, and
    restored by the last; other threads go on with checkpoints.
    """
    global _passes
    with _lock:
        if _passes == 0:
            _torchs.update({name: getattr(checkpoint, name) for name in (_REENTRANT, _OTHER)})
            setattr(checkpoint, _REENTRANT, _Reentrant)
            setattr(checkpoint, _OTHER, _other)
        _passes += 1
    _off.depth = getattr(_off, "depth", 0) + 1
    try:
        yield
    finally:
        _off.depth -= 1
        with _lock:
            _passes -= 1
            if _passes == 0:
                for name, torchs in _torchs.items():
                    setattr(checkpoint, name, torchs)


class _Reentrant:
    @staticmethod
    def apply(function: Any, preserve: bool, *args: Any) -> Any:
        if getattr(_off, "depth", 0):
            return function(*args)
        return _torchs[_REENTRANT].apply(function, preserve, *args)


def _other(*args: Any, **kwargs: Any) -> Iterator[Any]:
    """What runs before the function and, after a ``yield``, what runs after it."""
    if getattr(_off, "depth", 0):
        yield
    else:
        yield from _torchs[_OTHER](*args, **kwargs)
