"""Masks on a layer's output (§6.4): which places of a layer carry the evidence?

A layer gives activations a of C×h×w for an image (or h×w×C, or a token for each of the h×w positions, beside which
others, such as a class token, stay as they are). The mask m ∈ [0, 1]^(h×w) lies on them, shared by the channels, and
nothing is upsampled, softened or jittered; the perturbation is the constant 0:

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
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from perturb_tutorial import __version__
from perturb_tutorial.batches import check_batch_size
from perturb_tutorial.canvas import Step
from perturb_tutorial.draws import Draws
from perturb_tutorial.initialization import (
    InitialMasks,
    disc_candidates,
    normalized_score,
    rival_masks,
    smallest_discs,
)
from perturb_tutorial.loop import Report, learn_on
from perturb_tutorial.networks import Network, pick_device
from perturb_tutorial.networks.batch_invariance import batch_invariant
from perturb_tutorial.networks.folding import FOLDED_TOLERANCE
from perturb_tutorial.networks.forms import LayerMap
from perturb_tutorial.networks.influence import check_influence, no_influence, responds
from perturb_tutorial.networks.layers import layer_map
from perturb_tutorial.networks.mask_layers import (
    PAPER_LAYERS,
    example_image,
    paper_layers,
    resolve_layer,
    spatial_sizes,
    stage_layers,
)
from perturb_tutorial.networks.outputs import replacing
from perturb_tutorial.networks.reshape import Reshape, check_selects, factor, selected
from perturb_tutorial.networks.scored import Score
from perturb_tutorial.objectives import probability
from perturb_tutorial.optimizer import Progress, learn_in_batches, score_to_learn, warn_of_empty
from perturb_tutorial.results import Masks
from perturb_tutorial.settings import MaskSettings, check_seed
from perturb_tutorial.sizes import REFERENCE_SIZE


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
    reshape: Reshape | None = None,
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
    ``layer``: a name out of ``network.layers`` whose output is a map of the image, N×C×h×w, N×h×w×C or tokens N×T×C
    with h, w ≥ 2, or the paper's name (``pool1`` and so on) in AlexNet and VGG-16; of a layer that runs several times,
    its last run.
    ``reshape``: from the output of ``layer``, which need not be a map then, to N×C×h×w, by selecting elements; the mask
    lies on these (module ``networks.reshape``).
    ``settings``: None is :func:`layer_settings`. Of others, game, iterations, optimizer, λ₁, λ₂, β, scale of the score
    and start are used; grid, softening, jitter and perturbation are always those of this module, as
    ``Masks.settings`` tells. Errors: ``ValueError`` for a layer whose output is no map of the image, for one that does
    not influence the logits, and for arguments of the wrong form.

    Examples:
        >>> import torch
        >>> import perturb_tutorial as pt
        >>> layers = [torch.nn.Conv2d(3, 4, 3, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten()]
        >>> module = torch.nn.Sequential(*layers, torch.nn.Linear(16, 3))
        >>> network = pt.Network(module, input_size=32, device="cpu")
        >>> settings = pt.MaskSettings(iterations=2, initialization="random")
        >>> masks = pt.learn_activation_masks(network, torch.rand(1, 3, 32, 32), 0, "1", settings)
        >>> masks.layer, masks.saliency.shape
        ('1', torch.Size([1, 1, 32, 32]))
    """
    network.check_images(images)
    if len(images) == 0:
        raise ValueError("images: expected at least one image, got none")
    batch_size = check_batch_size(batch_size)
    seed = check_seed(seed)
    network = network if device is None else network.to(pick_device(device))
    scale = "softmax" if settings is None else settings.score_scale
    network, weights_of = score_to_learn(network, images, targets, score, relative_score, scale)
    place = _place(network, layer, reshape)
    used = _settings_at(network, place, "deletion") if settings is None else _on_grid(settings, place)

    def learn(start: int, stop: int, report: Report) -> Masks:
        pixels = images[start:stop].to(network.device, torch.float32)
        weights = weights_of(list(range(start, stop)), pixels)
        canvas = _LayerCanvas(network, place, pixels, weights, used, seed)
        # Before the hook that masks: a padded convolution is cut back to its images, then masked.
        with batch_invariant(_module(network, place)):
            return replace(learn_on(canvas, used, report), layer=place.layer).to(images.device)

    masks = learn_in_batches(learn, len(images), used.iterations, network.device, batch_size, progress)
    if score is None:
        warn_of_empty(masks)
    return replace(masks, seed=seed, engine="torch", precision="float32", version=__version__)


class _LayerCanvas:
    """Masks on the output of one layer. What comes before it needs no gradient: neither the pixels nor the
    network's weights ask for one.
    """

    fixed_batch: ClassVar[bool] = False

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
        self.draws = Draws.first(seed, len(images))
        self.size, self.cells = (images.shape[-2], images.shape[-1]), place.size

    def _score(self, images: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        with _masked(self.network, self.place, mask):
            logits = (self.network.logits if self.place.folded else self.network.unfolded_logits)(images)
        return self.network.target_scores(logits, weights, self.settings.score_scale)

    def original(self) -> Tensor:
        return self.masked(torch.ones(1, 1, *self.place.size, dtype=torch.float32, device=self.device))

    def perturbed(self) -> Tensor:
        return self.masked(torch.zeros(1, 1, *self.place.size, dtype=torch.float32, device=self.device))

    def start(self, original_score: Tensor, perturbed_score: Tensor) -> InitialMasks:
        if self.settings.initialization != "disc":
            shape = (len(self.images), 1, *self.place.size)
            return rival_masks(shape, self.settings, self.seed, self.device)
        grids = disc_candidates(self.settings, self.size, self.place.size).to(self.device)
        scale = self.settings.score_scale
        original, perturbed = (probability(score, scale) for score in (original_score, perturbed_score))

        def normalized(rows: Tensor, tried: Tensor) -> Tensor:
            images, weights = (x[rows].repeat_interleave(len(tried), 0) for x in (self.images, self.weights))
            score = self._score(images, tried.repeat(len(rows), 1, 1, 1), weights)
            score = probability(score, scale).view(len(rows), len(tried))
            return normalized_score(score, original[rows, None], perturbed[rows, None])

        return smallest_discs(normalized, grids, original_score > perturbed_score, self.settings)

    def score(self, grid: Tensor, step: Step) -> Tensor:
        return self.masked(grid)

    def kept(self, grid: Tensor) -> Tensor:
        return grid.mean((1, 2, 3))

    def masked(self, grid: Tensor) -> Tensor:
        return self._score(self.images, grid, self.weights)

    def rows(self, kept: Tensor) -> _LayerCanvas:
        some = copy(self)
        some.images, some.weights = self.images[kept], self.weights[kept]
        return some


def _outputs(network: Network, layer: str, *, folded: bool) -> list[Tensor]:
    """What ``layer`` gives on the example, one item a run of it."""
    outputs: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        outputs.append(output.detach().clone())  # the next layer may work in place
        return output

    module = network.folded if folded else network.module
    with torch.no_grad(), replacing(module, layer, keep):
        (network.logits if folded else network.unfolded_logits)(example_image(network))
    return outputs


class _Place(NamedTuple):
    """Where a mask lies: the layer, how often it runs, the h×w of its map, the map's form or the user's way to it, and
    whether the folded copy will do.
    """

    layer: str
    runs: int
    size: tuple[int, int]
    way: LayerMap | Reshape
    folded: bool

    def factor(self, mask: Tensor, output: Tensor) -> Tensor:
        """What the layer's output is multiplied with, for a mask N×1×h×w or 1×1×h×w."""
        return self.way.as_output(mask) if isinstance(self.way, LayerMap) else factor(self.way, output, mask)


def _place(network: Network, layer: str, reshape: Reshape | None = None) -> _Place:
    """``layer`` after a look at what it gives; ``ValueError`` where that is no map that influences the logits."""
    name = resolve_layer(network, layer)
    if reshape is None:
        form = layer_map(network, name)
        check_influence(network, name, form)
        return _Place(name, form.runs, form.size, form, _same_when_folded(network, name))
    outputs = _outputs(network, name, folded=False)
    if not outputs:
        raise ValueError(f"layer: {name!r} is not run in the forward pass; name another")
    height, width = check_selects(reshape, outputs[-1]).shape[2:]
    if not responds(network, name, len(outputs), lambda output: selected(reshape, output)):
        raise ValueError(no_influence(network, name))
    return _Place(name, len(outputs), (height, width), reshape, _same_when_folded(network, name))


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


def _masked(network: Network, place: _Place, mask: Tensor) -> AbstractContextManager[None]:
    """For one pass, the last run of the layer gives its output times ``mask`` (N×1×h×w or 1×1×h×w)."""

    def masked(output: Tensor) -> Tensor:
        return (output * place.factor(mask, output)).to(output.dtype)

    return replacing(_module(network, place), place.layer, masked, place.runs)


__all__ = [
    "PAPER_LAYERS",
    "layer_settings",
    "learn_activation_masks",
    "paper_layers",
    "resolve_layer",
    "spatial_sizes",
    "stage_layers",
]
