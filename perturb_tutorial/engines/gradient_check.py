"""Is an engine's gradient the same as PyTorch's? Checked once for every graph that an engine makes of a network.

An engine rewrites a network: it merges operations, arranges weights, chooses among routines, and a fault in that
silently gives a wrong mask. So its score and its gradient on made-up images are compared with those of automatic
differentiation.

How much they may differ depends on rounding. Without rectifiers and maxima it is some 1e-6 of the largest
gradient. With them it is more: a unit whose input is that close to 0 is on in one of the two and off in the other,
which changes the gradient by the unit's share, a few percent in a network with random weights. PyTorch's own
gradient jumps in the same way when the last bits of the image change, and that jump is the tolerance where a fixed
bound is not enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, fx

from perturb_tutorial.engines.joint_graph import joint_function
from perturb_tutorial.networks import Network
from perturb_tutorial.perturbations import fully_perturbed
from perturb_tutorial.settings import MaskSettings

SMOOTH_BOUND, KINKED_BOUND = 1e-3, 0.02
"""How far a gradient may always be from PyTorch's, relative to its largest value, without kinks and with them.
Measured on networks with random weights: some 1e-6 where no unit flips."""
SCORE_BOUND = 1e-3
"""The largest relative difference of a score. Measured: some 1e-6."""
NUDGE, OWN_FACTOR, LAST_BOUND = 1e-6, 3, 0.2
"""Beyond those bounds, a distance is rounding if it is at most ``OWN_FACTOR`` times that by which PyTorch's own
gradient changes with the pixels' last bits (by ``NUDGE`` of their values), and under ``LAST_BOUND``. Measured: on
ResNet-50 with random weights engines are 0.01 to 0.03 apart, and PyTorch's own gradient changes by 0.02 to 0.04; one
unit flipped or not makes factors of up to 2 between the two. Wrong graphs were 0.5 to 2.6 apart."""
IMAGES = 3
"""An engine is at fault if it is apart on all of these: one flipped unit on one image was worth 0.045 on ResNet-18,
where PyTorch's own gradient happened to flip none."""

COARSE_SCORE, COARSE_COSINE = 0.05, 0.5
"""In bfloat16, which has three digits: the largest relative difference of a score, and the least cosine between the
gradients. Measured on EfficientNet-Lite0: 0.007, and 0.73 on one processor, 0.96 on another; a gradient of another
layout has some 0."""

Run = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Mask, image, background and weights of N rows (module ``joint_graph``) → scores, N values, and gradients, N×1×h×w."""
_KINK = re.compile(
    r"(^|[._])(abs|amax|amin|celu|clamp|elu|ge|gt|hard\w+|le|leaky|lt|max|maximum|median|min|minimum|prelu|relu6?|"
    r"rrelu|sign|sort|threshold|topk|where)([._\d]|$)"
)


def has_kinks(traced: fx.GraphModule) -> bool:
    """Whether a traced graph holds an operation whose derivative jumps, such as a rectifier or a maximum."""
    return any(_KINK.search(str(node.target)) for node in traced.graph.nodes if node.op == "call_function")


def engine_fault(run: Run, network: Network, settings: MaskSettings, *, kinked: bool, rows: int) -> str:
    """Compares an engine's score and gradient with PyTorch's.

    An image on which the softmax of all classes but one is 0 decides nothing and is skipped.

    Args:
        run: the engine's graph.
        network: the network behind the graph.
        settings: of the masks; they fix the grid and the softening.
        kinked: whether the network has operations whose derivative jumps (:func:`has_kinks`).
        rows: how many times each image is given to ``run``, for an engine that works on several at once.

    Returns:
        A phrase that names what differs by more than rounding; "" if nothing does.
    """
    reference = joint_function(network, settings)
    fault = ""
    for seed in range(IMAGES):
        mask, image, background = _example(network, settings, seed)
        found = _second_best(reference, network, mask, image, background)
        if found is None:
            continue
        weights, expected = found
        inputs = (x.expand(rows, *x.shape[1:]) for x in (mask, image, background, weights))
        off = _distances(run(*inputs), expected)
        bounds = [SCORE_BOUND, KINKED_BOUND if kinked else SMOOTH_BOUND]
        if not _within(off, bounds):
            generator = torch.Generator(device="cpu").manual_seed(seed)
            for _ in range(2):
                noise = torch.randn(image.shape, generator=generator, dtype=torch.float32, device="cpu")
                nudged = image * (1 + NUDGE * noise)
                own = _distances(reference(mask, nudged, background, weights)[:2], expected)
                bounds = [max(b, min(OWN_FACTOR * o, LAST_BOUND)) for b, o in zip(bounds, own, strict=True)]
        if _within(off, bounds):
            return ""
        what, distance = ("gradient", off[1]) if _within(off[:1], bounds[:1]) else ("score", off[0])
        fault = f"a {what} that is {distance:.2g} of its largest value apart from PyTorch's"
    return fault


def coarse_fault(run: Run, network: Network, settings: MaskSettings, *, rows: int) -> str:
    """:func:`engine_fault` for an engine that rounds to bfloat16: one image on which both agree will do."""
    reference, fault = joint_function(network, settings), ""
    for seed in range(IMAGES):
        mask, image, background = _example(network, settings, seed)
        found = _second_best(reference, network, mask, image, background)
        if found is None:
            continue
        weights, expected = found
        inputs = (x.expand(rows, *x.shape[1:]) for x in (mask, image, background, weights))
        got = run(*inputs)
        off = _distances(got[:1], expected[:1])[0]
        alike = min(
            float(torch.nn.functional.cosine_similarity(row.flatten(), expected[1].flatten(), dim=0))
            for row in got[1]
        )
        if off <= COARSE_SCORE and alike >= COARSE_COSINE:
            return ""
        fault = f"a score {off:.2g} of its value and a gradient of cosine {alike:.2g} apart from PyTorch's"
    return fault


def _second_best(
    reference: Callable[..., tuple[Tensor, Tensor, Tensor]], network: Network, *pictures: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor]] | None:
    """Weights 1×K that read one class, and PyTorch's score and gradient by them; None where the image decides nothing.

    It is the second-best class: its score is at most 1/2, and the gradient of a score near 1 is a small difference of
    large numbers. Its weight makes 1 of that score, for the smallest numbers would be flushed to 0. ``pictures``: mask,
    image and background.
    """
    weights = torch.zeros(1, network.class_count, dtype=torch.float32, device="cpu")
    score, second = (values[0, 1] for values in reference(*pictures, weights)[2].topk(2))
    weights[0, second] = 1 / score
    if not torch.isfinite(weights).all():
        return None
    return weights, reference(*pictures, weights)[:2]


def _distances(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> list[float]:
    """The largest differences of scores and of gradients, relative to the largest expected value."""
    tiny = torch.finfo(torch.float32).tiny
    return [
        float((a - b).abs().max() / b.abs().max().clamp(min=tiny)) for a, b in zip(got, expected, strict=True)
    ]


def _within(distances: list[float], bounds: list[float]) -> bool:
    return all(a <= b for a, b in zip(distances, bounds, strict=True))  # NaN is never within


def example_image(network: Network, generator: torch.Generator) -> Tensor:
    """An image 1×C×H×W in [0, 1] with something at every scale, as photographs have."""
    shape, channels = network.input_shape, network.channels
    image = torch.full((1, channels, *shape), 0.5, dtype=torch.float32, device="cpu")
    side = 4
    while side <= min(shape):
        octave = (
            torch.rand(1, channels, side, side, generator=generator, dtype=torch.float32, device="cpu") - 0.5
        )
        image += 0.4 * torch.nn.functional.interpolate(octave, size=shape, mode="bicubic")
        side *= 2
    return image.clamp(0, 1)


def _example(network: Network, settings: MaskSettings, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A mask, an image, and the image blurred."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    image = example_image(network, generator)
    cells = settings.grid_shape(network.input_size)
    mask = torch.rand(1, 1, *cells, generator=generator, dtype=torch.float32, device="cpu")
    return mask, image, fully_perturbed(image, "blur", color=network.mean_color)


__all__ = ["coarse_fault", "engine_fault", "example_image", "has_kinks"]
