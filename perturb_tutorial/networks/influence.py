"""On which maps of the image do the logits depend: where can a method read, or a mask delete?

The last block of a network that classifies by its class token computes h×w tokens that nobody reads. The logits have
no gradient there, a mask changes nothing and Grad-CAM is 0 everywhere. One backward pass, once for each network, tells
these maps from the others.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor

from perturb_tutorial.networks.forms import LayerMap
from perturb_tutorial.networks.layers import example_image, known, layer_maps
from perturb_tutorial.networks.network import Network
from perturb_tutorial.networks.outputs import replacing
from perturb_tutorial.networks.scored import ScoredNetwork

_ROUNDING = 8
"""Logits that move by at most this many units in the last place of the largest one have not changed."""


def read_maps(network: Network) -> dict[str, LayerMap]:
    """The maps that methods may read unasked, in the order in which they last ran; computed once for each network.

    The logits have a gradient at their positions, and they lie outside of modules whose class is called attention.
    Where this leaves nothing, the conditions are dropped, the second first.
    """
    maps = layer_maps(network)
    reached = _reached(network)
    read = {name: form for name, form in maps.items() if name in reached}
    outside = {name: form for name, form in read.items() if not _in_attention(network, name)}
    return outside or read or maps


def check_influence(network: Network, layer: str, form: LayerMap) -> None:
    """``ValueError`` if the logits do not depend on the h×w positions of the map ``layer``; it names one to take."""
    if layer in _reached(network):
        return

    def at_positions(output: Tensor) -> Tensor:
        return form.as_output(torch.ones_like(form.channels_first(output)), torch.zeros_like(output))

    if not responds(network, layer, form.runs, at_positions):
        raise ValueError(no_influence(network, layer))


def no_influence(network: Network, layer: str) -> str:
    """The message for a layer that does not influence the logits."""
    last = list(read_maps(network))[-1]
    return (
        f"layer: the logits do not depend on its output at the positions of {layer!r}, as after the last block of a "
        f"network that reads its class token alone; name another, such as {last!r}"
    )


@torch.inference_mode(False)
@torch.no_grad()
def responds(network: Network, layer: str, runs: int, where: Callable[[Tensor], Tensor]) -> bool:
    """Whether noise in the output of the layer's last run changes the logits of the example.

    ``where``: of an output, 1 where the noise is added and 0 elsewhere. The noise differs from element to element, as
    normalization undoes a shift of all of them.
    """

    def change(output: Tensor) -> Tensor:
        noise = torch.randn(
            output.shape, generator=torch.Generator(device="cpu").manual_seed(0), device="cpu"
        ).to(output)
        return output + noise * output.abs().max().clamp(min=1) * where(output)

    image = example_image(network)
    with torch.autocast(network.device.type, enabled=False):
        before = network.unfolded_logits(image)
        with replacing(network.module, layer, change, runs):
            after = network.unfolded_logits(image)
    moved = (after - before).abs().max()
    return not moved <= _ROUNDING * torch.finfo(before.dtype).eps * before.abs().max()  # NaN is a change


def _in_attention(network: Network, name: str) -> bool:
    """Whether the layer lies inside a module, other than the network itself, whose class is called attention."""
    parts = name.split(".")
    above = (".".join(parts[:depth]) for depth in range(1, len(parts)))
    return any("attention" in type(network.module.get_submodule(part)).__name__.lower() for part in above)


def _reached(network: Network) -> frozenset[str]:
    """The maps at whose positions the logits of the example have a gradient other than 0, at one of them or more.

    The logits are summed with random weights, since their plain sum may be constant. All maps of a module that has no
    gradients, or fails to give them.
    """
    about = known(network)
    if about.reached is None or isinstance(network, ScoredNetwork):  # each score depends on maps of its own
        try:
            reached = _with_gradient(network)
        except Exception:  # the module may raise anything
            reached = frozenset(layer_maps(network))
        if isinstance(network, ScoredNetwork):
            return reached
        about.reached = reached
    return about.reached


@torch.inference_mode(False)
@torch.enable_grad()
def _with_gradient(network: Network) -> frozenset[str]:
    maps = layer_maps(network)
    reached: set[str] = set()

    def watching(name: str) -> Callable[[Tensor], Tensor]:
        def note(gradient: Tensor) -> None:
            if maps[name].channels_first(gradient).any():
                reached.add(name)

        def watch(output: Tensor) -> Tensor:
            output = output.clone()  # what follows may write into it, or take it from elsewhere
            if output.requires_grad:
                output.register_hook(note)
            return output

        return watch

    with ExitStack() as stack, torch.autocast(network.device.type, enabled=False):
        for name, form in maps.items():
            stack.enter_context(replacing(network.module, name, watching(name), form.runs))
        image = example_image(network).requires_grad_()
        logits = network.unfolded_logits(image)
    weights = torch.randn(
        logits.shape, generator=torch.Generator(device="cpu").manual_seed(0), device="cpu"
    ).to(logits)
    torch.autograd.grad(logits, image, weights)
    return frozenset(reached)


__all__ = ["check_influence", "no_influence", "read_maps", "responds"]
