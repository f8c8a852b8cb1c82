"""Photographs of every kind become tensors; each bad file becomes one line."""

from __future__ import annotations

import os
import re
import stat
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from small_inputs import bad_files

import perturb_tutorial as pt
from perturb_tutorial import image_files, images
from perturb_tutorial.datasets.records import ImageRecord, check_image

SIZE = 32


@pytest.fixture
def photograph(tmp_path):
    """A 64×48 px RGB gradient, and its file."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, 64)[None, :]
    pixels[..., 1] = np.linspace(0, 255, 48)[:, None]
    pixels[..., 2] = 90
    path = tmp_path / "photograph.png"
    Image.fromarray(pixels).save(path)
    return pixels, path


def load(path, **options):
    return pt.load_images([path], SIZE, **options)[0]


def test_squash_averages_areas(photograph):
    pixels, path = photograph
    image = load(path)
    assert image.shape == (3, SIZE, SIZE)
    assert image.dtype == torch.float32
    # 64 → 32 halves the width exactly: column means of pairs, before the rounding to 8 bits of each pass.
    expected = pixels[..., 0].reshape(48, 32, 2).mean(2)[0] / 255
    np.testing.assert_allclose(image[0, 5].numpy(), expected, atol=1.01 / 255)


def test_center_crop_keeps_the_middle(photograph):
    pixels, path = photograph
    image = load(path, crop="center")
    # The middle 48×48 of 64×48: red runs from column 8 to column 55.
    assert image[0, 16, 0].item() == pytest.approx(pixels[0, 8, 0] / 255, abs=0.01)
    assert image[0, 16, -1].item() == pytest.approx(pixels[0, 55, 0] / 255, abs=0.01)
    with pytest.raises(ValueError, match='crop: expected None or "center"'):
        load(path, crop="left")


def test_small_images_are_enlarged_smoothly(tmp_path):
    Image.fromarray(np.array([[0, 255]] * 8, np.uint8).repeat(4, 1)).save(tmp_path / "small.png")
    row = load(tmp_path / "small.png")[0, 16]
    assert row[0] == 0
    assert row[-1] == 1
    assert ((row[1:] - row[:-1]) >= 0).all()
    assert len(row.unique()) > 2  # bilinear, not blocks


def test_gray_16_bit_palette_and_cmyk(photograph, tmp_path):
    pixels, path = photograph
    reference = load(path)
    gray = Image.fromarray(pixels).convert("L")
    gray.save(tmp_path / "gray.png")
    expected = load(tmp_path / "gray.png")
    assert torch.equal(expected[0], expected[1])
    Image.fromarray(np.asarray(gray).astype(np.uint16) * 257).save(tmp_path / "gray16.png")
    torch.testing.assert_close(load(tmp_path / "gray16.png"), expected, atol=1.01 / 255, rtol=0)
    Image.fromarray(pixels).quantize(256).save(tmp_path / "palette.png")
    torch.testing.assert_close(load(tmp_path / "palette.png"), reference, atol=0.12, rtol=0)
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=98)
    torch.testing.assert_close(load(tmp_path / "cmyk.jpg"), reference, atol=0.08, rtol=0)
    Image.fromarray(pixels).convert("1").save(tmp_path / "bits.png")
    assert load(tmp_path / "bits.png").shape == (3, SIZE, SIZE)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(mode, tmp_path):
    image = Image.new(mode, (40, 40), (200, 0, 0, 0) if mode == "RGBA" else (30, 0))
    image.paste((0, 0, 0, 255) if mode == "RGBA" else (0, 255), (0, 0, 20, 40))
    image.save(tmp_path / "alpha.png")
    loaded = load(tmp_path / "alpha.png")
    assert (loaded[:, :, 0] == 0).all()
    assert (loaded[:, :, -1] == 1).all()


def test_transparent_palette_is_laid_over_white(tmp_path):
    image = Image.new("P", (40, 40), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.save(tmp_path / "palette.gif", transparency=0)
    assert (load(tmp_path / "palette.gif") == 1).all()


def test_exif_orientation_is_applied(photograph, tmp_path):
    pixels, path = photograph
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn the file clockwise
    Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90).save(
        tmp_path / "turned.jpg", exif=exif, quality=98
    )
    torch.testing.assert_close(load(tmp_path / "turned.jpg"), load(path), atol=0.05, rtol=0)
    assert pt.image_sizes([tmp_path / "turned.jpg", path]) == [(48, 64), (48, 64)]


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (40, 40), color) for color in ((0, 255, 0), (255, 0, 0))]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    image = load(tmp_path / "moving.gif")
    assert (image[1] > 0.9).all()
    assert (image[0] < 0.1).all()


def test_every_bad_file_is_named_in_one_error(photograph, tmp_path):
    _, good = photograph
    bad = bad_files(tmp_path, good)
    with pytest.raises(pt.ImageErrors) as caught:
        pt.load_images([good, *bad], SIZE)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(bad) == len(caught.value.errors)
    for line, (path, words) in zip(lines, bad.items(), strict=True):
        assert line.startswith(f"{path}: ")
        assert re.search(words, line), line


def test_the_good_ones_come_back_with_skip(photograph, tmp_path):
    _, good = photograph
    bad = bad_files(tmp_path, good)
    images, errors = pt.load_images([*bad, good], SIZE, on_error="skip")
    assert images.shape == (1, 3, SIZE, SIZE)
    torch.testing.assert_close(images[0], load(good))
    assert [error.index for error in errors] == list(range(len(bad)))
    none, errors = pt.load_images(list(bad)[:1], SIZE, on_error="skip")
    assert none.shape == (0, 3, SIZE, SIZE)
    assert len(errors) == 1


def test_one_path_and_wrong_sizes(photograph):
    _, path = photograph
    assert pt.load_images(str(path), SIZE).shape == (1, 3, SIZE, SIZE)
    with pytest.raises(
        ValueError,
        match=r"size: expected a whole number of at least 8 image px, or \(height, width\) .*, got 7",
    ):
        pt.load_images(path, 7)


@pytest.mark.skipif(os.name == "nt", reason="a program in the path is a script here")
def test_no_other_program_is_started_for_a_picture(tmp_path, monkeypatch):
    # Pillow hands PostScript to Ghostscript, whatever the file is called.
    (tmp_path / "bin").mkdir()
    started = tmp_path / "started"
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.write_text(f"#!{sys.executable}\nopen({str(started)!r}, 'w')\n")
    ghostscript.chmod(ghostscript.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    path = tmp_path / "photograph.jpg"
    Image.new("RGB", (40, 40)).save(path, format="EPS")
    with pytest.raises(pt.ImageErrors, match="expected JPEG, PNG, WebP, TIFF, GIF or BMP"):
        load(path)
    assert not started.exists()


def test_32_bit_pixels_are_refused_and_not_made_white(tmp_path):
    path = tmp_path / "deep.tif"
    Image.fromarray(np.full((40, 40), 2_000_000_000, np.int32)).save(path)
    with pytest.raises(pt.ImageErrors, match="holds 32-bit pixels; save it with 8 or 16 bits"):
        load(path)


def test_whatever_a_decoder_raises_is_the_files_fault(photograph, monkeypatch):
    # Pillow's readers of rare formats raise NotImplementedError and others on damaged bytes.
    def broken(_):
        raise NotImplementedError("Unimplemented pixel format")

    monkeypatch.setattr(Image.Image, "load", broken)
    _, errors = pt.load_images([photograph[1]], SIZE, on_error="skip")
    assert "is damaged (NotImplementedError" in errors[0].reason


def gray_tiff(path, pixels, *, bits, form=1, photometric=1):
    """An uncompressed TIFF whose tags say what its bytes are."""
    height, width = pixels.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 200)]
    tags += [(277, 1), (278, height), (279, len(pixels.tobytes())), (339, form)]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    head += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags) + bytes(4)
    path.write_bytes(head.ljust(200, b"\0") + pixels.tobytes())
    return path


@pytest.mark.parametrize(
    ("dtype", "form", "said"),
    [
        (np.int32, 2, "32-bit"),  # 0 … 255 loaded as 0 … 0.0039
        (np.uint32, 1, "32-bit"),
        (np.int16, 2, "signed"),
        (np.int8, 2, "signed"),
        (np.float32, 3, "floating-point"),
    ],
)
def test_numbers_whose_scale_is_not_known_are_refused_and_not_made_black(tmp_path, dtype, form, said):
    pixels = np.arange(100).reshape(10, 10).astype(dtype)
    path = gray_tiff(tmp_path / "deep.tif", pixels, bits=8 * pixels.itemsize, form=form)
    with pytest.raises(pt.ImageErrors, match=f"holds {said} pixels; save it with 8 or 16 bits") as caught:
        load(path)
    assert check_image(ImageRecord(1, path)).problem == f"deep.tif: {caught.value.errors[0].reason}"


def test_unsigned_8_and_16_bits_are_read_right(tmp_path):
    expected = torch.linspace(0, 1, 256).reshape(16, 16)
    eight = gray_tiff(tmp_path / "8.tif", np.arange(256, dtype=np.uint8).reshape(16, 16), bits=8)
    inverted = gray_tiff(
        tmp_path / "i.tif", np.arange(256, dtype=np.uint8)[::-1].reshape(16, 16), bits=8, photometric=0
    )
    deep = gray_tiff(tmp_path / "16.tif", 257 * np.arange(256, dtype=np.uint16).reshape(16, 16), bits=16)
    for image in pt.load_images([eight, inverted, deep], 16):
        torch.testing.assert_close(image[0], expected, atol=1e-6, rtol=0)
    # Pillow does not invert 16 bits: a negative would be explained.
    path = gray_tiff(tmp_path / "n.tif", np.zeros((16, 16), np.uint16), bits=16, photometric=0)
    with pytest.raises(pt.ImageErrors, match="holds inverted 16-bit pixels"):
        load(path)


def test_a_16_bit_gray_that_is_declared_transparent_is_white(tmp_path):
    pixels = np.full((16, 16), 1000, np.uint16)
    pixels[:, :8] = 2000
    Image.fromarray(pixels).save(tmp_path / "gray16.png", transparency=2000)
    image = pt.load_images(tmp_path / "gray16.png", 16)[0]
    assert (image[:, :, :8] == 1).all()
    torch.testing.assert_close(image[:, :, 8:], torch.full((3, 16, 8), 1000 / 65535))


def png_with(path, source, kind, data, *, checksum=None):
    """The PNG in ``source`` with one more chunk before its pixels."""
    whole = source.read_bytes()
    place = whole.index(b"IDAT") - 4
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    piece = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
    path.write_bytes(whole[:place] + piece + whole[place:])
    return path


@pytest.mark.parametrize(
    ("kind", "data", "checksum"),
    [
        (b"eXIf", b"no EXIF data", None),
        (b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0", 1),
        (b"tEXt", b"Title\0photograph", 1),
        (b"zTXt", b"Title\0\0" + zlib.compress(bytes(5_000_000)), None),
        (b"iCCP", b"profile\0\0" + zlib.compress(bytes(5_000_000)), None),
    ],
    ids=["EXIF", "EXIF's check sum", "text's check sum", "long text", "profile"],
)
def test_damaged_metadata_is_left_out_and_said_in_one_line(photograph, tmp_path, kind, data, checksum):
    _, good = photograph
    path = png_with(tmp_path / "damaged.png", good, kind, data, checksum=checksum)
    with pytest.warns(UserWarning, match="its metadata is damaged") as caught:
        image = load(path)
    assert torch.equal(image, load(good))
    (line,) = {str(warning.message) for warning in caught}
    assert line.startswith(f"{path}: ")
    assert line.endswith("it is loaded without, so which side is up is not known")
    with pytest.warns(UserWarning, match="its metadata is damaged"):
        assert check_image(ImageRecord(1, path)).problem is None


def test_damaged_exif_of_other_formats_leaves_their_pixels(photograph, tmp_path):
    pixels, _ = photograph
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a camera " * 9, 6
    cut = exif.tobytes()[:22]
    for name, data in (
        ("damaged.jpg", b"Exif\0\0no EXIF data at all"),
        ("damaged.webp", b"no EXIF"),
        ("cut.jpg", cut),
    ):
        Image.fromarray(pixels).save(tmp_path / name, exif=data)
        Image.fromarray(pixels).save(tmp_path / f"good {name}")
        with pytest.warns(UserWarning, match="its metadata is damaged"):
            image = load(tmp_path / name)
        assert torch.equal(image, load(tmp_path / f"good {name}"))


def test_damaged_pixels_are_no_damaged_metadata(photograph, tmp_path):
    _, good = photograph
    path = png_with(tmp_path / "damaged.png", good, b"tEXt", b"Title\0photograph", checksum=1)
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"IDAT") + 6 : whole.index(b"IDAT") + 20] = b"\xff" * 14
    path.write_bytes(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(pt.ImageErrors, match="is damaged"):
            load(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "I;16", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_image_in_strips_is_the_image(tmp_path, monkeypatch, mode, channels):
    noise = np.random.default_rng(0).integers(0, 256, (45, 37, 4), dtype=np.uint8)
    image = Image.fromarray(noise)
    image = (
        Image.fromarray(noise[..., 0].astype(np.uint16) * 200)
        if mode == "I;16"
        else image.convert("RGB").convert(mode) if mode in ("CMYK", "P") else image.convert(mode)
    )  # fmt: skip
    path = tmp_path / "image.tif"
    image.save(path)
    whole = load(path, channels=channels)
    monkeypatch.setattr(images, "_AT_ONCE", 100)
    assert torch.equal(load(path, channels=channels), whole)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "lzw.tif", "webp"])
def test_every_orientation_is_turned_upright(tmp_path, orientation, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (40, 24, 4), dtype=np.uint8)
    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"tiffinfo": {274: orientation}, "compression": "tiff_lzw" if "lzw" in suffix else None}
    own = options if suffix.endswith("tif") else {"exif": exif}
    Image.fromarray(noise).save(
        path, **own, **({"lossless": True, "exact": True} if suffix == "webp" else {})
    )
    across = noise.transpose(1, 0, 2)
    turned = [
        *(noise, noise[:, ::-1], noise[::-1, ::-1], noise[::-1]),
        *(across, across[:, ::-1], across[::-1, ::-1], across[::-1]),
    ][orientation - 1]
    shape = turned.shape[:2]
    image = pt.load_images(path, shape, channels=4)[0]
    # Colors are weighted by alpha and back; where it is nearly 0, little of them is left.
    opaque = turned[..., 3] > 200
    np.testing.assert_allclose(255 * image.permute(1, 2, 0).numpy()[opaque], turned[opaque], atol=1.5)
    np.testing.assert_array_equal(np.round(255 * image[3].numpy()), turned[..., 3])
    assert pt.image_sizes(path) == [shape]


def test_the_limits_hold_before_anything_is_decoded(photograph, tmp_path, monkeypatch):
    pixels, good = photograph
    Image.fromarray(pixels).save(tmp_path / "scans.jpg", progressive=True)
    Image.fromarray(pixels).save(tmp_path / "photograph.webp")
    Image.fromarray(pixels).save(tmp_path / "photograph.tif")
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    monkeypatch.setattr(image_files, "MAX_BUFFERED_PIXELS", 3000)
    for name, kind in (
        ("scans.jpg", "JPEG of several scans"),
        ("photograph.webp", "WEBP"),
        ("photograph.tif", "TIFF"),
    ):
        with pytest.raises(pt.ImageErrors, match=f"has 0 megapixels, more than 0 for a {kind}"):
            load(tmp_path / name)
    monkeypatch.setattr(image_files, "MAX_BUFFERED_PIXELS", 30_000)
    monkeypatch.setattr(image_files, "MAX_SCANNED_PIXELS", 10 * pixels.size // 3 - 1)
    with pytest.raises(pt.ImageErrors, match="is a JPEG of 10 scans, too many for its size"):
        load(tmp_path / "scans.jpg")
    monkeypatch.setattr(image_files, "MAX_PIXELS", 3000)
    assert "megapixels" in (check_image(ImageRecord(1, good)).problem or "")
    monkeypatch.setattr(image_files, "MAX_MEGABYTES", 0)
    with pytest.raises(pt.ImageErrors, match=r"cannot be read \(it has .* MB, more than 0\)"):
        load(good)
