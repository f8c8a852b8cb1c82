"""Sphinx extension: a symbol that prose writes with an underscore, as σ_m, is shown with its letter set low.

Notebooks, glossary and settings keep the plain writing, which Jupyter and a search show as it is typed.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

SYMBOL = re.compile(r"(?<![\w\\])([A-Za-zα-ωΑ-Ω])_([A-Za-z0-9])(?!\w)")
AS_TYPED = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw, nodes.comment)


def setup(app: Sphinx) -> dict[str, Any]:
    # After the links to the glossary, which look for the symbols as they are typed.
    app.connect("doctree-resolved", lower_subscripts, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def lower_subscripts(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Set the letters after an underscore low, in every text that is no code and no formula."""
    for text in list(doctree.findall(nodes.Text)):
        if isinstance(text.parent, AS_TYPED) or not SYMBOL.search(text.astext()):
            continue
        text.parent.replace(text, lowered(text.astext()))


def lowered(text: str) -> list[nodes.Node]:
    """``text`` with each ``symbol_letter`` as the symbol and a subscript."""
    pieces: list[nodes.Node] = []
    at = 0
    for match in SYMBOL.finditer(text):
        pieces += [nodes.Text(text[at : match.end(1)]), nodes.subscript("", match.group(2))]
        at = match.end()
    return [*pieces, nodes.Text(text[at:])]
