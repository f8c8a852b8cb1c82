"""Does the size to which an image is resized before it is explained matter? data/measured/size_question.json (§4).

    python studies/size_question.py COCO SPLIT… --records FILE [--limit N]

Every pair of an image and a mapped category is evaluated with the image squashed to the network's input, as the paper
does, and with its shorter side of that length and its shape kept, as Zhang et al. do; Grad-CAM, which is cheap, also at
the image's own size. The network is convolutional except for the mean over the last map, so it takes any size. Each map
has two points, the mean of all maxima and the first one. FILE has one line for each image; a second start appends the
missing ones. ``--limit``: at most N images, drawn by seed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Kept, Study, keeps_records, parser_of, run_study
from PIL import Image, ImageOps
from torch import Tensor

import perturb_tutorial as pt
from perturb_tutorial.benchmarks import Question, read_data
from perturb_tutorial.benchmarks.plan import limited
from perturb_tutorial.benchmarks.summary import Figures
from perturb_tutorial.metrics import is_hit, maximum_point, resize_map, union_mask

METHODS = ("gradient", "guided_backprop", "grad_cam")
SQUASHED, SHORTER_SIDE, OWN = "squashed", "shorter side", "own size"
VARIANTS = [(method, size) for method in METHODS for size in (SQUASHED, SHORTER_SIDE)] + [("grad_cam", OWN)]
MAXIMA = ("mean", "first")
SEED = 0


class AnySize(pt.Network):
    """A network that takes images of any size."""

    def check_images(self, images: Tensor) -> Tensor:
        return images


def any_size(network: pt.Network) -> AnySize:
    """``network`` without its check of the size."""
    return AnySize(
        network.module,
        mean=network.mean,
        std=network.std,
        input_size=network.input_size,
        name=network.name,
        device=network.device,
    )


def pictures(path: Path, side: int) -> dict[str, Tensor]:
    """The photograph at each size, 1×3×H×W in [0, 1]."""
    with Image.open(path) as file:
        photograph = ImageOps.exif_transpose(file).convert("RGB")
    scale = side / min(photograph.size)
    width, height = (round(length * scale) for length in photograph.size)
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR  # as load_images
    return {
        SQUASHED: pt.load_images([path], side),
        SHORTER_SIDE: _tensor(photograph.resize((width, height), method)),
        OWN: _tensor(photograph),
    }


def _tensor(photograph: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(photograph, dtype=np.float32) / 255).permute(2, 0, 1)[None]


def measure(network: AnySize, questions: list[Question]) -> list[dict[str, Any]]:
    """One row for each question about one image: whether each method's points hit, at each size."""
    record = questions[0].image
    images = pictures(record.path, network.input_size)
    targets = [list(question.targets) for question in questions]
    rows: list[dict[str, Any]] = [{"image": record.id, "category": q.category} for q in questions]
    masks = [
        union_mask((i.segmentation for i in record.of(q.category) if i.segmentation is not None), record.size)
        for q in questions
    ]
    for method, size in VARIANTS:
        batch = images[size].expand(len(targets), -1, -1, -1)
        heats = pt.saliency(network, batch, targets, method=method)
        for row, mask, heat in zip(rows, masks, heats, strict=True):
            whole = resize_map(heat.numpy(), record.size)
            for maximum in MAXIMA:
                row[f"{method}, {size}, {maximum}"] = is_hit(maximum_point(whole, maximum), mask)
    return rows


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Hit rate and precision of each method at each size, and all paired differences."""
    images = np.array([row["image"] for row in rows])
    classes = np.array([row["category"] for row in rows])
    result = Figures(SEED)
    for maximum in MAXIMA:
        table = {
            f"{method}, {size}": np.array([row[f"{method}, {size}, {maximum}"] for row in rows], dtype=float)
            for method, size in VARIANTS
        }
        labels = {"maximum": maximum}
        result.add_means("hit_rate", table, images, labels=labels)
        result.add_means("precision", table, images, classes, labels=labels)
    return result.to_dict()


def size_question(options: argparse.Namespace) -> Study:
    """The study of the module's docstring."""
    questions = [
        question
        for split in options.splits
        for question in read_data("pointing-game", options.data, split).questions()
    ]
    by_image: dict[Any, list[Question]] = {}
    for question in limited(questions, options.limit, SEED):
        by_image.setdefault(question.image.id, []).append(question)
    kept = Kept(options.records)
    done = {row["image"] for row in kept.rows}
    network = any_size(pt.load_network("efficientnet_lite0", device="cpu"))
    for image, group in by_image.items():
        if image not in done:
            kept.add(measure(network, group))
    rows = sorted(
        (row for row in kept.rows if row["image"] in by_image), key=lambda r: (r["image"], r["category"])
    )
    limit = f" --limit {options.limit}" if options.limit else ""
    return Study(
        "size_question",
        f"python studies/size_question.py COCO {' '.join(options.splits)} --records FILE{limit}",
        "EfficientNet-Lite0; images resampled for the intervals",
        {"data": {"name": " + ".join(options.splits), "images": len(by_image)}, **figures(rows)},
    )


def main(argv: list[str] | None = None) -> int:
    parser = keeps_records(
        parser_of("The pointing game on squashed images and at their own size.", splits="val2017")
    )
    parser.add_argument("--limit", type=int, metavar="N", help="at most N images, drawn by seed")
    return run_study(parser, size_question, argv)


if __name__ == "__main__":
    sys.exit(main())
