"""Sphinx extension for the live page, on which a mask is learned in the reader's browser.

The directive `live-page` puts the controls (book/live/page.html) on the page that has it. When the build ends,
the folder `live/` of the site gets the page's modules (book/live) and what tools/live.py has made (book/_live):
the network's graphs, the runtime, sample photographs, settings. No other page names any of these files, so no
other page loads them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

LOGGER = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "book" / "live"
MADE = ROOT / "book" / "_live"
SERVED = ("*.js", "*.css", "*.txt")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("live-page", LivePage)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


class LivePage(SphinxDirective):
    """The controls of the live page."""

    def run(self) -> list[nodes.Node]:
        source = PAGE / "page.html"
        self.env.note_dependency(str(source))
        return [nodes.raw("", source.read_text(encoding="utf-8"), format="html")]


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Fill the site's `live/`, and drop the runtime that came with the other vendored scripts."""
    if exception is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    shutil.rmtree(site / "_static" / "live", ignore_errors=True)
    if "live" in app.env.found_docs:
        copy_live(site / "live")


def copy_live(target: Path) -> None:
    """The live page's own files into `target`, which is made anew."""
    if not (MADE / "site.json").is_file():
        LOGGER.warning("live_page: book/_live is missing; run `python tools/live.py`, then build again")
        return
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(MADE, target, ignore=shutil.ignore_patterns(".*"))
    for pattern in SERVED:
        for path in sorted(PAGE.glob(pattern)):
            shutil.copy(path, target / path.name)
