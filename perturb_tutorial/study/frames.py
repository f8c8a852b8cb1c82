"""Frames as files: a figure or an array becomes the bytes of a PNG or JPEG, and the bytes an element of a page."""

from __future__ import annotations

import base64
import html
import io
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image

Frame: TypeAlias = Any  # a matplotlib Figure, an array H×W or H×W×3, or the bytes of a PNG or JPEG file
ImageFormat: TypeAlias = Literal["auto", "png", "jpeg"]

FIGURE_DPI = 100
JPEG_QUALITY = 85
PNG_PREFERENCE = 1.5  # PNG is kept, being exact, while it has at most this many times the bytes of the JPEG


def encode(frame: Frame, image_format: ImageFormat = "auto") -> bytes:
    """The bytes of a PNG or JPEG file for one frame of `explorer`; a matplotlib figure is closed."""
    if isinstance(frame, bytes | bytearray):
        _mime(bytes(frame))
        return bytes(frame)
    if image_format not in ("auto", "png", "jpeg"):
        raise ValueError(f'image_format: expected "auto", "png" or "jpeg", got {image_format!r}')
    image = _figure_image(frame) if hasattr(frame, "savefig") else _array_image(frame)
    png = _file(image, format="PNG", optimize=True) if image_format != "jpeg" else b""
    jpeg = _file(image, format="JPEG", quality=JPEG_QUALITY, optimize=True) if image_format != "png" else b""
    if not png or not jpeg:
        return png or jpeg
    return png if len(png) <= PNG_PREFERENCE * len(jpeg) else jpeg


def _figure_image(figure: Any) -> Image.Image:
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=FIGURE_DPI, facecolor="white")
    # An open figure would be shown a second time at the end of the cell.
    plt.close(figure)
    return Image.open(buffer).convert("RGB")


def _array_image(frame: Any) -> Image.Image:
    array = np.asarray(frame)
    gray_or_color = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if not gray_or_color or array.size == 0 or array.dtype.kind not in "uf":
        raise ValueError(
            "frames: expected matplotlib figures, arrays H×W or H×W×3 (uint8, or float in [0, 1]) "
            f"or PNG/JPEG bytes, got {type(frame).__name__} of shape {array.shape} and type {array.dtype}"
        )
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ValueError(
                "frames: expected float arrays in [0, 1], got other values; scale or clip them first"
            )
        array = np.round(array * 255)
    elif array.dtype != np.uint8:
        raise ValueError(f"frames: expected integer arrays as uint8, got {array.dtype}; convert them first")
    return Image.fromarray(array.astype(np.uint8))


def _file(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def _mime(data: bytes) -> str:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    raise ValueError(
        f"frames: expected the bytes of a PNG or JPEG file, got bytes that start with {data[:4]!r}"
    )


def image_element(data: bytes, alt: str) -> str:
    # ipywidgets.Image has no alternative text, hence an <img> of our own.
    source = base64.b64encode(data).decode("ascii")
    style = "max-width: 100%; height: auto"
    return f'<img alt="{html.escape(alt)}" style="{style}" src="data:{_mime(data)};base64,{source}">'
