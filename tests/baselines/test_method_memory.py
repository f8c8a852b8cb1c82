"""Calls over and over: nothing that a method makes may wait for the garbage collector, which does not count bytes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from small import BACKWARD, Plain, Signed, small_network, smooth_images

import perturb_tutorial as pt
from perturb_tutorial import baselines

CALLS = 3
CASES = [(method, Plain) for method in baselines.METHODS] + [(method, Signed) for method in BACKWARD]


@contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def living_tensors() -> tuple[int, int]:
    """How many tensors live in Python, and their bytes; type(), as isinstance() would wake lazy imports."""
    tensors = [value for value in gc.get_objects() if issubclass(type(value), torch.Tensor)]
    return len(tensors), sum(value.numel() * value.element_size() for value in tensors)


def call_of(method, kind):
    network, images = small_network(kind, 0), smooth_images(1, 16)
    options = {}
    if method in ("excitation_backprop", "contrastive_excitation_backprop", "grad_cam"):
        options = {"layer": "conv1"}
    if method == "mask":
        options = {"settings": pt.MaskSettings(iterations=3)}
    return lambda: pt.saliency(network, images, 1, method, **options)


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_a_call_leaves_nothing_behind(method, kind):
    call = call_of(method, kind)
    call()  # the first fills caches
    with without_collector():
        before = living_tensors()
        for _ in range(CALLS):
            call()
        assert living_tensors() == before


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts pages as Linux does")
@pytest.mark.parametrize("method", ["excitation_backprop", "contrastive_excitation_backprop"])
def test_resident_memory_stays(method, lite0):
    """A graph of EfficientNet-Lite0 above its 28×28 layer is some 10 MB an image."""
    image = smooth_images(1, 224)
    for _ in range(3):
        getattr(baselines, method)(lite0, image, 281)
    with without_collector():
        before = resident_bytes()
        for _ in range(10):
            getattr(baselines, method)(lite0, image, 281)
        grown = resident_bytes() - before
    assert grown < 30e6  # a third of what ten graphs take; the allocator keeps a few pages of its own
