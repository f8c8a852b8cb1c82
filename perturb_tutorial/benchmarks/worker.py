"""From a batch to its records: loads the images, computes one method's maps, measures each map and discards it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perturb_tutorial._outside import printable
from perturb_tutorial.baselines.registry import METHODS, saliency
from perturb_tutorial.baselines.variable_occlusion import variable_occlusion_points
from perturb_tutorial.benchmarks.base import Benchmark, View
from perturb_tutorial.benchmarks.fetched import local_copies
from perturb_tutorial.benchmarks.plan import Batch, Mosaic, Question
from perturb_tutorial.benchmarks.settings import BenchmarkSettings
from perturb_tutorial.datasets.records import ImageRecord, check_image
from perturb_tutorial.images import load_images
from perturb_tutorial.metrics.heatmaps import is_usable
from perturb_tutorial.networks import Network, best_targets
from perturb_tutorial.objectives import class_weights, target_score
from perturb_tutorial.optimizer import learn_masks
from perturb_tutorial.results import Masks
from perturb_tutorial.sizes import Size, sides

POINTING = "variable_occlusion"
"""The method that chooses a point of its own (§4.1)."""


class Scene(NamedTuple):
    """An image as input of the network (C×H×W) and its size (height, width) in its file, or its problem."""

    image: Tensor | None
    size: tuple[int, int]
    problem: str | None


class Answers(NamedTuple):
    """A method's results for N questions: maps, points (x, y), and whether each mask converged; None where there are
    none.
    """

    heats: list[NDArray[np.float32]] | None = None
    points: list[tuple[float, float]] | None = None
    converged: list[bool] | None = None


class Worker:
    """Computes batches of one benchmark on one network. Nothing is kept from batch to batch but the last images."""

    def __init__(self, benchmark: Benchmark, network: Network, settings: BenchmarkSettings) -> None:
        self.benchmark, self.network, self.settings = benchmark, network, settings
        self._scenes: dict[str, Scene] = {}

    def measure(self, batch: Batch) -> list[dict[str, Any]]:
        """One record for each question, in their order. A bad image has a record with its problem."""
        scenes = self._load(batch.questions)
        good = [question for question in batch.questions if scenes[str(question.image.id)].problem is None]
        measured = iter(self._records(good, scenes, batch.method))
        rows = []
        for question in batch.questions:
            problem = scenes[str(question.image.id)].problem
            row: dict[str, Any] = {
                "image_id": question.image.id,
                "category_id": question.category,
                "category": question.name,
                "method": batch.method,
                "problem": problem,
            }
            rows.append(row if problem is not None else row | next(measured))
        return rows

    def _load(self, questions: Sequence[Question]) -> dict[str, Scene]:
        # The next method's batch has the same images.
        if not all(str(question.image.id) in self._scenes for question in questions):
            images = {str(question.image.id): question.image for question in questions}
            size, channels = self.network.input_size, self.network.channels
            with local_copies(images) as near:
                self._scenes = {key: load_scene(image, size, channels) for key, image in near.items()}
        return self._scenes

    def _records(
        self, questions: list[Question], scenes: dict[str, Scene], method: str
    ) -> list[dict[str, Any]]:
        if not questions:
            return []
        began = time.perf_counter()
        images = torch.stack([_image(scenes[str(question.image.id)]) for question in questions])
        sets = [list(question.targets) for question in questions]
        scores, tops = _recognize(self.network, images, sets)
        with warnings.catch_warnings():
            # The records mark a map that is not usable or empty, and the summary counts these maps.
            for known in ("a heat map is", r"\d+ of \d+ masks are empty"):
                warnings.filterwarnings("ignore", message=known, category=UserWarning)
            answers = self._answer(images, sets, method)
            rows = []
            for i, question in enumerate(questions):
                heat = answers.heats[i] if answers.heats is not None else None
                point = answers.points[i] if answers.points is not None else None
                view = View(
                    question=question,
                    image=images[i],
                    size=scenes[str(question.image.id)].size,
                    method=method,
                    heat=heat,
                    point=point,
                    score=scores[i],
                    top=tops[i],
                    network=self.network,
                    settings=self.settings,
                )
                usable = (
                    is_usable(heat) if heat is not None else point is None or bool(np.isfinite(point).all())
                )
                row = self.benchmark.measure(view)
                row |= {"usable": usable, "score": scores[i]}
                row["converged"] = answers.converged[i] if answers.converged is not None else None
                rows.append(row)
        seconds = (time.perf_counter() - began) / len(questions)
        return [row | {"seconds": seconds} for row in rows]

    def _answer(self, images: Tensor, sets: list[list[int]], method: str) -> Answers:
        network, settings = self.network, self.settings
        if method not in METHODS:
            return Answers()
        if method == POINTING and self.benchmark.points:
            points = variable_occlusion_points(network, images, sets, seed=settings.seed)
            return Answers(points=[(x, y) for x, y in points.tolist()])
        if method == "mask":
            if settings.target_count > 1 and self.benchmark.predicted_targets:
                sets = best_targets(network, images, settings.target_count)
            masks = learn_masks(
                network, images, sets, settings.mask, seed=settings.seed, engine=settings.mask_engine
            )
            heats = mask_heats(masks, grid=self.benchmark.reads_grid)
            return Answers(_arrays(heats), converged=masks.converged.tolist())
        return Answers(_arrays(saliency(network, images, sets, method=method, seed=settings.seed)))


def mask_heats(masks: Masks, *, grid: bool = False) -> Tensor:
    """The masks' saliencies N×1×H×W, or with ``grid`` the salient grids N×1×h×w.

    NaN where a score before or after is not a number. Such a mask was learned without a gradient and may delete
    everything, so it would point at the middle of the image; it has to be a miss (§4).
    """
    heats = masks.salient_grid if grid else masks.saliency
    scores = torch.stack((masks.score_original, masks.score_perturbed, masks.score_masked))
    return heats.masked_fill(~scores.isfinite().all(0).view(-1, 1, 1, 1), torch.nan)


def _arrays(heats: Tensor) -> list[NDArray[np.float32]]:
    return list(heats[:, 0].float().cpu().numpy())


def _image(scene: Scene) -> Tensor:
    if scene.image is None:
        raise ValueError(f"image: {scene.problem}")
    return scene.image


def _recognize(network: Network, images: Tensor, sets: list[list[int]]) -> tuple[list[float], list[int]]:
    """Σ of the targets' scores, and the class with the highest score, of each image."""
    with torch.inference_mode():
        logits = network.logits(images)
        weights = class_weights(sets, network.class_count).to(logits.device)
        return target_score(logits, weights).tolist(), logits.argmax(1).tolist()


def load_scene(image: ImageRecord | Mosaic, size: Size, channels: int = 3) -> Scene:
    """An image squashed to ``size`` px; a mosaic of images, each squashed first, then as a whole."""
    if isinstance(image, ImageRecord):
        return _load_file(image, size, channels)
    scenes = [_load_file(part, size, channels) for part in image.parts]
    for scene in scenes:
        if scene.problem is not None:
            return Scene(None, (0, 0), scene.problem)
    cells, (height, width) = image.cells, sides(size)
    parts = torch.stack([_image(scene) for scene in scenes]).view(cells, cells, channels, height, width)
    whole = parts.permute(2, 0, 3, 1, 4).reshape(1, channels, cells * height, cells * width)
    # Every pixel of the input is the mean of cells × cells pixels of the mosaic, as load_images shrinks.
    return Scene(torch.nn.functional.avg_pool2d(whole, cells)[0], (cells * height, cells * width), None)


def _load_file(record: ImageRecord, size: Size, channels: int) -> Scene:
    checked = check_image(record)
    if checked.problem is not None:
        return Scene(None, (0, 0), checked.problem)
    images, errors = load_images([checked.path], size, channels=channels, on_error="skip")
    if errors:
        return Scene(None, (0, 0), printable(f"{checked.path.name}: {errors[0].reason}"))
    return Scene(images[0], checked.size, None)
