"""Guided backprop (§3; Springenberg et al., 2015): the gradient, with each rectifier also clipping the signal on its
way back.

    ReLU:   R_in = 1[a > 0] · max(R_out, 0)
    ReLU6:  R_in = 1[0 < a < 6] · max(R_out, 0)
    S(u) = max_k |R_k(u)|

a is the rectifier's input, R the signal on its way back from the mean logit of the target classes.

The rule is set on the nodes of the graph of this pass, so it applies to every spelling of a rectifier: a
module, in place or not, ``F.relu``, ``torch.relu``, ``tensor.relu_()``, ``hardtanh`` and ``clamp`` from 0,
``maximum(x, 0)``. The module itself is not changed. ``rectifiers`` lists what counts as a rectifier, what does not, and
what is refused because it cannot be read. The rule does not cover other activations, such as GELU or SiLU: there the
signal is the plain gradient, and a warning gives their number.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from perturb_tutorial.baselines.batches import Progress, maps_in_batches
from perturb_tutorial.baselines.graphs import LayersOfOperations
from perturb_tutorial.baselines.leaf_pass import forward_pass
from perturb_tutorial.baselines.readable_pass import ReadablePass
from perturb_tutorial.baselines.rectifiers import read_activations
from perturb_tutorial.networks import Network


def guided_backprop(
    network: Network,
    images: Tensor,
    targets: Any,
    *,
    layer: str | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The largest absolute guided signal over the colors (§3). Arguments as in :func:`gradient`.

    Warns where only some of the activations rectify, or where all that do are in gates such as squeeze-and-excite.

    Returns:
        N×1×H×W (with ``layer`` N×1×h×w), at least 0.

    Raises:
        ValueError: as in :func:`gradient`; for a network without a rectifier between the pixels (or ``layer``) and the
            logits, where guided backprop would be the plain gradient under another name; for an operation that cannot
            be read.

    Examples:
        >>> import perturb_tutorial as pt
        >>> from perturb_tutorial import baselines
        >>> network = pt.load_network(device="cpu")
        >>> images = pt.load_samples(network.input_size, names=["chelsea"]).images
        >>> heat = baselines.guided_backprop(network, images, 285)
        >>> heat.shape[:2], bool(heat.isfinite().all())
        (torch.Size([1, 1]), True)
    """
    notes: list[str | None] = []

    def maps(batch: Tensor, weights: Tensor) -> Tensor:
        readable = ReadablePass()
        with LayersOfOperations(network.module) as layers:
            run = forward_pass(network, batch, layer, around=readable)
        run.check_reached()
        activations = read_activations(run.logits, run.read, readable, layers, "guided_backprop")
        if not activations.rectifiers:
            others = ", ".join(sorted(set(activations.others)))
            raise ValueError(
                f"guided_backprop: expected a network with ReLU, ReLU6 or another clip at 0, {network.name} "
                f"has none on the way{others and f' (its activations: {others})'}; use gradient"
            )
        notes.append(activations.note("guided_backprop"))
        for node in activations.rectifiers:
            node.register_hook(_clip_negative)
        return run.gradient(weights).abs().amax(1, keepdim=True)

    result = maps_in_batches(network, images, targets, maps, batch_size=batch_size, progress=progress)
    if notes and notes[0] is not None:
        warnings.warn(notes[0], stacklevel=2)
    return result


def _clip_negative(signals_in: tuple[Tensor | None, ...], _: Any) -> tuple[Tensor | None, ...]:
    # max(·, 0) commutes with the rectifier's own factor 0 or 1, so it may be taken after it.
    return tuple(None if signal is None else signal.clamp(min=0) for signal in signals_in)
