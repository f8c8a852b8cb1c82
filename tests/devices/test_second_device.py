"""Every method and benchmark with a network on another device than the CPU, though there is none here.

``second_device.py`` is such a device, ``second_device_runs.py`` runs everything on it and compares with the CPU,
in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this PyTorch cannot be given a device in Python",
)
HERE = Path(__file__).parent
RUNS = HERE / "second_device_runs.py"


def run_all(program: str) -> dict[str, str]:
    """What went wrong in each run, in a new process."""
    finished = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(HERE)!r})\n{program}"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr
    return dict(json.loads(finished.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def wrong() -> dict[str, str]:
    return run_all("import second_device_runs as runs; runs.main()")


def test_the_other_device_gives_what_the_cpu_gives(wrong) -> None:
    assert len(wrong) > 25
    failed = {name: trace for name, trace in wrong.items() if trace}
    assert not failed, "\n\n".join(f"{name}:\n{trace}" for name, trace in failed.items())


def test_every_method_and_benchmark_is_among_the_runs(wrong) -> None:
    from perturb_tutorial.baselines import METHODS
    from perturb_tutorial.benchmarks.registry import BENCHMARKS

    missing = {f"saliency, {name}" for name in METHODS} - set(wrong)
    missing |= {f"benchmark, {name}" for name in BENCHMARKS if name != "animal-parts"} - set(wrong)
    assert not missing


PLANTED = {
    "a tensor that stays on the CPU": (
        "masks, deletion, blur, disc",
        "from perturb_tutorial.networks import network\n"
        "real = network.class_score\n"
        "network.class_score = lambda logits, weights, scale: real(logits, weights.cpu(), scale)",
        "tensors on two devices",
    ),
    "a value read in every iteration": (
        "nothing in the loop waits",
        "from perturb_tutorial import loop\n"
        "real = loop.total_variation\n"
        "loop.total_variation = lambda grid, exponent: (grid.max().item(), real(grid, exponent))[1]",
        "_local_scalar_dense",
    ),
    "float64": (
        "scores and classes",
        "real = pt.Network.scores\npt.Network.scores = lambda *given: real(*given).double()",
        "no float64",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_found(name: str) -> None:
    run, plant, words = PLANTED[name]
    program = f"import second_device_runs as runs, perturb_tutorial as pt\n{plant}\nruns.main({run!r})"
    assert words in run_all(program)[run]
