"""A process that was forked while torch's threads existed would wait for them for good; it gets an error instead.

``os.fork``, and the pools of ``multiprocessing`` that are made by it (the usual ones on Linux before Python 3.14),
copy the memory of a process but only the thread that calls. OpenMP still counts on the threads that had worked for
that thread, and its next parallel loop in the child never ends. Nothing in torch or OpenMP says whether there were
any, so it is tried: the child forks once more, and that process, which has the same memory, runs one parallel loop.
If it does not end, neither would the child's.

Not tried and never refused: a process that was not forked (``spawn``); one thread, as in the workers of a
``DataLoader``; a thread begun after the fork, for which OpenMP starts threads anew.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings

PATIENCE = 10.0
"""Seconds within which the trial, a matter of milliseconds, has ended on the busiest machine."""
_PARALLEL = 1 << 20
"""Numbers in a loop that torch divides among threads: it does so from 32,768 on."""

_untried: int | None = None
"""The one thread that lived through the fork, until the trial is done; None in a process that was not forked."""
_hangs: int | None = None
"""The same thread once the trial has hung."""


def check_not_forked() -> None:
    """Errors: ``RuntimeError`` in a forked process in whose thread torch's parallel loops would hang."""
    global _untried, _hangs
    if _untried is None and _hangs is None:
        return
    import torch

    thread = threading.get_ident()
    if torch.get_num_threads() == 1 or thread not in (_untried, _hangs):
        return
    if thread == _untried:
        _untried, _hangs = None, None if _a_parallel_loop_ends() else thread
    if thread == _hangs:
        raise RuntimeError(
            "torch: its threads were at work before this process was forked and would hang in it; start processes by "
            'multiprocessing.get_context("spawn"), or call torch.set_num_threads(1) first in each'
        )


def _a_parallel_loop_ends() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, from Python 3.12 on
        child = os.fork()
    if child == 0:
        try:
            import torch

            torch.zeros(_PARALLEL, device="cpu").add_(1.0)
        finally:
            os._exit(0)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _in_child() -> None:
    global _untried, _hangs
    _untried, _hangs = threading.main_thread().ident, None


def _is_child() -> bool:
    """Whether ``multiprocessing`` made this process otherwise than by starting Python anew."""
    multiprocessing = sys.modules.get("multiprocessing")
    made = multiprocessing is not None and multiprocessing.parent_process() is not None
    return made and "--multiprocessing-fork" not in sys.orig_argv  # which is how spawn starts it


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)
    if _is_child():  # the package was first imported after the fork
        _in_child()
