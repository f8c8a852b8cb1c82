"""explorer: each value of a control chooses its own frame, and each mistake has one line."""

from __future__ import annotations

import base64
import html
import io
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

ipywidgets = pytest.importorskip("ipywidgets", reason="needs the extra book")

import matplotlib  # noqa: E402

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from perturb_tutorial.study.frames import encode  # noqa: E402
from perturb_tutorial.study.widgets import LIVE_ONLY, explorer  # noqa: E402

GRAYS = {0: 0, 1: 80, 2: 160, 3: 240}


def flat(gray: int) -> np.ndarray:
    return np.full((8, 12, 3), gray, dtype=np.uint8)


def figure() -> Any:
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, 1])
    return fig


def shown(widget: Any) -> tuple[str, np.ndarray]:
    """(alternative text, pixels) of an <img> widget."""
    match = re.search(r'<img alt="([^"]*)".* src="data:image/(png|jpeg);base64,([^"]+)">', widget.value)
    assert match, widget.value[:100]
    with Image.open(io.BytesIO(base64.b64decode(match.group(3)))) as image:
        assert image.format == match.group(2).upper()
        return html.unescape(match.group(1)), np.asarray(image)


def links(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Record what is linked in the browser: jslink cannot be followed in Python."""
    made: list[tuple[Any, Any]] = []
    monkeypatch.setattr(ipywidgets, "jslink", lambda source, target: made.append((source, target)))
    return made


def test_each_value_has_its_own_frame_and_text() -> None:
    box = explorer(
        {k: flat(g) for k, g in GRAYS.items()}, label="σ", alt=lambda k: f'gray "{GRAYS[k]}" & more'
    )
    slider, stack = box.children
    assert isinstance(slider, ipywidgets.SelectionSlider), "the slider comes first: nbval cuts the box's text"
    assert slider.options == ("0", "1", "2", "3")
    for index, gray in enumerate(GRAYS.values()):
        alt, pixels = shown(stack.children[index])
        assert alt == f'gray "{gray}" & more'
        assert (pixels == gray).all()


def test_control_and_stack_are_linked_in_the_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    made = links(monkeypatch)
    box = explorer({k: flat(g) for k, g in GRAYS.items()}, label="σ", alt="gray", start=2, play=True)
    slider, player, stack = box.children
    assert made == [((slider, "index"), (stack, "selected_index")), ((player, "value"), (slider, "index"))]
    assert (slider.index, player.value, stack.selected_index) == (2, 2, 2)
    assert (player.min, player.max) == (0, 3)


def test_a_pair_of_controls_reaches_every_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    made = links(monkeypatch)
    frames = {(a, b): flat(100 * a + 10 * b) for a in (0, 1) for b in (3, 1, 2)}
    box = explorer(frames, label=("a", "b"), alt="gray", control=("dropdown", "buttons"), start=(1, 2))
    first, second, outer = box.children
    assert (first.options, second.options) == (("0", "1"), ("3", "1", "2")), "values run in the order given"
    assert made[-1] == ((first, "index"), (outer, "selected_index"))
    assert made[:-1] == [((second, "index"), (row, "selected_index")) for row in outer.children]
    assert (first.index, second.index, outer.selected_index) == (1, 2, 1)
    for i, a in enumerate((0, 1)):
        for j, b in enumerate((3, 1, 2)):
            alt, pixels = shown(outer.children[i].children[j])
            assert alt == f"gray (a = {a}, b = {b})."
            assert (pixels == 100 * a + 10 * b).all()


def test_figures_are_drawn_on_white_and_closed() -> None:
    open_before = plt.get_fignums()
    data = encode(figure(), "png")
    assert plt.get_fignums() == open_before, "an open figure would be shown twice"
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (200, 100)
        assert image.getpixel((0, 0)) == (255, 255, 255)


def test_float_and_gray_arrays_and_files() -> None:
    ramp = np.linspace(0, 1, 256).reshape(16, 16)
    with Image.open(io.BytesIO(encode(ramp, "png"))) as image:
        assert np.array_equal(np.asarray(image), np.arange(256).reshape(16, 16))
    file = encode(flat(7), "jpeg")
    assert encode(file) == file


def test_auto_takes_the_exact_format_unless_it_is_far_larger() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(noise).resize((256, 256), Image.Resampling.BICUBIC))
    assert encode(flat(0)).startswith(b"\x89PNG"), "a drawing stays exact"
    assert encode(smooth).startswith(b"\xff\xd8"), "a photograph becomes small"
    assert len(encode(smooth)) < len(encode(smooth, "png"))


def live_parts(box: Any) -> tuple[list[Any], Any, Any]:
    live = box.children[-1]
    assert LIVE_ONLY in live._dom_classes
    row, result = live.children
    return list(row.children[:-1]), row.children[-1], result


def test_live_computes_values_that_have_no_frame() -> None:
    asked: list[tuple[Any, ...]] = []

    def compute(weight: float, name: str) -> np.ndarray:
        asked.append((weight, name))
        return flat(33)

    frames = {(w, n): flat(0) for w in (1e-4, 1e-3) for n in ("x", "y")}
    box = explorer(frames, label=("λ₁", "name"), alt="gray", live=compute)
    fields, button, result = live_parts(box)
    assert [type(field).__name__ for field in fields] == ["FloatText", "Dropdown"]
    fields[0].value, fields[1].value = 5e-4, "y"
    button.click()
    assert asked == [(5e-4, "y")]
    alt, pixels = shown(result)
    assert alt == "gray (λ₁ = 0.0005, name = y)."
    assert (pixels == 33).all()
    assert 'role="status"' in result.value
    assert button.disabled is False


def test_a_failing_live_value_is_said_and_can_be_tried_again() -> None:
    def compute(k: int) -> np.ndarray:
        raise ValueError("k: expected <= 3, got <9>")

    fields, button, result = live_parts(explorer({0: flat(0)}, label="k", alt="gray", live=compute))
    fields[0].value = 9
    button.click()
    assert 'role="alert"' in result.value
    assert html.unescape(result.value).count("ValueError: k: expected <= 3, got <9>") == 1
    assert "<9>" not in result.value, "the message is text, not markup"
    assert button.disabled is False


def test_numbers_are_written_plainly() -> None:
    box = explorer({w: flat(0) for w in (1e-5, 1e-3, 0.25, 10.0)}, label="λ₁", alt="gray")
    assert box.children[0].options == ("0.00001", "0.001", "0.25", "10")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frames": {}}, "frames: expected at least one frame"),
        ({"frames": {0: np.zeros((2, 2, 4))}}, "frames: expected matplotlib figures, arrays"),
        ({"frames": {0: np.full((2, 2), np.nan)}}, r"frames: expected float arrays in \[0, 1\]"),
        ({"frames": {0: np.full((2, 2), 1.5)}}, r"frames: expected float arrays in \[0, 1\]"),
        (
            {"frames": {0: np.zeros((2, 2), np.uint16)}},
            "frames: expected integer arrays as uint8, got uint16",
        ),
        ({"frames": {0: b"GIF89a"}}, "frames: expected the bytes of a PNG or JPEG file"),
        ({"frames": {0: "a.png"}}, "frames: expected matplotlib figures"),
        ({"label": ("a", "b")}, "frames: expected pairs"),
        ({"label": ("a", "b", "c")}, "label: expected one label or a pair"),
        ({"frames": {(0, 0): flat(0), (1, 1): flat(0)}, "label": ("a", "b")}, r"got none for \(0, 1\)"),
        ({"control": "knob"}, "control: expected one of slider, dropdown, buttons, got 'knob'"),
        ({"control": ("slider", "slider")}, "control: expected one for each of the 1 labels, got 2"),
        ({"start": 9}, "start: expected a key of frames, got 9"),
        ({"value_format": lambda _: "same"}, "value_format: expected a different text for each value"),
        ({"image_format": "gif"}, 'image_format: expected "auto", "png" or "jpeg"'),
        ({"max_bytes": 10}, r"frames: 2 frames have [\d,]+ bytes, expected at most max_bytes=10"),
    ],
)
def test_mistakes_have_one_line(arguments: dict[str, Any], message: str) -> None:
    defaults: dict[str, Any] = {"frames": {0: flat(0), 1: flat(1)}, "label": "k", "alt": "gray"}
    given = {**defaults, **arguments}
    with pytest.raises(ValueError, match=message) as error:
        explorer(given.pop("frames"), **given)
    assert "\n" not in str(error.value)


def test_without_ipywidgets_one_line_names_the_mend() -> None:
    """In an interpreter that cannot import ipywidgets; importing the module must still work."""
    code = (
        "import sys; sys.modules['ipywidgets'] = None\n"
        "from perturb_tutorial.study.widgets import explorer\n"
        "try: explorer({0: b''}, label='k', alt='a')\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "explorer needs ipywidgets: run: pip install 'perturb_tutorial[book]'\n"


@pytest.mark.parametrize(
    ("names", "width"),
    [(("gray", "localization12"), None), (("gray", "excitation backprop"), "auto")],
    ids=["short", "long"],
)
def test_buttons_are_as_wide_as_their_texts(names: tuple[str, ...], width: str | None) -> None:
    """The front end gives all buttons one width and cuts what is longer."""
    box = explorer({name: flat(9) for name in names}, label="method", alt="gray", control="buttons")
    assert box.children[0].style.button_width == (width or "")
