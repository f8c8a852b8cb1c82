"""Execute, check and distribute the book's chapters (book/NN_name.ipynb).

    python tools/chapters.py run [NAME…]       execute each in a fresh kernel, store it in its stable form
    python tools/chapters.py form [NAME…]      only the stable form, for a change in prose
    python tools/chapters.py check [NAME…]     the checks that need no kernel (notebook_checks.py)
    python tools/chapters.py student FOLDER    copies without the solutions

A kernel has one thread, whatever the caller has set, so that the same machine writes the same bytes.
NAME is a file name with or without its ending, or its number; without a name all chapters are meant. A
chapter's working directory is `book/`. A cell that fails stops the run of its chapter and leaves the stored
notebook as it was.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from notebook_checks import problems
from notebook_form import normalize, write_whole

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
# How many threads share a sum decides how it is rounded, and the pictures show it in some bytes.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
CELL_TIMEOUT = 2000  # seconds, as in nbval, so that it can verify every chapter that was stored


class ChapterError(Exception):
    """A chapter could not be executed; the message names the chapter and the cell."""


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    try:
        chapters = find(options.names if hasattr(options, "names") else [], options.book)
    except ValueError as error:
        print(f"chapters: {error}", file=sys.stderr)
        return 2
    if options.command == "run":
        return run_all(chapters)
    if options.command == "check":
        return check_all(chapters)
    if options.command == "form":
        for chapter in chapters:
            write_whole(normalize(nbformat.read(chapter, as_version=4)), chapter)
        return 0
    for chapter in chapters:
        options.folder.mkdir(parents=True, exist_ok=True)
        write_whole(without_solutions(nbformat.read(chapter, as_version=4)), options.folder / chapter.name)
    print(f"{len(chapters)} chapters without solutions in {options.folder}")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Execute, check and hand out the book's chapters.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("run", "execute and store"),
        ("form", "bring prose that was edited to the stable form, without running anything"),
        ("check", "check what is stored"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument(
            "names", nargs="*", metavar="NAME", help="01_method, 01_method.ipynb or 01; default all"
        )
    student = commands.add_parser("student", help="write copies without solutions")
    student.add_argument("folder", type=Path, help="folder that gets the copies")
    for command in commands.choices.values():
        command.add_argument("--book", type=Path, default=BOOK, help="folder of the chapters")
    return parser.parse_args(argv)


def find(names: list[str], book: Path) -> list[Path]:
    """The chapters that `names` match, in the book's order; ValueError for a name that matches none."""
    chapters = sorted(book.glob("[0-9][0-9]_*.ipynb"))
    if not names:
        return chapters
    wanted = set()
    for name in names:
        stem = Path(name).stem
        matching = [chapter for chapter in chapters if stem in (chapter.stem, chapter.stem[:2])]
        if not matching:
            known = ", ".join(chapter.stem for chapter in chapters) or "none"
            raise ValueError(f"no chapter is called {name} in {book}; there are: {known}")
        wanted.update(matching)
    return sorted(wanted)


def run_all(chapters: list[Path]) -> int:
    failures = 0
    for chapter in chapters:
        start = time.perf_counter()
        try:
            executed = execute(chapter)
        except ChapterError as error:
            print(error, file=sys.stderr)
            failures += 1
            continue
        write_whole(normalize(executed), chapter)
        print(f"{chapter.name}: executed in {time.perf_counter() - start:.0f} s", flush=True)
    return 1 if failures else 0


def check_all(chapters: list[Path]) -> int:
    found = [problem for chapter in chapters for problem in problems(chapter)]
    for problem in found:
        print(problem, file=sys.stderr)
    print(f"{len(chapters)} chapters checked, {len(found)} problems")
    return 1 if found else 0


def execute(chapter: Path) -> NotebookNode:
    """The chapter executed in a fresh kernel whose working directory is the chapter's folder."""
    notebook = nbformat.read(chapter, as_version=4)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    started: list[int] = []

    def remember(cell: NotebookNode, cell_index: int) -> None:
        started.append(cell_index)

    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(chapter.parent)}},
        # The kernel's message about its transport would hide the name of a failing cell.
        extra_arguments=["--log-level=40"],
        store_widget_state=True,
        record_timing=False,
        # Chunks of a stream depend on when the kernel flushed it.
        coalesce_streams=True,
        on_cell_start=remember,
    )
    try:
        client.execute(env={**os.environ, **ONE_THREAD})
    except CellExecutionError as error:
        raise ChapterError(describe(chapter, notebook, started, f"{error.ename}: {error.evalue}")) from None
    except CellTimeoutError:
        raise ChapterError(
            describe(chapter, notebook, started, f"ran for more than {CELL_TIMEOUT} s")
        ) from None
    except DeadKernelError:
        raise ChapterError(
            describe(chapter, notebook, started, "the kernel died, out of memory perhaps")
        ) from None
    return notebook


def describe(chapter: Path, notebook: NotebookNode, started: list[int], reason: str) -> str:
    """`chapter, cell n (its first line): reason`; the cell is the last one that was started."""
    if not started:
        return f"{chapter.name}: {reason}"
    index = started[-1]
    number = sum(cell.cell_type == "code" for cell in notebook.cells[: index + 1])
    first = next((line for line in notebook.cells[index].source.splitlines() if line.strip()), "")
    return (
        f"{chapter.name}, code cell {number} (cell {index + 1} of {len(notebook.cells)}, `{first}`): {reason}"
    )


def without_solutions(notebook: NotebookNode) -> NotebookNode:
    """A copy without the cells tagged `solution`."""
    copy = nbformat.from_dict(notebook)
    copy.cells = [cell for cell in copy.cells if "solution" not in cell.metadata.get("tags", [])]
    return copy


if __name__ == "__main__":
    sys.exit(main())
