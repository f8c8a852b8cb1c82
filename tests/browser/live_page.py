"""What the tests of the live page do in a browser, and the same runs by the package."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from built_site import wait_until

import perturb_tutorial as pt
from perturb_tutorial.datasets.samples import sample_path
from perturb_tutorial.engines.joint_graph import with_half_weights

LOADED = "document.getElementById('live-engine').textContent.includes('runs in this browser')"
IDLE = "!document.getElementById('live-run').disabled"
ENDED = "/^(Done|Stopped)/.test(document.getElementById('live-status').textContent)"
ALERT = "!document.getElementById('live-alert').hidden"
PATIENCE = 120_000  # ms; other processes may have the machine's cores


def load_network(tab: Any) -> None:
    """Press the button, and wait until the network answers."""
    tab.click("#live-load")
    wait_until(tab, f"({LOADED} && {IDLE}) || {ALERT}", timeout=PATIENCE)
    assert not tab.evaluate(ALERT), tab.inner_text("#live-alert")


def learn(tab: Any) -> None:
    """Press the button, and wait until the mask is learned."""
    tab.click("#live-run")
    wait_until(tab, f"({ENDED} && {IDLE}) || {ALERT}", timeout=PATIENCE)
    assert not tab.evaluate(ALERT), tab.inner_text("#live-alert")
    wait_until(tab, "!!document.querySelector('#live-curve .live-line')")


def alert(tab: Any) -> str:
    """The next message of a failure."""
    wait_until(tab, ALERT, timeout=PATIENCE)
    return str(tab.inner_text("#live-alert"))


def curve(tab: Any) -> torch.Tensor:
    """The drawn score in each iteration; a tenth of a px is 0.0006."""
    points = tab.get_attribute("#live-curve .live-line", "points").split()
    _, top, bottom, _ = map(float, re.findall(r"[\d.]+", tab.get_attribute("#live-curve .live-axis", "d")))
    heights = [float(point.split(",")[1]) for point in points]
    return torch.tensor([(bottom - height) / (bottom - top) for height in heights])


def downloaded(tab: Any, button: str) -> bytes:
    with tab.expect_download() as waiting:
        tab.click(button)
    return Path(waiting.value.path()).read_bytes()


def mask_array(tab: Any) -> torch.Tensor:
    return torch.from_numpy(np.load(io.BytesIO(downloaded(tab, "#live-save-npy"))))


def drop(tab: Any, name: str, data: bytes, kind: str) -> None:
    """Drop a file onto the page, as a reader does with the mouse."""
    tab.evaluate(
        """([name, data, type]) => {
            const files = new DataTransfer();
            files.items.add(new File([Uint8Array.from(data)], name, { type }));
            const options = { dataTransfer: files, bubbles: true, cancelable: true };
            document.body.dispatchEvent(new DragEvent("drop", options));
        }""",
        [name, list(data), kind],
    )


def answer(predicate: Callable[[str], bool]) -> Callable[[Any], None]:
    """A route that cuts a file in half on its way, once the address fits."""

    def cut(route: Any) -> None:
        if not predicate(route.request.url):
            route.continue_()
            return
        response = route.fetch()
        body = response.body()
        route.fulfill(status=200, body=body[: len(body) // 2], content_type="application/octet-stream")

    return cut


@lru_cache(maxsize=1)
def network() -> pt.Network:
    """The network with the weights that the page loads."""
    return with_half_weights(pt.load_network("efficientnet_lite0", device="cpu"))


@lru_cache(maxsize=4)
def pixels(name: str) -> torch.Tensor:
    return pt.load_images(sample_path(name), 224)


def learned(name: str, target: int, game: str, iterations: int) -> pt.Masks:
    settings = pt.MaskSettings(game=game, iterations=iterations)
    return pt.learn_masks(network(), pixels(name), target, settings, seed=0)


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])
