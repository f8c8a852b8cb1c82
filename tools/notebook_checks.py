"""Requirements on a stored chapter that can be checked without executing it.

nbval compares outputs, but it accepts a notebook without any and does not check pictures or what readers need. These
checks do: the chapter was executed from top to bottom without output on stderr, each figure is described and captioned,
the file is small, and it has the parts that every chapter has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from notebook_form import normalize

MAX_BYTES = 1_500_000
NBVAL_TAGS = ("nbval-ignore-output", "nbval-skip", "raises-exception")
MAX_UNVERIFIED = 0.25  # share of a chapter's code cells whose output nbval may ignore
HIDDEN_OUTPUT = ("remove-output", "remove-cell")
ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
MAX_COLUMNS = 79  # of a code line: what a page shows without scrolling sideways
MIN_ALT = 20  # characters; less cannot say what a picture shows

# Part → what must match somewhere in the chapter's text.
PARTS = {
    "a title and below it the promise, one line in italics": re.compile(r"\A# [^\n]+\n\n\*[^*\n][^\n]*\*\n"),
    "**You will learn**": re.compile(r"\*\*You will learn\*\*"),
    "**Builds on**": re.compile(r"\*\*Builds on\*\*"),
    "**Time** with minutes to read, to run, and for the quick run": re.compile(
        r"\*\*Time\*\*(?=[^\n]*(?:\n[^\n]+)*?\bread)(?=[^\n]*(?:\n[^\n]+)*?\brun)(?=[^\n]*(?:\n[^\n]+)*?\bquick)"
    ),
    "two sections": re.compile(r"^## .*^## ", re.MULTILINE | re.DOTALL),
    "an exercise": re.compile(r"^[`:]{3,}\{exercise(-start)?\}", re.MULTILINE),
    "a table under `## The paper and here`": re.compile(r"^## The paper and here$", re.MULTILINE),
    "`## Summary`": re.compile(r"^## Summary$", re.MULTILINE),
    "`## Next`": re.compile(r"^## Next$", re.MULTILINE),
}
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
# Sections that report or list, without an idea of their own to remember.
CLOSING_SECTIONS = ("The whole experiment", "The paper and here", "Summary", "Next")
REMEMBER = re.compile(r"\*\*Remember\*\*: (?P<sentence>[^\n]+\.)")
MAX_REMEMBER = 200  # characters; a longer sentence is no help to memory
EXERCISE = re.compile(
    r"^([`:]{3,})\{exercise(?:-start)?\}.*?(?=^[`:]{3,}\{(?:exercise|solution)|\Z)", re.M | re.S
)
SOLUTION = re.compile(r"^[`:]{3,}\{(solution(?:-start|-end)?)\}[ \t]*(\S*)", re.MULTILINE)
LABEL = re.compile(r"^:label:[ \t]*(\S+)", re.MULTILINE)


def problems(path: Path) -> list[str]:
    """Each a line `file: what is wrong`; empty for a chapter that may be published."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        return [f"{path.name}: not a valid notebook ({str(error).splitlines()[0]})"]
    found = [*size(path), *execution(notebook), *figures(notebook), *tags(notebook), *template(notebook)]
    if not found and nbformat.writes(normalize(notebook)).rstrip("\n") + "\n" != path.read_text(
        encoding="utf-8"
    ):
        found.append("not in its stored form: run `python tools/chapters.py run` on it")
    return [f"{path.name}: {problem}" for problem in found]


def size(path: Path) -> Iterator[str]:
    if path.stat().st_size > MAX_BYTES:
        yield f"{path.stat().st_size:,} bytes; at most {MAX_BYTES:,}: smaller or fewer pictures"


def code_cells(notebook: NotebookNode) -> list[tuple[str, NotebookNode]]:
    """(name for a message, cell) of each code cell."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [(f"code cell {number}", cell) for number, cell in enumerate(cells, start=1)]


def execution(notebook: NotebookNode) -> Iterator[str]:
    """Every code cell was executed once, in order, without output on stderr or output that differs each time."""
    cells = code_cells(notebook)
    if not cells:
        yield "has no code cell"
    for number, (name, cell) in enumerate(cells, start=1):
        expected_failure = "raises-exception" in cell.metadata.get("tags", [])
        if not cell.source.strip():
            yield f"{name} is empty"
        elif cell.execution_count != number:
            yield f"{name} has execution count {cell.execution_count}, not {number}: run the whole chapter"
        longest = max((len(line) for line in cell.source.splitlines()), default=0)
        if longest > MAX_COLUMNS:
            yield f"{name} has a line of {longest} characters; the page shows {MAX_COLUMNS}"
        if cell.source.rstrip().endswith(";"):
            yield f"{name} ends with a semicolon, which nbval ignores: assign it or end with plt.show()"
        for output in cell.outputs:
            if output.output_type == "error" and not expected_failure:
                yield f"{name} stored an error, {output.ename}"
            elif output.output_type == "stream" and output.name == "stderr":
                yield f"{name} wrote to stderr: {output.text.strip().splitlines()[0][:80]}"
            text = output.get("text", "") or output.get("data", {}).get("text/plain", "")
            if ADDRESS.search(text):
                yield f"{name} shows a memory address, which differs each time"


def figures(notebook: NotebookNode) -> Iterator[str]:
    """At most one picture in a cell, with an alt text for readers who cannot see it and a caption for those who can."""
    for name, cell in code_cells(notebook):
        pictures = [o for o in cell.outputs if any(key.startswith("image/") for key in o.get("data", {}))]
        if not pictures or any(tag in HIDDEN_OUTPUT for tag in cell.metadata.get("tags", [])):
            continue
        if len(pictures) > 1:
            yield f"{name} shows {len(pictures)} pictures: one a cell, so that each has its own caption"
        described = cell.metadata.get("mystnb", {})
        alt = str(described.get("image", {}).get("alt", "")).strip()
        caption = str(described.get("figure", {}).get("caption", "")).strip()
        if len(alt) < MIN_ALT:
            yield f"{name} shows a picture without alt text (mystnb.image.alt, at least {MIN_ALT} characters)"
        if not caption:
            yield f"{name} shows a picture without a caption (mystnb.figure.caption)"
        elif caption == alt:
            yield f"{name} has the same text as caption and as alt text; the alt text says what is to be seen"
        if not described.get("figure", {}).get("name"):
            yield f"{name} shows a picture that cannot be referred to (mystnb.figure.name)"


def tags(notebook: NotebookNode) -> Iterator[str]:
    """Outputs that nbval does not compare have a reason, and are few."""
    cells = code_cells(notebook)
    unverified = 0
    for name, cell in cells:
        used = [tag for tag in NBVAL_TAGS if tag in cell.metadata.get("tags", [])]
        unverified += any(tag.startswith("nbval") for tag in used)
        if used and not str(cell.metadata.get("nbval_reason", "")).strip():
            yield f"{name} is tagged {used[0]} without a reason (metadata key nbval_reason)"
        if re.search(r"^\s*#\s*(NBVAL_|PYTEST_VALIDATE)", cell.source, re.MULTILINE):
            yield f"{name} steers nbval by a comment: use the tag, which readers do not see"
    if cells and unverified > MAX_UNVERIFIED * len(cells):
        yield f"nbval ignores the output of {unverified} of {len(cells)} code cells; at most a quarter"


def template(notebook: NotebookNode) -> Iterator[str]:
    """The parts that every chapter has; each exercise has an expected value, a hint and a hidden solution."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown") + "\n"
    for part, pattern in PARTS.items():
        if not pattern.search(text):
            yield f"has no part: {part}"
    if "$" in text.partition("\n")[0]:
        yield "has mathematics in its title, which the other pages' menus cannot typeset: use Unicode"
    paper_and_here = text.partition("## The paper and here")[2].split("\n## ")[0]
    if paper_and_here and "|" not in paper_and_here and "{list-table}" not in paper_and_here:
        code = "".join(cell.source for _, cell in code_cells(notebook))
        if "paper" not in code:
            yield "`## The paper and here` has no table"
    yield from remembered(text)
    solved = {label for kind, label in SOLUTION.findall(text) if kind != "solution-end"}
    for exercise in EXERCISE.finditer(text):
        label = LABEL.search(exercise.group())
        name = label.group(1) if label else "an exercise"
        if label is None:
            yield "has an exercise without :label:"
        elif name not in solved:
            yield f"{name} has no solution"
        if "**Expected**" not in exercise.group():
            yield f"{name} states no **Expected** value"
        if "{hint}" not in exercise.group() and "Hint" not in exercise.group():
            yield f"{name} has no hint"
    yield from solutions(notebook)


def remembered(text: str) -> Iterator[str]:
    """Each section with an idea ends with one sentence to remember, `**Remember**: …`, in a paragraph of its own."""
    _, *parts = SECTION.split(text)
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        if title in CLOSING_SECTIONS:
            continue
        # A target such as `(on-a-gpu)=` belongs to the heading after it.
        body = re.sub(r"\n\([\w-]+\)=\s*\Z", "", body)
        last = REMEMBER.fullmatch(body.strip().split("\n\n")[-1])
        if last is None:
            yield f"section `{title}` does not end with a paragraph `**Remember**: …`"
        elif re.search(r"[.?!] [A-Z]", last["sentence"]) or len(last["sentence"]) > MAX_REMEMBER:
            yield f"section `{title}` has more to remember than one sentence of {MAX_REMEMBER} characters"


def solutions(notebook: NotebookNode) -> Iterator[str]:
    """Everything from solution-start to solution-end is tagged, so that the student's copy drops it."""
    inside, has_code = False, True
    for number, cell in enumerate(notebook.cells, start=1):
        kinds = [kind for kind, _ in SOLUTION.findall(cell.source)] if cell.cell_type == "markdown" else []
        if "solution-start" in kinds:
            inside, has_code = True, False
        has_code = has_code or (inside and cell.cell_type == "code")
        tagged = "solution" in cell.metadata.get("tags", [])
        if (inside or kinds) and not tagged:
            yield f"cell {number} belongs to a solution but lacks the tag solution"
        if "solution-end" in kinds:
            inside = False
            if not has_code:
                yield f"cell {number} ends a solution without executed code"
    if inside:
        yield "a solution-start has no solution-end"
