"""Every page of the built site, as a reader with no internet connection meets it."""

from __future__ import annotations

import json
import re
import tomllib
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from built_site import ADDRESS, ROOT, Site, Visit, wait_until

pytestmark = pytest.mark.slow

PAGE_BYTES = 3_000_000  # HTML, pictures and widget state of one page
SCRIPT_BYTES = 6_000_000  # all scripts that pages share
PHONE = 360  # px
SERIOUS = ("serious", "critical")
WCAG = ["wcag2a", "wcag2aa", "wcag21aa"]
EXCLUDED_RULES: dict[str, str] = {}  # axe rule → why it does not count


@pytest.fixture(scope="session")
def visits(sites: list[Site], open_page: Callable[..., Any], axe: str) -> list[Visit]:
    """One visit to each page: what it does, what axe-core finds in light and in dark, how wide it is on a phone."""
    done = []
    for site in sites:
        for page in site.pages:
            tab, visit = open_page(site, page, "light")
            assert tab.evaluate("document.documentElement.dataset.theme") == "light"
            tab.evaluate(axe)
            look(tab, visit, "light", {"type": "tag", "values": WCAG})
            # The page follows the system's preference; in the dark only colors differ.
            tab.emulate_media(color_scheme="dark")
            wait_until(tab, "document.documentElement.dataset.theme === 'dark'")
            tab.wait_for_timeout(300)
            look(tab, visit, "dark", {"type": "rule", "values": ["color-contrast", "link-in-text-block"]})
            tab.set_viewport_size({"width": PHONE, "height": 740})
            visit.width_on_phone = tab.evaluate("document.documentElement.scrollWidth")
            tab.context.close()
            done.append(visit)
    return done


def look(tab: Any, visit: Visit, mode: str, rules: dict[str, Any]) -> None:
    """Add what axe-core finds now to the visit's record."""
    options = {"runOnly": rules, "resultTypes": ["violations"]}
    found = tab.evaluate(f"axe.run(document, {json.dumps(options)})")
    for violation in found["violations"]:
        if violation["impact"] in SERIOUS and violation["id"] not in EXCLUDED_RULES:
            where = "; ".join(node["html"][:160] for node in violation["nodes"][:3])
            visit.accessibility.append(f"{mode}: {violation['id']} ({violation['impact']}): {where}")


def test_no_request_leaves_the_site(visits: list[Visit]) -> None:
    assert not {str(visit): visit.outside for visit in visits if visit.outside}


def test_every_request_succeeds(visits: list[Visit]) -> None:
    assert not {str(visit): visit.failed for visit in visits if visit.failed}


def test_no_page_throws_or_logs_an_error(visits: list[Visit]) -> None:
    assert not {str(visit): visit.errors for visit in visits if visit.errors}


def test_a_page_runs_and_asks_for_nothing_of_others(sites: list[Site], open_page: Callable[..., Any]) -> None:
    """The content security policy stops a script that has got into a page, a handler, and a request to another host."""
    book = next(site for site in sites if site.name == "book")
    for page in ("00_welcome.html", "live.html"):
        tab, visit = open_page(book, page)
        tab.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "window.stolen = 1";
                document.body.append(script);
                document.body.insertAdjacentHTML("beforeend", "<img src='none.png' onerror='window.stolen = 2'>");
            }"""
        )
        tab.wait_for_timeout(300)
        assert tab.evaluate("window.stolen === undefined")
        assert tab.evaluate("fetch('https://example.org/').then(() => 'sent', () => 'refused')") == "refused"
        assert visit.outside == [], "the request did not even leave the page"
        tab.context.close()


def test_no_serious_accessibility_violation(visits: list[Visit]) -> None:
    assert not {str(visit): visit.accessibility for visit in visits if visit.accessibility}


def test_the_visits_loaded_what_they_were_to_test(visits: list[Visit]) -> None:
    """The other tests pass on pages that load nothing: the demo must have had widgets and MathJax."""
    demo = next(visit for visit in visits if visit.page == "demo/01_demo.html")
    names = {url.rsplit("/", 1)[-1] for url in demo.loaded}
    assert {"require.js", "embed-amd.js", "startup.js", "tex-full.js", "svg.js"} <= names
    welcome = next(visit for visit in visits if visit.page == "demo/00_welcome.html")
    assert not any("mathjax" in url or "embed-amd" in url for url in welcome.loaded), (
        "a page of prose loads no extras"
    )


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
        "[...document.querySelectorAll('.bd-article img')]"
        ".map(i => [getComputedStyle(i).filter, i.getClientRects().length])"
    )
    assert len(styles) >= 3
    assert {style for style, boxes in styles if boxes} == {"none"}
    tab.context.close()


def test_search_finds_a_page(sites: list[Site], open_page: Callable[..., Any]) -> None:
    demo = next(site for site in sites if site.name == "demo")
    tab, visit = open_page(demo, "search.html?q=kind+of+control")
    tab.wait_for_selector("#search-results li a", timeout=10_000)
    assert "01_demo.html" in " ".join(
        link.get_attribute("href") for link in tab.locator("#search-results li a").all()
    )
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
        # searchindex.js is the book's own text, and the live page loads its runtime on a click only.
        scripts = [
            path
            for path in site.folder.rglob("*.js")
            if path.name != "searchindex.js" and "live" not in path.relative_to(site.folder).parts
        ]
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
    fetching = re.compile(
        r'<(?:script|img|iframe|source|video|audio)\b[^>]*\ssrc="(https?:)?//|<link\b[^>]*href="(https?:)?//'
    )
    for site in sites:
        for page in site.pages:
            assert not fetching.search((site.folder / page).read_text(encoding="utf-8")), (
                f"{site.name}/{page}"
            )


def test_buttons_follow_the_projects_address(sites: list[Site]) -> None:
    """Stated once, in pyproject.toml: with it a chapter leads to repository, Colab and Binder, else nowhere."""
    demo = next(site for site in sites if site.name == "demo")
    chapter = (demo.folder / "01_demo.html").read_text(encoding="utf-8")
    assert f'href="{ADDRESS}"' in chapter
    assert (
        "https://colab.research.google.com/github/someone/some-book/blob/v1.2.3/book/01_demo.ipynb" in chapter
    )
    assert (
        "https://mybinder.org/v2/gh/someone/some-book/v1.2.3?urlpath=lab/tree/book/01_demo.ipynb" in chapter
    )
    assert '"/some-book/"' in (demo.folder / "404.html").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if "Repository" not in project.get("urls", {}):
        book = next(site for site in sites if site.name == "book")
        for page in book.pages:
            html = (book.folder / page).read_text(encoding="utf-8")
            assert "colab.research" not in html
            assert "mybinder" not in html
            assert 'aria-label="Source repository"' not in html
            assert "btn-source-repository-button" not in html


def test_archive_holds_every_chapter(sites: list[Site]) -> None:
    demo = next(site for site in sites if site.name == "demo")
    for kind in ("notebooks", "students"):
        with zipfile.ZipFile(demo.folder / f"{kind}.zip") as archive:
            assert archive.namelist() == [f"perturb_tutorial_{kind}/01_demo.ipynb"]
