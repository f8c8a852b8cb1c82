"""Where the live page computes: threads on an isolated page, a graphics card, and what each fetches."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from built_site import Handler, Site, wait_until
from live_page import ALERT, LOADED, PATIENCE, load_network

pytestmark = pytest.mark.slow

MEGABYTES = (14.0, 16.0)  # with the two runtimes for WebGPU: WebAssembly can be suspended, or cannot
# A WebGPU adapter that is software, so that it is there on every machine.
SOFTWARE_ADAPTER = [
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    "--use-vulkan=swiftshader",
    "--use-angle=swiftshader",
]


class IsolatedHandler(Handler):
    """A host that sends the two headers that isolate a page."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


@pytest.fixture(scope="module")
def isolated(sites: list[Site]) -> Iterator[Site]:
    book = next(site for site in sites if site.name == "book")
    handler = functools.partial(IsolatedHandler, directory=str(book.folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Site("book", book.folder, address=f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
    thread.join()


def fetched(page: Any, site: Site) -> dict[str, int]:
    """Bytes of each file of the live page's that this page asks for from now on, by name."""
    sizes: dict[str, int] = {}

    def note(request: Any) -> None:
        name = request.url.split("?")[0].removeprefix(f"{site.address}/live/")
        if (site.folder / "live" / name).is_file():
            sizes[name] = (site.folder / "live" / name).stat().st_size

    page.context.on("request", note)
    return sizes


def best_guess(page: Any) -> str:
    wait_until(page, "document.querySelectorAll('#live-targets label').length > 1")
    return str(page.inner_text("#live-targets label:first-child span"))


def test_threads_where_the_page_is_isolated(isolated: Site, browser: Any) -> None:
    page = browser.new_context().new_page()
    page.goto(f"{isolated.address}/live.html")
    assert page.evaluate("crossOriginIsolated")
    threads = min(4, page.evaluate("navigator.hardwareConcurrency"))
    page.wait_for_selector("#live-load:enabled")
    load_network(page)
    words = f"{threads} threads" if threads > 1 else "one thread"
    assert page.inner_text("#live-engine").endswith(f"on WebAssembly, {words}.")
    assert best_guess(page) == "Egyptian cat"
    page.context.close()


def test_the_graphics_card_and_what_it_fetches(isolated: Site, browser: Any, chromium: str) -> None:
    """An adapter that is software is passed over; one that counts as a card gets WebGPU's own runtime."""
    instance = browser.browser_type.launch(executable_path=chromium, args=SOFTWARE_ADAPTER)
    page = instance.new_context().new_page()
    page.goto(f"{isolated.address}/live.html")
    page.wait_for_selector("#live-load:enabled")
    if not page.evaluate("navigator.gpu ? navigator.gpu.requestAdapter().then(Boolean) : false"):
        instance.close()
        pytest.skip("this Chromium has no WebGPU adapter, not even a software one")
    assert "WebAssembly" in page.inner_text("#live-load")
    runtime = (isolated.folder / "live" / "runtime.js").read_text(encoding="utf-8")
    assert "software = false" in runtime
    page.route(
        "**/runtime.js",
        lambda route: route.fulfill(
            content_type="text/javascript",
            headers={"Cross-Origin-Embedder-Policy": "require-corp"},
            body=runtime.replace("software = false", "software = true"),
        ),
    )
    sizes = fetched(page, isolated)
    page.reload()
    page.wait_for_selector("#live-load:enabled")
    assert "WebGPU" in page.inner_text("#live-load")
    assert page.is_visible("#live-load-wasm")
    assert not [name for name in sizes if name.startswith("ort.")], "nothing before the button is pressed"
    page.click("#live-load")
    wait_until(page, f"{LOADED} || {ALERT}", timeout=PATIENCE)
    # Software would take minutes to compile the shaders of the first iteration: it stops here.
    assert page.inner_text("#live-engine").endswith("on WebGPU.")
    assert not [name for name in sizes if name.startswith("ort.wasm")]
    total = sum(sizes.values()) / 1e6
    larger = total + (size(isolated, "ort.webgpu") - size(isolated, "ort.jspi")) / 1e6
    print(f"fetched with WebGPU: {total:.2f} MB; {larger:.2f} MB where WebAssembly cannot be suspended")
    assert max(total, larger) <= MEGABYTES[1]
    assert (
        "Suspending" not in page.evaluate("Object.getOwnPropertyNames(WebAssembly)") or total <= MEGABYTES[0]
    )
    instance.close()


def size(site: Site, engine: str) -> int:
    return sum(path.stat().st_size for path in (site.folder / "live").glob(f"{engine}.*"))
