"""How many passes does a mask need? bench/results/fewer_passes.json (speed).

    python studies/fewer_passes.py IMAGENET --records FILE --folder bench/results

The masks of ``MaskSettings().fast()`` beside those of the paper's settings, 300 iterations of Adam, in both games, on
the 20 photographs of foolbox and on 40 images of IMAGENET's folder ``val``, evenly spaced. The network
is EfficientNet-Lite0, the target its best class.

A pass is one forward and input gradient of one image. Everything that ``learn_masks`` computes is counted, the search
for the start too; a forward alone counts by its share of a pass, which is measured in the same run. The objective
(eq. 6, 1) is the mean over five fixed shifts of the image. FILE has one line for each batch; a second start appends
the missing ones.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Kept, Study, keeps_records, parser_of, run_study
from torch import Tensor

import perturb_tutorial as pt
from perturb_tutorial.benchmarks.summary import Figures
from perturb_tutorial.canvas import CANVASES, ImageCanvas, shift
from perturb_tutorial.datasets.imagenet import read_imagenet
from perturb_tutorial.datasets.samples import all_samples
from perturb_tutorial.games import GAMES
from perturb_tutorial.metrics import curve_area, deletion_masks, insertion_masks
from perturb_tutorial.objectives import class_weights, objective
from perturb_tutorial.perturbations import perturb
from perturb_tutorial.settings import ENGINES

SHIFTS = ((0, 0), (3, 0), (0, 3), (3, 3), (1, 2))
"""(dx, dy) over which an objective is averaged, image px; the jitter is 0 to 3."""
IMAGENET_IMAGES = 40
BATCH = 4
STEPS = 25
"""Of the deletion and insertion curves."""
ROUNDS = 9
SEED = 0
MEASURED = ("objective", "area", "deletion_area", "insertion_area")
KINDS: dict[str, Callable[[pt.MaskSettings], pt.MaskSettings]] = {
    "paper": lambda settings: settings,
    "fast": pt.MaskSettings.fast,
}


class Counts:
    """Images that went forward and back (``gradients``) and forward alone (``forwards``)."""

    def __init__(self) -> None:
        self.gradients = self.forwards = 0


@contextmanager
def counted(network: pt.Network, engine: str) -> Iterator[Counts]:
    """Counts what masks on ``network`` cost within the block."""
    counts, kind = Counts(), CANVASES[engine]
    score, logits = kind.score, network.logits

    def counted_score(canvas: ImageCanvas, grid: Tensor, step: Any) -> Tensor:
        counts.gradients += len(grid)
        return score(canvas, grid, step)

    def counted_logits(images: Tensor) -> Tensor:
        counts.forwards += len(images)
        return logits(images)

    kind.score, network.logits = counted_score, counted_logits  # type: ignore[method-assign]  # to count them
    try:
        yield counts
    finally:
        kind.score = score  # type: ignore[method-assign]  # as it was
        del network.logits


def mean_objective(network: pt.Network, images: Tensor, targets: list[int], masks: pt.Masks) -> Tensor:
    """The objective of each mask averaged over ``SHIFTS``, N values."""
    weights = class_weights([[target] for target in targets], network.class_count)
    canvas = ImageCanvas(network, images, weights, masks.settings, SEED)
    image, background = canvas.padded(images), canvas.padded(canvas.background)
    total = torch.zeros(len(images))
    with torch.inference_mode():
        for pair in SHIFTS:
            pixels = perturb(*(shift(x, *pair, canvas.size) for x in (image, background)), masks.mask)
            total += network.target_scores(network.logits(pixels), weights)
    return objective(masks.grid, total / len(SHIFTS), masks.settings)


def areas(network: pt.Network, image: Tensor, background: Tensor, target: int, heat: Tensor) -> list[float]:
    """The areas under the deletion and the insertion curve of one map H×W."""
    found = []
    for curve in (deletion_masks, insertion_masks):
        kept = torch.from_numpy(np.stack(list(curve(heat.numpy(), STEPS)))).to(image)[:, None]
        with torch.inference_mode():
            scores = [network.scores(perturb(image, background, part))[:, target] for part in kept.split(8)]
        found.append(float(curve_area(torch.cat(scores).numpy())))
    return found


def measured(
    network: pt.Network, images: Tensor, settings: pt.MaskSettings, engine: str
) -> list[dict[str, Any]]:
    """One row for each image: what its mask cost and how good it is."""
    targets = [best[0] for best in pt.top_classes(network, images, k=1)]
    with counted(network, engine) as counts:
        masks = pt.learn_masks(network, images, targets, settings, seed=SEED, engine=engine)
    objectives = mean_objective(network, images, targets, masks)
    background = pt.perturbations.background_for(settings, images, color=network.mean_color)
    # All but the iterations is the same for each image of a batch, or nearly: the disc search alone may differ.
    other = (counts.gradients - int(masks.iterations.sum())) / len(masks)
    rows = []
    for row, target in enumerate(targets):
        curves = areas(network, images[row], background[row], target, masks.saliency[row, 0])
        values = (float(objectives[row]), float(masks.area[row]), *curves)
        cost = {"gradients": int(masks.iterations[row]) + other, "forwards": counts.forwards / len(masks)}
        rows.append({**dict(zip(MEASURED, values, strict=True)), **cost})
    return rows


def forward_share(network: pt.Network, images: Tensor, engine: str) -> float:
    """The time of a forward pass over that of a forward and gradient, the median of interleaved rounds."""
    canvas = CANVASES[engine](
        network, images, class_weights([[0]] * len(images), network.class_count), pt.MaskSettings(), SEED
    )
    grid = torch.full((len(images), 1, *canvas.cells), 0.5, requires_grad=True)

    def forward() -> None:
        with torch.inference_mode():
            network.logits(images)

    def both() -> None:
        torch.autograd.grad(canvas.score(grid, 0).sum(), grid)

    def seconds(work: Callable[[], None]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    forward(), both()
    return float(np.median([seconds(forward) / seconds(both) for _ in range(ROUNDS)]))


def summed_up(rows: list[dict[str, Any]], share: float) -> dict[str, Any]:
    """Means of both kinds of settings in each game with intervals and paired differences, and the largest gap."""
    result = Figures(SEED)
    worst, frontier = {}, []
    for game in GAMES:
        table = {
            kind: {
                (row["data"], row["image"]): row for row in rows if (row["game"], row["kind"]) == (game, kind)
            }
            for kind in KINDS
        }
        images = sorted(set(table["paper"]) & set(table["fast"]))
        names = np.array([f"{data} {image}" for data, image in images])

        def values(name: str, kind: str, table: Any = table, images: Any = images) -> np.ndarray:
            return np.array([table[kind][image][name] for image in images])

        def passes(kind: str, values: Any = values) -> np.ndarray:
            return values("gradients", kind) + share * values("forwards", kind)

        for name in MEASURED:
            result.add_means(
                name, {k: values(name, k) for k in ("fast", "paper")}, names, labels={"game": game}
            )
        result.add_means("passes", {k: passes(k) for k in ("fast", "paper")}, names, labels={"game": game})
        gap = values("objective", "fast") - values("objective", "paper")
        worst[game] = {
            "images": len(images),
            "mean_gap": float(gap.mean()),
            "worst_gap": float(gap.max()),
            "share_of_passes": float(passes("fast").mean() / passes("paper").mean()),
            "largest_area_difference": float(abs(values("area", "fast") - values("area", "paper")).max()),
            "mean_area_difference": float((values("area", "fast") - values("area", "paper")).mean()),
        }
        frontier += [
            {"game": game, "passes": float(cost), "gap": float(one)}
            for cost, one in zip(passes("fast"), gap, strict=True)
        ]
    return {"forward_share": share, **result.to_dict(), "gaps": worst, "images": frontier}


def photographs(imagenet: Path, size: Any) -> Iterator[tuple[str, int, Callable[[], Tensor]]]:
    """(data, number, pixels) of every photograph."""
    named = [name for name, sample in all_samples().items() if sample.package == "foolbox"]
    for number, name in enumerate(named):
        yield "foolbox", number, lambda name=name: pt.load_samples(size, names=[name]).images
    records = read_imagenet(imagenet, "val").images
    for number in np.linspace(0, len(records) - 1, IMAGENET_IMAGES).round().astype(int).tolist():
        yield "imagenet", number, lambda path=records[number].path: pt.load_images([path], size)


def fewer_passes(options: argparse.Namespace) -> Study:
    """The study of the module's docstring."""
    network = pt.load_network("efficientnet_lite0", device="cpu")
    kept = Kept(options.records)
    done = {(row["data"], row["image"], row["game"], row["kind"]) for row in kept.rows}
    every = list(photographs(options.imagenet, network.input_size))
    for start in range(0, 0 if options.so_far else len(every), BATCH):
        for game, kind in product(GAMES, KINDS):
            part = [one for one in every[start : start + BATCH] if (*one[:2], game, kind) not in done]
            if part:
                settings = KINDS[kind](pt.MaskSettings(game=game))
                images = torch.cat([load() for *_, load in part])
                found = measured(network, images, settings, options.engine)
                about = (
                    {"data": data, "image": image, "game": game, "kind": kind} for data, image, _ in part
                )
                kept.add([{**names, **row} for names, row in zip(about, found, strict=True)])
    share = forward_share(network, torch.cat([load() for *_, load in every[:BATCH]]), options.engine)
    so_far = "; so far, not all photographs" if options.so_far else ""
    note = f"EfficientNet-Lite0, engine {options.engine}; photographs resampled{so_far}"
    command = "python studies/fewer_passes.py IMAGENET --records FILE --folder bench/results"
    return Study("fewer_passes", command, note, summed_up(kept.rows, share))


def main(argv: list[str] | None = None) -> int:
    parser = keeps_records(parser_of("Fewer passes for the same objective."))
    parser.add_argument("imagenet", type=Path, metavar="IMAGENET", help="ImageNet's folder")
    parser.add_argument("--engine", choices=ENGINES, default="onnx", help="what computes a mask")
    parser.add_argument("--so-far", action="store_true", help="sum up what FILE has, without another mask")
    return run_study(parser, fewer_passes, argv)


if __name__ == "__main__":
    sys.exit(main())
