"""What stands around every method: batches that fit, devices, number format, the set of classes.

A method computes maps for a few images on the network's device; here it is fed. All methods read logits z,
and a set of classes C asks for their mean: the back-signal is 1/|C| on each class of the set (§3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from perturb_tutorial.batches import in_batches, usual_batch_size
from perturb_tutorial.networks import Network
from perturb_tutorial.networks.arithmetic import arithmetic
from perturb_tutorial.objectives import class_sets, class_weights

Progress = Callable[[int, int], None]
"""Called as (done, total): images, or images times occlusions."""

Maps = Callable[[Tensor, Tensor], Tensor]
"""(images B×3×S×S, weights B×K) on the network's device → maps B×1×h×w."""


def check(network: Network, images: Tensor, targets: Any, batch_size: int | None) -> Tensor:
    """Weights N×K of the mean logit: 1/|C| for each class of an image's set, 0 elsewhere.

    Errors: ``ValueError`` for images, targets or a batch size of the wrong form.
    """
    network.check_images(images)
    if len(images) == 0:
        raise ValueError("images: expected at least one image, got none")
    if batch_size is not None and (isinstance(batch_size, bool) or batch_size < 1):
        raise ValueError(f"batch_size: expected a whole number of at least 1, got {batch_size!r}")
    weights = class_weights(class_sets(targets, len(images), network.class_count), network.class_count)
    return weights / weights.sum(1, keepdim=True)


def number_format(network: Network) -> torch.dtype:
    """The floating-point type of the network's own weights."""
    floats = (value.dtype for value in network.module.parameters() if value.is_floating_point())
    return next(floats, torch.float32)


@contextmanager
def exact_gradients(device: torch.device) -> Iterator[None]:
    """Gradients on, autocast and TF32 off, whatever the caller has set, so that no signal passes through half
    precision.
    """
    with (
        arithmetic(device),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        yield


def maps_in_batches(
    network: Network,
    images: Tensor,
    targets: Any,
    maps: Maps,
    *,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """``maps`` of all N images, N×1×h×w on their device."""
    weights = check(network, images, targets, batch_size)
    device, dtype = network.device, number_format(network)
    parts: list[Tensor] = []

    def run(start: int, stop: int) -> None:
        with exact_gradients(device):
            part = maps(images[start:stop].to(device, dtype), weights[start:stop].to(device, dtype))
        parts.append(part.detach().to(images.device))
        if progress is not None:
            progress(stop, len(images))

    in_batches(len(images), batch_size or usual_batch_size(device), run)
    return torch.cat(parts)
