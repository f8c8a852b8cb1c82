"""A forked process whose first parallel loop would hang is told so; one that would not is let alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is POSIX's")

SCRIPT = """
import sys, threading
import torch
sys.path.insert(0, {tests!r})
from small_inputs import tiny_module

torch.set_num_threads(2)
x, network = torch.full((1, 3, 32, 32), 0.5), None
{parent}

def in_a_thread(call):
    got = []
    thread = threading.Thread(target=lambda: got.append(call()))
    thread.start()
    thread.join()
    return got[0]

def told(job):
    from perturb_tutorial import _forks
    import perturb_tutorial as pt
    _forks.PATIENCE = {patience}
    try:
        return eval(job, dict(globals(), pt=pt))
    except RuntimeError as error:
        return str(error)

if __name__ == "__main__":
    context = torch.multiprocessing.get_context({method!r})
    found = []
    for job in {jobs!r}:
        with context.Pool(1) as pool:  # its first process is forked by this thread, those after it by another
            found.append(pool.apply(told, (job,)))
    print(found)
"""
MAKE = """
import perturb_tutorial as pt
network = pt.Network(tiny_module(), input_size=32, device="cpu")
"""
WORK = "\ntorch.ones(1 << 20).sum()\n"
LOGITS = "network.logits(x).shape[1]"
NEW_NETWORK = 'pt.Network(tiny_module(), input_size=32, device="cpu").class_count'


def python(folder: Path, code: str) -> str:
    script = folder / "script.py"
    script.write_text(code, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    started = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        output, errors = started.communicate(timeout=200)
    except subprocess.TimeoutExpired:  # children that hang hold the pipes open
        os.killpg(started.pid, signal.SIGKILL)
        started.communicate()
        raise
    assert started.returncode == 0, errors[-2000:]
    return output


def answers(
    folder: Path, jobs: list[str], *, parent: str = "", method: str = "fork", patience: float = 30.0
) -> list[object]:
    """What each job gives in a process of its own, which ``method`` made after ``parent`` had been run."""
    tests = str(Path(__file__).parent)
    code = SCRIPT.format(tests=tests, parent=parent, method=method, jobs=jobs, patience=patience)
    found: list[object] = literal_eval(python(folder, code))
    return found


@pytest.mark.parametrize("imported", [True, False], ids=["imported before", "imported after the fork"])
def test_a_child_that_would_hang_is_told(tmp_path, imported):
    jobs = [
        NEW_NETWORK,
        "pt.load_network(device='cpu')",
        "pt.load_images([])",
        "pt.seeded_network('alexnet')",
    ]
    if imported:
        jobs += [
            LOGITS,
            "network.scores(x)",
            "pt.learn_masks(network, x, 0)",
            "pt.saliency(network, x, 0, 'gradient')",
            "pt.top_classes(network, x)",
        ]
    told = answers(tmp_path, jobs, parent=(MAKE if imported else "") + WORK, patience=2.0)
    for job, answer in zip(jobs, told, strict=True):
        assert str(answer).startswith("torch: its threads were at work before this process was forked"), job
        assert 'multiprocessing.get_context("spawn"), or call torch.set_num_threads(1)' in str(answer), job
        assert "\n" not in str(answer)


@pytest.mark.parametrize(
    ("parent", "job", "method"),
    [
        ("", NEW_NETWORK, "fork"),
        (f"torch.set_num_threads(1)\n{MAKE}{WORK}torch.set_num_threads(2)", LOGITS, "fork"),
        (MAKE + WORK, f"torch.set_num_threads(1) or {LOGITS}", "fork"),
        (MAKE + WORK, f"in_a_thread(lambda: {LOGITS})", "fork"),
        (MAKE + WORK, LOGITS, "spawn"),
        (MAKE + WORK, NEW_NETWORK, "forkserver"),
    ],
    ids=["idle parent", "parent of one thread", "child of one thread", "new thread", "spawn", "forkserver"],
)
def test_a_child_that_would_not_hang_goes_on(tmp_path, parent, job, method):
    assert answers(tmp_path, [job], parent=parent, method=method) == [5]


def test_a_worker_of_a_data_loader_has_one_thread_and_goes_on(tmp_path):
    code = SCRIPT.partition("def in_a_thread")[0].format(tests=str(Path(__file__).parent), parent=MAKE + WORK)
    code += """
from torch.utils.data import DataLoader
def logits(rows):
    return network.logits(rows[0])
loader = DataLoader([x], num_workers=1, multiprocessing_context="fork", collate_fn=logits)
print([rows.shape[1] for rows in loader])
"""
    assert literal_eval(python(tmp_path, code)) == [5]
