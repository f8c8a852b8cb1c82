"""tools/kit.py: the folder for a class without internet has all its parts, and says what is missing."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import kit
import nbformat
import pytest


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "html"
    folder.mkdir()
    (folder / "index.html").write_text("<title>a site</title>", encoding="utf-8")
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What pip is asked for; it leaves one small file a call."""
    asked: list[tuple[str, ...]] = []

    def pip(*arguments: str) -> None:
        asked.append(arguments)
        folder = arguments[arguments.index("--wheel-dir" if arguments[0] == "wheel" else "--dest") + 1]
        Path(folder, f"{arguments[0]}-1-py3-none-any.whl").write_bytes(b"x" * 1000)

    monkeypatch.setattr(kit, "pip", pip)
    return asked


def test_kit_has_all_parts(tmp_path: Path, site: Path, calls: list[tuple[str, ...]]) -> None:
    folder = tmp_path / "kit"
    assert kit.main([str(folder), "--site", str(site), "--pip-option=--no-cache-dir"]) == 0
    assert (folder / "site" / "index.html").is_file()
    chapters = {path.name for path in kit.find([], kit.ROOT / "book")}
    assert {path.name for path in (folder / "notebooks").iterdir()} == chapters
    assert {path.name for path in (folder / "students").iterdir()} == chapters
    solved = [
        cell
        for name in chapters
        for cell in nbformat.read(folder / "students" / name, as_version=4).cells
        if "solution" in cell.metadata.get("tags", [])
    ]
    assert not solved
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert f'pip install --no-index --find-links wheels "perturb_tutorial[{kit.EXTRAS}]" jupyterlab' in text
    wheel, download = calls
    assert wheel[0] == "wheel"
    assert {"--constraint", f"perturb_tutorial[{kit.EXTRAS}]", "--no-cache-dir"} <= set(download)


NEEDED = {
    # What a chapter's code says → the extra without which it fails.
    "book": r"explorer\(|glue\(",
    "samples": r"load_samples\(|sample_path\(",
    "coco": r"read_samples\(",
    "lite": r"lite1|lite2",
    "onnx": r"""engine="onnx"|ours\("onnx"\)""",
}


def test_the_kit_and_the_welcome_page_install_what_the_chapters_use() -> None:
    chapters = [nbformat.read(path, as_version=4) for path in kit.find([], kit.ROOT / "book")]
    code = "\n".join(c.source for chapter in chapters for c in chapter.cells if c.cell_type == "code")
    assert [extra for extra, pattern in NEEDED.items() if re.search(pattern, code)] == list(NEEDED)
    assert set(kit.EXTRAS.split(",")) == set(NEEDED)
    welcome = (kit.ROOT / "book" / "00_welcome.md").read_text(encoding="utf-8")
    assert f'pip install ".[{kit.EXTRAS}]" jupyterlab' in welcome


def test_without_a_site_it_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kit.main([str(tmp_path / "kit"), "--site", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.strip().endswith("has no site: run `make book` first")
    assert not (tmp_path / "kit").exists()


def test_a_failing_pip_is_one_line(tmp_path: Path, site: Path) -> None:
    """A real pip that may ask no index."""
    (tmp_path / "wheels").mkdir()
    with pytest.raises(kit.KitError, match=r"pip download failed .*; check the connection and start again"):
        kit.download(tmp_path / "wheels", "book", ["--no-index"])


def test_installed_from_the_folder_alone(tmp_path: Path) -> None:
    """The way of the kit's instructions, with a wheel of one module in place of everything."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "tiny_kit-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_kit.py", "answer = 42\n")
        wheel.writestr("tiny_kit-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny_kit\nVersion: 1\n")
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr("tiny_kit-1.dist-info/WHEEL", tags)
        wheel.writestr("tiny_kit-1.dist-info/RECORD", "")
    target = tmp_path / "installed"
    command = ["install", "--no-index", "--find-links", str(wheels), "--target", str(target), "tiny_kit"]
    kit.pip(*command)
    done = subprocess.run(
        [sys.executable, "-c", "import tiny_kit; print(tiny_kit.answer)"],
        env={"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "42\n"
