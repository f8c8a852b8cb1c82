"""Sphinx extension that gives every page a content security policy: what it may run, load and send, and no more.

A page may run the site's own scripts and, of those written into it, the ones that the build has put there: each is
named by its hash, so a script that gets into a page in any other way does not run. It may load from its own site only.
A plain file server sends no headers, so the policy stands in the page, first in its head.

``file:`` is for the book opened from a folder; a page that was fetched over the network cannot reach any file.
``unsafe-inline`` is for styles alone, which notebooks' tables, equations and controls carry in their elements.
Pages with controls need ``unsafe-eval``: the widget manager compiles its schema at the start.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

SCRIPT = re.compile(r"<script\b([^>]*)>(.*?)</script>", re.DOTALL | re.IGNORECASE)
HANDLER = re.compile(r"""<[a-z][^<>]*?\son[a-z]+\s*=\s*("[^"]*"|'[^']*')""", re.IGNORECASE)
DATA = re.compile(
    r"""\btype\s*=\s*["']?(?!module|text/javascript|application/javascript)[a-z]""", re.IGNORECASE
)
HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)
WIDGETS = "embed-amd.js"


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("build-finished", finish, priority=990)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Writes the policy into every page of the site."""
    if exception is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    for path in sorted(site.rglob("*.html")):
        if not {"_static", "_sources"} & set(path.relative_to(site).parts):
            path.write_text(with_policy(path.read_text(encoding="utf-8")), encoding="utf-8")


def with_policy(page: str) -> str:
    """The page with its policy, ahead of all that it governs; the redirection of Jupyter Book has no head of its own."""
    tag = f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy(page))}">'
    found = HEAD.search(page)
    start = found.end() if found else 0
    return f"{page[:start]}\n{tag}{page[start:]}"


def policy(page: str) -> str:
    """The directives for one page."""
    scripts = [body for attributes, body in SCRIPT.findall(page) if runs(attributes)]
    handlers = [html.unescape(text[1:-1]) for text in HANDLER.findall(SCRIPT.sub("", page))]
    sources = ["'self'", "file:", *dict.fromkeys(map(fingerprint, scripts + handlers))]
    if handlers:
        sources.append("'unsafe-hashes'")  # which lets the named ones be handlers, and no others
    if WIDGETS in page:
        sources.append("'unsafe-eval'")
    directives = {
        "default-src": "'none'",
        "script-src": " ".join(sources),
        "style-src": "'self' file: 'unsafe-inline'",
        "img-src": "'self' file: data: blob:",
        "font-src": "'self' file: data:",
        "connect-src": "'self'",
        "worker-src": "'self' blob:",
        "form-action": "'self' file:",
        "base-uri": "'self'",
    }
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def runs(attributes: str) -> bool:
    """Whether a script element holds code of its own, by its attributes."""
    return not re.search(r"\bsrc\s*=", attributes) and not DATA.search(attributes)


def fingerprint(code: str) -> str:
    """The source expression that names one script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
