"""The first screen in Chromium: the slider, by mouse and keyboard, on paper and without scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from built_site import ROOT, Site, wait_until

pytestmark = pytest.mark.slow

DRAWN = """(() => {
    const { width, height } = document.getElementById("front-canvas");
    const pixels = document.getElementById("front-canvas").getContext("2d").getImageData(0, 0, width, height).data;
    return pixels.filter((_, index) => index % 4 === 3).reduce((sum, alpha) => sum + alpha / 255, 0) / (width * height);
})()"""


@pytest.fixture(scope="module")
def book(sites: list[Site]) -> Site:
    return next(site for site in sites if site.name == "book")


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    text = (ROOT / "book" / "front" / "precomputed.json").read_text(encoding="utf-8")
    return dict(json.loads(text)["photographs"])


def shares(share: float) -> str:
    return f"{100 * share:.1f} %" if 0 < share < 0.0095 else f"{100 * share:.0f} %"


def test_the_slider_deletes_the_evidence(
    book: Site, open_page: Callable[..., Any], stored: dict[str, Any]
) -> None:
    """By keyboard and by a drag across the photograph; what is drawn has the area that is said."""
    tab, visit = open_page(book, "00_welcome.html", height=800)
    for name in ("front-photograph", "front-strength", "front-score", "front-area"):
        box = tab.locator(f"#{name}").bounding_box()
        assert box["y"] + box["height"] <= 800, name
    entry = stored["coffee"]
    assert tab.inner_text("#front-score") == shares(entry["scores"][0])
    assert tab.evaluate(DRAWN) == 0
    tab.focus("#front-strength")
    for _ in range(10):
        tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#front-score") == shares(entry["scores"][10])
    tab.keyboard.press("End")
    assert tab.inner_text("#front-score") == shares(entry["scores"][20])
    assert tab.inner_text("#front-area").startswith(shares(entry["areas"][20]))
    wait_until(tab, f"Math.abs({DRAWN} - {entry['areas'][20]}) < 0.01")
    box = tab.locator("#front-picture").bounding_box()
    middle = box["y"] + box["height"] / 2
    tab.mouse.move(box["x"] + 0.9 * box["width"], middle)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 0.05 * box["width"], middle, steps=3)
    tab.mouse.up()
    assert tab.input_value("#front-strength") == "0"
    # Another photograph, by the arrow keys.
    tab.focus("[name=front-name]:checked")
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#front-name") == "drilling platform"
    tab.focus("#front-strength")
    tab.keyboard.press("End")
    wait_until(tab, f"Math.abs({DRAWN} - {stored['rocket']['areas'][20]}) < 0.01")
    # On paper both pictures, and nothing to move.
    tab.emulate_media(media="print")
    assert tab.is_visible("#front-deleted")
    assert tab.is_hidden("#front-strength")
    assert tab.inner_text(".front-paper").startswith(
        "Sure of drilling platform: of the photograph as it is 57 %"
    )
    tab.emulate_media(media="screen")
    assert tab.is_hidden("#front-deleted")
    assert tab.locator(".front-doors button.copybtn").count() == 1
    assert [
        link.split("#")[0]
        for link in tab.evaluate(
            "[...document.querySelectorAll('.front-doors a')].map((a) => a.getAttribute('href'))"
        )
    ] == [
        "live.html",
        "01_method.html",
    ]
    assert not visit.errors
    assert not visit.outside
    tab.context.close()


def test_without_scripts_the_first_screen_shows_both_pictures(book: Site, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 360, "height": 740})
    tab = context.new_page()
    tab.goto(f"{book.address}/00_welcome.html")
    boxes = [tab.locator(f"#front-{name}").bounding_box() for name in ("photograph", "deleted")]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert np.isclose(boxes[0]["width"], boxes[1]["width"], atol=1)
    assert tab.is_hidden("#front-strength")
    words = "Sure of espresso: of the photograph as it is 91 %; with 16 % of it blurred, on the right, 2 %."
    assert tab.inner_text(".front-paper") == words
    context.close()
