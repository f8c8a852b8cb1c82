"""The chapters notice a change in the method: each mutation of the package makes an assertion in a chapter fail.

A chapter is run from its first cell to the one that has to notice, on a copy of the package with one line changed,
and on an unchanged copy, where it has to pass.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNNER = """
import json, sys
import matplotlib
matplotlib.use("agg")
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for number, source in enumerate(json.loads(sys.stdin.read()), start=1):
    if not shell.run_cell(source).success:
        print(f"code cell {number} failed")
        sys.exit(1)
"""


@dataclass(frozen=True)
class Part:
    """The cells of a chapter down to the one that has ``until`` in it, with texts ``replaced`` to make it short."""

    chapter: str
    until: str
    replaced: tuple[tuple[str, str], ...] = ()

    def cells(self) -> list[str]:
        notebook = nbformat.read(ROOT / "book" / f"{self.chapter}.ipynb", as_version=4)
        # Drawings and solutions take most of the time and change nothing for what follows.
        sources = [
            cell.source
            for cell in notebook.cells
            if cell.cell_type == "code"
            and not {"hide-input", "solution"} & set(cell.metadata.get("tags", []))
        ]
        last = next(number for number, source in enumerate(sources) if self.until in source)
        text = "\0".join(sources[: last + 1]).replace("%matplotlib inline\n", "")
        text = text.replace("from myst_nb import glue", "glue = lambda *_, **__: None")
        for old, new in self.replaced:
            assert old in text, f"{self.chapter} has no {old}"
            text = text.replace(old, new)
        return text.split("\0")


OBJECTIVE = Part("01_method", "objectives.objective(")
# From the first disc a few steps do not yet leave the suppressed score, unless they are steps uphill.
LEARNED = Part(
    "01_method",
    "assert agreement > 0.7",
    (("ITERATIONS = 300", "ITERATIONS = 8"), ("STEPS = 100", "STEPS = 1")),
)
PRESERVED = Part("02_extensions", "objectives.objective(")
NUMBERS = Part("17_paper_and_here", "abs(row.value - paper[key].value)")

MUTATIONS = {
    "λ₁ of the default setting": ("settings.py", "_setting(1e-4", "_setting(1e-3", OBJECTIVE),
    "λ₁ of the localization setting": ("settings.py", "area_weight=1e-3", "area_weight=1e-2", NUMBERS),
    "β": ("settings.py", "_setting(3.0", "_setting(2.0", OBJECTIVE),
    "the stride of occlusion": ("baselines/occluders.py", "POSITIONS = 28", "POSITIONS = 8", NUMBERS),
    "the sign of the preserved score": ("games.py", "sign=-1", "sign=+1", PRESERVED),
    "the sign of the deleted score": ("objectives.py", "game.sign * score", "-game.sign * score", OBJECTIVE),
    "the sign in the optimizer": (
        "loop.py",
        "batch.steps.step(gradient",
        "batch.steps.step(-gradient",
        LEARNED,
    ),
}


def copy_package(folder: Path) -> Path:
    shutil.copytree(
        ROOT / "perturb_tutorial", folder / "perturb_tutorial", ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "data").symlink_to(ROOT / "data", target_is_directory=True)
    return folder / "perturb_tutorial"


def run(part: Part, folder: Path) -> subprocess.CompletedProcess[str]:
    """The cells in one process that imports the package of ``folder``."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(part.cells()),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT / "book",
        env=environment,
    )


@pytest.mark.parametrize("part", [LEARNED, PRESERVED, NUMBERS], ids=lambda part: part.chapter)
def test_unchanged_package_passes(part: Part, tmp_path: Path) -> None:
    """LEARNED contains the cells of OBJECTIVE."""
    copy_package(tmp_path)
    done = run(part, tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_noticed(name: str, tmp_path: Path) -> None:
    file, old, new, part = MUTATIONS[name]
    path = copy_package(tmp_path) / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{file} has {text.count(old)} times {old}"
    path.write_text(text.replace(old, new), encoding="utf-8")
    done = run(part, tmp_path)
    assert done.returncode == 1, f"{name}: nothing noticed"
    assert "AssertionError" in done.stdout
    assert f"code cell {len(part.cells())} failed" in done.stdout, "noticed where the chapter looks for it"
