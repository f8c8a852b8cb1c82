"""Every page of the built site, as a reader with no internet connection meets it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from built_site import Site, Visit, notebook_of

PAGE_BYTES = 3_000_000  # HTML, pictures and widget state of one page
SCRIPT_BYTES = 6_000_000  # all scripts that pages share
PHONE = 360  # px
SERIOUS = ("serious", "critical")
WCAG = ["wcag2a", "wcag2aa", "wcag21aa"]
EXCLUDED_RULES: dict[str, str] = {}  # axe rule → why it does not count
VIEW = '"application/vnd.jupyter.widget-view+json"'
CONTROLS = {
    "SelectionSliderModel": ".widget-slider",
    "DropdownModel": ".widget-dropdown",
    "ToggleButtonsModel": ".widget-toggle-buttons",
    "PlayModel": ".widget-play",
}


@pytest.fixture(scope="session")
def visits(sites: list[Site], open_page: Callable[..., Any], axe: str) -> list[Visit]:
    """One visit to each page in each mode, with what axe-core finds there."""
    done = []
    for site in sites:
        for page in site.pages:
            for mode in ("light", "dark"):
                tab, visit = open_page(site, page, mode)
                assert tab.evaluate("document.documentElement.dataset.theme") == mode
                tab.evaluate(axe)
                for violation in tab.evaluate(f"axe.run(document, {{runOnly: {json.dumps(WCAG)}}})")["violations"]:
                    if violation["impact"] in SERIOUS and violation["id"] not in EXCLUDED_RULES:
                        where = "; ".join(node["html"][:160] for node in violation["nodes"][:3])
                        visit.accessibility.append(f"{violation['id']} ({violation['impact']}): {where}")
                tab.set_viewport_size({"width": PHONE, "height": 740})
                visit.width_on_phone = tab.evaluate("document.documentElement.scrollWidth")
                tab.context.close()
                done.append(visit)
    return done


def test_no_request_leaves_the_site(visits: list[Visit]) -> None:
    assert not {str(visit): visit.outside for visit in visits if visit.outside}


def test_every_request_succeeds(visits: list[Visit]) -> None:
    assert not {str(visit): visit.failed for visit in visits if visit.failed}


def test_no_page_throws_or_logs_an_error(visits: list[Visit]) -> None:
    assert not {str(visit): visit.errors for visit in visits if visit.errors}


def test_no_serious_accessibility_violation(visits: list[Visit]) -> None:
    assert not {str(visit): visit.accessibility for visit in visits if visit.accessibility}


def test_the_visits_loaded_what_they_were_to_test(visits: list[Visit]) -> None:
    """The other tests pass on pages that load nothing: the demo's must have had widgets, fonts and MathJax."""
    (demo, _) = (visit for visit in visits if visit.page == "demo/01_demo.html")
    names = {url.rsplit("/", 1)[-1] for url in demo.loaded}
    assert {"require.js", "embed-amd.js", "startup.js", "tex-full.js", "svg.js"} <= names
    welcome = next(visit for visit in visits if visit.page == "demo/00_welcome.html")
    assert not any("mathjax" in url or "embed-amd" in url for url in welcome.loaded), "a page of prose loads no extras"


def shown_controls(notebook: Any) -> dict[str, int]:
    """How many controls of each kind the stored notebook shows, live ones aside."""
    state = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    todo = [
        output["data"][VIEW.strip('"')]["model_id"] for output in outputs if VIEW.strip('"') in output.get("data", {})
    ]
    counts = dict.fromkeys(CONTROLS, 0)
    while todo:
        model = state[todo.pop()]
        if "perturb-live-only" in model["state"].get("_dom_classes", []):
            continue
        if model["model_name"] in counts:
            counts[model["model_name"]] += 1
        todo += [child.removeprefix("IPY_MODEL_") for child in model["state"].get("children", [])]
    return counts


def test_each_control_appears_exactly_once(sites: list[Site], open_page: Callable[..., Any]) -> None:
    seen = 0
    for site, page, notebook in widget_pages(sites):
        tab, _ = open_page(site, page)
        for model, expected in shown_controls(notebook).items():
            found = tab.locator(f"{CONTROLS[model]}:visible").count()
            assert found == expected, f"{site.name}/{page}: {found} {model} for {expected}"
            seen += found
        assert tab.locator(".perturb-live-only:visible").count() == 0, f"{page} shows what only a kernel can do"
        tab.context.close()
    assert seen >= 4


def widget_pages(sites: list[Site]) -> list[tuple[Site, str, Any]]:
    pages = [(site, page, notebook_of(site, page)) for site in sites for page in site.pages]
    return [(site, page, notebook) for site, page, notebook in pages if notebook and "widgets" in notebook.metadata]


def picture(tab: Any, control: Any) -> str:
    """What the visible pictures of the control's own box show."""
    box = control.locator("xpath=ancestor::div[contains(@class, 'widget-subarea')][1]")
    return "|".join(image.get_attribute("src") or "" for image in box.locator("img:visible").all())


def test_arrow_keys_change_the_picture(sites: list[Site], open_page: Callable[..., Any]) -> None:
    """Each slider, drop-down list and group of buttons: there and back with the keyboard alone."""
    for site, page, _ in widget_pages(sites):
        tab, visit = open_page(site, page)
        focus = {".widget-slider": ".noUi-handle", ".widget-dropdown": "select", ".widget-toggle-buttons": ".mod-active"}
        for kind, handle in focus.items():
            for control in tab.locator(f"{kind}:visible").all():
                before = picture(tab, control)
                control.locator(handle).first.focus()
                for there, back in (("ArrowRight", "ArrowLeft"), ("ArrowLeft", "ArrowRight"), ("ArrowDown", "ArrowUp")):
                    tab.keyboard.press(there)
                    tab.wait_for_timeout(150)
                    after = picture(tab, control)
                    if after != before:
                        break
                assert after != before, f"{site.name}/{page}: no arrow key changes the picture of a {kind}"
                tab.keyboard.press(back)
                tab.wait_for_timeout(150)
                assert picture(tab, control) == before, f"{site.name}/{page}: {back} does not undo {there} of a {kind}"
        assert not visit.errors
        tab.context.close()


def test_sliders_are_named_and_speak_their_value(sites: list[Site], open_page: Callable[..., Any]) -> None:
    demo = next(site for site in sites if site.name == "demo")
    tab, _ = open_page(demo, "01_demo.html")
    handle = tab.locator(".noUi-handle").first
    assert handle.get_attribute("aria-label") == "power λ₁"
    assert handle.get_attribute("aria-valuetext") == "0.5"
    handle.focus()
    tab.keyboard.press("ArrowRight")
    tab.wait_for_timeout(150)
    assert handle.get_attribute("aria-valuetext") == "1"
    assert tab.locator("img:visible[alt='The curve x to the 1']").count() == 1
    buttons = tab.locator(".widget-play button")
    assert [button.get_attribute("aria-label") for button in buttons.all()] == ["Play", "Stop", "Repeat"]
    chosen = [button.get_attribute("aria-pressed") for button in tab.locator(".widget-toggle-buttons button").all()]
    assert chosen == ["true", "false"]
    tab.context.close()


def test_play_moves_the_slider_and_the_picture(sites: list[Site], open_page: Callable[..., Any]) -> None:
    demo = next(site for site in sites if site.name == "demo")
    tab, visit = open_page(demo, "01_demo.html")
    slider = tab.locator(".widget-slider").first
    before = picture(tab, slider)
    tab.locator(".widget-play button").first.click()
    tab.wait_for_timeout(1300)
    assert slider.locator(".widget-readout").inner_text() != "0.5"
    assert picture(tab, slider) != before
    assert not visit.errors
    tab.context.close()


def test_both_controls_of_a_pair_choose_the_picture(sites: list[Site], open_page: Callable[..., Any]) -> None:
    demo = next(site for site in sites if site.name == "demo")
    tab, _ = open_page(demo, "01_demo.html")
    alts = []
    for power in ("1", "2"):
        tab.locator("select:visible").select_option(power)
        for color in ("tab:blue", "tab:orange"):
            tab.locator(f".widget-toggle-button:visible:text('{color}')").click()
            tab.wait_for_timeout(150)
            box = tab.locator(".widget-subarea").nth(1)
            alts.append(box.locator("img:visible").get_attribute("alt"))
    colors = ("tab:blue", "tab:orange")
    assert alts == [f"A curve (power = {power}, color = {color})." for power in (1, 2) for color in colors]
    tab.context.close()


def test_nothing_is_wider_than_a_phone(visits: list[Visit]) -> None:
    assert all(visit.width_on_phone > 0 for visit in visits)
    assert not {str(visit): visit.width_on_phone for visit in visits if visit.width_on_phone > PHONE}


def test_a_mistyped_address_gets_a_whole_page(sites: list[Site], open_page: Callable[..., Any]) -> None:
    """404.html stands in for a page that is not there and still finds its style sheets and its links."""
    book = next(site for site in sites if site.name == "book")
    tab, visit = open_page(book, "no-such-page.html")
    assert visit.failed == [f"404 {book.address}/no-such-page.html"]
    assert tab.locator("h1").first.inner_text().startswith("Page not found")
    assert tab.evaluate("getComputedStyle(document.querySelector('.bd-article h1')).fontSize") == "36px"
    tab.locator(".bd-article a.reference.internal").first.click()
    tab.wait_for_load_state("networkidle")
    assert tab.url.endswith("/00_welcome.html")
    tab.context.close()


def test_figures_keep_their_colors_in_the_dark(sites: list[Site], open_page: Callable[..., Any]) -> None:
    demo = next(site for site in sites if site.name == "demo")
    tab, _ = open_page(demo, "01_demo.html", "dark")
    styles = tab.evaluate(
        "[...document.querySelectorAll('.bd-article img')].map(i => [getComputedStyle(i).filter, i.getClientRects().length])"
    )
    assert len(styles) >= 3
    assert {style for style, boxes in styles if boxes} == {"none"}
    tab.context.close()


def test_search_finds_a_page(sites: list[Site], open_page: Callable[..., Any]) -> None:
    demo = next(site for site in sites if site.name == "demo")
    tab, visit = open_page(demo, "search.html?q=kind+of+control")
    tab.wait_for_selector("#search-results li a", timeout=10_000)
    assert "01_demo.html" in " ".join(link.get_attribute("href") for link in tab.locator("#search-results li a").all())
    assert not visit.errors
    assert not visit.outside
    tab.context.close()


def test_pages_and_scripts_stay_small(sites: list[Site]) -> None:
    for site in sites:
        for page in site.pages:
            html = (site.folder / page).read_text(encoding="utf-8")
            pictures = {unquote(src) for src in re.findall(r'src="(_images/[^"]+)"', html)}
            own = len(html.encode()) + sum((site.folder / src).stat().st_size for src in pictures)
            assert own <= PAGE_BYTES, f"{site.name}/{page} has {own:,} bytes"
        scripts = [path for path in site.folder.rglob("*.js") if "live" not in path.relative_to(site.folder).parts]
        total = sum(path.stat().st_size for path in scripts)
        assert total <= SCRIPT_BYTES, f"{site.name} has {total:,} bytes of scripts"


class Links(HTMLParser):
    """Addresses and anchors of one page."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.targets.add(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def test_internal_links_resolve(sites: list[Site]) -> None:
    broken = []
    for site in sites:
        parsed: dict[Path, Links] = {}
        for page in site.pages:
            parsed[site.folder / page] = links = Links()
            links.feed((site.folder / page).read_text(encoding="utf-8"))
        for path, links in parsed.items():
            for target in sorted(links.targets):
                parts = urlsplit(target)
                if parts.scheme or parts.netloc:
                    continue
                file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                anchor = unquote(parts.fragment)
                if not file.is_file():
                    broken.append(f"{path.name}: {target}")
                elif anchor and file in parsed and anchor not in parsed[file].anchors:
                    broken.append(f"{path.name}: {target} (no such anchor)")
    assert not broken


def test_no_page_loads_from_another_host(sites: list[Site]) -> None:
    """In the markup too: an address that a browser would fetch by itself, on a click or without scripts."""
    fetching = re.compile(r'<(?:script|img|iframe|source|video|audio)\b[^>]*\ssrc="(https?:)?//|<link\b[^>]*href="(https?:)?//')
    for site in sites:
        for page in site.pages:
            assert not fetching.search((site.folder / page).read_text(encoding="utf-8")), f"{site.name}/{page}"


def test_archive_holds_every_chapter(sites: list[Site]) -> None:
    import zipfile

    demo = next(site for site in sites if site.name == "demo")
    with zipfile.ZipFile(demo.folder / "notebooks.zip") as archive:
        assert archive.namelist() == ["perturb_tutorial_notebooks/01_demo.ipynb"]
