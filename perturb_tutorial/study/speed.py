"""The results of ``make bench``, which the speed chapter shows.

They are in the repository under ``bench/results/``, one file for each kind of machine, and part of the wheel.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from perturb_tutorial.files import resource


def speed_results(device: str = "cpu") -> dict[str, dict[str, Any]]:
    """The results of ``bench/speed.py`` on ``device`` (cpu or cuda) by kind of machine; empty where none was measured.

    ``ratios`` compare two things measured in turn, ``seconds`` are of one image, ``by_…`` show how the cost grows,
    ``shares`` where the time goes; ``machine`` and ``versions`` describe the system.
    """
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(_folder().glob(f"{device}_*.json"))
    }


def cluster_results() -> dict[str, Any]:
    """The results of ``bench/cluster.py``: ``stream``, a plan of a million questions; ``efficiency`` of many workers.

    Seconds, and megabytes of the process that hands out the work.
    """
    content: dict[str, Any] = json.loads((_folder() / "cluster.json").read_text(encoding="utf-8"))
    return content


def _folder() -> Path:
    checkout = Path(__file__).resolve().parents[2] / "bench" / "results"
    return checkout if checkout.is_dir() else resource("speed")


__all__ = ["cluster_results", "speed_results"]
