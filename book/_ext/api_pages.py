"""Sphinx extension for the API reference: the package's docstrings, as they are, on a page.

The docstrings are written to be read in an editor. Four things are therefore brought into the form that docutils
asks for: Args, Returns and Raises become lists of fields; an indented block is a formula or code and keeps its lines;
``cells``² may stand without a space; and a lone * in a signature is no emphasis.

Types in signatures link to their entry where they have one; those of other packages have none on this site. An unknown
name in a docstring's own role is an error of the build, as elsewhere.
"""

from __future__ import annotations

import ast
import re
import textwrap
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util.nodes import make_refnode

AFTER_LITERAL = " .,;:)]}/'\"!?-–—\\"  # what docutils lets follow a literal
ELSEWHERE = ("collections", "matplotlib", "numpy", "pathlib", "torch")
SECTIONS = Config(napoleon_use_rtype=False, napoleon_use_ivar=True)
LONE_STAR = re.compile(r"(?<![*\w`])\*(?=[,)])")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", to_docutils)
    app.connect("autodoc-process-signature", with_readable_defaults)
    app.connect("missing-reference", own_type_or_none)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def to_docutils(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring's lines in place."""
    if what in (
        "function",
        "method",
        "class",
        "exception",
    ):  # the colon in an attribute's sentence names no type
        lines[:] = GoogleDocstring(lines, SECTIONS, app, what, name, obj, options).lines()
    result: list[str] = []
    inside = False
    for number, line in enumerate(lines):
        indented = line.startswith("    ")
        if line.strip():
            starts = indented and not inside and (number == 0 or not lines[number - 1].strip())
            if starts and not announced(result):
                result += [f".. code-block:: {language(lines[number:])}", ""]
            inside = indented and (inside or starts)
        result.append(line if inside else escaped(line))
    lines[:] = result


def with_readable_defaults(
    app: Sphinx, what: str, name: str, obj: object, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """A dataclass's <factory> is no Python: Sphinx would give up on the whole signature."""
    return None if signature is None else (signature.replace("<factory>", "..."), returns)


def language(lines: list[str]) -> str:
    """Of an indented block: what is not Python is a formula."""
    block: list[str] = []
    for line in lines:
        if line.strip() and not line.startswith("    "):
            break
        block.append(line)
    try:
        ast.parse(textwrap.dedent("\n".join(block)))
    except SyntaxError:
        return "text"
    return "python"


def announced(before: list[str]) -> bool:
    """Whether the text before an indented block says itself what the block is."""
    last = next((line for line in reversed(before) if line.strip()), "")
    return last.endswith("::") or last.lstrip().startswith((".. ", "- ", ":"))


def escaped(line: str) -> str:
    parts = re.split(r"(``[^`]+``)", line)  # every second one is a literal
    # |C| is a number of classes, not a substitution.
    parts[::2] = [LONE_STAR.sub(r"\\*", part).replace("|", r"\|") for part in parts[::2]]
    for number in range(2, len(parts), 2):
        if parts[number] and parts[number][0] not in AFTER_LITERAL:
            parts[number] = "\\ " + parts[number]
    return "".join(parts)


def own_type_or_none(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, contnode: nodes.Element
) -> nodes.Node | None:
    """A name of the package by its last part; in a signature or for an error, plain text where it has no page."""
    if node.get("refdomain") != "py":
        return None
    target = str(node.get("reftarget", ""))
    if target.partition(".")[0] in ELSEWHERE:
        return contnode
    # An alias of the package's type, or Class.method without its module.
    ending = target.rpartition(".")[2] if target.startswith("perturb_tutorial") else target
    found = [
        (name, entry)
        for name, entry in env.get_domain("py").objects.items()  # type: ignore[attr-defined]
        if name.endswith(f".{ending}") and entry.objtype != "module"
    ]
    if len(found) == 1:
        name, entry = found[0]
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, name)
    in_signature = any(isinstance(parent, addnodes.desc_signature) for parent in parents(node))
    return contnode if in_signature or node.get("reftype") == "exc" else None


def parents(node: nodes.Node) -> list[nodes.Node]:
    found = []
    while node.parent is not None:
        node = node.parent
        found.append(node)
    return found
