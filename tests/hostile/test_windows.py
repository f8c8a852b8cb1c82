"""What another system would do with our files: Windows has its own encoding, line ends, names and separators."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path, PureWindowsPath

import pytest

from perturb_tutorial.files import unique_stems

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("perturb_tutorial", "tools", "bench", "studies", "book/_ext")
LONGEST = 160  # characters of a path in the repository; Windows takes 260 with the folder in front


def without_encoding(source: str) -> list[int]:
    """Lines that read or write text in whatever encoding the system has."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        keywords = {keyword.arg for keyword in node.keywords}
        plain_open = called == "open" and isinstance(node.func, ast.Name)
        mode = ast.unparse(node.args[1]) if plain_open and len(node.args) > 1 else "r"
        texts = {"read_text": 1, "write_text": 2}
        if "encoding" not in keywords and (
            (called in texts and len(node.args) < texts[called]) or (plain_open and "b" not in mode)
        ):
            found.append(node.lineno)
    return found


def test_text_is_utf_8_on_every_system() -> None:
    wrong = {
        f"{path.relative_to(ROOT)}, line {line}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for line in without_encoding(path.read_text(encoding="utf-8"))
    }
    assert wrong == set()


def test_text_of_unknown_encoding_is_found() -> None:
    source = "p.read_text()\np.read_text('utf-8')\nopen(p, 'wb')\nopen(p)\np.write_text('x')\np.open('rb')\n"
    assert without_encoding(source) == [1, 4, 5]


def tracked() -> list[str]:
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("not a clone")
    return done.stdout.decode().split("\0")[:-1]


def test_every_file_can_be_checked_out_on_windows() -> None:
    names = tracked()
    assert [
        n for n in names if len(n) > LONGEST or set(n) & set('<>:"\\|?*') or PureWindowsPath(n).is_reserved()
    ] == []
    assert [n for n in names if any(part != part.rstrip(". ") for part in n.split("/"))] == []
    folded = [name.lower() for name in names]
    assert len(set(folded)) == len(folded), "two names differ in capitals only"


def test_text_has_the_line_ends_of_the_repository() -> None:
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--eol"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("not a clone")
    wrong = [line for line in done.stdout.splitlines() if line.startswith(("i/crlf", "i/mixed"))]
    assert wrong == []
    assert "eol=lf" in (ROOT / ".gitattributes").read_text(encoding="utf-8")


def test_a_path_of_windows_is_named_by_its_file() -> None:
    # The command line passes paths on as the system writes them; the stems of results are those of the files.
    given = [PureWindowsPath(r"C:\photos\cat.jpg").name, PureWindowsPath(r"D:\more\CAT.png").name]
    stems = unique_stems(given)
    assert len({stem.lower() for stem in stems}) == 2
