"""Sphinx extension for the live page, on which evidence is erased and masks are learned in the reader's browser.

The directive `live-page` puts the controls (book/live/page.html) on the page that has it. `erase-it` with the name of a
sample puts a small game of erasing on a chapter's page; its content is for readers of the notebook and of paper. Until
its button is pressed such a page loads one short script. When the build ends, the folder `live/` of the site gets the
page's modules (book/live) and what tools/live.py has made (book/_live): the network's graphs, the runtime, sample
photographs, settings. No other page names any of these files, so no other page loads them.
"""

from __future__ import annotations

import html
import json
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
DUEL = ROOT / "book" / "front" / "precomputed.json"  # the masks of the first screen are those of the duel
SERVED = ("*.js", "*.css", "*.txt")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("live-page", LivePage)
    app.add_directive("erase-it", EraseIt)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


class LivePage(SphinxDirective):
    """The controls of the live page."""

    def run(self) -> list[nodes.Node]:
        for name in ("page.html", "erase.html"):
            self.env.note_dependency(str(PAGE / name))
        stage, side = (PAGE / "erase.html").read_text(encoding="utf-8").split("<!-- side -->\n")
        page = (PAGE / "page.html").read_text(encoding="utf-8")
        page = page.replace("<!-- erase-stage -->", stage).replace("<!-- erase-side -->", side)
        return [nodes.raw("", page, format="html")]


class EraseIt(SphinxDirective):
    """`{erase-it} SAMPLE`: a small game of erasing, and its content in its place where it cannot be played."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        for name in ("small.html", "erase.html"):
            self.env.note_dependency(str(PAGE / name))
        content = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, content)
        small = (PAGE / "small.html").read_text(encoding="utf-8")
        small = small.replace("<!-- erase -->", (PAGE / "erase.html").read_text(encoding="utf-8"))
        small = small.replace("SAMPLE", html.escape(self.arguments[0])).replace("MEGABYTES", self.megabytes())
        before, after = small.split("<!-- content -->")
        return [nodes.raw("", before, format="html"), content, nodes.raw("", after, format="html")]

    @staticmethod
    def megabytes() -> str:
        """What a press of the button fetches on one thread of WebAssembly."""
        site = MADE / "site.json"
        if not site.is_file():
            return "13"
        assets = json.loads(site.read_text(encoding="utf-8"))["assets"]
        fetched = [entry for name, entry in assets.items() if not name.startswith(("ort.webgpu", "ort.jspi"))]
        return f"{sum(entry['bytes'] for entry in fetched) / 1e6:.1f}"


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
    shutil.copy(DUEL, target / "duel.json")
    for pattern in SERVED:
        for path in sorted(PAGE.glob(pattern)):
            shutil.copy(path, target / path.name)
