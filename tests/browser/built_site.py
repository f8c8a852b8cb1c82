"""Build a book as `make book` does, serve it as a plain folder, and record what its pages do."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from chapters import execute  # noqa: E402
from demo_chapter import demo_chapter  # noqa: E402
from notebook_form import normalize, write_whole  # noqa: E402

DEMO_TOC = """\
format: jb-book
root: 00_welcome
chapters:
  - file: 01_demo
  - file: credits
  - file: references
"""
DEMO_WELCOME = """\
# A demo

A page of prose: no formula, no control. Then {doc}`01_demo`.
"""
ADDRESS = "https://github.com/someone/some-book"
DEMO_PROJECT = f'[project]\nname = "demo"\nversion = "1.2.3"\n[project.urls]\nRepository = "{ADDRESS}"\n'


@dataclass
class Site:
    """A built site below a folder that a plain file server serves."""

    name: str
    folder: Path
    visited: str = "*.html"
    address: str = ""

    @property
    def pages(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.folder))
            for path in self.folder.rglob(self.visited)
            if not skipped(path)
        )


@dataclass
class Visit:
    """What one page did."""

    page: str
    mode: str
    outside: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    loaded: set[str] = field(default_factory=set)
    accessibility: list[str] = field(default_factory=list)
    width_on_phone: int = 0

    def __str__(self) -> str:
        return f"{self.page} ({self.mode})"


def skipped(path: Path) -> bool:
    # Sphinx's copy of a notebook's own HTML output and the theme's macros are not pages.
    return "_static" in path.parts or "_sources" in path.parts


class Handler(http.server.SimpleHTTPRequestHandler):
    """A plain file server; like GitHub Pages it answers with the site's 404.html where there is no file."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a failed request is in the visit's record."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        page = Path(self.directory) / "some" / "folder" / "book" / "404.html"
        if code != 404 or not self.path.endswith("no-such-page.html"):
            super().send_error(code, message, explain)
            return
        body = page.read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def write_demo_book(folder: Path) -> None:
    """A copy of the book's machinery around the demo chapter, in a project that has an address."""
    shutil.copytree(ROOT / "tools", folder / "tools")
    shutil.copytree(
        ROOT / "book",
        folder / "book",
        ignore=shutil.ignore_patterns("_build", "front", "_front", "live", "_live", "[0-9][0-9]_*", "404.md"),
    )
    for stray in (folder / "book").glob("*.md"):
        if stray.name not in ("credits.md", "references.md"):
            stray.unlink()
    # The book's own first page leads to chapters that the demo lacks.
    (folder / "book" / "00_welcome.md").write_text(DEMO_WELCOME, encoding="utf-8")
    shutil.copy(ROOT / "book" / "404.md", folder / "book")
    shutil.copy(ROOT / "CITATION.cff", folder)
    shutil.copy(ROOT / "_config.yml", folder)
    (folder / "_toc.yml").write_text(DEMO_TOC, encoding="utf-8")
    (folder / "pyproject.toml").write_text(DEMO_PROJECT, encoding="utf-8")
    chapter = folder / "book" / "01_demo.ipynb"
    write_whole(demo_chapter(), chapter)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        write_whole(normalize(execute(chapter)), chapter)


def build(project: Path, output: Path, target: Path) -> None:
    """Build a project's book by the command that `make book` runs, and copy the site to `target`."""
    command = [sys.executable, str(project / "tools" / "build_book.py"), "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the build warns or fails:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    shutil.copytree(output / "_build" / "html", target)


def wait_until(tab: Any, expression: str, timeout: int = 30_000) -> None:
    """Until an expression holds on the page, for at most ``timeout`` ms.

    Playwright's wait for a function evaluates text inside the page, which the pages' content security policy forbids.
    """
    from playwright.sync_api import Error

    end = time.monotonic() + timeout / 1000
    while time.monotonic() < end:
        with suppress(Error):  # the page is being left for another
            if tab.evaluate(f"!!({expression})"):
                return
        tab.wait_for_timeout(50)
    raise AssertionError(f"after {timeout} ms not yet: {expression}")


def wait_for_widgets(tab: Any) -> None:
    """Until each control has been drawn and MathJax, where the page has it, has finished."""
    views = "document.querySelectorAll('script[type=\"application/vnd.jupyter.widget-view+json\"]').length"
    drawn = "document.querySelectorAll('.widget-subarea > .jupyter-widgets').length"
    wait_until(tab, f"{drawn} >= {views}", timeout=20_000)
    tab.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => null) : null")
    tab.wait_for_timeout(200)


def notebook_of(site: Site, page: str) -> nbformat.NotebookNode | None:
    """The stored notebook behind a page; None for a page of prose."""
    path = site.folder / "_sources" / Path(page).with_suffix(".ipynb")
    return nbformat.read(path, as_version=4) if path.exists() else None
