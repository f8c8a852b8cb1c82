"""Image files → N×C×H×W float32 tensors in [0, 1], RGB; and one clear line for each file that cannot be read.

Every photograph is squashed to the input's shape, as the paper does (§4), or cropped at the center on request.
Shrinking averages over areas (Pillow's BOX), which on EfficientNet-Lite recognizes more photographs than a triangle
filter does; enlarging is bilinear.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from perturb_tutorial._forks import check_not_forked
from perturb_tutorial.settings import Size, check_size, sides

MIN_SIDE = 8
"""Smallest side of a photograph in its file, image px."""
MAX_PIXELS = 100_000_000
"""Largest photograph; more is refused before it is decoded."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
"""Pillow's names of the formats that are read. Others are refused: EPS, for one, would start Ghostscript."""

CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's names of the modes that images are read in, by their number of channels."""

Paths = str | Path | Iterable[str | Path]


@dataclass(frozen=True)
class ImageError:
    """One file that could not be loaded: its place in the list, its path, and why."""

    index: int
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class ImageErrors(ValueError):
    """Every file that could not be loaded, one line each; ``.errors`` is the list."""

    def __init__(self, errors: Sequence[ImageError]) -> None:
        self.errors = list(errors)
        super().__init__("\n".join(map(str, self.errors)))


class _Unusable(Exception):
    """Why one file is refused."""


@overload
def load_images(
    paths: Paths,
    size: Size = ...,
    *,
    channels: int = ...,
    crop: str | None = ...,
    on_error: Literal["raise"] = ...,
) -> Tensor: ...
@overload
def load_images(
    paths: Paths, size: Size = ..., *, channels: int = ..., crop: str | None = ..., on_error: Literal["skip"]
) -> tuple[Tensor, list[ImageError]]: ...
def load_images(
    paths: Paths,
    size: Size = 224,
    *,
    channels: int = 3,
    crop: str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> Tensor | tuple[Tensor, list[ImageError]]:
    """Photographs as one tensor N×C×H×W, float32 in [0, 1].

    Gray, 16-bit, CMYK and palette images become RGB, transparency is laid over white, EXIF orientation is applied, an
    animation gives its first frame.

    Args:
        paths: one file or several.
        size: side of a square, or (height, width), in image px, at least 8 each: ``network.input_size``.
        channels: C, 3 for RGB, 1 for gray (luminance, Pillow's mode L), 4 for RGBA, whose alpha is then kept, 1 where
            the file has none: ``network.channels``.
        crop: None squashes to H×W; "center" cuts out the largest centered part of that shape and scales it.
        on_error: "raise" raises one error for all bad files; "skip" leaves them out and also returns a list of
            :class:`ImageError`, whose ``index`` says which images are missing.

    Returns:
        The images, or with ``on_error="skip"`` the good images and the list of errors.

    Raises:
        ImageErrors: names every bad file.
        ValueError: for arguments of the wrong form.
    """
    if crop not in (None, "center"):
        raise ValueError(f'crop: expected None or "center", got {crop!r}')
    if on_error not in ("raise", "skip"):
        raise ValueError(f'on_error: expected "raise" or "skip", got {on_error!r}')
    if isinstance(channels, bool) or channels not in CHANNELS:
        raise ValueError(f"channels: expected 1 (gray), 3 (RGB) or 4 (RGBA), got {channels!r}")
    shape = sides(check_size("size", size))
    check_not_forked()
    loaded, errors = [], []
    for index, path in enumerate(_listed(paths)):
        try:
            loaded.append(_fit(_open(Path(path)), shape, channels, crop))
        except _Unusable as reason:
            errors.append(ImageError(index, str(path), str(reason)))
    if errors and on_error == "raise":
        raise ImageErrors(errors)
    images = (
        torch.stack(loaded) if loaded else torch.empty(0, channels, *shape, dtype=torch.float32, device="cpu")
    )
    return images if on_error == "raise" else (images, errors)


def image_sizes(paths: Paths) -> list[tuple[int, int]]:
    """(height, width) of each photograph in image px, upright by its EXIF orientation; for ``Masks.resized``."""
    sizes, errors = [], []
    for index, path in enumerate(_listed(paths)):
        try:
            sizes.append(_open(Path(path)).size[::-1])
        except _Unusable as reason:
            errors.append(ImageError(index, str(path), str(reason)))
    if errors:
        raise ImageErrors(errors)
    return sizes


def _listed(paths: Paths) -> list[str | Path]:
    return [paths] if isinstance(paths, str | Path) else list(paths)


def _open(path: Path) -> Image.Image:
    """The whole, upright, decoded image; ``_Unusable`` with the reason and the remedy if there is none."""
    try:
        if path.is_dir():
            raise _Unusable("is a folder; name the image files in it")
        if path.stat().st_size == 0:
            raise _Unusable("is empty (0 bytes); copy the file again")
        with warnings.catch_warnings():
            # Pillow warns of sizes that _check_size decides on.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                _check_size(image)
                image.load()
                return ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise _Unusable("no such file; check the path") from None
    except PermissionError:
        raise _Unusable("no permission to read it; change its mode") from None
    except Image.DecompressionBombError:
        raise _Unusable(f"has more than {MAX_PIXELS // 10**6} megapixels; make it smaller first") from None
    except UnidentifiedImageError:
        raise _Unusable(
            "is not an image that can be read here; expected JPEG, PNG, WebP, TIFF, GIF or BMP"
        ) from None
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP):
            raise _Unusable(f"cannot be read ({error.strerror})") from None
        raise _Unusable(f"is damaged or cut off ({error}); copy the file again") from None
    except _Unusable:
        raise
    except Exception as error:  # Pillow's decoders may raise anything on damaged bytes
        raise _Unusable(f"is damaged ({type(error).__name__}: {error}); copy the file again") from None


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _Unusable(
            f"has {width * height / 1e6:.0f} megapixels, more than {MAX_PIXELS // 10**6}; make it smaller first"
        )
    if min(width, height) < MIN_SIDE:
        raise _Unusable(f"is {width}×{height} px; expected at least {MIN_SIDE} px a side")


def _fit(image: Image.Image, shape: tuple[int, int], channels: int, crop: str | None) -> Tensor:
    """C×H×W in [0, 1]."""
    bands = _bands(image, channels)
    height, width = shape
    across, down = float(image.width), float(image.height)
    if crop == "center":
        across, down = min(across, down * width / height), min(down, across * height / width)
    left, top = (image.width - across) / 2, (image.height - down) / 2
    box = (left, top, left + across, top + down)
    shrinks = across >= width and down >= height
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    planes = np.concatenate([_planes(band.resize((width, height), method, box=box)) for band in bands])
    full = _full_scale(image)
    if len(planes) < channels:  # 16-bit gray
        opaque = np.full_like(planes, full)
        planes = np.concatenate([planes, planes, planes, opaque][:channels])
    return (torch.from_numpy(planes) / full).clamp(0, 1)


def _planes(image: Image.Image) -> NDArray[np.float32]:
    """C×H×W."""
    pixels = np.asarray(image, dtype=np.float32)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _full_scale(image: Image.Image) -> float:
    return 65535.0 if image.mode.startswith("I") else 255.0


def _bands(image: Image.Image, channels: int) -> list[Image.Image]:
    """The color planes to be resized: one of 16-bit gray values as floats, or ``channels`` of 8 bits.

    Those of RGBA are one image, which Pillow resizes with its colors weighted by alpha.
    """
    if image.mode.startswith("I"):
        values: NDArray[np.float32] = np.asarray(image, dtype=np.float32)
        if values.size and values.max() > 65535:
            raise _Unusable("holds 32-bit pixels; save it with 8 or 16 bits a channel")
        return [Image.fromarray(values)]
    if image.mode == "F":
        raise _Unusable("holds floating-point pixels; save it with 8 or 16 bits a channel")
    if channels == 4:
        return [image.convert("RGBA")]
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return list(image.convert(CHANNELS[channels]).split())
