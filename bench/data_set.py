"""The time for the paper's data set: 30,989 masks with the arithmetic of its network, GoogLeNet."""

from __future__ import annotations

import time
from typing import Any

import torch

import perturb_tutorial as pt

PAPER_MASKS = 30_989
"""Masks of the paper's pointing game on COCO."""


def paper_data_set(
    device: torch.device,
    masks: int,
    *,
    engine: str = "torch",
    precision: str = "float32",
    iterations: int = 300,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Measures whole masks, including the disc search, and extrapolates to the paper's 30,989.

    The network is GoogLeNet with seeded weights, which compute as much as trained ones and recognize nothing. The
    photographs are the samples, repeated, in the CPU's memory.

    Args:
        device: where the masks are learned.
        masks: how many masks are timed.
        engine: one of ``ENGINES``.
        precision: one of ``PRECISIONS``.
        iterations: of each mask.
        batch_size: images at once, None for the device's usual number.

    Returns:
        The settings, the seconds of the run and the hours of 30,989 masks, by name.
    """
    network = pt.seeded_network("googlenet", device=device)
    pictures = pt.load_samples(network.input_size).images
    images = pictures[[row % len(pictures) for row in range(masks)]]
    settings = pt.MaskSettings(iterations=iterations)
    warm = settings.replace(iterations=2)
    options: dict[str, Any] = {"engine": engine, "precision": precision, "batch_size": batch_size}
    pt.learn_masks(network, images[: batch_size or 8], 0, warm, **options)
    start = time.perf_counter()
    pt.learn_masks(network, images, 0, settings, **options)
    seconds = time.perf_counter() - start
    return {
        "network": network.name,
        "engine": engine,
        "precision": precision,
        "masks": masks,
        "seconds": seconds,
        "hours_of_paper": seconds / masks * PAPER_MASKS / 3600,
    }
