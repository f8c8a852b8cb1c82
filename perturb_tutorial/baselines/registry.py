"""Every method by its name, and :func:`saliency`, which computes any of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from perturb_tutorial.activations import learn_activation_masks
from perturb_tutorial.baselines.blur_occlusion import blur_occlusion
from perturb_tutorial.baselines.contrastive_excitation_backprop import contrastive_excitation_backprop
from perturb_tutorial.baselines.excitation_backprop import excitation_backprop
from perturb_tutorial.baselines.grad_cam import grad_cam
from perturb_tutorial.baselines.gradient import gradient
from perturb_tutorial.baselines.guided_backprop import guided_backprop
from perturb_tutorial.baselines.occlusion import occlusion
from perturb_tutorial.baselines.variable_occlusion import variable_occlusion
from perturb_tutorial.networks import Network
from perturb_tutorial.networks.mask_layers import resolve_layer
from perturb_tutorial.networks.scored import Score, scored_network
from perturb_tutorial.optimizer import learn_masks
from perturb_tutorial.settings import MaskSettings, check_seed


def learned_mask(
    network: Network,
    images: Tensor,
    targets: Any,
    *,
    layer: str | None = None,
    settings: MaskSettings | None = None,
    seed: int = 0,
    **options: Any,
) -> Tensor:
    """The saliency N×1×H×W of :func:`perturb_tutorial.learn_masks`, which takes the same arguments.

    With ``layer`` the mask is learned on that layer's output (§6.4, module ``activations``).
    """
    if layer is not None:
        return learn_activation_masks(
            network, images, targets, layer, settings, seed=seed, **options
        ).saliency
    return learn_masks(network, images, targets, settings, seed=seed, **options).saliency


class Method(NamedTuple):
    """A method: (network, images, targets, *, …) → N×1×h×w, one line about it, and its section in the
    supplement.
    """

    function: Callable[..., Tensor]
    about: str
    source: str


METHODS: dict[str, Method] = {
    "mask": Method(learned_mask, "a mask learned by meaningful perturbation", "§1"),
    "gradient": Method(gradient, "largest absolute gradient of the logit over the colors", "§3"),
    "guided_backprop": Method(guided_backprop, "gradient with each ReLU clipping the way back", "§3"),
    "excitation_backprop": Method(
        excitation_backprop, "winning probability, shared by positive weights", "§3"
    ),
    "contrastive_excitation_backprop": Method(
        contrastive_excitation_backprop, "excitation backprop for the class less that against it", "§3"
    ),
    "grad_cam": Method(grad_cam, "last features, weighed by their mean gradient", "§3"),
    "occlusion": Method(occlusion, "drop in logit under squares of the mean color", "§3"),
    "blur_occlusion": Method(blur_occlusion, "drop in logit under soft discs of blur", "§4.1"),
    "variable_occlusion": Method(
        variable_occlusion, "blur occlusion by discs of random place and size", "§4.1"
    ),
}


def find_method(name: str) -> Method:
    """The method called ``name``; ``ValueError`` lists the known names if it is not among them.

    Examples:
        >>> find_method("grad_cam").source
        '§3'
    """
    if name not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {name!r}")
    return METHODS[name]


def saliency(
    network: Network,
    images: Tensor,
    targets: Any,
    method: str = "grad_cam",
    *,
    layer: str | None = None,
    settings: MaskSettings | None = None,
    seed: int = 0,
    score: Score | None = None,
    **options: Any,
) -> Tensor:
    """The map of each of N images by the method called ``method``.

    Args:
        network: the network that is explained.
        images: N×C×H×W in [0, 1].
        targets: a class index, N indices, or N sets of them; None with ``score``.
        method: a name in ``METHODS``.
        layer: the layer that the method reads or that the mask is learned on, by the module's name or the paper's;
            None is the method's usual one.
        settings: of the method "mask"; unused elsewhere.
        seed: of a mask or of variable occlusion; unused elsewhere.
        score: of the user's own in place of a class's logit: a differentiable function from the module's output for
            some images to one number for each (occlusions need no gradient). Excitation backprop has rules for logits
            only.
        options: further keyword arguments of the method, such as ``batch_size`` or ``progress``.

    Returns:
        N×1×h×w, raw scale, on the images' device.

    Raises:
        ValueError: for an unknown method or option (lists the known ones), and whatever the method raises.

    Examples:
        >>> import torch
        >>> import perturb_tutorial as pt
        >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
        >>> network = pt.Network(module, input_size=32, device="cpu")
        >>> pt.saliency(network, torch.rand(2, 3, 32, 32), [1, 3], method="gradient").shape
        torch.Size([2, 1, 32, 32])
    """
    function = find_method(method).function
    given = {"settings": settings, "seed": check_seed(seed)}
    takes = inspect.signature(function).parameters
    learns = learn_masks if layer is None else learn_activation_masks
    known = inspect.signature(learns).parameters if function is learned_mask else takes
    unknown = sorted(set(options) - set(known))
    if unknown:
        listed = ", ".join(name for name, value in known.items() if value.kind is value.KEYWORD_ONLY)
        raise ValueError(f"{method}: expected options out of {listed}; got {', '.join(unknown)}")
    options.update((name, value) for name, value in given.items() if name in takes)
    named = None if layer is None else resolve_layer(network, layer)
    if function is learned_mask:
        options["score"] = score
    elif score is not None:
        network, targets = _explaining(network, targets, score, method), 0
    return function(network, images, targets, layer=named, **options)


def _explaining(network: Network, targets: Any, score: Score, method: str) -> Network:
    """``network`` with ``score`` as its class 0."""
    if targets is not None:
        raise ValueError("targets: expected None with score=, which has no classes")
    if method.endswith("excitation_backprop"):
        raise ValueError(
            f"score: expected None with {method}, whose rules begin at logits; use another method"
        )
    return scored_network(network, score)
