"""engine="auto": the engine that learns masks fastest for a network on this machine, measured once.

On a GPU, for a score of the user's own, and without the packages of engine "onnx" it is PyTorch. Otherwise an iteration
of a made-up image is timed with each engine that runs the network. OpenVINO's gradient has been compared with PyTorch's
by then (module ``gradient_check``). It rounds to bfloat16 only where the processor has that, where it saves a tenth of
the time, and where masks learned so end with an objective as low: their scores are compared in float32.

The outcome is kept in memory and in the cache folder (module ``graph_files``), by network, settings, packages,
processor and threads, so that a network gets the same engine in each run on a machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from perturb_tutorial.canvas import CANVASES, ImageCanvas
from perturb_tutorial.engines.gradient_check import example_image
from perturb_tutorial.engines.graph_files import built_in, cache_folder, graph_key, keep
from perturb_tutorial.games import GAMES
from perturb_tutorial.loop import learn_on
from perturb_tutorial.networks import Network, best_targets
from perturb_tutorial.networks.batch_invariance import batch_invariant
from perturb_tutorial.objectives import class_weights, objective
from perturb_tutorial.reading import read_json
from perturb_tutorial.settings import MaskSettings

PACKAGES = ("onnx", "onnxscript", "openvino")
REPEATS = 3
"""Iterations that are timed, of which the fastest counts, after one that is not."""
WORTH = 0.9
"""Share of float32's time that bfloat16 may take at most."""
TRIAL_IMAGES, TRIAL_ITERATIONS, TRIAL_GAP = 3, 30, 0.01
"""Of the masks whose objectives are compared, in each game, and by how much bfloat16's may be higher on average.
Measured on 24 photographs with EfficientNet-Lite0: 0.001 in deletion, 0.003 in preservation."""


class Choice(NamedTuple):
    """An engine and the precision of its gradients."""

    engine: str
    precision: str


TORCH, ONNX, ROUNDED = Choice("torch", "float32"), Choice("onnx", "float32"), Choice("onnx", "bfloat16")

_choices: WeakKeyDictionary[Network, dict[str, Choice]] = WeakKeyDictionary()


def fastest_engine(
    network: Network, settings: MaskSettings, count: int, *, own_score: bool = False, exact: bool = False
) -> Choice:
    """The engine for ``count`` images, from memory, from the cache folder, or measured now.

    ``own_score``: whether the score is the user's own. ``exact``: float32 in any case.
    """
    if own_score:
        return TORCH
    known = known_engine(network, settings, count, exact=exact)
    if known is None:
        known = _measured(network, settings, _rows(count), exact)
        _keep(network, settings, count, exact, known)
    return known


def known_engine(
    network: Network, settings: MaskSettings, count: int, *, exact: bool = False
) -> Choice | None:
    """The engine for ``count`` images as far as it is known without a measurement."""
    if network.device.type != "cpu" or not all(map(find_spec, PACKAGES)):
        return TORCH
    kept, about = _choices.setdefault(network, {}), _about(settings, count, exact)
    if about not in kept and (file := _file(network, settings, about)) is not None:
        choice = _read(file)
        if choice is not None:
            kept[about] = choice
    return kept.get(about)


def _rows(count: int) -> int:
    """Images that run at once."""
    return min(count, torch.get_num_threads())


def _about(settings: MaskSettings, count: int, exact: bool) -> str:
    return repr((built_in(settings), _rows(count), torch.get_num_threads(), exact))


def _keep(network: Network, settings: MaskSettings, count: int, exact: bool, choice: Choice) -> None:
    about = _about(settings, count, exact)
    _choices.setdefault(network, {})[about] = choice
    file = _file(network, settings, about)
    if file is not None:
        keep(file, json.dumps(choice._asdict()).encode())


def _file(network: Network, settings: MaskSettings, about: str) -> Path | None:
    """None for a network without a key."""
    network_key = graph_key(network, settings)
    if network_key is None:
        return None
    parts = (
        network_key,
        about,
        *map(version, PACKAGES),
        platform.machine(),
        platform.processor(),
        _processor(),
    )
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
    return cache_folder() / f"engine_{digest}.json"


def _processor() -> str:
    """Name and abilities, as Linux has them; elsewhere ``platform.processor`` does."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))
    return ""


def _read(file: Path) -> Choice | None:
    """What was measured before; None without a file, or with one that is damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        choice = Choice(**read_json(file, 1))
        return choice if choice in (TORCH, ONNX, ROUNDED) else None
    return None


def _measured(network: Network, settings: MaskSettings, rows: int, exact: bool) -> Choice:
    seconds: dict[Choice, float] = {}
    for choice in (TORCH, ONNX) if exact else (TORCH, ONNX, ROUNDED):
        with contextlib.suppress(
            ValueError
        ):  # the engine cannot run the network, or the processor lacks bfloat16
            seconds[choice] = _seconds(network, settings, rows, choice)
    exact_one = min((choice for choice in seconds if choice != ROUNDED), key=seconds.__getitem__)
    if seconds.get(ROUNDED, float("inf")) > WORTH * seconds[exact_one]:
        return exact_one
    return ROUNDED if _ends_as_low(network, settings) else exact_one


def _canvas(network: Network, settings: MaskSettings, choice: Choice, count: int) -> ImageCanvas:
    """Made-up images, and the class that the network sees first in each."""
    seeded = (torch.Generator(device="cpu").manual_seed(seed) for seed in range(count))
    images = torch.cat([example_image(network, generator) for generator in seeded])
    weights = class_weights(best_targets(network, images, 1), network.class_count)
    return CANVASES[choice.engine](network, images, weights, settings, 0, choice.precision)


def _seconds(network: Network, settings: MaskSettings, rows: int, choice: Choice) -> float:
    """Of an iteration for ``rows`` images."""
    canvas = _canvas(network, settings.replace(iterations=REPEATS + 1), choice, rows)
    grid = torch.full((rows, 1, *canvas.cells), 0.5, dtype=torch.float32, device="cpu")
    seconds = []
    with batch_invariant(network.folded, off=canvas.fixed_batch):
        for step in range(REPEATS + 1):
            began = time.perf_counter()
            _gradient(canvas, grid, step)
            seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def _gradient(canvas: ImageCanvas, grid: Tensor, step: int) -> Tensor:
    with torch.enable_grad():
        asked = grid.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(canvas.score(asked, step).sum(), asked)
    return gradient


def _ends_as_low(network: Network, settings: MaskSettings) -> bool:
    """Whether masks by bfloat16's gradients end as low as by float32's, in both games."""
    gaps = []
    for game in GAMES:
        asked = settings.replace(game=game, iterations=TRIAL_ITERATIONS, initialization="half", tolerance=0)
        ends = []
        for choice in (ONNX, ROUNDED):
            canvas = _canvas(network, asked, choice, TRIAL_IMAGES)
            masks = learn_on(canvas, asked, lambda _: True, choice.precision)
            ends.append(objective(masks.grid, masks.score_masked, asked).mean())
        gaps.append(float(ends[1] - ends[0]))
    return all(gap <= TRIAL_GAP for gap in gaps)  # NaN is never low enough


__all__ = ["Choice", "fastest_engine", "known_engine"]
