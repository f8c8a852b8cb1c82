"""The live page when something goes wrong: a message that says what to do, and everything still works."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from built_site import Site, wait_until
from live_page import IDLE, LOADED, PATIENCE, alert, answer, drop, load_network
from PIL import Image

pytestmark = pytest.mark.slow

PHONE = 360  # px
STATUS = "document.getElementById('live-status').textContent"
RUNNING = "/^Iteration ([3-9]|\\d\\d)/.test(document.getElementById('live-time').textContent)"


@pytest.fixture(scope="module")
def book(sites: list[Site]) -> Site:
    return next(site for site in sites if site.name == "book")


@pytest.fixture(scope="module")
def tab(book: Site, open_page: Callable[..., Any]) -> Iterator[Any]:
    """One page with the network loaded; the tests leave it usable."""
    page, visit = open_page(book, "live.html#sample=chelsea&iterations=300")
    load_network(page)
    yield page
    assert not visit.errors
    assert not visit.outside
    page.context.close()


def file(kind: str, size: tuple[int, int] = (300, 200), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(buffer, kind, **options)
    return buffer.getvalue()


def choose(page: Any, name: str, data: bytes, kind: str = "image/jpeg") -> None:
    page.set_input_files("#live-file", {"name": name, "mimeType": kind, "buffer": data})


def said(page: Any, text: str) -> None:
    wait_until(page, f"{STATUS}.includes({json.dumps(text)})", timeout=PATIENCE)


def test_what_is_no_photograph(tab: Any) -> None:
    """Refused in one line; the photograph before it stays, and the next good one clears the message."""
    huge = bytearray(file("PNG", (9, 9)))
    huge[16:24] = (20_000).to_bytes(4, "big") * 2
    jpeg = file("JPEG")
    middle = jpeg[: len(jpeg) // 2]
    for name, data, reason in (
        ("paper.pdf", b"%PDF-1.7\n%", "is a PDF, not a photograph"),
        ("cut.jpg", middle, "is a JPEG that has been cut off; copy the file again"),
        ("broken.png", file("PNG")[:200] + bytes(50), "is a damaged PNG"),
        ("empty.jpg", b"", "is empty (0 bytes)"),
        ("huge.png", bytes(huge), "has 400 megapixels, more than 100; make it smaller first"),
        ("tiny.png", file("PNG", (30, 4)), "is 30×4 px; expected at least 8 px a side"),
    ):
        choose(tab, name, data)
        assert f"{name} {reason}" in alert(tab)
        choose(tab, "good.jpg", jpeg)
        said(tab, "good.jpg: 300×200 px")
        assert tab.is_hidden("#live-alert")
    wait_until(tab, IDLE, timeout=PATIENCE)


def test_a_photograph_of_sixty_megapixels_in_any_orientation(tab: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    choose(tab, "large.jpg", file("JPEG", (10_000, 6_000), exif=exif))
    said(tab, "60 megapixels")
    said(tab, "large.jpg: 6000×10000 px")
    shown = tab.evaluate(
        "[...document.getElementById('live-image').getContext('2d').getImageData(0, 0, 224, 224).data]"
    )
    red = np.array(shown, dtype=float).reshape(224, 224, 4)[..., 0]
    # The gradient runs down the stored picture, so upright it runs from right to left.
    assert (np.diff(red.mean(0)) < 0).all()
    assert np.ptp(red, axis=0).max() <= 2


def test_a_file_dropped_while_a_mask_is_learned(tab: Any) -> None:
    """A bad one leaves the run alone, a good one ends it and takes its place."""
    tab.check("input[name=live-sample][value=chelsea]", force=True)
    said(tab, "chelsea:")
    wait_until(tab, IDLE)
    tab.click("#live-run")
    wait_until(tab, RUNNING, timeout=PATIENCE)
    drop(tab, "notes.pdf", b"%PDF-1.4", "application/pdf")
    assert "notes.pdf is a PDF" in alert(tab)
    before = tab.inner_text("#live-time")
    wait_until(
        tab, f"document.getElementById('live-time').textContent !== {json.dumps(before)}", timeout=PATIENCE
    )
    drop(tab, "other.png", file("PNG"), "image/png")
    said(tab, "The run was ended for the new photograph. other.png")
    wait_until(tab, IDLE, timeout=PATIENCE)
    assert tab.is_hidden("#live-alert")
    assert tab.locator("#live-curve polyline").count() == 0, "the old result belongs to the old photograph"
    tab.evaluate(
        "window.dispatchEvent(new DragEvent('drop', { dataTransfer: new DataTransfer(), cancelable: true }))"
    )
    assert "That was no file" in alert(tab)


def test_pause_hidden_tab_and_stop(tab: Any) -> None:
    """A run goes on in a hidden tab, stands still while paused, and ends at once when stopped."""
    tab.click("#live-run")
    wait_until(tab, RUNNING, timeout=PATIENCE)
    tab.click("#live-pause")
    tab.wait_for_timeout(1500)  # the iteration at work ends
    paused = tab.inner_text("#live-time")
    tab.wait_for_timeout(700)
    assert tab.inner_text("#live-time") == paused
    assert tab.inner_text("#live-pause") == "Go on"
    other = tab.context.new_page()
    other.goto("about:blank")
    other.bring_to_front()
    tab.evaluate("document.getElementById('live-pause').click()")
    moved = f"document.getElementById('live-time').textContent !== {json.dumps(paused)}"
    for _ in range(60):  # what waits for a picture of the screen waits forever in a hidden tab
        if tab.evaluate(moved):
            break
        other.wait_for_timeout(500)
    assert tab.evaluate(moved)
    other.close()
    tab.bring_to_front()
    tab.click("#live-stop")
    said(tab, "Stopped after")
    wait_until(tab, IDLE, timeout=PATIENCE)
    shown = int(tab.inner_text("#live-shown-value"))
    assert f"Stopped after {shown} of 300" in tab.inner_text("#live-status")
    assert "under the final mask" in tab.inner_text("#live-numbers")


@pytest.mark.parametrize("how", ["aborted", "halved", "missing"])
def test_a_download_that_is_cut_off(book: Site, open_page: Callable[..., Any], how: str) -> None:
    """Said, not kept, and the next press of the button gets it."""
    page, visit = open_page(book, "live.html")
    routes: dict[str, Callable[[Any], None]] = {
        "aborted": lambda route: route.abort("connectionreset"),
        "halved": answer(lambda _: True),
        "missing": lambda route: route.fulfill(status=404),
    }
    messages = {
        "aborted": "The download was cut off at 0.0 of 8.7 MB",
        "halved": "The download of weights.bin.gz came incomplete or changed",
        "missing": "The site has no weights.bin.gz (status 404)",
    }
    page.route("**/weights.bin.gz*", routes[how])
    page.click("#live-load")
    assert messages[how] in alert(page)
    assert page.is_enabled("#live-load")
    assert page.is_hidden("#live-load-progress")
    page.unroute("**/weights.bin.gz*")
    if how == "halved":
        load_network(page)
        page.reload()
        page.wait_for_selector("#live-load:enabled")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        load_network(page)
        assert not [url for url in asked if ".gz" in url], "the second visit takes it from the cache"
    assert not visit.outside
    page.context.close()


def test_a_browser_that_cannot_run_the_network(book: Site, browser: Any) -> None:
    """The samples show what was computed when the book was made, at every stored iteration."""
    context = browser.new_context(viewport={"width": PHONE, "height": 740})
    page = context.new_page()
    page.add_init_script("WebAssembly.validate = () => false")
    page.goto(f"{book.address}/live.html#mode=learn")
    wait_until(page, "document.querySelectorAll('#live-curve polyline').length > 0")
    assert page.is_disabled("#live-load")
    assert "no WebAssembly with vector instructions" in page.inner_text("#live-engine")
    assert page.inner_text("#live-numbers").startswith("Computed when the book was made.")
    page.focus("#live-shown")
    before = page.inner_text("#live-numbers")
    page.keyboard.press("ArrowLeft")
    wait_until(
        page, f"document.getElementById('live-numbers').textContent !== {json.dumps(before)}", timeout=5000
    )
    context.close()


def test_with_the_keyboard_alone(book: Site, open_page: Callable[..., Any]) -> None:
    """Tab reaches every control in the order of the page; arrows and the space bar work them."""
    page, _ = open_page(book, "live.html#iterations=25")
    page.focus("[name=live-sample][value=chelsea]")
    page.keyboard.press("ArrowRight")
    said(page, "coffee:")
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.name || ''"))
        if reached[-1] == "live-load":
            break
    assert reached == ["live-file", "live-fit", "live-load"]
    page.keyboard.press("Space")
    wait_until(page, f"{LOADED} && {IDLE}", timeout=PATIENCE)
    page.focus("[name=live-target]:checked")
    page.keyboard.press("ArrowDown")
    assert (
        page.evaluate("[...document.querySelectorAll('[name=live-target]')].findIndex((i) => i.checked)") == 1
    )
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "live-run"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # opens the settings
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "live-preset"
    page.focus("#live-run")
    page.keyboard.press("Enter")
    wait_until(page, RUNNING, timeout=PATIENCE)
    page.focus("#live-stop")
    page.keyboard.press("Enter")
    said(page, "Stopped after")
    page.context.close()


@pytest.mark.parametrize(("mode", "what"), [("light", "learn"), ("dark", "learn"), ("dark", "erase")])
def test_nothing_keeps_anybody_out(
    book: Site, open_page: Callable[..., Any], axe: str, mode: str, what: str
) -> None:
    """axe-core with everything open and a message shown, and nothing wider than a phone."""
    page, _ = open_page(book, f"live.html#mode={what}", mode, width=PHONE, height=740)
    if what == "learn":
        page.click("#live-app summary")
    choose(page, "paper.pdf", b"%PDF-1.7")
    alert(page)
    wait_until(page, "document.querySelectorAll('#live-curve polyline').length > 0")
    page.evaluate(axe)
    found = page.evaluate("axe.run('#live')")["violations"]
    assert not [(rule["id"], [node["html"][:150] for node in rule["nodes"]]) for rule in found]
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
    small = page.evaluate(
        """[...document.querySelectorAll("#live button:not([hidden]), #live input, #live select")]
            .filter((control) => control.getClientRects().length && control.getBoundingClientRect().right > innerWidth)
            .map((control) => control.id || control.name)"""
    )
    assert not small, f"controls beyond the edge: {small}"
    page.context.close()
