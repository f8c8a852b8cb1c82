"""Our methods with the call signatures of Captum and Quantus, to stand beside theirs in a script that exists.

Both hand over a plain module and inputs as it takes them, normalized. ``mean`` and ``std`` say how, so that the
inputs can be turned back into images x = input · std + mean with values in [0, 1], which is what our methods perturb.

Captum:   ``attributions = Attribution(model, mean=…, std=…).attribute(inputs, target=285)``
Quantus:  ``metric(…, explain_func=explain, explain_func_kwargs={"mean": …, "std": …, "method": "mask"})``

The module is copied and frozen at each call, as it is then: Quantus' randomization tests change its weights in
between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from perturb_tutorial._outside import printable_errors
from perturb_tutorial.baselines import find_method, saliency
from perturb_tutorial.networks import Network

ROUNDING = 1e-3
"""By which an image may leave [0, 1] when its normalization is undone in single precision."""


class Attribution:
    """A method as one of Captum's ``Attribution`` classes, for one module.

    Args:
        forward_func: the module, N×C×H×W normalized inputs → N×K logits; Captum's name for it.
        mean: per channel, as the inputs were normalized.
        std: the same.
        method: one of ``perturb-tutorial methods``.
        options: further arguments of ``perturb_tutorial.saliency``, such as ``settings=`` and ``layer=``.

    Examples:
        >>> import torch
        >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
        >>> inputs = (torch.rand(2, 3, 32, 32) - 0.5) / 0.25
        >>> ours = Attribution(module, mean=[0.5] * 3, std=[0.25] * 3, method="gradient")
        >>> ours.attribute(inputs, target=[1, 3]).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        forward_func: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        method: str = "mask",
        **options: Any,
    ) -> None:
        find_method(method)
        self.forward_func = forward_func
        self._explained = {"mean": mean, "std": std, "method": method, **options}

    @printable_errors
    def attribute(self, inputs: Tensor, target: int | Sequence[int] | Tensor | None = None) -> Tensor:
        """The map of each input, in the shape of ``inputs`` (N×C×H×W) as Captum's have it, on their device.

        Each channel has an equal share of it, so that the sum over channels, which Captum's pictures show, is the
        map.

        Args:
            inputs: N×C×H×W, normalized.
            target: a class for all inputs, or one for each; None is each input's best class.

        Raises:
            ValueError: where the inputs are not images normalized by ``mean`` and ``std``, or whatever the method
            raises.
        """
        heat = _maps(self.forward_func, inputs, target, **self._explained)
        return (heat / inputs.shape[1]).expand_as(inputs).to(inputs)


@printable_errors
def explain(
    model: nn.Module,
    inputs: ArrayLike,
    targets: ArrayLike,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    method: str = "mask",
    device: str | None = None,
    **options: Any,
) -> NDArray[np.float32]:
    """A method as the ``explain_func`` of Quantus' metrics: maps N×1×H×W for inputs N×C×H×W.

    Args:
        model: N×C×H×W normalized inputs → N×K logits.
        inputs: N×C×H×W, normalized.
        targets: N class indices.
        mean: per channel, as the inputs were normalized.
        std: the same.
        method: one of ``perturb-tutorial methods``.
        device: Quantus hands it over; the maps are computed where the model is.
        options: further arguments of ``perturb_tutorial.saliency``; what Quantus adds of its own is not among
        them.

    Raises:
        ValueError: where the inputs are not images normalized by ``mean`` and ``std``, or whatever the method raises.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
        >>> inputs = np.zeros((2, 3, 32, 32), dtype=np.float32)
        >>> explain(module, inputs, [1, 3], mean=[0.5] * 3, std=[0.25] * 3, method="gradient").shape
        (2, 1, 32, 32)
    """
    find_method(method)
    given = torch.as_tensor(np.asarray(inputs), dtype=torch.float32)
    classes = np.asarray(targets).reshape(-1).tolist()
    heat = _maps(model, given, classes, mean=mean, std=std, method=method, **options)
    return np.asarray(heat.cpu().numpy(), dtype=np.float32)


def _maps(
    model: nn.Module,
    inputs: Tensor,
    target: int | Sequence[int] | Tensor | None,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    method: str,
    **options: Any,
) -> Tensor:
    """Maps N×1×H×W at the inputs' size."""
    if inputs.ndim != 4:
        raise ValueError(f"inputs: expected N×C×H×W, got shape {tuple(inputs.shape)}")
    if inputs.shape[1] != len(mean):
        raise ValueError(
            f"mean: expected as many numbers as the inputs have channels, {inputs.shape[1]}, got {len(mean)}"
        )
    parameter = next(model.parameters(), None)
    place = "cpu" if parameter is None else parameter.device
    network = Network(model, mean=mean, std=std, input_size=(inputs.shape[2], inputs.shape[3]), device=place)
    images = _images(inputs.detach().float(), mean, std)
    if target is None:
        classes: Any = network.scores(images).argmax(1).tolist()
    else:
        classes = target.tolist() if isinstance(target, Tensor) else target
    heat = saliency(network, images, classes, method=method, **options)
    return nn.functional.interpolate(heat.float(), size=inputs.shape[2:], mode="bilinear")


def _images(inputs: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The images in [0, 1] whose normalization ``inputs`` are."""

    def channels(values: Sequence[float]) -> Tensor:
        return torch.as_tensor(values, dtype=inputs.dtype, device=inputs.device).reshape(1, -1, 1, 1)

    images = inputs * channels(std) + channels(mean)
    if not bool(((images >= -ROUNDING) & (images <= 1 + ROUNDING)).all()):
        raise ValueError(
            "inputs: expected images in [0, 1] normalized by mean and std, got values from "
            f"{float(images.min()):.3g} to {float(images.max()):.3g} without the normalization; give the mean and std "
            "that your inputs have"
        )
    return images.clamp(0, 1)
