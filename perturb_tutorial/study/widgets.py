"""Controls that change a picture, in a running notebook and on a published page alike.

`explorer` takes pictures that were computed before, one for each value of a control (or for each pair of
values of two controls), and links control and pictures inside the browser: a page that has no kernel shows
the same picture for the same value. With `live=` a running notebook also computes values that are not among
them.

    frames = {sigma: draw(sigma) for sigma in (0, 2, 5, 10)}
    explorer(frames, label="σ_m", alt=lambda sigma: f"Mask softened by {sigma} image px", live=draw)

Axes: value i of the first control selects child i of a stack; with two controls each child is itself a stack,
and value j of the second control selects child j of every one of them.

Needs ipywidgets (`pip install perturb_tutorial[book]`), which no other module imports.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from perturb_tutorial.study.frames import Frame, ImageFormat, encode, image_element

Control: TypeAlias = Literal["slider", "dropdown", "buttons"]

MAX_BYTES = 1_000_000  # of all frames together: base64 makes it 1.33 MB, and a chapter may have 1.5 MB
BUTTON_LETTERS = 14  # that a button of the usual width shows whole
LIVE_ONLY = "perturb-live-only"  # class of what needs a kernel; the published page hides it


def explorer(
    frames: Mapping[Any, Frame],
    *,
    label: str | tuple[str, str],
    alt: str | Callable[..., str],
    control: Control | tuple[Control, Control] = "slider",
    start: Any = None,
    play: bool = False,
    live: Callable[..., Frame] | None = None,
    value_format: Callable[[Any], str] | None = None,
    image_format: ImageFormat = "auto",
    max_bytes: int = MAX_BYTES,
) -> Any:
    """Shows the frame for the value of a control.

    Args:
        frames: value → frame, in the order of the control's values; for two controls (first value, second value) →
            frame, with every combination present. A frame is a matplotlib figure (drawn at 100 dpi and closed), an
            array H×W or H×W×3 (uint8, or float in [0, 1]), or the bytes of a PNG or JPEG file.
        label: what the control sets, in plain Unicode (``λ₁``, not TeX); a pair for two controls.
        alt: what the picture shows, for a reader who does not see it; called with the value(s), or one text for all
            frames, to which the values are appended.
        control: "slider", "dropdown" or "buttons"; a pair for two controls.
        start: value (or pair) shown first; None is the first one.
        play: whether to put a play button before the first control.
        live: called with the value(s) in a running notebook, returns a frame. Its fields are hidden on the published
            page.
        value_format: value → its text; by default numbers are written without an exponent.
        image_format: "auto" keeps PNG unless JPEG is far smaller; "png" and "jpeg" force one. Bytes are passed through
            unchanged.
        max_bytes: limit for all frames together.

    Returns:
        An ``ipywidgets.VBox``, the controls first, then the pictures.

    Raises:
        ImportError: without ipywidgets.
        ValueError: for frames that are none of the above, an incomplete grid, an unknown control or start, or too many
            bytes.
    """
    widgets = _ipywidgets()
    text = value_format or _plain
    labels = (label,) if isinstance(label, str) else tuple(label)
    axes = _axes(frames, len(labels))
    controls = (control,) * len(labels) if isinstance(control, str) else tuple(control)
    if len(controls) != len(labels):
        raise ValueError(f"control: expected one for each of the {len(labels)} labels, got {len(controls)}")
    at = _start(start, axes)
    pictures = {key: encode(frame, image_format) for key, frame in frames.items()}
    total = sum(map(len, pictures.values()))
    if total > max_bytes:
        raise ValueError(
            f"frames: {len(pictures)} frames have {total:,} bytes, expected at most max_bytes={max_bytes:,}; "
            "draw fewer or smaller ones"
        )

    def picture(*values: Any) -> Any:
        key = values if len(axes) == 2 else values[0]
        return widgets.HTML(image_element(pictures[key], _alt(alt, labels, values, text)))

    setters = [
        _setter(widgets, kind, name, [text(value) for value in axis], index)
        for kind, name, axis, index in zip(controls, labels, axes, at, strict=True)
    ]
    if len(axes) == 1:
        stack = widgets.Stack([picture(value) for value in axes[0]], selected_index=at[0])
    else:
        rows = [widgets.Stack([picture(a, b) for b in axes[1]], selected_index=at[1]) for a in axes[0]]
        stack = widgets.Stack(rows, selected_index=at[0])
        for row in rows:
            widgets.jslink((setters[1], "index"), (row, "selected_index"))
    widgets.jslink((setters[0], "index"), (stack, "selected_index"))
    parts = [*setters, stack]
    if play:
        parts.insert(len(setters), _player(widgets, setters[0], len(axes[0]), at[0], labels[0]))
    if live is not None:
        parts.append(_live(widgets, live, labels, axes, alt, text, image_format))
    return widgets.VBox(parts)


def _alt(
    alt: str | Callable[..., str], labels: Sequence[str], values: Sequence[Any], text: Callable[[Any], str]
) -> str:
    if callable(alt):
        return alt(*values)
    setting = ", ".join(f"{name} = {text(value)}" for name, value in zip(labels, values, strict=True))
    return f"{alt.rstrip('.')} ({setting})."


def _plain(value: Any) -> str:
    """A value as a reader writes it: 0.0001, not 1e-04."""
    if isinstance(value, float | np.floating):
        return np.format_float_positional(value, precision=6, trim="-", fractional=False)
    return str(value)


def _axes(frames: Mapping[Any, Frame], count: int) -> list[list[Any]]:
    """The values of each control in their order; ValueError unless every combination has a frame."""
    if count not in (1, 2):
        raise ValueError(f"label: expected one label or a pair of them, got {count}")
    if not frames:
        raise ValueError("frames: expected at least one frame, got none")
    if count == 1:
        return [list(frames)]
    if not all(isinstance(key, tuple) and len(key) == 2 for key in frames):
        raise ValueError("frames: expected pairs (first value, second value) as keys, since label is a pair")
    axes = [list(dict.fromkeys(key[axis] for key in frames)) for axis in (0, 1)]
    missing = [(a, b) for a in axes[0] for b in axes[1] if (a, b) not in frames]
    if missing:
        raise ValueError(f"frames: expected a frame for every combination, got none for {missing[0]}")
    return axes


def _start(start: Any, axes: list[list[Any]]) -> list[int]:
    if start is None:
        return [0] * len(axes)
    values = (start,) if len(axes) == 1 else start
    try:
        return [axis.index(value) for axis, value in zip(axes, values, strict=True)]
    except (ValueError, TypeError):
        raise ValueError(f"start: expected a key of frames, got {start!r}") from None


def _setter(widgets: Any, kind: str, label: str, options: list[str], index: int) -> Any:
    kinds = {
        "slider": widgets.SelectionSlider,
        "dropdown": widgets.Dropdown,
        "buttons": widgets.ToggleButtons,
    }
    if kind not in kinds:
        raise ValueError(f"control: expected one of {', '.join(kinds)}, got {kind!r}")
    if len(set(options)) != len(options):
        raise ValueError(f"value_format: expected a different text for each value, got {', '.join(options)}")
    layout = widgets.Layout(width="auto", max_width="32rem")
    # The label is shown in full: a truncated one would be useless.
    style = {"description_width": "initial"}
    if kind == "buttons" and max(map(len, options), default=0) > BUTTON_LETTERS:
        style["button_width"] = "auto"
    # Without a tooltip some front ends show the word null.
    return kinds[kind](
        options=options, index=index, description=label, tooltip=label, layout=layout, style=style
    )


def _player(widgets: Any, setter: Any, count: int, index: int, label: str) -> Any:
    # Half a second for each frame lets the eye compare neighbors.
    player = widgets.Play(min=0, max=count - 1, value=index, interval=500, tooltip=f"Play through {label}")
    widgets.jslink((player, "value"), (setter, "index"))
    return player


def _live(
    widgets: Any,
    compute: Callable[..., Frame],
    labels: Sequence[str],
    axes: Sequence[Sequence[Any]],
    alt: str | Callable[..., str],
    text: Callable[[Any], str],
    image_format: ImageFormat,
) -> Any:
    """Fields for any value, a button that computes its frame, and the frame; it needs a kernel.

    Args:
        widgets: the module ``ipywidgets``.
        compute: value(s) → frame.
        labels: one for each control.
        axes: the values of each control that have frames.
        alt: the alternative text, or a function of the value(s).
        text: a value's text.
        image_format: of the frame.
    """
    fields = []
    for name, axis in zip(labels, axes, strict=True):
        style = {"description_width": "initial"}
        kind = _field_kind(widgets, axis)
        fields.append(
            kind(value=axis[0], description=f"Any {name}", style=style, layout=widgets.Layout(width="14rem"))
        )
    button = widgets.Button(
        description="Compute", tooltip=f"Compute the picture for this {' and '.join(labels)}"
    )
    result = widgets.HTML()

    def on_click(_: Any) -> None:
        values = [field.value for field in fields]
        setting = ", ".join(f"{name} = {text(value)}" for name, value in zip(labels, values, strict=True))
        button.disabled = True
        result.value = f'<p role="status">Computing {html.escape(setting)} …</p>'
        try:
            image = image_element(encode(compute(*values), image_format), _alt(alt, labels, values, text))
            result.value = f'<p role="status">Computed for {html.escape(setting)}:</p>{image}'
        except Exception as error:
            # Most front ends do not show a traceback from a button's callback.
            message = html.escape(f"{type(error).__name__}: {error}")
            result.value = f'<p role="alert">{html.escape(setting)}: {message}</p>'
        finally:
            button.disabled = False

    button.on_click(on_click)
    box = widgets.VBox([widgets.HBox([*fields, button], layout=widgets.Layout(flex_flow="row wrap")), result])
    box.add_class(LIVE_ONLY)
    return box


def _field_kind(widgets: Any, axis: Sequence[Any]) -> Any:
    """The entry field for an axis: whole numbers, numbers, or one of the given values."""
    if all(isinstance(value, int | np.integer) and not isinstance(value, bool) for value in axis):
        return widgets.IntText
    if all(isinstance(value, int | float | np.integer | np.floating) for value in axis):
        return widgets.FloatText

    def choice(value: Any, **options: Any) -> Any:
        return widgets.Dropdown(options=[(str(v), v) for v in axis], value=value, **options)

    return choice


def _ipywidgets() -> Any:
    try:
        import ipywidgets
    except ImportError:
        raise ImportError("explorer needs ipywidgets: run: pip install 'perturb_tutorial[book]'") from None
    return ipywidgets
