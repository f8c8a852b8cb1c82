"""Photographs of every kind become tensors; each bad file becomes one line."""

from __future__ import annotations

import os
import re
import stat
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from small_inputs import bad_files

import perturb_tutorial as pt

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
