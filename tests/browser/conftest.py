"""The built site in a real Chromium, served as a plain folder, with every other host out of reach.

`sites` are the published book and a tiny book with every kind of control; `open_page` opens one of their
pages and records what it does.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent))

from built_site import ROOT, Handler, Site, Visit, build, wait_for_widgets, write_demo_book

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on this machine: install it to test the pages in a browser")
    return path


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    with sync_api.sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield instance
        instance.close()


@pytest.fixture(scope="session")
def sites(chromium: str, worker_id: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Site]]:
    """Both books, built by the command that `make book` runs, each served from a sub-folder.

    The processes of one run share what the first of them has built; each serves it to its own browser.
    """
    shared = tmp_path_factory.getbasetemp()
    top = (shared if worker_id == "master" else shared.parent) / "served"
    folder = top / "some" / "folder"
    # The demo's other pages are the book's own.
    built = [Site("book", folder / "book"), Site("demo", folder / "demo", visited="0*.html")]
    with FileLock(top.with_suffix(".lock")):
        if not folder.exists():
            work = tmp_path_factory.mktemp("build")
            build(ROOT, work / "book-output", work / "some" / "folder" / "book")
            # After the book: its scripts are fetched by then.
            write_demo_book(work / "demo")
            build(work / "demo", work / "demo-output", work / "some" / "folder" / "demo")
            folder.parent.mkdir(parents=True)
            (work / "some" / "folder").rename(folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(top)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for site in built:
        site.address = f"http://127.0.0.1:{server.server_port}/{site.folder.relative_to(top)}"
    yield built
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open one page in a context of its own; the caller gets the page and the record of its visit."""
    contexts = []

    def open_one(
        site: Site, page: str, mode: str = "light", width: int = 1280, height: int = 900, free: bool = False
    ) -> tuple[Any, Visit]:
        # As a reader comes for the first time: nothing is stored, the system prefers light or dark. ``free`` of the
        # page's content security policy, for a test that computes in the page what the page leaves to its worker.
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=mode, bypass_csp=free
        )
        contexts.append(context)
        visit = Visit(f"{site.name}/{page}", mode)
        here = site.address.rsplit("/some/", 1)[0]

        def route(request_route: Any) -> None:
            url = request_route.request.url
            if url.startswith((here, "data:", "blob:")):
                visit.loaded.add(url.split("?")[0])
                request_route.continue_()
            else:
                visit.outside.append(url)
                request_route.abort()

        context.route("**/*", route)
        tab = context.new_page()
        tab.on("console", lambda m: visit.errors.append(m.text) if m.type == "error" else None)
        tab.on("pageerror", lambda error: visit.errors.append(str(error)))
        tab.on("response", lambda r: visit.failed.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        tab.on("requestfailed", lambda r: visit.failed.append(f"{r.failure} {r.url}"))
        tab.goto(f"{site.address}/{page}", wait_until="networkidle")
        wait_for_widgets(tab)
        return tab, visit

    yield open_one
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, from npm, pinned as the site's own scripts are."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "vendor.py"), "--tests"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"axe-core could not be fetched: {done.stderr.strip()}")
    return (ROOT / "tests" / "browser" / "_vendor" / "axe.min.js").read_text(encoding="utf-8")
