"""Build what is released, twice, and refuse it where the two differ: `python tools/release.py [--output dist]`.

Wheel and source archive depend on the commit alone: every file in them carries its time (`SOURCE_DATE_EPOCH`), and
the build backend is that of constraints.txt. So anybody can build a release again and compare the sums that this
prints.

    python tools/release.py --output dist [--tag v0.1.0]

With `--tag` the package's version and the changelog have to be those of the tag. Needs `build` (`pip install build`).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGEST = {".whl": 2_500_000, ".gz": 2_500_000}  # bytes; book/contributing.md says what they are made of


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build wheel and source archive twice and compare them.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder that gets the two files")
    parser.add_argument("--tag", help="the release's tag, such as v0.1.0")
    options = parser.parse_args(argv)
    problems = not_released(ROOT, options.tag) if options.tag else []
    if not problems:
        with tempfile.TemporaryDirectory() as folder:
            again = build(Path(folder))
            problems = differences(build(options.output), again)
        for path in sorted(options.output.iterdir()):
            if path.suffix in LARGEST:
                problems += unsuitable(path)
                print(
                    f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}  {path.stat().st_size:,} bytes"
                )
    for line in problems:
        print(f"release: {line}", file=sys.stderr)
    return 1 if problems else 0


def not_released(root: Path, tag: str) -> list[str]:
    """What speaks against a release called ``tag``."""
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    found = [] if tag == f"v{version}" else [f"the tag is {tag}, the version in pyproject.toml {version}"]
    if f"## {version} (unreleased)" in (root / "CHANGELOG.md").read_text(encoding="utf-8"):
        found.append(f"CHANGELOG.md calls {version} unreleased; give it the date")
    return found


def build(output: Path) -> dict[str, bytes]:
    """Builds into ``output``; the files' names and contents."""
    output.mkdir(parents=True, exist_ok=True)
    for old in [*output.glob("*.whl"), *output.glob("*.tar.gz")]:
        old.unlink()
    pins = str(ROOT / "constraints.txt")
    environment = os.environ | {"SOURCE_DATE_EPOCH": commit_time(ROOT), "PIP_CONSTRAINT": pins}
    command = [sys.executable, "-m", "build", "--outdir", str(output.resolve()), str(ROOT)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return {path.name: path.read_bytes() for path in sorted(output.iterdir()) if path.suffix in LARGEST}


def commit_time(root: Path) -> str:
    """Seconds since 1970 of the last commit; of 2 February 2020 where there is no repository, as hatchling has it."""
    done = subprocess.run(
        ["git", "-C", str(root), "log", "-1", "--format=%ct"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "1580601600"


def differences(first: dict[str, bytes], second: dict[str, bytes]) -> list[str]:
    """A line for each file that the two builds do not have in common, byte for byte."""
    return [
        f"{name} is not the same in two builds"
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    ]


def unsuitable(path: Path) -> list[str]:
    """What should not be in the archive ``path``: too much, or files that belong to a machine."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            names = wheel.namelist()
    else:
        with tarfile.open(path) as archive:
            names = archive.getnames()
    found = [f"{path.name} has {name}" for name in names if "__pycache__" in name or name.endswith(".ipynb")]
    size = path.stat().st_size
    if size > LARGEST[path.suffix]:
        found.append(f"{path.name} has {size:,} bytes, more than {LARGEST[path.suffix]:,}")
    return found


if __name__ == "__main__":
    sys.exit(main())
