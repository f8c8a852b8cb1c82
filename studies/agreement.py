"""Does the agreement of draws mean what it says? bench/results/agreement.json.

    python studies/agreement.py --records FILE --folder bench/results
    python studies/agreement.py deletion --records FILE --folder bench/results

The 20 photographs of foolbox, EfficientNet-Lite0 and its best class, ``MaskSettings().fast()``, in both games or in
those that are named. Each question gets 16 draws. The first 8 say of a pixel that k of them have evidence there
(saliency above 0.5); the other 8 are held out. Calibrated would be: of the pixels with k of 8, the share k/8 is
evidence in a draw that was held out. Shares are over the pixels of all photographs.

And is the mean of 8 draws the better mask? It is compared with draw 0, paired by photograph: the score under the mask
and the objective, the areas under the deletion and the insertion curve, and whether the peak lies in a box of the
class's objects. FILE has one line for each photograph and game; a second start appends the missing ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from fewer_passes import areas
from harness import Kept, Study, keeps_records, parser_of, run_study
from torch import Tensor

import perturb_tutorial as pt
from perturb_tutorial.benchmarks.summary import Figures
from perturb_tutorial.datasets.samples import all_samples
from perturb_tutorial.perturbations import background_for
from perturb_tutorial.settings import ENGINES, GAMES

DRAWS = 8
"""That are asked, and as many that are held out."""
SEED = 0
MEASURED = ("score", "objective", "deletion_area", "insertion_area", "in_box")
KINDS = ("mean", "one")

Box = tuple[float, float, float, float]


def counted(asked: Tensor, held_out: Tensor) -> dict[str, list[int]]:
    """For k = 0, …, 8: the pixels with evidence in k of the draws ``asked``, and in how many of ``held_out``, summed.

    Both: 8×H×W saliencies.
    """
    votes, evidence = (asked > 0.5).sum(0), (held_out > 0.5).sum(0)
    chosen = [votes == k for k in range(DRAWS + 1)]
    return {
        "pixels": [int(each.sum()) for each in chosen],
        "evidence": [int(evidence[each].sum()) for each in chosen],
    }


def in_a_box(heat: Tensor, boxes: Iterable[Box]) -> bool:
    """Whether the peak of a map H×W lies in one of the boxes (x0, y0, x1, y1)."""
    y, x = divmod(int(heat.argmax()), heat.shape[1])
    return any(x0 <= x + 0.5 <= x1 and y0 <= y + 0.5 <= y1 for x0, y0, x1, y1 in boxes)


def saliency_of(masks: pt.Masks, first: int, last: int) -> Tensor:
    """Of the draws ``first`` … ``last`` − 1 of one image, k×H×W."""
    assert masks.draws is not None
    rows = masks.draws[0, first:last, None]
    return replace(masks, grid=rows, draws=None).saliency[:, 0]


def measured(
    network: pt.Network, image: Tensor, boxes: Sequence[Box], settings: pt.MaskSettings, engine: str
) -> dict[str, Any]:
    """What one photograph, 1×C×H×W, says."""
    (target,) = pt.top_classes(network, image, k=1)[0]
    learn = {"seed": SEED, "engine": engine}
    masks = pt.learn_masks(network, image, target, settings, draws=2 * DRAWS, **learn)
    background = background_for(settings, image, color=network.mean_color, seed=SEED)
    row: dict[str, Any] = counted(saliency_of(masks, 0, DRAWS), saliency_of(masks, DRAWS, 2 * DRAWS))
    assert masks.draws is not None
    grids = {"mean": masks.draws[:, :DRAWS].mean(1, keepdim=True), "one": masks.draws[:, :1]}
    for kind in KINDS:
        own = replace(masks, grid=grids[kind], draws=None)
        with torch.inference_mode():
            pixels = image * own.mask + background * (1 - own.mask)
            score = network.target_scores(
                network.logits(pixels), torch.eye(network.class_count)[[target]], settings.score_scale
            )
        own, heat = replace(own, score_masked=score), own.saliency[0, 0]
        curves = areas(network, image[0], background[0], target, heat)
        values = (float(score), float(own.objective), *curves, float(in_a_box(heat, boxes)))
        row[kind] = dict(zip(MEASURED, values, strict=True))
    return row


def calibration(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The share of evidence in held-out draws by k, over all pixels, and its mean distance from k/8.

    A k that no pixel has counts in nothing and is None.
    """
    pixels, evidence = (np.sum([row[name] for row in rows], axis=0) for name in ("pixels", "evidence"))
    shares = [float(e / (DRAWS * n)) if n else None for e, n in zip(evidence, pixels, strict=True)]
    errors = [abs(share - k / DRAWS) for k, share in enumerate(shares) if share is not None]
    return {
        "photographs": len(rows),
        "pixels": pixels.tolist(),
        "share_held_out": shares,
        "mean_error": float(np.mean(errors)),
        "largest_error": max(errors),
    }


def summed_up(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Calibration in each game, and means of both kinds of masks with intervals and paired differences."""
    result, found = Figures(SEED), {}
    for game in dict.fromkeys(row["game"] for row in rows):
        own = [row for row in rows if row["game"] == game]
        found[game] = calibration(own)
        images = np.array([row["image"] for row in own])
        for name in MEASURED:
            table = {kind: np.array([row[kind][name] for row in own]) for kind in KINDS}
            result.add_means(name, table, images, labels={"game": game})
    return {**result.to_dict(), "calibration": found}


def agreement(options: argparse.Namespace) -> Study:
    """The study of the module's docstring."""
    network = pt.load_network("efficientnet_lite0", device="cpu")
    kept = Kept(options.records)
    done = {(row["game"], row["image"]) for row in kept.rows}
    names = [name for name, sample in all_samples().items() if sample.package == "foolbox"]
    games = options.games or list(GAMES)
    for game in games:
        for name in names:
            if (game, name) not in done:
                sample = pt.load_samples(network.input_size, names=[name])
                settings = pt.MaskSettings(game=game).fast()
                row = measured(network, sample.images, sample.boxes[0], settings, options.engine)
                kept.add([{"game": game, "image": name, **row}])
    rows = [row for row in kept.rows if row["game"] in games]
    note = (
        f"EfficientNet-Lite0, engine {options.engine}, 20 photographs of foolbox, {DRAWS} and {DRAWS} draws"
    )
    command = " ".join(
        ["python studies/agreement.py", *options.games, "--records FILE --folder bench/results"]
    )
    return Study("agreement", command, note, summed_up(rows))


def main(argv: list[str] | None = None) -> int:
    parser = keeps_records(parser_of("Is the agreement of draws calibrated?"))
    parser.add_argument("games", nargs="*", metavar="GAME", help="deletion, preservation; both without one")
    parser.add_argument("--engine", choices=ENGINES, default="onnx", help="what computes a mask")
    return run_study(parser, agreement, argv)


if __name__ == "__main__":
    sys.exit(main())
