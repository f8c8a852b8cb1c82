"""Does the package work with any nn.Module that returns logits? The sweep behind the page "What works with what".

Every network of architectures.py gets weights that hide no fault (redrawn.py), and each method is held to what is right
for any network (method_checks.py). A network has a process of its own, with a limit on its memory and time. Its row is
written as soon as it is known, so that a run that was stopped goes on where it was: a row counts as long as the
package's code is the same.

Run: python bench/any_network.py [--jobs N] [--minutes M] [--only NAME …] [--again]   (needs the extra peers)
Writes bench/results/any_network.json, a list with one row a line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from architectures import Architecture, architectures
from method_checks import CHECKS, checks, grad_cam_layer, outcome, settings_for
from redrawn import Mute, logits_of, noise, redraw, silent_blocks
from torch import Tensor

import perturb_tutorial as pt
from perturb_tutorial.files import whole_file

RESULTS = Path(__file__).parent / "results" / "any_network.json"
PACKAGES = ("torch", "torchvision", "timm", "transformers", "onnx", "openvino")
MEAN, STD = (0.5, 0.4, 0.6), (0.25, 0.3, 0.2)
"""Of the normalization: unlike each other, and no library's default."""
IMAGES = 2
MEMORY = 12 * 2**30
"""Bytes of address space that a network's process may take."""
PATIENCE = 20
"""A process that waits, or that gets little of a busy machine, is ended after so many times its processor time."""
SEEDS = 8
"""How often all numbers are drawn before a network is left out."""


def fingerprint() -> str:
    """Of the package's code: a row that was measured with other code is measured again."""
    folder = Path(pt.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Of Python and the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def examine(architecture: Architecture) -> Iterable[dict[str, Any]]:
    """The parts of an architecture's row, each as soon as it is known.

    ``parameters``, ``seed`` (of the numbers that made it speak), ``layer`` (the one that Grad-CAM reads) and one
    ``checks`` after the other; or ``left_out``, why nothing can be seen by this network.
    """
    images = noise(IMAGES, (architecture.size, architecture.size), 1)
    yield {"parameters": sum(value.numel() for value in architecture.build().parameters())}
    reason = ""
    for seed in range(SEEDS):
        try:
            network = speaking(architecture, images, seed)
        except Mute as mute:
            reason = reason or str(mute)
            continue
        yield {"seed": seed}
        if isinstance(network, str):
            yield {"checks": dict.fromkeys(CHECKS, network)}
            return
        yield {"layer": grad_cam_layer(network)}
        for name, found in checks(network, images):
            yield {"checks": {name: found}}
        return
    yield {"left_out": reason}


def speaking(architecture: Architecture, images: Tensor, seed: int) -> pt.Network | str:
    """The network with numbers drawn by ``seed``, or the sentence with which it is refused; ``Mute`` if it is mute."""
    module = architecture.build()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    inputs = (images - mean) / std
    redraw(module, inputs, seed)
    silent = silent_blocks(module, lambda: logits_of(module(inputs[:1])).softmax(1).amax())
    if silent:
        raise Mute(f"no gradient in {', '.join(silent)}")
    made: list[pt.Network] = []
    options: dict[str, Any] = {"input_size": architecture.size, "name": architecture.name, "device": "cpu"}
    refusal = outcome(lambda: made.append(pt.Network(module, mean=MEAN, std=STD, **options)))
    if not made:
        return refusal
    settings_for(made[0], images)
    return made[0]


def work(name: str, limit: int) -> None:
    """A network's process, which has ``limit`` seconds of a processor: prints the parts of its row, one a line."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    torch.set_num_threads(1)
    (architecture,) = (one for one in architectures() if one.name == name)
    print(json.dumps({"package": fingerprint()}), flush=True)
    for part in examine(architecture):
        print(json.dumps(part | {"seconds": round(time.process_time(), 1)}), flush=True)


def row_of(architecture: Architecture, limit: int) -> dict[str, Any]:
    """The row of an architecture, from a process of its own that has ``limit`` seconds of a processor."""
    row: dict[str, Any] = {
        "network": architecture.name,
        "source": architecture.source,
        "size": architecture.size,
    }
    row |= {"versions": versions(), "seconds": 0.0, "checks": {}}
    command = [sys.executable, "-W", "ignore", __file__, "--worker", architecture.name]
    command += ["--limit-seconds", str(limit)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        printed, faults = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
        # Exported graphs are kept in the user's folder for caches, where these would not be used again.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": folder}
        try:
            done = subprocess.run(
                command, env=environment, stdout=printed, stderr=faults, timeout=PATIENCE * limit, check=False
            )
            ending = (
                f"the process ended with {done.returncode}: {_last_line(faults)}" if done.returncode else ""
            )
            if done.returncode == -getattr(signal, "SIGXCPU", 0):
                ending = f"not within {limit} s"
        except subprocess.TimeoutExpired:
            ending = f"not within {PATIENCE * limit} s on a busy machine"
        printed.seek(0)
        for line in printed:
            if line.startswith("{") and line.endswith("}\n"):  # a library may print as well
                part = json.loads(line)
                row["checks"] |= part.pop("checks", {})
                row |= part
    if ending:
        row["checks"] |= {name: f"error: {ending}" for name in CHECKS if name not in row["checks"]}
    return row


def _last_line(file: Any) -> str:
    file.seek(0)
    return (file.read().strip().splitlines() or [""])[-1][:200]


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a file by network; none where there is no file."""
    if not path.is_file():
        return {}
    return {row["network"]: row for row in json.loads(path.read_text(encoding="utf-8"))}


def write_rows(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    """One row a line, in the order of ``architectures``."""
    ordered = [rows[one.name] for one in architectures() if one.name in rows]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in ordered)
    with whole_file(path) as file:
        file.write(f"[\n{lines}\n]\n".encode())


def verdicts(row: dict[str, Any]) -> Counter[str]:
    """How many checks of a row are right, refused, wrong and an error."""
    return Counter(found.partition(":")[0] for found in row["checks"].values())


def sweep(
    chosen: list[Architecture], path: Path, *, jobs: int, limit: int, minutes: float, again: bool
) -> dict[str, dict[str, Any]]:
    """Measures what has no row of today's code yet, ``jobs`` networks at once; returns all rows.

    Args:
        chosen: the networks.
        path: of the file with the rows.
        jobs: processes at once.
        limit: seconds of a processor for one network.
        minutes: after this time no further network is begun.
        again: measure also what has a row.
    """
    rows, code, end = read_rows(path), fingerprint(), time.monotonic() + 60 * minutes
    lock = threading.Lock()

    def one(architecture: Architecture) -> None:
        if time.monotonic() > end:
            return
        row = row_of(architecture, limit)
        with lock:
            rows[architecture.name] = row
            write_rows(path, rows)
            counts = ", ".join(f"{count} {what}" for what, count in verdicts(row).items())
            print(
                f"{architecture.name:28} {row['seconds']:6.1f} s  {row.get('left_out') or counts}", flush=True
            )

    open_ones = [one for one in chosen if again or rows.get(one.name, {}).get("package") != code]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, open_ones))
    return rows


def main() -> int:
    """Runs the sweep and prints what was not right or refused."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks, or all of a source")
    parser.add_argument("--limit-seconds", type=int, default=180, help="of a processor, for one network")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no further network after this time"
    )
    parser.add_argument("--jobs", type=int, default=1, help="networks at once, a core each")
    parser.add_argument("--again", action="store_true", help="measure also what has a row of this code")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.limit_seconds)
        return 0
    every = list(architectures())
    known = {one.name for one in every} | {one.source for one in every}
    unknown = sorted(set(options.only or ()) - known)
    if unknown:
        print(f"any_network: no network is called {', '.join(unknown)}", file=sys.stderr)
        return 2
    chosen = [one for one in every if options.only is None or {one.name, one.source} & set(options.only)]
    limits = {"jobs": options.jobs, "limit": options.limit_seconds, "minutes": options.minutes}
    rows = sweep(chosen, options.output, **limits, again=options.again)
    for one in chosen:
        for name, found in rows.get(one.name, {"checks": {}})["checks"].items():
            if found.startswith(("wrong", "error")):
                print(f"{one.name}, {name}: {found}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
