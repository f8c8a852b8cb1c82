"""Small networks and bad files that several tests use."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn


def tiny_module(classes: int = 5, seed: int = 0, channels: int = 3) -> nn.Module:
    """A small convolutional network with BatchNorms that are not the identity."""
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, classes),
    )
    for layer in module:
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.5, 0.5)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.3, 0.3)
    nn.init.normal_(module[-1].weight, std=0.8)
    return module


class FailsOnBlack(nn.Module):
    """``inner``, to which an image whose first pixel is black is NaN all over; others come through as they are."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x + 0 * x[:, :, :1, :1].log())  # 0 · log 0 is NaN


class Payload:
    """Runs code when it is unpickled by a loader that lets it."""

    def __reduce__(self):
        return (pytest.fail, ("code in a weights file was run",))


def huge_png(path):
    """A PNG of 20,000 × 6,000 px whose data would not matter: the size is judged first."""
    header = struct.pack(">IIBBBBB", 20_000, 6_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def bad_files(folder, good):
    """Path → the words its line must hold."""
    (folder / "empty.jpg").touch()
    (folder / "cut.png").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    jpeg = folder / "whole.jpg"
    Image.open(good).resize((400, 300)).save(jpeg)
    (folder / "cut.jpg").write_bytes(jpeg.read_bytes()[:2000])
    (folder / "text.jpg").write_text("this is not a photograph")
    Image.new("RGB", (300, 7)).save(folder / "thin.png")
    huge_png(folder / "huge.png")
    Image.fromarray(np.zeros((20, 20), np.float32)).save(folder / "float.tiff")
    (folder / "folder.png").mkdir()
    damaged = bytearray(good.read_bytes())
    data = damaged.index(b"IDAT") + 4
    damaged[data : data + 8] = b"\xff" * 8  # not a zlib stream any more
    (folder / "damaged.png").write_bytes(bytes(damaged))
    return {
        folder / "missing.jpg": "no such file",
        folder / "empty.jpg": "is empty",
        folder / "cut.png": "damaged or cut off",
        folder / "cut.jpg": "damaged or cut off",
        folder / "text.jpg": "is not an image",
        folder / "thin.png": r"is 300×7 px; expected at least 8 px a side",
        folder / "huge.png": "has 120 megapixels, more than 100",
        folder / "float.tiff": "floating-point",
        folder / "folder.png": "is a folder",
        folder / "damaged.png": "damaged",
    }
