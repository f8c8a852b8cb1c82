"""Requirements on modules and pixels, checked before any method uses them; each fault is reported in one sentence.

All methods compute images in batches, and most compute variants of one image in a batch. That is correct only for a
module whose logits for an image are a function of that image: not of its neighbors in the batch (a BatchNorm without
running statistics, attention or a mean over the batch), not of chance (dropout left on, noise), and not of how many
images there are (a reshape to a fixed number). All of this is tested when a :class:`Network` is constructed, by passes
of

    a        alone
    a        once more, or many times where the pass draws random numbers
    b a      beside another image, then beside a third, c a: the logits of a may not change

The two batches have the same shape, so that the same routines compute the same row from the same numbers and the
comparison can be strict. Alone and in a batch, a correct network may be computed by different routines and in a
different precision (TF32), so that comparison is coarse and only finds logits that scale with the number of images.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from perturb_tutorial.batches import out_of_memory
from perturb_tutorial.networks.hooks import first_input

RANGE_SLACK = 0.01
"""How far pixels may lie outside of [0, 1], as after an enlargement by splines."""
MODULE_EXPECTED = "module: expected an nn.Module that returns N×K logits"

SAME_SHAPE_TOLERANCE = 1e-4
"""Largest difference between two passes of one shape, relative to the largest logit: float32 sums in another order
(atomics on a GPU, experts that take a different number of tokens) give 1e-6, and a deep network multiplies that."""
OTHER_SHAPE_TOLERANCE = 0.02
"""The same between an image alone and in a batch, where one routine may round to TF32 (5e-3) and the other not."""
DIGIT, MAGNIFIED = 1e-5, 100
"""A network that magnifies rounding may differ by more: by ``MAGNIFIED`` times its response to a change of the pixels
by ``DIGIT``. TF32 rounds each product by 5e-4, 50 times ``DIGIT``."""
DRAWS = 30
"""Passes of a module that draws random numbers: one layer dropped with a probability of 0.1 is missed in 4 %."""

_ANY_NUMBER = "; use -1 in place of a fixed number of images in its reshapes"


class NotLogitsError(ValueError):
    """An output that is not N×K logits. A score of the user's own may still be read from it (module ``scored``)."""


def as_logits(output: Any) -> Tensor:
    """The logits in a module's output: itself, or its attribute ``logits``."""
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise NotLogitsError(f"{MODULE_EXPECTED}, got {type(output).__name__}")
    return logits


@torch.inference_mode()
def example_logits(module: nn.Module, example: Tensor) -> Tensor:
    """Logits 1×K that a module in evaluation mode computes from ``example`` 1×3×H×W, normalized.

    Errors: ``ValueError`` for a module that fails on it; ``NotLogitsError`` for one that does not return one row of at
    least two logits.
    """
    fault = "module: it fails on an input of " + "×".join(map(str, example.shape))
    logits = _pass(module, example, fault, lambda: _other_shape(module, example))
    if logits.dim() != 2 or logits.shape[0] != 1 or not logits.is_floating_point():
        raise NotLogitsError(
            f"{MODULE_EXPECTED}, got {logits.dtype} of shape {tuple(logits.shape)} for one image"
        )
    count = logits.shape[1]
    if count < 2:
        raise NotLogitsError(
            f"module: expected at least 2 classes, got {count}: a softmax over one class is always 1; add a second "
            "logit, such as zeros, which makes the score the first one's sigmoid"
        )
    if (
        _is_distribution(logits)
        and _is_distribution(other := as_logits(module(0.5 * example)))
        and not torch.equal(logits, other)
    ):
        raise NotLogitsError(
            "module: expected logits, got probabilities, which sum to 1; leave the softmax at its end out"
        )
    return logits


@torch.inference_mode()
def check_function_of_the_image(
    module: nn.Module, example: Tensor, neighbors: Tensor, alone: Tensor, what: str = "logits"
) -> None:
    """Checks that the logits of an image depend on that image alone.

    Logits that are not finite are not judged. The caller's random generators are restored.

    Args:
        module: in evaluation mode.
        example: the image, 1×3×H×W, normalized.
        neighbors: two other images, 2×3×H×W.
        alone: the logits 1×K of ``example`` in a pass of its own.
        what: what messages call the logits.

    Raises:
        ValueError: where the logits are different in another pass or beside a neighbor; it names the layer where that
            begins, if it can be found.
    """
    if not alone.isfinite().all():
        return
    devices = [example.device] if example.device.type == "cuda" else []
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the one that modules draw from
    with torch.random.fork_rng(devices=devices):
        try:
            _check_chance(module, example, alone, what)
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002
    _check_neighbors(module, example, neighbors, alone, what)


def other_images(channels: int, shape: tuple[int, int]) -> Tensor:
    """Two images 2×C×H×W, unlike each other and unlike gray: blocks of noise, and a dark ramp."""
    generator = torch.Generator(device="cpu").manual_seed(1)
    blocks = torch.rand(
        1, channels, *(side // 4 for side in shape), generator=generator, dtype=torch.float32, device="cpu"
    )
    noise = nn.functional.interpolate(blocks, size=shape)
    dark = torch.linspace(0.05, 0.2, shape[1], dtype=torch.float32, device="cpu").expand(1, channels, *shape)
    return torch.cat([noise, dark])


def _other_shape(module: nn.Module, example: Tensor) -> str:
    """The remedy for a module that takes another number of channels, or the sides the other way round; else ""."""
    numbers = {1: "one number each", 3: "three numbers each", 4: "four numbers each"}
    for channels, each in numbers.items():
        if channels != example.shape[1] and _runs(module, example[:, :1].expand(-1, channels, -1, -1)):
            return f"; it takes {channels} channel{'s' * (channels > 1)}: give mean and std with {each}"
    if example.shape[2] != example.shape[3] and _runs(module, example.transpose(2, 3)):
        return "; it takes the sides the other way round: input_size is (height, width)"
    return ""


def _runs(module: nn.Module, inputs: Tensor) -> bool:
    try:
        module(inputs.contiguous())
    except Exception:  # a module may raise anything
        return False
    return True


def _check_chance(module: nn.Module, example: Tensor, alone: Tensor, what: str) -> None:
    before, pass_count = _random_states(example.device), 0
    while pass_count == 0 or (pass_count < DRAWS and before != _random_states(example.device)):
        moved = _moved(alone, as_logits(module(example)))
        pass_count += 1
        if moved > _tolerance(module, alone):
            layer = _first_difference(module, example, example, slice(None), DRAWS)
            raise ValueError(
                f"module: expected the same {what} of an image each time in evaluation mode, got two passes that "
                f"differ by {moved:.2g} of the largest logit{layer}; switch dropout and noise off "
                "(functional.dropout takes training=self.training)"
            )


def _check_neighbors(module: nn.Module, example: Tensor, neighbors: Tensor, alone: Tensor, what: str) -> None:
    first, second = (torch.cat([other, example]) for other in neighbors.split(1))
    rows = []
    for batch in (first, second):
        fault = "module: expected one that takes any number of images, got one that takes 1 and fails on 2"
        logits = _pass(module, batch, fault, lambda: _ANY_NUMBER)
        if logits.shape != (2, alone.shape[1]):
            raise ValueError(
                f"module: expected a row of {what} for each image, got {what} of shape "
                f"{tuple(logits.shape)} for 2 images{_ANY_NUMBER}"
            )
        rows.append(logits[1:])
    moved = _moved(*rows)
    if moved > _tolerance(module, alone):
        layer = _first_difference(module, first, second, slice(1, None))
    elif _is_scaled(module, example, alone, moved := _moved(alone, rows[0])):
        layer = " beside another image"
    else:
        return
    raise ValueError(
        f"module: expected {what} of an image that do not depend on the rest of its batch, got a change by "
        f"{moved:.2g} of the largest logit{layer}; no layer may mix images, and a BatchNorm needs running statistics "
        "(track_running_stats=True) and evaluation mode"
    )


def _is_scaled(module: nn.Module, example: Tensor, alone: Tensor, moved: float) -> bool:
    """Whether logits that differ by ``moved`` in a batch do so by more than rounding, which the module may magnify."""
    if moved <= max(OTHER_SHAPE_TOLERANCE, 4 * _tolerance(module, alone)):
        return False
    signs = torch.randint(
        0, 2, example.shape, generator=torch.Generator(device="cpu").manual_seed(2), device="cpu"
    ).to(example)
    nearly = example * (1 + max(DIGIT, torch.finfo(example.dtype).eps) * signs)
    return moved > MAGNIFIED * _moved(alone, as_logits(module(nearly)))


def _pass(module: nn.Module, inputs: Tensor, fault: str, remedy: Callable[[], str]) -> Tensor:
    try:
        output = module(inputs)
    except Exception as error:  # a module may raise anything
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {_one_line(error)}"
        raise ValueError(f"{fault} ({reason}){remedy()}") from error
    return as_logits(output)


def _one_line(error: Exception, most: int = 200) -> str:
    line = " ".join(str(error).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _moved(first: Tensor, second: Tensor) -> float:
    """The largest difference relative to the largest number; infinite where one of them is not a number."""
    difference = (first.float() - second.float()).abs().max()
    moved = float(difference / first.float().abs().max().clamp(min=torch.finfo(torch.float32).tiny))
    return math.inf if math.isnan(moved) else moved


def _tolerance(module: nn.Module, logits: Tensor) -> float:
    """``SAME_SHAPE_TOLERANCE``, or more for half precision: 8 units in the last place of its coarsest numbers."""
    types = {value.dtype for value in module.parameters() if value.is_floating_point()} | {logits.dtype}
    return max(SAME_SHAPE_TOLERANCE, *(8 * torch.finfo(kind).eps for kind in types))


def _random_states(device: torch.device) -> list[bytes]:
    """The states of the generators that modules usually draw from: torch's, Python's and NumPy's."""
    states = [torch.get_rng_state().numpy().tobytes(), repr(random.getstate()).encode()]
    states.append(repr([np.asarray(part).tobytes() for part in np.random.get_state()]).encode())  # noqa: NPY002
    if device.type in ("cuda", "mps"):
        states.append(getattr(torch, device.type).get_rng_state().numpy().tobytes())
    return states


def _first_difference(module: nn.Module, first: Tensor, second: Tensor, rows: slice, tries: int = 1) -> str:
    """The layer whose output differs in ``rows`` between two inputs although its own input does not, if any."""
    names = {layer: name for name, layer in module.named_modules()}
    hooked = [layer for layer in names if not isinstance(layer, torch.jit.ScriptModule)]

    def watched(inputs: Tensor) -> list[tuple[nn.Module, Tensor, Tensor]]:
        seen: list[tuple[nn.Module, Tensor, Tensor]] = []

        def watch(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            ends = (first_input(given, named), output)
            if all(isinstance(x, Tensor) and x.numel() and len(x) == len(inputs) for x in ends):
                seen.append((layer, ends[0][rows].clone(), output[rows].clone()))

        handles = [layer.register_forward_hook(watch, with_kwargs=True) for layer in hooked]
        try:
            module(inputs)
        finally:
            for handle in handles:
                handle.remove()
        return seen

    for _ in range(tries):
        for (layer, x, y), (_, other_x, other_y) in zip(watched(first), watched(second), strict=False):
            same_shape = x.shape == other_x.shape and y.shape == other_y.shape
            if same_shape and _moved(x, other_x) == 0 and _moved(y, other_y) > SAME_SHAPE_TOLERANCE:
                name = f"layer {names[layer]!r}" if names[layer] else "its own forward"
                return f", by {name} ({type(layer).__name__})"
    return ""


def _is_distribution(row: Tensor) -> bool:
    return (
        bool((row >= 0).all()) and abs(float(row.sum()) - 1) < 1e-4
    )  # what float32 sums of 1,000 classes miss


def check_pixels(images: Any, channels: int, shape: tuple[int, int]) -> Tensor:
    """``images`` if it is N×C×H×W floating point, finite, in [0, 1]; else ``ValueError``."""
    height, width = shape
    wanted = f"images: expected a float tensor N×{channels}×{height}×{width} in [0, 1]"
    if not isinstance(images, Tensor):
        raise ValueError(f"{wanted}, got {type(images).__name__}")
    if images.dim() != 4 or images.shape[1:] != (channels, *shape) or not images.is_floating_point():
        got = "×".join(map(str, images.shape))
        call = f"size={height if height == width else shape}" + (f", channels={channels}" * (channels != 3))
        raise ValueError(f"{wanted} (load_images(paths, {call}) makes one), got {images.dtype} {got}")
    if not images.numel():
        return images
    low, high = (float(value) for value in images.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):  # one NaN makes both NaN
        broken = (~images.detach().isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        raise ValueError(
            f"{wanted}, got NaN or infinite pixels in {_rows(broken)} of {len(images)}; leave them out"
        )
    if low < -RANGE_SLACK or high > 1 + RANGE_SLACK:
        raise ValueError(
            f"{wanted}, got {low:.3g} to {high:.3g}; divide bytes by 255, and leave the normalization to the network"
        )
    return images


def _rows(rows: list[int], most: int = 8) -> str:
    listed = ", ".join(map(str, rows[:most]))
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return f"row{'s' if len(rows) > 1 else ''} {listed}{more}"
