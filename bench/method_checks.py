"""What is right for a network: each method's maps, held to properties that need no reference implementation.

    form       N×1×h×w with the input's aspect, finite, not constant
    alone      the map of an image does not depend on the rest of its batch
    place      the layer that Grad-CAM reads changes most where the image was changed
    gradient   the exported graph's gradient is PyTorch's

The outcome of a check is a text: "right"; "refused: …" with the sentence of the ValueError or ImportError; "wrong: …";
or "error: …", any other exception, which a user should never see.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from place_check import Wrong, check_places
from redrawn import Mute
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import perturb_tutorial as pt
from perturb_tutorial.baselines import METHODS, occluders
from perturb_tutorial.baselines.layers import resolve_layer
from perturb_tutorial.canvas import CANVASES
from perturb_tutorial.networks.layers import layer_map
from perturb_tutorial.networks.mask_layers import stage_layers
from perturb_tutorial.objectives import class_weights

ONNX, ON_LAYER = "mask, onnx", "mask on a layer"
CHECKS = (*METHODS, ONNX, ON_LAYER)
"""The columns of the table: every method, masks by the exported graph, masks on the last stage."""

SETTINGS = pt.MaskSettings(initialization="half", iterations=3)
"""Of a mask here: whether the loop works shows in its first steps."""
LEAST_SCORE = 1e-6
"""Where half the evidence leaves less than this of the best class, the loop begins with all of it."""
SHARES = (1, 0.5, 0.5, 0.5)
"""By which the mask of a gradient comes nearer to 1, one after the other, as long as only one class is left."""
OCCLUSIONS = 3
"""Occlusions along each side, in place of 28: the passes are the same, and they are most of the time."""
ROUNDING = 1e-3
"""The largest difference, relative to the largest value, that needs no explanation: float32 sums in another order give
1e-6, and a deep network multiplies that."""
KINKED = 0.02
"""The same for gradients of a network with rectifiers or maxima: a unit near 0 is on in one pass, off in the other."""
NUDGE, OWN_FACTOR, LAST = 1e-6, 3, 0.2
"""Beyond, a difference is rounding if it is at most three times that by which the method's own map changes with the
last bits of the pixels, and under ``LAST``."""
TARGETS = 3
"""Grad-CAM and excitation backprop may rightly be 0 everywhere for a class; not for each of the best three."""
_KINKS = {
    "abs", "amax", "amin", "clamp", "elu", "ge", "gt", "hardsigmoid", "hardswish", "hardtanh", "le", "lt", "max",
    "maximum", "min", "minimum", "prelu", "relu", "relu6", "sort", "threshold", "topk",
}  # fmt: skip
"""Parts of the names of operations whose derivative jumps."""

Maps = Callable[[Tensor, list[int]], Tensor]
"""Images and a target for each → N×1×h×w."""
Distance = Callable[[Tensor, Tensor], float]
"""Between two maps of one image."""


def checks(network: pt.Network, images: Tensor) -> Iterator[tuple[str, str]]:
    """(name, outcome) of each of ``CHECKS``, as it is found.

    Args:
        network: the network, on the CPU.
        images: at least two, N×3×H×W in [0, 1]; the last one is only a neighbor.
    """
    with warnings.catch_warnings(), coarse():
        warnings.simplefilter("ignore")  # a guessed layer is reported in a warning
        for name in METHODS:
            check = _check_grad_cam if name == "grad_cam" else partial(_check_method, name=name)
            yield name, outcome(partial(check, network, images))
        yield ONNX, outcome(partial(_check_exported, network, images))
        yield ON_LAYER, outcome(partial(_check_on_layer, network, images))


def outcome(check: Callable[[], None]) -> str:
    """What a check comes to."""
    try:
        check()
    except Wrong as fault:
        return f"wrong: {fault}"
    except (ValueError, ImportError) as error:
        sentence = " ".join(str(error).split())
        # Of another library's ValueError the user learns nothing: ours name the argument that is at fault.
        ours = re.match(r"[\w ]+: |engine ", sentence) is not None
        return f"refused: {sentence}" if ours else f"error: {type(error).__name__}: {sentence[:200]}"
    except Exception as error:  # whatever a network makes a method raise
        return f"error: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return "right"


def grad_cam_layer(network: pt.Network) -> str | None:
    """The layer that Grad-CAM reads by itself; None if it finds none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return resolve_layer(network, None, "grad_cam")
        except ValueError:
            return None


@contextmanager
def coarse() -> Iterator[None]:
    """Within the block the occlusion methods try ``OCCLUSIONS``² places."""
    random_discs = import_module(
        "perturb_tutorial.baselines.variable_occlusion"
    )  # the name is also a function's
    count = OCCLUSIONS**2
    with ExitStack() as stack:
        stack.enter_context(patch.object(occluders, "POSITIONS", OCCLUSIONS))
        stack.enter_context(patch.object(random_discs, "DISC_COUNT", count))
        few = partial(random_discs.draw_discs, count=count)
        stack.enter_context(patch.object(random_discs, "draw_discs", few))
        yield


def best(network: pt.Network, images: Tensor, rank: int = 0) -> list[int]:
    """The class of each image that is ``rank``-th best, from 0 on."""
    return [classes[rank] for classes in pt.top_classes(network, images, rank + 1)]


def settings_for(network: pt.Network, images: Tensor) -> pt.MaskSettings:
    """``SETTINGS``, from a start at which the score of each image has a gradient.

    Raises:
        Mute: for a network whose score is next to 0 at each start, or so near to 1 that it has no gradient: random
            weights can make one that a shift by a pixel turns around.
    """
    for initialization in ("half", "ones"):
        settings = SETTINGS.replace(initialization=initialization)
        masks = pt.learn_masks(network, images, best(network, images), settings.replace(iterations=1))
        score = masks.history.score[:, 0]
        if score.amin() > LEAST_SCORE and score[0] < 1:
            return settings
    raise Mute("with random weights its score is gone after a shift by a pixel")


def _check_method(network: pt.Network, images: Tensor, name: str) -> None:
    options: dict[str, Any] = {"settings": settings_for(network, images)} if name == "mask" else {}
    distance = apart_on_average if name == "mask" else apart
    check_maps(network, images, lambda *given: pt.saliency(network, *given, name, **options), distance)


def _check_grad_cam(network: pt.Network, images: Tensor) -> None:
    _check_method(network, images, "grad_cam")
    layer = grad_cam_layer(network)
    if layer is not None:
        check_places(network, layer, layer_map(network, layer))


def check_maps(network: pt.Network, images: Tensor, maps: Maps, distance: Distance | None = None) -> None:
    """Form, and alone as in the batch; ``distance``: None is :func:`apart`.

    Raises:
        Wrong: for what does not hold.
    """
    for rank in range(TARGETS):
        targets = best(network, images, rank)
        found = maps(images, targets)
        _check_form(found, images)
        if not _is_constant(found[0]):
            break
    else:
        raise Wrong(f"the map of each of the best {TARGETS} classes is constant")
    alone = maps(images[:1], targets[:1])
    _check_same(
        alone,
        found[:1],
        lambda nudged: maps(nudged, targets[:1]),
        images[:1],
        "alone and in a batch",
        distance=distance or apart,
    )


def _check_form(maps: Tensor, images: Tensor) -> None:
    count, (height, width) = len(images), images.shape[2:]
    shape = tuple(maps.shape)
    if maps.dim() != 4 or shape[:2] != (count, 1):
        raise Wrong(f"{shape} for {count} images")
    h, w = shape[2:]
    if min(h, w) < 2 or abs(h * width - w * height) > max(height, width):  # up to 1 px by rounding
        raise Wrong(f"{h}×{w} for an input of {height}×{width}")
    if not maps.isfinite().all():
        raise Wrong("not finite")


def _is_constant(one: Tensor) -> bool:
    return float(one.max() - one.min()) <= 1e-6 * float(one.abs().max())


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference relative to the largest value."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=torch.finfo(torch.float32).tiny))


def apart_on_average(one: Tensor, other: Tensor) -> float:
    """The mean difference relative to the largest value: Adam's first steps are ±γ even where the gradient is rounding
    alone, so that single cells of a mask go another way.
    """
    return float((one - other).abs().mean() / other.abs().max().clamp(min=torch.finfo(torch.float32).tiny))


def _check_same(
    one: Tensor,
    other: Tensor,
    again: Callable[[Tensor], Tensor],
    image: Tensor,
    what: str,
    bound: float = ROUNDING,
    distance: Distance = apart,
) -> None:
    """``one`` and ``other`` differ by no more than ``again`` does between images that are one up to their last bits."""
    found = distance(one, other)
    if found <= bound:
        return
    own = 0.0
    for seed in range(2):
        signs = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
        own = max(own, distance(again((image * (1 + NUDGE * signs)).clamp(0, 1)), one))
    if not found <= min(max(bound, OWN_FACTOR * own), LAST):
        raise Wrong(f"{found:.2g} of its largest value apart, {what}; {own:.2g} by the pixels' last bits")


class _Operations(TorchDispatchMode):
    """Notes the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def is_kinked(network: pt.Network, image: Tensor) -> bool:
    """Whether the network runs an operation whose derivative jumps."""
    with torch.no_grad(), _Operations() as seen:
        network.logits(image)
    return any(_KINKS & set(re.split(r"[._]+", name)) for name in seen.names)


def _check_exported(network: pt.Network, images: Tensor) -> None:
    settings = settings_for(network, images)

    def masks(pixels: Tensor, targets: list[int]) -> pt.Masks:
        return pt.learn_masks(network, pixels, targets, settings, engine="onnx")

    check_maps(network, images, lambda *given: masks(*given).saliency, apart_on_average)
    cells = masks(images[:1], best(network, images[:1])).grid.shape
    check_exported_gradient(
        network, images[:1], torch.rand(cells, generator=torch.Generator().manual_seed(5))
    )


def check_exported_gradient(network: pt.Network, image: Tensor, mask: Tensor) -> None:
    """The exported graph's gradient against PyTorch's, of the class that is second best under the mask: the gradient of
    a score near 1 is a small difference of large numbers, and that of a score near 0 is lost in rounding.

    Args:
        network: the network.
        image: 1×3×H×W.
        mask: the grid at which they are compared, 1×1×h×w, nowhere 0 or 1.

    Raises:
        Wrong: where they differ by more than rounding and rectifiers explain.
    """
    every = torch.zeros(1, network.class_count)
    canvas = CANVASES["torch"](network, image, every, SETTINGS, 0)
    pixels = canvas.windows(canvas.pictures, 0)
    for share in SHARES:  # a mask that deletes much may leave a score whose gradient float32 does not hold
        mask = 1 - share * (1 - mask)
        with torch.no_grad():
            scores = canvas.logits(torch.addcmul(*pixels, canvas.upsampled(mask))).float().softmax(1)
        if scores.topk(2).values[0, 1] > LEAST_SCORE:
            break
    weights = class_weights([[int(scores.topk(2).indices[0, 1])]], network.class_count)

    def gradient(engine: str, pixels: Tensor) -> Tensor:
        grid = mask.clone().requires_grad_(True)
        score = CANVASES[engine](network, pixels, weights, SETTINGS, 0).score(grid, 0)
        return torch.autograd.grad(score.sum(), grid)[0]

    bound = KINKED if is_kinked(network, image) else ROUNDING
    by_torch = partial(gradient, "torch")
    _check_same(
        by_torch(image), gradient("onnx", image), by_torch, image, "by PyTorch and by the graph", bound
    )


def _check_on_layer(network: pt.Network, images: Tensor) -> None:
    layer = next(reversed(stage_layers(network)), None) or network.layers[-1]
    settings = settings_for(network, images)

    def masks(pixels: Tensor, targets: list[int]) -> Tensor:
        return pt.learn_activation_masks(network, pixels, targets, layer, settings).saliency

    check_maps(network, images, masks, apart_on_average)
