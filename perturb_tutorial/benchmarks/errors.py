"""The error of a run whose records cannot be written or read."""

from __future__ import annotations

from pathlib import Path

from perturb_tutorial.places import Place


class BenchmarkError(RuntimeError):
    """Records that cannot be written or read, workers that die; the message is one line that says what to do."""


def unwritable(path: Place, error: OSError) -> BenchmarkError:
    """The error, one line, for a file that could not be written."""
    reason = error.strerror or str(error)
    if isinstance(path, Path):
        return BenchmarkError(
            f"{path} cannot be written ({reason}); what is written is whole: make room and start again"
        )
    return BenchmarkError(f"{path} cannot be written ({reason}); what is written is whole: start again")
