"""Run the tests as a workflow does, on any system, in the environment of tools/environment.py: `python tools/suite.py`.

The browser's tests and the chapters are left to `make test`: they belong to the system on which the chapters' outputs
were made. `--fast` leaves out what builds pages, drives other programs or compares with other libraries at their
newest.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from environment import PYTHON, ROOT

LEFT_OUT = ("tests/browser",)
# What builds pages, drives other programs or runs for long.
SLOW = ("tests/book", "tests/live", "tests/bench", "tests/studies", "tests/benchmarks/test_ray_engine.py")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run the tests, without the browser's and the chapters.")
    parser.add_argument("--fast", action="store_true", help="the package's own tests only")
    options = parser.parse_args(argv)
    ignored = [f"--ignore={name}" for name in (*LEFT_OUT, *(SLOW if options.fast else ()))]
    command = [str(PYTHON), "-m", "pytest", "-n", "logical", "--dist", "loadscope", "-p", "no:cacheprovider"]
    return subprocess.run([*command, *ignored, "tests"], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
