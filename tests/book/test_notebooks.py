"""The stored chapters are fit to be published, and the checks that say so notice when they are not."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import chapters
import nbformat
import pytest
from chapter_form import chapter
from nbformat import NotebookNode
from notebook_checks import problems
from notebook_form import normalize, write_whole

ROOT = Path(__file__).resolve().parents[2]
STORED = sorted((ROOT / "book").glob("[0-9][0-9]_*.ipynb"))
CHECKS = "mystnb", "nbval_reason"


def test_stored_chapters_are_fit_to_be_published() -> None:
    assert len(STORED) > 10
    found = [problem for path in STORED for problem in problems(path)]
    assert not found, "\n".join(found)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    """The small chapter, executed and in its stored form."""
    path = tmp_path_factory.mktemp("book") / "01_small.ipynb"
    write_whole(chapter(), path)
    return normalize(chapters.execute(path))


def problems_of(notebook: NotebookNode, folder: Path) -> list[str]:
    path = folder / "01_small.ipynb"
    write_whole(notebook, path)
    return problems(path)


def test_a_good_chapter_has_no_problems(executed: NotebookNode, tmp_path: Path) -> None:
    assert problems_of(executed, tmp_path) == []


def strip(notebook: NotebookNode) -> None:
    for cell in code(notebook):
        cell.outputs, cell.execution_count = [], None


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def out_of_order(notebook: NotebookNode) -> None:
    first, second, *_ = code(notebook)
    first.execution_count, second.execution_count = 2, 1


def on_stderr(notebook: NotebookNode) -> None:
    code(notebook)[0].outputs.append(
        nbformat.v4.new_output("stream", name="stderr", text="UserWarning: no\n")
    )


def stored_error(notebook: NotebookNode) -> None:
    error = nbformat.v4.new_output("error", ename="KeyError", evalue="'x'", traceback=[])
    code(notebook)[0].outputs.append(error)


def memory_address(notebook: NotebookNode) -> None:
    code(notebook)[0].outputs[0].text += "<object at 0x7f1d2c3b4a50>\n"


def without_alt(notebook: NotebookNode) -> None:
    del code(notebook)[1].metadata["mystnb"]["image"]


def without_caption(notebook: NotebookNode) -> None:
    del code(notebook)[1].metadata["mystnb"]["figure"]["caption"]


def two_pictures(notebook: NotebookNode) -> None:
    code(notebook)[1].outputs *= 2


def ignored_without_reason(notebook: NotebookNode) -> None:
    code(notebook)[0].metadata["tags"] = ["nbval-ignore-output"]


def ignored_by_comment(notebook: NotebookNode) -> None:
    code(notebook)[0].source = "# NBVAL_IGNORE_OUTPUT\n" + code(notebook)[0].source


def ignored_mostly(notebook: NotebookNode) -> None:
    for cell in code(notebook):
        cell.metadata["tags"] = [*cell.metadata.get("tags", []), "nbval-ignore-output"]
        cell.metadata["nbval_reason"] = "it differs"


def too_large(notebook: NotebookNode) -> None:
    code(notebook)[0].outputs[0].text += "x" * 1_600_000


def without_promise(notebook: NotebookNode) -> None:
    replace(notebook, "*It shows what every chapter has.*\n\n", "")


def without_quick_run(notebook: NotebookNode) -> None:
    replace(notebook, "(quick run: 1 s)", "")


def without_summary(notebook: NotebookNode) -> None:
    replace(notebook, "## Summary", "Summary")


def without_remember(notebook: NotebookNode) -> None:
    replace(notebook, "**Remember**: a section ends", "A section ends")


def remember_first(notebook: NotebookNode) -> None:
    replace(
        notebook,
        "Prose.\n\n**Remember**: a section ends with its idea.",
        "**Remember**: a section.\n\nProse.",
    )


def much_to_remember(notebook: NotebookNode) -> None:
    replace(notebook, "ends with its idea.", "ends with its idea. And with another.")


def long_to_remember(notebook: NotebookNode) -> None:
    replace(notebook, "ends with its idea.", f"ends with its idea{', and so on' * 20}.")


def without_table(notebook: NotebookNode) -> None:
    replace(notebook, "|", "")


def without_expected(notebook: NotebookNode) -> None:
    replace(notebook, "**Expected** 2.", "")


def without_hint(notebook: NotebookNode) -> None:
    replace(notebook, "{hint}", "{note}")


def wrong_solution(notebook: NotebookNode) -> None:
    replace(notebook, "{solution-start} ex-sum", "{solution-start} ex-other")


def open_solution(notebook: NotebookNode) -> None:
    notebook.cells = [cell for cell in notebook.cells if "{solution-end}" not in cell.source]


def untagged_solution(notebook: NotebookNode) -> None:
    code(notebook)[-1].metadata["tags"] = []


def wide_line(notebook: NotebookNode) -> None:
    code(notebook)[0].source += "  # " + "y" * 80


def replace(notebook: NotebookNode, old: str, new: str) -> None:
    changed = 0
    for cell in notebook.cells:
        changed += old in cell.source
        cell.source = cell.source.replace(old, new)
    assert changed, f"the chapter has no {old}"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (strip, "has execution count None, not 1"),
        (out_of_order, "has execution count 2, not 1"),
        (on_stderr, "wrote to stderr: UserWarning"),
        (stored_error, "stored an error, KeyError"),
        (memory_address, "memory address"),
        (without_alt, "without alt text"),
        (without_caption, "without a caption"),
        (two_pictures, "shows 2 pictures"),
        (ignored_without_reason, "without a reason"),
        (ignored_by_comment, "steers nbval by a comment"),
        (ignored_mostly, "at most a quarter"),
        (too_large, "at most 1,500,000"),
        (without_promise, "the promise"),
        (without_quick_run, "**Time**"),
        (without_summary, "## Summary"),
        (without_remember, "section `First` does not end with a paragraph `**Remember**"),
        (remember_first, "section `First` does not end with a paragraph `**Remember**"),
        (much_to_remember, "section `First` has more to remember than one sentence"),
        (long_to_remember, "section `First` has more to remember than one sentence"),
        (without_table, "has no table"),
        (without_expected, "no **Expected** value"),
        (without_hint, "has no hint"),
        (wrong_solution, "ex-sum has no solution"),
        (open_solution, "has no solution-end"),
        (untagged_solution, "lacks the tag solution"),
        (wide_line, "characters; the page shows"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_spoiled_chapter_is_noticed(
    executed: NotebookNode, tmp_path: Path, spoil: Callable[[NotebookNode], None], message: str
) -> None:
    spoiled = copy.deepcopy(executed)
    spoil(spoiled)
    found = problems_of(spoiled, tmp_path)
    assert any(message in problem for problem in found), found


def test_a_file_that_is_no_notebook_is_one_problem(tmp_path: Path) -> None:
    path = tmp_path / "01_small.ipynb"
    path.write_text('{"cells": [', encoding="utf-8")
    (problem,) = problems(path)
    assert problem.startswith("01_small.ipynb: not a valid notebook")


def nbval(path: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "--nbval-current-env",
        "-q",
        "-p",
        "no:cacheprovider",
        str(path),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_nbval_verifies_from_the_top_folder_in_the_chapters_folder(tmp_path: Path) -> None:
    """As `make test` calls it: green for what was stored, red for another output, run in its folder."""
    (tmp_path / "beside.txt").write_text("found", encoding="utf-8")
    small = chapter()
    reading = nbformat.v4.new_code_cell('from pathlib import Path\n\nprint(Path("beside.txt").read_text())')
    small.cells.insert(1, reading)
    path = tmp_path / "01_small.ipynb"
    write_whole(small, path)
    write_whole(normalize(chapters.execute(path)), path)
    green = nbval(path)
    assert green.returncode == 0, green.stdout
    path.write_text(path.read_text(encoding="utf-8").replace('"found\\n"', '"lost\\n"'), encoding="utf-8")
    red = nbval(path)
    assert red.returncode == 1
    assert "1 failed" in red.stdout
