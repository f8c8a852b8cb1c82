"""Try a wheel as a stranger has it: an empty environment, no clone. `python tools/try_wheel.py dist/*.whl`

It installs the wheel with the extras `samples`, `benchmarks` and `coco` at the versions of constraints.txt, then
runs, in an empty folder, README.md's first `perturb-tutorial` command, every method once, and a benchmark. A workflow
calls it on each system.

    python tools/try_wheel.py WHEEL [--environment FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = "samples,benchmarks,coco"
BIN, SUFFIX = ("Scripts", ".exe") if os.name == "nt" else ("bin", "")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Install a wheel into an empty environment and run it.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--environment", type=Path, help="kept there (default: a temporary folder)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        environment = (options.environment or Path(temporary, "env")).resolve()
        install(options.wheel.resolve(), environment)
        work = Path(temporary, "work")
        work.mkdir()
        return try_out(environment / BIN / f"perturb-tutorial{SUFFIX}", work)


def install(wheel: Path, environment: Path) -> None:
    venv.create(environment, with_pip=True)
    pip = [str(environment / BIN / f"python{SUFFIX}"), "-m", "pip", "install", "--quiet"]
    constraints = str(ROOT / "constraints.txt")
    subprocess.run([*pip, "--constraint", constraints, f"{wheel}[{EXTRAS}]"], check=True)


def try_out(program: Path, work: Path) -> int:
    """Runs each command in ``work``; 0 if all end with status 0 and leave what they promise."""

    def run(*words: str) -> str:
        began = time.perf_counter()
        # Outside of the clone, so that nothing is found there that the wheel does not have.
        done = subprocess.run(
            [str(program), *words], cwd=work, capture_output=True, text=True, encoding="utf-8"
        )
        print(f"{time.perf_counter() - began:5.0f} s  perturb-tutorial {' '.join(words)}", flush=True)
        if done.returncode:
            raise SystemExit(f"try_wheel: status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    first = first_command((ROOT / "README.md").read_text(encoding="utf-8"))
    run(*first)
    written = work / first[first.index("--output") + 1]
    (entry,) = json.loads((written / "results.json").read_text(encoding="utf-8"))["entries"]
    if not entry["converged"] or not (written / "chelsea.png").is_file():
        raise SystemExit("try_wheel: the first command did not explain the photograph")
    for method in methods(run("methods")):
        run("explain", "--sample", "chelsea", "--method", method, "--output", method)
    run("benchmark", "pointing-game", "--methods", "gradient,grad_cam", "--limit", "4", "--output", "run")
    if not json.loads((work / "run" / "summary.json").read_text(encoding="utf-8"))["figures"]:
        raise SystemExit("try_wheel: the benchmark has no figures")
    return 0


def first_command(readme: str) -> list[str]:
    """The words after the program's name in the first command of README.md that runs it."""
    found = re.search(r"perturb-tutorial (explain .*)", readme)
    if found is None:
        raise SystemExit("try_wheel: README.md has no command perturb-tutorial explain")
    return found[1].split()


def methods(listing: str) -> list[str]:
    """The names in what `perturb-tutorial methods` prints, but for the mask, which the first command has tried."""
    names = re.findall(r"^(\w+) ", listing, re.MULTILINE)
    return [name for name in names if name != "mask"]


if __name__ == "__main__":
    sys.exit(main())
