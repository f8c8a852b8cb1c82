"""What every method needs around it: batches that fit into memory, devices, the number format, the set of classes.

A method computes maps for a few images on the network's device; this module splits the images into such batches. All
methods explain logits z, and for a set of classes C their mean: the back-signal is 1/|C| on each class of the set (§3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from perturb_tutorial.batches import check_batch_size, in_batches, usual_batch_size
from perturb_tutorial.networks import Network
from perturb_tutorial.networks.arithmetic import arithmetic
from perturb_tutorial.objectives import class_sets, class_weights

Progress = Callable[[int, int], None]
"""Called as (done, total): images, or images times occlusions."""

Maps = Callable[[Tensor, Tensor], Tensor]
"""(images B×C×H×W, weights B×K) on the network's device → maps B×1×h×w."""


def check(network: Network, images: Tensor, targets: Any, batch_size: int | None) -> Tensor:
    """Checks the arguments of a method and returns the weights of its mean logit.

    Args:
        network: the network that is explained.
        images: N×C×H×W in [0, 1], N ≥ 1.
        targets: a class index, N indices, or N sets of them.
        batch_size: images at once, or None.

    Returns:
        N×K: 1/|C| for each class of an image's set C, 0 elsewhere.

    Raises:
        ValueError: for images, targets or a batch size of the wrong form.
    """
    network.check_images(images)
    if len(images) == 0:
        raise ValueError("images: expected at least one image, got none")
    check_batch_size(batch_size)
    weights = class_weights(class_sets(targets, len(images), network.class_count), network.class_count)
    return weights / weights.sum(1, keepdim=True)


def number_format(network: Network) -> torch.dtype:
    """The floating-point type of maps: the network's own, but at least float32."""
    return torch.promote_types(network.dtype, torch.float32)


@contextmanager
def exact_gradients(device: torch.device) -> Iterator[None]:
    """Gradients on, autocast and TF32 off, whatever the caller has set, so that no signal passes through half
    precision.
    """
    with arithmetic(device), torch.inference_mode(False), torch.enable_grad():
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
    """Computes the maps of all images in batches.

    Args:
        network: the network that is explained.
        images: N×C×H×W in [0, 1].
        targets: a class index, N indices, or N sets of them (mean logit).
        maps: computes the maps of one batch on the network's device.
        batch_size: images at once, None for the device's usual number.
        progress: called with (done, total) images.

    Returns:
        N×1×h×w on the images' device.

    Raises:
        ValueError: for arguments of the wrong form (:func:`check`).
    """
    weights = check(network, images, targets, batch_size)
    device, dtype = network.device, number_format(network)
    parts: list[Tensor] = []

    def run(start: int, stop: int) -> None:
        with exact_gradients(device):
            part = maps(images[start:stop].to(device, dtype), weights[start:stop].to(device, dtype))
        parts.append(part.detach().to(images.device, dtype))
        if progress is not None:
            progress(stop, len(images))

    in_batches(len(images), batch_size or usual_batch_size(device), run)
    return torch.cat(parts)
