"""The controls of the built site: there once, moved by the keyboard, and heard as well as seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import nbformat
import pytest
from built_site import ROOT, Site, Visit, notebook_of

pytestmark = pytest.mark.slow

VIEW = "application/vnd.jupyter.widget-view+json"
# Arrow key → the one that undoes it. A control at its end answers to the second only.
ARROWS = {
    "ArrowRight": "ArrowLeft",
    "ArrowLeft": "ArrowRight",
    "ArrowDown": "ArrowUp",
    "ArrowUp": "ArrowDown",
}
CONTROLS = {
    "SelectionSliderModel": ".widget-slider",
    "DropdownModel": ".widget-dropdown",
    "ToggleButtonsModel": ".widget-toggle-buttons",
    "PlayModel": ".widget-play",
}


def shown_controls(notebook: Any) -> dict[str, int]:
    """How many controls of each kind the stored notebook shows, live ones aside."""
    state = (
        notebook.metadata.get("widgets", {})
        .get("application/vnd.jupyter.widget-state+json", {})
        .get("state", {})
    )
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    todo = [output["data"][VIEW]["model_id"] for output in outputs if VIEW in output.get("data", {})]
    counts = dict.fromkeys(CONTROLS, 0)
    while todo:
        model = state[todo.pop()]
        if "perturb-live-only" in model["state"].get("_dom_classes", []):
            continue
        if model["model_name"] in counts:
            counts[model["model_name"]] += 1
        todo += [child.removeprefix("IPY_MODEL_") for child in model["state"].get("children", [])]
    return counts


def pages_with_controls() -> list[tuple[str, str]]:
    """Site and page of each chapter that has controls, and of the demo."""
    chapters = sorted((ROOT / "book").glob("[0-9]*.ipynb"))
    shown = [
        path.stem
        for path in chapters
        if "widgets" in nbformat.read(path, as_version=nbformat.NO_CONVERT).metadata
    ]
    return [("book", f"{stem}.html") for stem in shown] + [("demo", "01_demo.html")]


@pytest.fixture(scope="module", params=pages_with_controls(), ids="/".join)
def opened(
    request: pytest.FixtureRequest, sites: list[Site], open_page: Callable[..., Any]
) -> Iterator[tuple[Any, Visit, Any]]:
    """A page with controls, what it does, and the notebook behind it."""
    name, page = request.param
    site = next(site for site in sites if site.name == name)
    tab, visit = open_page(site, page)
    yield tab, visit, notebook_of(site, page)
    tab.context.close()


def test_each_control_appears_exactly_once(opened: tuple[Any, Visit, Any]) -> None:
    tab, _, notebook = opened
    shown = shown_controls(notebook)
    assert any(shown.values())
    assert {model: tab.locator(f"{CONTROLS[model]}:visible").count() for model in shown} == shown
    assert tab.locator(".perturb-live-only:visible").count() == 0, "the page shows what only a kernel can do"


def picture(tab: Any, control: Any) -> str:
    """What the visible pictures of the control's own box show."""
    box = control.locator("xpath=ancestor::div[contains(@class, 'widget-subarea')][1]")
    return "|".join(image.get_attribute("src") or "" for image in box.locator("img:visible").all())


def press(tab: Any, control: Any, key: str) -> str:
    """What the control's pictures show after a key."""
    tab.keyboard.press(key)
    tab.wait_for_timeout(150)
    return picture(tab, control)


def test_arrow_keys_change_the_picture(opened: tuple[Any, Visit, Any]) -> None:
    """Each slider, drop-down list and group of buttons: there and back with the keyboard alone."""
    tab, visit, _ = opened
    focus = {
        ".widget-slider": ".noUi-handle",
        ".widget-dropdown": "select",
        ".widget-toggle-buttons": ".mod-active",
    }
    for kind, handle in focus.items():
        for control in tab.locator(f"{kind}:visible").all():
            before = picture(tab, control)
            control.locator(handle).first.focus()
            moved = next((key for key in ARROWS if press(tab, control, key) != before), None)
            assert moved, f"no arrow key changes the picture of a {kind}"
            assert press(tab, control, ARROWS[moved]) == before, f"no way back after {moved} of a {kind}"
    assert not visit.errors


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
    chosen = [
        button.get_attribute("aria-pressed") for button in tab.locator(".widget-toggle-buttons button").all()
    ]
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
