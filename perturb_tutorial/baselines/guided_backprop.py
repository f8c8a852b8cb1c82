"""Guided backprop (§3; Springenberg et al., 2015): the gradient, with each rectifier clipping the way back
too.

    ReLU:   R_in = 1[a > 0] · max(R_out, 0)
    ReLU6:  R_in = 1[0 < a < 6] · max(R_out, 0)
    S(u) = max_k |R_k(u)|

a is the rectifier's input, R the signal on its way back from the mean logit of the target classes.

The rule is set on the nodes of the graph that this pass made, so every spelling of a rectifier is met: a
module, in place or not, ``F.relu``, ``torch.relu``, ``tensor.relu_()``, ``hardtanh`` and ``clamp`` from 0,
``maximum(x, 0)``. Nothing shared changes. Module ``rectifiers`` lists what counts as one, what does not, and what is
refused since it cannot be read. The rule says nothing of other activations, such as GELU or SiLU: the signal passes
them as the gradient does, and a warning says how many they are.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from perturb_tutorial.baselines.batches import Progress, maps_in_batches
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
    """The largest absolute guided signal over the colors, N×1×H×W, at least 0 (§3).

    Arguments and errors as in :func:`gradient`. A network without a rectifier between the pixels (or
    ``layer``) and the logits raises ``ValueError``: its guided backprop would be the plain gradient under
    another name. So does an operation that cannot be read. Warns where only some of the activations rectify, or
    where all that do stand in gates such as squeeze-and-excite.
    """
    notes: list[str | None] = []

    def maps(batch: Tensor, weights: Tensor) -> Tensor:
        readable = ReadablePass()
        run = forward_pass(network, batch, layer, around=readable)
        run.check_reached()
        activations = read_activations(run.logits, run.read, readable, "guided_backprop")
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
