"""Masks on a layer's output (§6.4): which places of a layer carry the evidence?

A layer gives activations a of C×h×w (or h×w×C) for an image. The mask m ∈ [0, 1]^(h×w) lies on them, shared by the
channels, and nothing is upsampled, softened or jittered; the perturbation is the constant 0:

    deletion      min λ₁ ‖1 − m‖₁ + λ₂ TV_β(m) + Σ_{c∈C} f_c(a · m)
    preservation  min λ₁ ‖m‖₁     + λ₂ TV_β(m) − Σ_{c∈C} f_c(a · m)

with f_c(a · m) the score of class c when the rest of the network goes on from a · m.

The loop is that of :func:`perturb_tutorial.learn_masks`, and so is the result, :class:`Masks`: its grid has
the layer's h×w, and ``mask`` and ``saliency`` at the image's size are its nearest-neighbor enlargement,
without softening, so that a picture shows the very cells that were optimized. ``score_perturbed`` is of an
output that is 0 everywhere. The start is §2's disc, searched on the layer, its radius in image px as ever;
the paper does not say which start it took. The weights λ₁ and λ₂ are the paper's, :func:`layer_settings`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from perturb_tutorial.canvas import Step
from perturb_tutorial.initialization import (
    InitialMasks,
    disc_candidates,
    normalized_score,
    rival_masks,
    smallest_discs,
)
from perturb_tutorial.networks import Network, pick_device
from perturb_tutorial.networks.batch_invariance import batch_invariant
from perturb_tutorial.networks.folding import FOLDED_TOLERANCE
from perturb_tutorial.networks.hooks import of_this_thread
from perturb_tutorial.networks.layers import LayerMap, layer_map
from perturb_tutorial.networks.mask_layers import (
    PAPER_LAYERS,
    example_image,
    paper_layers,
    resolve_layer,
    spatial_sizes,
    stage_layers,
)
from perturb_tutorial.networks.scored import Score
from perturb_tutorial.optimizer import Progress, Report, learn_in_batches, learn_on, score_to_learn
from perturb_tutorial.results import Masks
from perturb_tutorial.settings import REFERENCE_SIZE, MaskSettings, check_seed


def layer_settings(network: Network, layer: str, *, game: str = "deletion") -> MaskSettings:
    """The settings of §6.4 for masks on ``layer``.

    AlexNet's and VGG-16's five layers have their own λ₁ and λ₂; any other layer takes those of the VGG-16
    layer nearest in log(h·w), for the weights go with the size of the map.
    """
    return _settings_at(network, _place(network, layer), game)


def _settings_at(network: Network, place: _Place, game: str) -> MaskSettings:
    row = next((row for row in paper_layers(network) if row.layer == place.layer), None) or min(
        PAPER_LAYERS["vgg16"], key=lambda row: abs(math.log(row.side**2) - math.log(math.prod(place.size)))
    )
    return _on_grid(MaskSettings(game=game, area_weight=row.area_weight, tv_weight=row.tv_weight), place)


def _on_grid(settings: MaskSettings, place: _Place) -> MaskSettings:
    """``settings`` without upsampling, softening and jitter, and with the constant perturbation (§6.4)."""
    scale = REFERENCE_SIZE / math.sqrt(math.prod(place.size))
    return settings.replace(mask_scale=scale, mask_sigma=0.0, jitter=1, perturbation="constant")


def learn_activation_masks(
    network: Network,
    images: Tensor,
    targets: Any,
    layer: str,
    settings: MaskSettings | None = None,
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
    score: Score | None = None,
    relative_score: bool = True,
) -> Masks:
    """A mask on the output of ``layer`` for each of N images.

    ``images``, ``targets``, ``seed``, ``device``, ``batch_size``, ``progress``, ``score`` and ``relative_score`` as in
    :func:`learn_masks`.
    ``layer``: a name out of ``network.layers`` whose output is a map of the image, N×C×h×w or N×h×w×C with
    h, w ≥ 2, or the paper's name (``pool1`` and so on) in AlexNet and VGG-16; of a layer that runs several times,
    its last run.
    ``settings``: None is :func:`layer_settings`. Of others, game, iterations, learning rate, λ₁, λ₂, β and
    start are used; grid, softening, jitter and perturbation are always those of this module, as
    ``Masks.settings`` tells. Errors: ``ValueError`` for a layer whose output is no map of the image and for
    arguments of the wrong form.
    """
    network.check_images(images)
    if len(images) == 0:
        raise ValueError("images: expected at least one image, got none")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    seed = check_seed(seed)
    network = network if device is None else network.to(pick_device(device))
    network, weights_of = score_to_learn(network, images, targets, score, relative_score)
    place = _place(network, layer)
    used = _settings_at(network, place, "deletion") if settings is None else _on_grid(settings, place)

    def learn(start: int, stop: int, report: Report) -> Masks:
        pixels = images[start:stop].to(network.device, torch.float32)
        weights = weights_of(list(range(start, stop)), pixels)
        canvas = _LayerCanvas(network, place, pixels, weights, used, seed)
        # Before the hook that masks: a padded convolution is cut back to its images, then masked.
        with batch_invariant(_module(network, place)):
            return replace(learn_on(canvas, used, report), layer=place.layer).to(images.device)

    return learn_in_batches(learn, len(images), used.iterations, network.device, batch_size, progress)


class _LayerCanvas:
    """Masks on the output of one layer. What comes before it needs no gradient: neither the pixels nor the
    network's weights ask for one.
    """

    def __init__(
        self,
        network: Network,
        place: _Place,
        images: Tensor,
        weights: Tensor,
        settings: MaskSettings,
        seed: int,
    ) -> None:
        self.network, self.place, self.images, self.weights = network, place, images, weights
        self.settings, self.seed, self.device = settings, seed, network.device
        self.size = (images.shape[-2], images.shape[-1])

    def _score(self, images: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        with _masked(self.network, self.place, mask):
            logits = (self.network.logits if self.place.folded else self.network.unfolded_logits)(images)
        return self.network.target_scores(logits, weights)

    def original(self) -> Tensor:
        return self.masked(torch.ones(1, 1, *self.place.size, dtype=torch.float32, device=self.device))

    def perturbed(self) -> Tensor:
        return self.masked(torch.zeros(1, 1, *self.place.size, dtype=torch.float32, device=self.device))

    def start(self, original_score: Tensor, perturbed_score: Tensor) -> InitialMasks:
        if self.settings.initialization != "disc":
            shape = (len(self.images), 1, *self.place.size)
            return rival_masks(shape, self.settings, self.seed, self.device)
        grids = disc_candidates(self.settings, self.size, self.place.size).to(self.device)

        def normalized(rows: Tensor, tried: Tensor) -> Tensor:
            images, weights = (x[rows].repeat_interleave(len(tried), 0) for x in (self.images, self.weights))
            score = self._score(images, tried.repeat(len(rows), 1, 1, 1), weights)
            score = score.view(len(rows), len(tried))
            return normalized_score(score, original_score[rows, None], perturbed_score[rows, None])

        return smallest_discs(normalized, grids, original_score > perturbed_score, self.settings)

    def score(self, grid: Tensor, step: Step) -> Tensor:
        return self.masked(grid)

    def kept(self, grid: Tensor) -> Tensor:
        return grid.mean((1, 2, 3))

    def masked(self, grid: Tensor) -> Tensor:
        return self._score(self.images, grid, self.weights)


def _outputs(network: Network, layer: str, *, folded: bool) -> list[Any]:
    """What ``layer`` gives on the example, one item a run of it."""
    outputs: list[Any] = []
    module = network.folded if folded else network.module

    @of_this_thread
    def hook(_: nn.Module, inputs: Any, output: Any) -> None:
        # A copy, for the next layer may work in place.
        outputs.append(output.detach().clone() if isinstance(output, Tensor) else output)

    handle = module.get_submodule(layer).register_forward_hook(hook)
    try:
        with torch.no_grad():
            (network.logits if folded else network.unfolded_logits)(example_image(network))
    finally:
        handle.remove()
    return outputs


class _Place(NamedTuple):
    """Where a mask lies: the layer, the form of its output, and whether the folded copy will do."""

    layer: str
    form: LayerMap
    folded: bool

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        return self.form.size


def _place(network: Network, layer: str) -> _Place:
    """``layer`` after a look at what it gives; ``ValueError`` where that is no map of the image."""
    name = resolve_layer(network, layer)
    return _Place(name, layer_map(network, name), _same_when_folded(network, name))


def _module(network: Network, place: _Place) -> nn.Module:
    """The copy of the network that the masks are learned on."""
    return network.folded if place.folded else network.module


def _same_when_folded(network: Network, layer: str) -> bool:
    """Whether the folded copy gives the same at ``layer``: not where a BatchNorm was folded into it.

    Judged on the CPU: a GPU may round convolutions (TF32) more than the two may differ.
    """
    on_cpu = network.to("cpu")
    try:
        outputs, folded = (_outputs(on_cpu, layer, folded=copy) for copy in (False, True))
    except Exception:  # a module that runs on its own device only
        return False
    if len(folded) != len(outputs) or getattr(folded[-1], "shape", None) != outputs[-1].shape:
        return False
    difference = (outputs[-1] - folded[-1]).abs().max()
    return bool(difference <= FOLDED_TOLERANCE * outputs[-1].abs().max().clamp(min=1))


@contextmanager
def _masked(network: Network, place: _Place, mask: Tensor) -> Iterator[None]:
    """For one pass, the last run of the layer gives its output times ``mask`` (N×1×h×w or 1×1×h×w)."""
    module = _module(network, place)
    mask = place.form.as_output(mask)
    done = 0

    @of_this_thread
    def hook(_: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        nonlocal done
        done += 1
        return (output * mask).to(output.dtype) if done == place.form.runs else None

    handle = module.get_submodule(place.layer).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


__all__ = [
    "PAPER_LAYERS",
    "layer_settings",
    "learn_activation_masks",
    "paper_layers",
    "resolve_layer",
    "spatial_sizes",
    "stage_layers",
]
