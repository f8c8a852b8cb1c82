"""Make `.venv` with everything that tests and book need: `make setup`.

A torch that the calling Python already has is used, in its version, instead of a second copy. Nothing is done, and the
network is not used, if pyproject.toml and constraints.txt have not changed since the last success.

    python tools/environment.py [--extras samples,lite,coco,benchmarks,ray,cloud,onnx,book,tests] [--constraints FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv"
PYTHON = FOLDER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
PINS = ROOT / "constraints.txt"
EXTRAS = "samples,lite,coco,benchmarks,ray,cloud,onnx,book,tests"


def main() -> int:
    parser = argparse.ArgumentParser(description="Make .venv with everything that tests and book need.")
    parser.add_argument("--extras", default=EXTRAS, help=f"extras of pyproject.toml (default: {EXTRAS})")
    parser.add_argument(
        "--constraints", type=Path, default=PINS, help=f"pip's constraints (default: {PINS.name})"
    )
    options = parser.parse_args()
    # This file runs before pip could say so.
    if sys.version_info < (3, 11):  # noqa: UP036
        print(
            f"environment: expected Python 3.11 or newer, got {sys.version.split()[0]}; make PYTHON=python3.11 …",
            file=sys.stderr,
        )
        return 2
    extras = options.extras if shutil.which("npm") else f"{options.extras},node"
    outside = None if Path(sys.prefix).resolve() == FOLDER else torch_outside()
    stamp, wanted = FOLDER / "stamp", fingerprint(extras, outside, options.constraints)
    if PYTHON.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return 0
    if not PYTHON.is_file():
        venv.create(FOLDER, with_pip=True)
    if outside is not None:
        share(outside[1])
    constraints = FOLDER / "constraints.txt"
    pins = options.constraints.read_text(encoding="utf-8")
    constraints.write_text(fitted(pins, outside and outside[0]), encoding="utf-8")
    command = [
        PYTHON,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        constraints,
        "--editable",
        f"{ROOT}[{extras}]",
    ]
    done = subprocess.run([str(part) for part in command], check=False)
    if done.returncode == 0:
        stamp.write_text(wanted, encoding="utf-8")
    return done.returncode


def torch_outside() -> tuple[str, Path] | None:
    """Version and site folder of the torch that this Python imports, if it has one."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    return importlib.metadata.version("torch"), Path(spec.origin).parent.parent


def share(site: Path) -> None:
    """Lets `.venv` import what lies in `site`, after its own packages."""
    lines = subprocess.run(
        [str(PYTHON), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    Path(lines.stdout.strip(), "torch_outside.pth").write_text(f"{site}\n", encoding="utf-8")


def fitted(constraints: str, torch_version: str | None) -> str:
    """The pins, with torch at the version that is already installed and torchvision left open to match it."""
    if torch_version is None or f"torch=={torch_version.partition('+')[0]}" in constraints.splitlines():
        return constraints
    kept = [line for line in constraints.splitlines() if not line.startswith(("torch==", "torchvision=="))]
    return "\n".join([*kept, f"torch=={torch_version}", ""])


def fingerprint(extras: str, outside: tuple[str, Path] | None, constraints: Path) -> str:
    """What the environment depends on, as a text: extras, pins, the torch outside and the project folder."""
    files = [ROOT / "pyproject.toml", constraints]
    words = [extras, str(ROOT), str(outside)]
    return hashlib.sha256(b"\0".join([*map(str.encode, words), *(p.read_bytes() for p in files)])).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
