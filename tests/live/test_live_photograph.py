"""A photograph on its way to 224×224: the same pixels as the package's, and the same refusals."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from live_javascript import run
from PIL import Image

import perturb_tutorial as pt
from perturb_tutorial import image_files

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
    for header, kind, scans in zip(headers, kinds, (1, 10, None, None, None), strict=True):
        assert header == {"kind": kind, "width": 37, "height": 21} | ({"scans": scans} if scans else {})


def test_a_webp_header_says_its_size_in_each_of_its_forms() -> None:
    files = [picture("WEBP"), picture("WEBP", lossless=True), picture("WEBP", xmp=b"<x/>")]
    assert [bytes(data[12:16]) for data in files] == [b"VP8 ", b"VP8L", b"VP8X"]
    headers = run(*(("photograph.js", "readHeader", [{"bytes": data}]) for data in files))
    assert headers == [{"kind": "WebP", "width": 37, "height": 21}] * 3


def test_scans_are_counted_and_refused_as_in_the_package() -> None:
    whole = bytes(picture("JPEG", progressive=True))
    last = whole.rindex(b"\xff\xda")
    files = [whole[:-2] + whole[last:-2] * times + whole[-2:] for times in (0, 1, 90, 91, 990)]
    # A second picture behind the first is not gone through.
    files.append(whole + whole)
    scans = [10, 11, 100, 101, 1000, 10]
    assert list(map(image_files.count_scans, files)) == scans
    headers = run(*(("photograph.js", "readHeader", [{"bytes": list(data)}]) for data in files))
    assert [header["scans"] for header in headers] == scans
    limits = {key.lower(): value for key, value in vars(image_files).items() if key.startswith("MAX_")}
    limits["min_side"] = 8
    headers += [{"kind": "JPEG", "width": 7300, "height": 7300, "scans": number} for number in (1, 2)]
    headers += [{"kind": "JPEG", "width": 5000, "height": 5000, "scans": number} for number in (40, 41)]
    headers += [{"kind": kind, "width": 7300, "height": 7300} for kind in ("PNG", "WebP")]
    checked = run(*(("photograph.js", "checkSize", [header, limits]) for header in headers))
    many = "PhotographError: is a JPEG of {} scans, too many for its size; save it again as a baseline JPEG"
    large = "PhotographError: has 53 megapixels, more than 52 for a {}; make it smaller first"
    assert checked == [
        *(None, None, None, many.format(101), many.format(1000), None),
        *(None, large.format("JPEG of several scans"), None, many.format(41)),
        *(None, large.format("WebP file")),
    ]


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
