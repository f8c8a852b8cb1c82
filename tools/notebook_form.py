"""The one form in which a chapter is stored: the same results give the same bytes.

Executing a notebook leaves random widget ids, times, versions and PNG headers behind. `normalize` replaces or
drops each of them; it changes nothing that a reader or nbval sees.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image

KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE_INFO = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "pygments_lexer": "ipython3",
}
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
KEPT_METADATA = (
    "authors",
    "title",
)  # of the notebook; `normalize` writes kernelspec, language_info and widgets itself
DROPPED_CELL_METADATA = (
    "execution",
    "ExecuteTime",
    "collapsed",
    "scrolled",
    "jupyter",
    "editable",
    "slideshow",
)
TWINS = ("image/svg+xml", "application/pdf")


def normalize(notebook: NotebookNode) -> NotebookNode:
    """A copy of an executed notebook in the stored form."""
    result = nbformat.reads(renumbered_widgets(notebook), as_version=4)
    widgets = result.metadata.get("widgets")
    result.metadata = nbformat.from_dict(
        {
            **{key: result.metadata[key] for key in KEPT_METADATA if key in result.metadata},
            "kernelspec": KERNELSPEC,
            "language_info": LANGUAGE_INFO,
        }
    )
    if widgets and widgets.get(WIDGET_STATE, {}).get("state"):
        result.metadata["widgets"] = widgets
    result.nbformat, result.nbformat_minor = 4, 5
    seen: dict[str, int] = {}
    count = 0
    for cell in result.cells:
        cell["id"] = cell_id(cell, seen)
        for key in DROPPED_CELL_METADATA:
            cell.metadata.pop(key, None)
        if cell.cell_type != "code":
            continue
        cell.source = cell.source.rstrip("\n")
        if cell.execution_count is not None:
            count += 1
            cell.execution_count = count
        for output in cell.outputs:
            normalize_output(output, cell.execution_count)
    nbformat.validate(result)
    return result


def cell_id(cell: NotebookNode, seen: dict[str, int]) -> str:
    """An id that follows from the cell's own text, so that inserting a cell leaves the others' ids alone."""
    key = hashlib.sha256(f"{cell.cell_type}\n{cell.source.rstrip()}".encode()).hexdigest()[:12]
    seen[key] = seen.get(key, 0) + 1
    return key if seen[key] == 1 else f"{key}-{seen[key]}"


def normalize_output(output: NotebookNode, execution_count: int | None) -> None:
    """One PNG a figure, without version headers. Metadata stays: it names what `glue` stored."""
    if output.output_type == "execute_result":
        output.execution_count = execution_count
    data = output.get("data", {})
    if "image/png" in data:
        for twin in TWINS:
            data.pop(twin, None)
    for kind in data:
        # glue keeps a picture under a longer name of this kind.
        if kind.endswith("image/png"):
            data[kind] = stable_png(data[kind])


def stable_png(encoded: str) -> str:
    """The same pixels, packed again without text chunks (matplotlib writes its version into one)."""
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        image.load()
        # Figures are opaque; a channel of ones would only make them larger.
        opaque = image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255)
        plain = image.convert("RGB") if opaque else image
        buffer = io.BytesIO()
        plain.save(buffer, format="PNG", optimize=True, dpi=image.info.get("dpi", (100, 100)))
    return base64.b64encode(buffer.getvalue()).decode("ascii") + "\n"


def renumbered_widgets(notebook: NotebookNode) -> str:
    """The notebook's text with each random model id replaced by its number in the order of creation.

    nbclient keeps the models in the order in which the kernel opened them; writing sorts them by id.
    """
    state = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    numbers = {model: f"{number:032x}" for number, model in enumerate(state, start=1)}
    text = str(nbformat.writes(notebook))
    if not numbers:
        return text
    pattern = re.compile("|".join(re.escape(model) for model in numbers))
    return pattern.sub(lambda match: numbers[match.group()], text)


def write_whole(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook so that the file is at any time either the old one or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(nbformat.writes(notebook).rstrip("\n") + "\n")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
