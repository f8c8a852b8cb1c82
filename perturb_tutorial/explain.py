"""From image files to files of explanations: for each a picture, an array and an entry of results.

Used by the command ``perturb-tutorial explain``. Every file is written whole; ``results.json`` after each batch, so
that an interrupted run keeps what it has finished.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from perturb_tutorial._outside import printable, printable_errors
from perturb_tutorial.export import SUFFIXES as EXPORTS
from perturb_tutorial.export import exported
from perturb_tutorial.files import unique_stems, whole_file
from perturb_tutorial.images import image_sizes, load_images
from perturb_tutorial.networks import Network, best_targets
from perturb_tutorial.objectives import class_weights, target_score
from perturb_tutorial.perturbations import background_for, perturb
from perturb_tutorial.plotting import explanation
from perturb_tutorial.result_file import SUFFIXES, TABLE, result_file
from perturb_tutorial.results import Masks
from perturb_tutorial.settings import MaskSettings, check_seed, plain_value

IMAGES_AT_ONCE = 8
FOLDER = "masks"
"""Of the output, for files of other programs."""

Progress = Callable[[float], None]
"""Called with the number of images done, a fraction while a mask is being learned."""


@dataclass(frozen=True)
class Request:
    """How every image is explained. ``target``: one class for all images, or None for each image's ``target_count``
    best.

    ``mask_engine``, ``draws``: of :func:`~perturb_tutorial.learn_masks`, for a mask on the image. ``export``: kinds of
    further files for other programs, of ``SUFFIXES`` in :mod:`perturb_tutorial.export`.
    """

    network: Network
    settings: MaskSettings
    target: int | None = None
    target_count: int = 1
    method: str = "mask"
    layer: str | None = None
    seed: int = 0
    mask_engine: str = "torch"
    export: tuple[str, ...] = ()
    draws: int = 1

    def __post_init__(self) -> None:
        for name in ("target", "target_count", "method", "layer", "mask_engine"):
            object.__setattr__(self, name, plain_value(getattr(self, name)))
        object.__setattr__(self, "seed", check_seed(self.seed))
        if self.draws != 1 and (self.method != "mask" or self.layer is not None):
            raise ValueError(f"draws: expected 1 but for masks on the image, got {self.draws!r}")


@dataclass
class Outcome:
    """The entries of results.json, and one line for each image that could not be explained."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@printable_errors
def explain_files(
    paths: Sequence[Path],
    request: Request,
    output: Path,
    *,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
    report: Callable[[str], None] | None = None,
) -> Outcome:
    """Explains each image and writes its files: ``output/<stem>.png``, ``output/<stem>.npy`` (saliency, float32, input
    size), ``output/results.json`` and the same as a table, ``output/results.csv``; what is exported lies in
    ``output/masks``.

    A bad image becomes a line of ``errors``; the others are still explained.

    Args:
        paths: the image files.
        request: how they are explained.
        output: an existing folder.
        names: how results.json and messages call the images; None is their paths.
        progress: called with the number of images done.
        report: called with one line for each image done.

    Raises:
        ValueError: where a file would be overwritten that no earlier run wrote, and whatever the method raises.
    """
    names = list(names or [str(path) for path in paths])
    more = [EXPORTS[kind] for kind in request.export]
    files = [
        [*(f"{stem}{end}" for end in SUFFIXES), *(f"{FOLDER}/{stem}{end}" for end in more)]
        for stem in unique_stems(names)
    ]
    outcome = Outcome()
    with result_file(output) as results:
        results.check(chain([TABLE], *files), paths)
        for start in range(0, len(paths), IMAGES_AT_ONCE):
            part = range(start, min(start + IMAGES_AT_ONCE, len(paths)))
            images, bad = load_images(
                [paths[i] for i in part],
                request.network.input_size,
                channels=request.network.channels,
                on_error="skip",
            )
            outcome.errors += [f"{names[part[error.index]]}: {error.reason}" for error in bad]
            missing = {error.index for error in bad}
            good = [i for offset, i in enumerate(part) if offset not in missing]
            if good:
                explained = _explain_batch(images, request, progress and _offset(progress, start, len(good)))
                for i, result in zip(good, explained, strict=True):
                    results.announce(files[i])
                    exports = result.exports(request.export, paths[i], names[i])
                    if problem := result.written(output, files[i], exports):
                        outcome.errors.append(f"{names[i]}: {problem}")
                        results.forget(files[i])
                        continue
                    outcome.entries.append({"image": names[i], **result.entry})
                    if report is not None:
                        report(printable(f"{output / files[i][0]}  {result.summary}"))
            results.write(outcome.entries)
            if progress is not None:
                progress(part.stop)
    outcome.errors[:] = map(printable, outcome.errors)
    return outcome


@dataclass(frozen=True)
class _Explained:
    """One image explained, before it is written."""

    image: Tensor
    masked: Tensor | None
    saliency: Tensor
    agreement: Tensor | None
    entry: dict[str, Any]

    @property
    def label(self) -> str:
        return " + ".join(name.partition(",")[0] for name in self.entry["target"]["name"])

    @property
    def summary(self) -> str:
        line = f"{self.label}: score {self.entry['score_original']:.3f}"
        if self.entry["converged"] is None:  # a method without a mask
            return line
        state = "" if self.entry["converged"] else "  (did not converge)"
        if self.entry["score_masked"] is None:
            return f"{line} → not a number{state}"
        return f"{line} → {self.entry['score_masked']:.3f}, area {self.entry['area']:.2f}{state}"

    def exports(self, kinds: Sequence[str], path: Path, name: str) -> list[bytes]:
        """The contents of the files for other programs, of the photograph's own size."""
        if not kinds or not self.saliency.isfinite().all():
            return [b""] * len(kinds)
        (size,) = image_sizes(path)
        about = {"image": name, "target": self.entry["target"], "method": self.entry["method"]}
        return [exported(kind, self.saliency, size, about) for kind in kinds]

    def written(self, output: Path, files: Sequence[str], exports: Sequence[bytes]) -> str | None:
        """Writes the picture, the array and ``exports``, called as in ``files``; what is wrong where they cannot be."""
        if not math.isfinite(self.entry["score_original"]):
            return "the network's score of it is not finite; check its weights"
        figure = explanation(
            self.image,
            self.saliency,
            target=self.label,
            score_original=self.entry["score_original"],
            masked=self.masked,
            score_masked=self.entry["score_masked"],
            method=self.entry["method"],
            agreement=self.agreement,
        )
        picture, array = io.BytesIO(), io.BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        np.save(array, self.saliency.numpy().astype(np.float32), allow_pickle=False)
        try:
            for name, content in zip(files, (picture.getvalue(), array.getvalue(), *exports), strict=True):
                (output / name).parent.mkdir(exist_ok=True)
                with whole_file(output / name) as file:
                    file.write(content)
        except OSError as error:
            return f"{output / files[0]} and what goes with it cannot be written ({error.strerror or error})"
        return None


class _Maps(NamedTuple):
    """What was found for N images: saliency N×H×W, an entry of each, and N images under the mask, N×C×H×W, and where
    draws agree, N×1×H×W.
    """

    saliency: Tensor
    numbers: list[dict[str, Any]]
    masked: Tensor | None = None
    agreement: Tensor | None = None


def _offset(progress: Progress, start: int, count: int) -> Callable[[int, int], None]:
    return lambda done, total: progress(start + count * done / max(1, total))


def _explain_batch(
    images: Tensor, request: Request, progress: Callable[[int, int], None] | None
) -> Iterator[_Explained]:
    network = request.network
    if request.target is not None:
        sets = [[request.target]] * len(images)
    else:
        sets = best_targets(network, images, request.target_count)
    began = time.perf_counter()
    if request.method == "mask":
        maps = _by_mask(images, sets, request, progress)
    else:
        maps = _by_comparison(images, sets, request)
    seconds = (time.perf_counter() - began) / len(images)
    for row, classes in enumerate(sets):
        entry: dict[str, Any] = {
            "target": {"index": list(classes), "name": [network.labels.name(c) for c in classes]},
            "method": request.method,
            "network": network.name,
            "layer": request.layer,
            "precision": "float32",
            **maps.numbers[row],
            "seconds": round(seconds, 3),
        }
        masked, agreement = (None if each is None else each[row] for each in (maps.masked, maps.agreement))
        yield _Explained(images[row], masked, maps.saliency[row], agreement, entry)


def _by_mask(
    images: Tensor, sets: list[list[int]], request: Request, progress: Callable[[int, int], None] | None
) -> _Maps:
    if request.layer is None:
        settings, masks, masked = request.settings, *_image_masks(images, sets, request, progress)
    else:
        from perturb_tutorial.activations import learn_activation_masks

        layer, seed = request.layer, request.seed
        masks = learn_activation_masks(
            request.network, images, sets, layer, request.settings, seed=seed, progress=progress
        )
        settings, masked = masks.settings, None
    numbers = [
        {
            "game": settings.game,
            "settings": settings.to_dict(),
            "seed": request.seed,
            "engine": masks.engine,
            "precision": masks.precision,
            "score_original": float(masks.score_original[row]),
            "score_perturbed": _finite(masks.score_perturbed[row]),
            "score_masked": _finite(masks.score_masked[row]),
            "area": float(masks.area[row]),
            "converged": bool(masks.converged[row]),
            "iterations": int(masks.iterations[row]),
            "draws": masks.draw_count,
        }
        for row in range(len(images))
    ]
    agreement = None if masks.draws is None else masks.agreement
    return _Maps(masks.saliency[:, 0], numbers, masked, agreement)


def _finite(value: Tensor) -> float | None:
    """The number, or None where it is not finite, which JSON cannot express."""
    number = float(value)
    return number if math.isfinite(number) else None


def _image_masks(
    images: Tensor, sets: list[list[int]], request: Request, progress: Callable[[int, int], None] | None
) -> tuple[Masks, Tensor]:
    """Masks on the images, and the images under them."""
    from perturb_tutorial.optimizer import learn_masks

    network, settings, seed = request.network, request.settings, request.seed
    engine, draws = request.mask_engine, request.draws
    masks = learn_masks(
        network, images, sets, settings, draws=draws, seed=seed, engine=engine, progress=progress
    )
    background = background_for(settings, images, color=network.mean_color, seed=seed)
    return masks, perturb(images, background, masks.mask)


def _by_comparison(images: Tensor, sets: list[list[int]], request: Request) -> _Maps:
    from perturb_tutorial.baselines import saliency

    network = request.network
    heat = saliency(network, images, sets, method=request.method, layer=request.layer, seed=request.seed)
    heat = torch.nn.functional.interpolate(heat.float(), size=network.input_shape, mode="bilinear").cpu()
    with torch.inference_mode():
        weights = class_weights(sets, network.class_count).to(network.device)
        scores = target_score(network.logits(images), weights).tolist()
    scores_alone = "score_original score_perturbed score_masked area converged iterations draws"
    absent = dict.fromkeys(f"game settings seed engine precision {scores_alone}".split())
    seeded = request.seed if request.method == "variable_occlusion" else None
    numbers = [{**absent, "seed": seeded, "score_original": score} for score in scores]
    return _Maps(heat[:, 0], numbers)
