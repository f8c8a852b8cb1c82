"""Erasing by hand in Chromium: the package's scores, at the pace of the brush, and a learned mask beside them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import torch
from built_site import ROOT, Site, Visit, wait_until
from live_page import PATIENCE, network, pixels

from perturb_tutorial import masks, perturbations

pytestmark = pytest.mark.slow

CELLS = 28
MILLISECONDS = 150  # from a stroke to its scores, on one thread
SETTLED = "document.getElementById('erase-guesses').getAttribute('aria-busy') === 'false'"
DUEL = "!document.getElementById('erase-result').hidden"
VERDICT = "document.getElementById('erase-verdict').textContent"


@pytest.fixture(scope="module")
def book(sites: list[Site]) -> Site:
    return next(site for site in sites if site.name == "book")


@pytest.fixture(scope="module")
def opened(book: Site, open_page: Callable[..., Any]) -> Iterator[tuple[Any, Visit]]:
    """A first visit, with the network loaded."""
    tab, visit = open_page(book, "live.html", height=800)
    assert not [url for url in visit.loaded if ".gz" in url], "nothing large before the button is pressed"
    tab.click("#live-load")
    wait_until(tab, f"!document.getElementById('erase-guesses').hidden && {SETTLED}", timeout=PATIENCE)
    wait_until(tab, "document.getElementById('live-status').textContent.includes('ready')", timeout=PATIENCE)
    yield tab, visit
    assert not visit.errors
    assert not visit.outside
    assert not visit.failed
    tab.context.close()


@pytest.fixture
def tab(opened: tuple[Any, Visit]) -> Any:
    """The page with nothing painted."""
    page, _ = opened
    if page.is_enabled("#erase-clear"):
        page.click("#erase-clear")
    settle(page)
    return page


def settle(page: Any) -> None:
    """Until the scores are those of the painting; a change is noticed with the next picture of the screen."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    wait_until(page, SETTLED, timeout=PATIENCE)


def stroke(page: Any, *places: tuple[float, float]) -> None:
    """A line with the mouse through places in parts of the picture's side."""
    page.evaluate(
        "document.getElementById('erase-canvas').scrollIntoView({ block: 'center', behavior: 'instant' })"
    )
    box = page.locator("#erase-canvas").bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up()
    settle(page)


def painting(page: Any) -> np.ndarray:
    """The painted cells, as the page's link holds them."""
    page.click("#live-link")
    (text,) = parse_qs(urlsplit(page.url).fragment)["painting"]
    bits = np.unpackbits(np.frombuffer(base64.urlsafe_b64decode(text + "="), np.uint8))
    return bits.reshape(CELLS, CELLS)


def guesses(page: Any) -> list[tuple[str, float]]:
    """Names and scores, not rounded, as the bars have them."""
    rows = page.evaluate(
        """[...document.querySelectorAll("#erase-guesses li")].map((row) => [
            row.firstChild.textContent, Number(row.querySelector(".live-bar").style.getPropertyValue("--score"))])"""
    )
    return [(name, score) for name, score in rows]


def expected(grid: torch.Tensor, sample: str = "chelsea") -> tuple[torch.Tensor, float]:
    """The package's scores under a grid, and the area that it deletes."""
    image = pixels(sample)
    background = perturbations.fully_perturbed(image, "blur", color=network().mean_color)
    mask = masks.upsample(grid.view(1, 1, CELLS, CELLS), 224, sigma=5.0)
    return network().scores(perturbations.perturb(image, background, mask))[0], float(1 - mask.mean())


def test_a_painting_has_the_packages_scores(tab: Any) -> None:
    before = dict(guesses(tab))
    differences = []
    for line in (
        [(0.30, 0.35), (0.60, 0.42)],
        [(0.60, 0.42), (0.85, 0.45)],
        [(0.45, 0.60), (0.75, 0.85), (0.45, 0.90)],
        [(-0.2, 0.05), (1.2, 0.05)],
    ):
        stroke(tab, *line)
        painted = painting(tab)
        scores, area = expected(1 - torch.from_numpy(painted).float())
        shown = guesses(tab)
        assert [score for _, score in shown] == sorted((score for _, score in shown), reverse=True)
        names = [network().categories[index] for index in scores.topk(5).indices.tolist()]
        assert {name for name, _ in shown[:2]} <= {*names}
        for name, score in shown:
            index = network().categories.index(name)
            differences.append(abs(score - float(scores[index])))
        assert abs(float(tab.inner_text("#erase-area").split(" %")[0]) - 100 * area) <= 0.51
    print(f"largest difference of a score {max(differences):.5f}")
    assert max(differences) <= 0.01
    assert dict(guesses(tab)) != before


def test_the_scores_keep_up_with_the_brush(tab: Any, browser: Any) -> None:
    """By the processor's time of an update, drawing included: one thread that has nothing else to do takes as long."""
    tab.evaluate(
        """() => {
            window.updates = [];
            new PerformanceObserver((list) => window.updates.push(...list.getEntriesByName("erase")))
                .observe({ type: "measure" });
        }"""
    )
    session = browser.new_browser_cdp_session()

    def seconds() -> float:
        processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
        return sum(process["cpuTime"] for process in processes if process["type"] == "renderer")

    before = seconds()
    for column in range(20):
        stroke(tab, (0.02 + column / 21, 0.97))
    spent = 1000 * (seconds() - before)
    times = tab.evaluate("window.updates.map((entry) => entry.duration)")
    session.detach()
    assert 20 <= len(times) <= 40, "once for each stroke, and no more than twice"
    print(
        f"an update {spent / len(times):.0f} ms of the processor; from stroke to scores {min(times):.0f} ms at least"
    )
    assert spent / len(times) <= MILLISECONDS


def test_undo_redo_clear_and_the_keyboard(tab: Any) -> None:
    nothing = guesses(tab)
    tab.focus("#erase-canvas")
    for key in ("ArrowUp", "ArrowUp", "Shift+ArrowLeft", "Shift+ArrowLeft", " "):
        tab.keyboard.press(key)
    assert tab.inner_text("#erase-spoken") == "Row 13, column 13: painted."
    settle(tab)
    painted = painting(tab)
    assert painted[12, 12]
    assert painted[12, 13]
    assert not painted[14, 14], "where the cursor has only been"
    some = guesses(tab)
    assert some != nothing
    tab.focus("#erase-canvas")
    for _ in range(2):  # the last key painted nothing new
        tab.keyboard.press("Control+z")
    settle(tab)
    assert tab.is_disabled("#erase-clear")
    assert guesses(tab) == nothing
    for _ in range(2):
        tab.click("#erase-redo")
    settle(tab)
    assert guesses(tab) == some
    assert np.array_equal(painting(tab), painted)
    tab.check("#erase-restore")
    stroke(tab, (0.3, 0.45), (0.6, 0.45))
    assert painting_is_empty(tab)
    tab.uncheck("#erase-restore")
    assert guesses(tab) == nothing


def painting_is_empty(page: Any) -> bool:
    page.click("#live-link")
    return "painting" not in parse_qs(urlsplit(page.url).fragment)


def test_who_deleted_less_is_said_after_a_try(
    tab: Any, book: Site, open_page: Callable[..., Any], axe: str
) -> None:
    """The learned mask's area and score are the package's; the link brings the painting to another reader."""
    assert tab.is_disabled("#erase-duel"), "no hint before a try"
    tab.check("[name=erase-brush][value='3']", force=True)
    for height in range(7):
        stroke(tab, (0.02, 0.08 + 0.14 * height), (0.98, 0.08 + 0.14 * height))
    tab.check("[name=erase-brush][value='1.5']", force=True)
    tab.click("#erase-duel")
    wait_until(tab, DUEL, timeout=PATIENCE)
    stored = json.loads((ROOT / "book" / "front" / "precomputed.json").read_text(encoding="utf-8"))
    entry = stored["photographs"]["chelsea"]
    grid = torch.frombuffer(bytearray(base64.b64decode(entry["grid"])), dtype=torch.uint8).float() / 255
    scores, area = expected(grid)
    mine, my_area = expected(1 - torch.from_numpy(painting(tab)).float())
    for who, share, score in (("your", my_area, mine[285]), ("mask", area, scores[285])):
        assert abs(float(tab.inner_text(f"#erase-{who}-area").rstrip(" %")) - 100 * share) <= 0.51
        assert abs(float(tab.inner_text(f"#erase-{who}-score").rstrip(" %")) - 100 * float(score)) <= 1.5
    assert my_area > 0.9
    assert float(mine[285]) < 0.07
    assert tab.inner_text("#erase-verdict").startswith("The mask deleted less: ")
    tab.click("#erase-clear")
    settle(tab)
    wait_until(tab, f"{VERDICT} === 'Now paint again.'")
    stroke(tab, (0.1, 0.9), (0.2, 0.9))
    wait_until(tab, f"{VERDICT}.startsWith('Too much evidence is left: ')")
    tab.evaluate(axe)
    found = tab.evaluate("axe.run('#live')")["violations"]
    assert not [(rule["id"], [node["html"][:150] for node in rule["nodes"]]) for rule in found]
    tab.set_viewport_size({"width": 360, "height": 740})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    tab.set_viewport_size({"width": 1280, "height": 800})
    # The same painting, drawn by another reader's page before any network is loaded.
    words = "document.getElementById('erase-area').textContent"
    said = tab.evaluate(words)
    cells = painting(tab)
    other, visit = open_page(book, tab.url.removeprefix(f"{book.address}/"))
    wait_until(other, f"{words} === {json.dumps(said)}")
    assert np.array_equal(painting(other), cells)
    assert not visit.errors
    other.context.close()


def test_pictures_and_score_stand_beside_the_controls(opened: tuple[Any, Visit]) -> None:
    """At 1280×800 without scrolling: what is painted or learned, the score, and what is pressed."""
    tab, _ = opened
    for mode, names in {
        "erase": ["erase-canvas", "erase-score", "erase-guesses", "erase-duel", "live-samples"],
        "learn": ["live-image", "live-overlay", "live-numbers", "live-curve", "live-run", "live-samples"],
    }.items():
        tab.check(f"[name=live-mode][value={mode}]", force=True)
        tab.evaluate("window.scrollTo(0, 0)")
        for name in names:
            box = tab.locator(f"#{name}").bounding_box()
            assert box["y"] + box["height"] <= 800, name
            assert box["x"] + box["width"] <= 1280, name
    tab.focus("#live-swipe")
    tab.keyboard.press("Home")
    assert (
        tab.evaluate("getComputedStyle(document.getElementById('live-perturbed')).clipPath")
        == "inset(0px 0px 0px 0%)"
    )
    tab.check("[name=live-mode][value=erase]", force=True)


def test_the_small_game_of_a_chapter(book: Site, open_page: Callable[..., Any]) -> None:
    """Its page loads one short script until the button is pressed."""
    tab, visit = open_page(book, "01_method.html")
    live = [url for url in visit.loaded if "/live/" in url]
    assert {url.rsplit("/", 1)[-1] for url in live if url.endswith(".js")} == {"small.js"}
    assert not [url for url in live if ".gz" in url]
    tab.click("#erase-start")
    wait_until(tab, "!document.getElementById('erase-game').hidden", timeout=PATIENCE)
    settle(tab)
    before = guesses(tab)
    assert before[0][0] == "Egyptian cat"
    stroke(tab, (0.3, 0.3), (0.9, 0.45))
    assert guesses(tab)[0] != before[0]
    assert not visit.errors
    assert not visit.outside
    tab.context.close()
