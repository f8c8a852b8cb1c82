"""Small data sets and networks of known content for the benchmarks' tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

import perturb_tutorial as pt
from perturb_tutorial.baselines.registry import METHODS, Method
from perturb_tutorial.benchmarks import BenchmarkData, read_records
from perturb_tutorial.datasets import read_coco_json

Box = tuple[float, float, float, float]
HEIGHT, WIDTH = 60, 80
CLASSES = {1: (0,), 2: (1, 2), 3: (3,)}
"""Which of the network's classes stand for a category."""


def tiny_network(size: int | tuple[int, int] = 32, channels: int = 3) -> pt.Network:
    """Five classes; deterministic, with both signs everywhere."""
    torch.manual_seed(4)
    module = nn.Sequential(
        nn.Conv2d(channels, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 5),
    )
    nn.init.normal_(module[-1].weight, std=2)
    mean, std = (0.5,) * channels, (0.25,) * channels
    return pt.Network(module, mean=mean, std=std, input_size=size, device="cpu", name="tiny")


def write_images(folder: Path, count: int, height: int = HEIGHT, width: int = WIDTH) -> list[str]:
    """Smooth noise, one PNG each."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for k in range(count):
        coarse = np.random.default_rng(k).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        name = f"{k:04d}.png"
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(
            folder / name, compress_level=1
        )
        names.append(name)
    return names


def rectangle(x: float, y: float, w: float, h: float) -> list[list[float]]:
    """A polygon."""
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def annotation(key: int, image: int, category: int, box: Box, **more: Any) -> dict[str, Any]:
    """One rectangle as COCO writes it."""
    base = {"id": key, "image_id": image, "category_id": category, "iscrowd": 0, "bbox": list(box)}
    return {**base, "area": box[2] * box[3], "segmentation": [*rectangle(*box)], **more}


def write_coco(folder: Path, count: int, boxes: list[tuple[int, Box]]) -> BenchmarkData:
    """``count`` images with ids 1 … that all hold ``boxes``: pairs of a category and x, y, width, height."""
    names = write_images(folder / "images", count)
    content = {
        "images": [
            {"id": k + 1, "file_name": n, "height": HEIGHT, "width": WIDTH} for k, n in enumerate(names)
        ],
        "annotations": [
            annotation(100 * k + j, k + 1, category, box)
            for k in range(count)
            for j, (category, box) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}, {"id": 3, "name": "three"}],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return BenchmarkData(read_coco_json(path, folder / "images", name="small"), CLASSES)


def color_network() -> pt.Network:
    """Classes red, green, blue and black, by the mean color."""
    linear = nn.Linear(3, 4)
    linear.weight.data = torch.cat((10 * torch.eye(3), torch.zeros(1, 3)))
    linear.bias.data = torch.tensor([0.0, 0, 0, 5])
    return pt.Network(
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear), input_size=32, device="cpu"
    )


def write_colors(folder: Path) -> BenchmarkData:
    """13 images of one color, labeled as :func:`color_network` classifies them, but for the last, which is wrong."""
    plain = write_coco(folder, 13, [(1, (4.0, 4.0, 12.0, 12.0))])
    colors, labels = [*("red", "lime", "blue", "black") * 3, "red"], [*(0, 1, 2, 3) * 3, 3]
    images = []
    for image, color, label in zip(plain.dataset.images, colors, labels, strict=True):
        Image.new("RGB", (WIDTH, HEIGHT), color).save(image.path)
        images.append(replace(image, label=label, instances=()))
    return BenchmarkData(replace(plain.dataset, images=tuple(images)))


def fake_method(monkeypatch: Any, name: str, draw: Callable[[int, list[int]], Tensor]) -> None:
    """A method whose map of image ``i`` of a batch for its targets is ``draw(i, targets)``, H×W."""

    def function(network: pt.Network, images: Tensor, targets: Any, **_: Any) -> Tensor:
        return torch.stack([draw(i, list(targets[i])) for i in range(len(images))])[:, None]

    monkeypatch.setitem(METHODS, name, Method(function, "a map known in advance", "test"))


def records_of(folder: Path) -> pd.DataFrame:
    """All but the seconds, in an order of its own."""
    frame = read_records(folder).drop(columns="seconds")
    return frame.sort_values(["image_id", "category_id", "method"], ignore_index=True)


def figure(summary: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    """The only figure with these values."""
    (found,) = [f for f in summary["figures"] if all(f.get(key) == value for key, value in wanted.items())]
    return found


def difference(summary: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    """The only difference with these values."""
    (found,) = [
        f for f in summary["differences"] if all(f.get(key) == value for key, value in wanted.items())
    ]
    return found
