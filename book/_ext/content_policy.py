"""Sphinx extension that gives every page a content security policy: what it may run, load and send, and no more.

A page runs the site's own scripts and, of those written into pages, the ones that the build has put there: each is
named by its hash, so a script that gets into a page in any other way does not run. It loads from its own site only. A
plain file server sends no headers, so the policy stands in the page, ahead of all that it governs.

Where a page needs it, and there alone: styles in elements, for equations, controls and tables of notebooks, which the
search reads too; ``unsafe-eval``, for the widget manager, which compiles a schema when it starts; a worker, for the
live page and the small one in a chapter. ``file:`` is for the book opened from a folder: a page from the network
cannot reach files.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

SCRIPT = re.compile(r"<script\b([^>]*)>(.*?)</script>", re.DOTALL | re.IGNORECASE)
STYLE = re.compile(r"<style\b[^>]*>(.*?)</style>", re.DOTALL | re.IGNORECASE)
HANDLER = re.compile(r"""\son[a-z]+\s*=\s*("[^"]*"|'[^']*')(?=[^<>]*>)""", re.IGNORECASE)
DATA = re.compile(
    r"""\btype\s*=\s*["']?(?!module|text/javascript|application/javascript)[a-z]""", re.IGNORECASE
)
HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)
WIDGETS, MATHJAX, SEARCH = "embed-amd.js", "mathjax/", "searchtools.js"
LIVE = ("live/page.js", "live/small.js")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("build-finished", finish, priority=990)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Writes its policy into every page of the site."""
    if exception is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    paths = [
        path for path in site.rglob("*.html") if not {"_static", "_sources"} & {*path.relative_to(site).parts}
    ]
    pages = {path: path.read_text(encoding="utf-8") for path in paths}
    # Of all pages, since the search reads the others.
    common = {handler for page in pages.values() for handler in handlers(page)}
    for path, page in pages.items():
        path.write_text(with_policy(page, common), encoding="utf-8")


def with_policy(page: str, common: Iterable[str] = ()) -> str:
    """The page with its policy first in its head; Jupyter Book's redirection has no head of its own."""
    tag = f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy(page, common), quote=True)}">'
    found = HEAD.search(page)
    start = found.end() if found else 0
    return f"{page[:start]}\n{tag}{page[start:]}"


def handlers(page: str) -> list[str]:
    """The code in the attributes of the page's elements, such as that of a button."""
    return [html.unescape(text[1:-1]) for text in HANDLER.findall(SCRIPT.sub("", page))]


def policy(page: str, common: Iterable[str] = ()) -> str:
    """The directives for one page, on which the ``common`` handlers may run as well as its own."""
    own = [body for attributes, body in SCRIPT.findall(page) if runs(attributes)]
    buttons = sorted({*common, *handlers(page)})
    scripts = ["'self'", "file:", *map(fingerprint, [*own, *buttons])]
    if buttons:
        scripts.append("'unsafe-hashes'")  # which lets the named ones be handlers
    if WIDGETS in page:
        scripts.append("'unsafe-eval'")
    styles = ["'self'", "file:"]
    if any(sign in page for sign in (WIDGETS, MATHJAX, SEARCH, " style=")):
        styles.append("'unsafe-inline'")
    else:
        styles += map(fingerprint, STYLE.findall(page))
    directives = {
        "default-src": "'none'",
        "script-src": " ".join(dict.fromkeys(scripts)),
        "style-src": " ".join(dict.fromkeys(styles)),
        "img-src": "'self' file: data:",
        "font-src": "'self' file: data:",
        "connect-src": "'self'",
        "worker-src": "'self'" if any(script in page for script in LIVE) else "'none'",
        "form-action": "'self' file:",
        "base-uri": "'self'",
    }
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def runs(attributes: str) -> bool:
    """Whether a script element holds code of its own, by its attributes."""
    return not re.search(r"\bsrc\s*=", attributes) and not DATA.search(attributes)


def fingerprint(code: str) -> str:
    """The source expression that names one script or style sheet."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
