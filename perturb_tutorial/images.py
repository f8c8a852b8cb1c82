"""Image files → N×C×H×W float32 tensors in [0, 1], RGB; and one clear line for each file that cannot be read.

Every photograph is squashed to the input's shape, as the paper does (§4), or cropped at the center on request.
Shrinking averages over areas (Pillow's BOX), which on EfficientNet-Lite recognizes more photographs than a triangle
filter does; enlarging is bilinear.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from perturb_tutorial._forks import check_not_forked
from perturb_tutorial._outside import printable, whole_number
from perturb_tutorial.image_files import Decoded, Unusable, decode, refusals, upright_size, warn_of_damage
from perturb_tutorial.places import Place
from perturb_tutorial.places.buckets import BucketPath
from perturb_tutorial.sizes import Size, check_size, sides

MIN_SIDE = 8
"""Smallest side of a photograph in its file, image px."""
CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's names of the modes that images are read in, by their number of channels."""

Paths = str | Place | Iterable[str | Place]


@dataclass(frozen=True)
class ImageError:
    """One file that could not be loaded: its place in the list, its path, and why.

    Examples:
        >>> print(ImageError(0, "cat.jpg", "no such file"))
        cat.jpg: no such file
    """

    index: int
    path: str
    reason: str

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.reason}")


class ImageErrors(ValueError):
    """Every file that could not be loaded, one line each; ``.errors`` is the list.

    Examples:
        >>> import perturb_tutorial as pt
        >>> try:
        ...     pt.load_images(["cat.jpg", "dog.jpg"])
        ... except pt.ImageErrors as problems:
        ...     print(len(problems.errors), problems.errors[1].path)
        2 dog.jpg
    """

    def __init__(self, errors: Sequence[ImageError]) -> None:
        self.errors = list(errors)
        super().__init__("\n".join(map(str, self.errors)))


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
    animation gives its first frame. A file whose metadata alone is damaged is loaded without it, with a warning, since
    its orientation is then not known.

    Refused are, among others, files that are not regular (pipes, devices), those of more than 100 megapixels (52 for
    WebP, TIFF and JPEGs of several scans) or 400 MB (WebP 64), JPEGs of more than 100 scans, and TIFFs of 32-bit,
    signed or floating-point numbers. No file that is accepted takes more than 1 GB.

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

    Examples:
        >>> import perturb_tutorial as pt
        >>> from perturb_tutorial.datasets.samples import sample_path
        >>> pt.load_images([sample_path("chelsea"), sample_path("coffee")], size=64).shape
        torch.Size([2, 3, 64, 64])
    """
    if crop not in (None, "center"):
        raise ValueError(f'crop: expected None or "center", got {crop!r}')
    if on_error not in ("raise", "skip"):
        raise ValueError(f'on_error: expected "raise" or "skip", got {on_error!r}')
    if (number := whole_number(channels)) is None or number not in CHANNELS:
        raise ValueError(f"channels: expected 1 (gray), 3 (RGB) or 4 (RGBA), got {channels!r}")
    channels, shape = number, sides(check_size("size", size))
    check_not_forked()
    loaded, errors = [], []
    for index, path in enumerate(_listed(paths)):
        try:
            loaded.append(_load(_named(path), shape, channels, crop))
        except Unusable as reason:
            errors.append(ImageError(index, str(path), str(reason)))
    if errors and on_error == "raise":
        raise ImageErrors(errors)
    images = (
        torch.stack(loaded) if loaded else torch.empty(0, channels, *shape, dtype=torch.float32, device="cpu")
    )
    return images if on_error == "raise" else (images, errors)


def image_sizes(paths: Paths) -> list[tuple[int, int]]:
    """(height, width) of each photograph in image px, upright by its EXIF orientation; for ``Masks.resized``.

    Examples:
        >>> import perturb_tutorial as pt
        >>> from perturb_tutorial.datasets.samples import sample_path
        >>> pt.image_sizes([sample_path("chelsea")])
        [(300, 451)]
    """
    sizes, errors = [], []
    for index, path in enumerate(_listed(paths)):
        try:
            sizes.append(_check_side(upright_size(_named(path))))
        except Unusable as reason:
            errors.append(ImageError(index, str(path), str(reason)))
    if errors:
        raise ImageErrors(errors)
    return sizes


def _listed(paths: Paths) -> list[str | Place]:
    return [paths] if isinstance(paths, str | Place) else list(paths)


def _named(path: str | Place) -> Place:
    return path if isinstance(path, BucketPath) else Path(path)


_AT_ONCE = 2**21
"""Pixels that are converted at once."""


def _load(path: Place, shape: tuple[int, int], channels: int, crop: str | None) -> Tensor:
    """C×H×W in [0, 1]; ``Unusable`` with the reason and the remedy if the file gives none."""
    with refusals():
        decoded = decode(path)
        _check_side(decoded.size)
        image = _fit(decoded, shape, channels, crop)
    warn_of_damage(path, decoded)
    return image


def _check_side(size: tuple[int, int]) -> tuple[int, int]:
    if min(size) < MIN_SIDE:
        raise Unusable(f"is {size[1]}×{size[0]} px; expected at least {MIN_SIDE} px a side")
    return size


def _fit(decoded: Decoded, shape: tuple[int, int], channels: int, crop: str | None) -> Tensor:
    """C×H×W in [0, 1]."""
    full = 65535.0 if decoded.image.mode.startswith("I") else 255.0
    bands = _bands(decoded, channels)
    whole, (height, width) = decoded.size, shape
    across, down = float(whole[1]), float(whole[0])
    if crop == "center":
        across, down = min(across, down * width / height), min(down, across * height / width)
    left, top = (whole[1] - across) / 2, (whole[0] - down) / 2
    box = (left, top, left + across, top + down)
    shrinks = across >= width and down >= height
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    planes = []
    while bands:
        band = bands.pop(0)
        upright = band if decoded.turn is None else band.transpose(decoded.turn)
        del band  # so that a large picture's bands are turned one by one
        planes.append(_planes(upright.resize((width, height), method, box=box)))
    values = np.concatenate(planes)
    if len(values) < channels:  # 16-bit gray
        opaque = np.full_like(values, full)
        values = np.concatenate([values, values, values, opaque][:channels])
    return (torch.from_numpy(values) / full).clamp(0, 1)


def _planes(image: Image.Image) -> NDArray[np.float32]:
    """C×H×W."""
    pixels = np.asarray(image, dtype=np.float32)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _bands(decoded: Decoded, channels: int) -> list[Image.Image]:
    """The color planes to be turned and resized: one of 16-bit gray values as floats, or ``channels`` of 8 bits.

    Those of RGBA are one image, which Pillow resizes with its colors weighted by alpha.
    """
    deep = decoded.image.mode.startswith("I")
    if channels == 4 and not deep:
        # Each form takes the place of the one before it, which is freed: of 100 megapixels there are two at most.
        if decoded.image.mode != "RGBA":
            decoded.image = decoded.image.convert("RGBA")
        if decoded.turn is not None:
            decoded.image, decoded.turn = decoded.image.transpose(decoded.turn), None
        return [decoded.image]
    image = decoded.image
    bands = [Image.new("F" if deep else "L", image.size) for _ in range(1 if deep else channels)]
    rows = max(1, _AT_ONCE // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        parts = [_deep_gray(strip)] if deep else _opaque(strip).convert(CHANNELS[channels]).split()
        for band, part in zip(bands, parts, strict=True):
            band.paste(part, (0, top))
    return bands


def _deep_gray(image: Image.Image) -> Image.Image:
    """16-bit gray as floats; the value that a PNG may declare transparent is white."""
    values = image.convert("F")
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return values
    pixels = np.asarray(values)
    return Image.fromarray(np.where(pixels == clear, np.float32(65535), pixels))


def _opaque(image: Image.Image) -> Image.Image:
    """The image laid over white."""
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
