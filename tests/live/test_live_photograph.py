"""A photograph on its way to 224×224: the same pixels as the package's, and the same refusals."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from live_javascript import run
from PIL import Image

import perturb_tutorial as pt

EXPECTED = "expected JPEG, PNG, WebP, GIF or BMP"


@pytest.mark.parametrize("crop", [None, "center"])
@pytest.mark.parametrize("size", [(97, 61), (61, 97), (24, 24), (40, 20), (13, 17), (24, 300)])
def test_pixels_are_pillows_to_the_last_bit(tmp_path: Path, size: tuple[int, int], crop: str | None) -> None:
    """Shrunk, enlarged, one way each and left alone; 24 px is the input here."""
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    expected = pt.load_images(tmp_path / "noise.png", 24, crop=crop)[0].flatten()
    rgba = np.concatenate([pixels, np.full((height, width, 1), 255, np.uint8)], 2)
    arguments = [rgba.flatten().tolist(), width, height, 24, crop or "squash"]
    (found,) = run(("./adapters.mjs", "fit", arguments))
    assert np.array_equal(np.float32(found), expected.numpy())


def picture(kind: str, **options: object) -> list[int]:
    buffer = io.BytesIO()
    Image.new("RGB", (37, 21), "teal").save(buffer, kind, **options)  # type: ignore[arg-type]
    return list(buffer.getvalue())


def test_a_header_says_kind_and_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [picture("JPEG"), picture("JPEG", progressive=True, exif=exif), picture("PNG"), picture("GIF")]
    files += [picture("BMP")]
    headers = run(*(("photograph.js", "readHeader", [{"bytes": data}]) for data in files))
    kinds = ("JPEG", "JPEG", "PNG", "GIF", "BMP")
    assert headers == [{"kind": kind, "width": 37, "height": 21} for kind in kinds]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"%PDF-1.7\n1 0 obj", f"is a PDF, not a photograph; {EXPECTED}"),
        (b"PK\x03\x04 a zip archive", f"is not an image that can be read here; {EXPECTED}"),
        (b"hi", f"is not an image that can be read here; {EXPECTED}"),
        (bytes(picture("JPEG")[:-40]), "is a JPEG that has been cut off; copy the file again"),
        (bytes(picture("JPEG")[:100]), "is damaged or cut off; copy the file again"),
        (bytes(picture("JPEG")[:20]) + bytes(400), "is a damaged JPEG; copy the file again"),
        (bytes(picture("PNG")[:14]), "is damaged or cut off; copy the file again"),
    ],
)
def test_what_is_no_photograph_is_refused_in_one_line(data: bytes, reason: str) -> None:
    (error,) = run(("photograph.js", "readHeader", [{"bytes": list(data)}]))
    assert error == f"PhotographError: {reason}"
