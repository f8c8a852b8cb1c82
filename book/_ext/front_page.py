"""Sphinx extension for the book's first screen: the directive `first-screen`.

It puts book/front/page.html on the page that has it, filled with the scores of book/front/precomputed.json. When the
build ends the folder `front/` of the site gets the script and style of book/front and the pictures that tools/front.py
has made (book/_front). Without JavaScript, and on paper, the first photograph stands there twice, as it is and with the
evidence deleted, with both scores.
"""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path
from string import Template
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parent.parent.parent
LOGGER = logging.getLogger(__name__)
PAGE = ROOT / "book" / "front"
MADE = ROOT / "book" / "_front"
SERVED = ("front.js", "front.css")
ALT = {
    "coffee": "A cup of espresso on a saucer with a spoon, on a wooden table.",
    "rocket": "A rocket on its launch pad at dusk, between four towers.",
    "grace_hopper": "Grace Hopper in the uniform of the U.S. Navy, before a flag.",
    "china": "A temple of several floors above trees and a lake.",
    "chelsea": "A tabby cat looks past the camera, close up.",
}
"""Photographs of the first screen, in its order → what they show."""


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("first-screen", FirstScreen)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


class FirstScreen(SphinxDirective):
    """A photograph under a slider."""

    def run(self) -> list[nodes.Node]:
        for path in (PAGE / "page.html", PAGE / "precomputed.json"):
            self.env.note_dependency(str(path))
        return [nodes.raw("", screen((PAGE / "page.html").read_text(encoding="utf-8")), format="html")]


def screen(page: str) -> str:
    """The markup of the first screen, with every photograph's scores."""
    photographs = described()
    name, first = next(iter(photographs.items()))
    choice = [
        f'<label title="{shown(other)}"><input type="radio" name="front-name" value="{other}"{checked}>'
        f'<img src="front/{other}.small.jpg" alt="{shown(other)}" width="112" height="112"></label>'
        for other, checked in zip(photographs, [" checked", *[""] * len(photographs)], strict=False)
    ]
    filled = {
        "first": name,
        "alt": html.escape(first["alt"]),
        "width": str(first["width"]),
        "height": str(first["height"]),
        "name": html.escape(first["name"]),
        "before": percent(first["scores"][0]),
        "after": percent(first["scores"][-1]),
        "area": percent(first["areas"][-1]),
        "credit": html.escape(first["credit"]),
        "choice": "\n".join(choice),
        # An element of the page ends at </, wherever that stands.
        "data": json.dumps(photographs, ensure_ascii=False).replace("</", "<\\/"),
    }
    return Template(page).substitute(filled)


def described() -> dict[str, dict[str, Any]]:
    """What the page's script asks of each photograph (front.js, Photograph)."""
    from perturb_tutorial.networks import imagenet_classes

    classes = imagenet_classes()
    stored = json.loads((PAGE / "precomputed.json").read_text(encoding="utf-8"))["photographs"]
    made = MADE / "pictures.json"
    if not made.is_file():
        LOGGER.warning("front_page: book/_front is missing; run `python tools/front.py`, then build again")
        return {name: {} for name in ALT}
    pictures = json.loads(made.read_text(encoding="utf-8"))
    return {
        name: {
            "name": classes.name(stored[name]["target"]),
            "scores": stored[name]["scores"],
            "areas": stored[name]["areas"],
            "best": [[classes.name(index), score] for index, score in stored[name]["best"]],
            "alt": alt,
            **pictures[name],
        }
        for name, alt in ALT.items()
    }


def shown(name: str) -> str:
    return html.escape(name.replace("_", " "))


def percent(share: float) -> str:
    """As front.js writes it: between 0 and 1 with one decimal."""
    return f"{100 * share:.1f} %" if 0 < share < 0.0095 else f"{100 * share:.0f} %"


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Fill the site's `front/`."""
    if exception is not None or app.builder.format != "html" or not MADE.is_dir():
        return
    site = Path(app.outdir)
    if not any("front/front.js" in page.read_text(encoding="utf-8") for page in site.glob("*_welcome.html")):
        return
    target = site / "front"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(MADE, target, ignore=shutil.ignore_patterns(".*", "pictures.json"))
    for name in SERVED:
        shutil.copy(PAGE / name, target / name)
