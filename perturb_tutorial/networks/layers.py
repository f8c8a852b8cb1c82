"""Which layers of a network are maps of the image, and their shapes.

Four dimensions do not make a map: attention matrices, the heads of a transformer, tables of position biases and
the weights that a parametrization gives have four as well, and many networks keep their channels last. A layer's
output is a map of an H×W image if it is N×C×h×w or N×h×w×C and

(a) has one row an image: N is 1 for one image and 5 for five;
(b) has the image's shape: h/w is H/W, up to the pixels that strides and padding round off, with h, w ≥ 2;
(c) responds to position: a change in one quadrant of the image changes the same quadrant of the layer most (module
    ``places``).

Which of the two layouts it has is decided by (b) and (c) as well.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from perturb_tutorial.networks.hooks import of_this_thread
from perturb_tutorial.networks.network import Network
from perturb_tutorial.networks.places import Response, quadrant_changes, quadrant_images

_ROUNDS = (4, 16)
"""Rounds of noise for a layer that one round does not decide, and for one that four do not: where the layer mixes much
of the image, and where it has few values to average over."""
_FEW_VALUES = 4096
"""Below this many values C·h·w one round may accept a layer but not reject it."""
_DOUBTFUL = 1000.0
"""A layer whose typical change is below this many roundings of its values is judged again in double precision."""


class LayerMap(NamedTuple):
    """The form of a layer's output that is a map of the image: its ``channels`` and its h×w positions.

    ``channels_last``: it is N×h×w×C, else N×C×h×w. ``runs``: how often the layer runs in a pass; the form is that of
    its last run.
    """

    channels: int
    height: int
    width: int
    channels_last: bool = False
    runs: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        return (self.height, self.width)

    def channels_first(self, values: Tensor) -> Tensor:
        """``values`` in the form of the layer's output, as a view N×C×h×w."""
        return values.permute(0, 3, 1, 2) if self.channels_last else values

    def as_output(self, values: Tensor) -> Tensor:
        """``values`` N×C×h×w (any of these may be 1), as a view in the form of the layer's output."""
        return values.permute(0, 2, 3, 1) if self.channels_last else values


def layer_maps(network: Network) -> dict[str, LayerMap]:
    """Every layer whose output is a map, in the order in which they last ran; computed once for each network."""
    known = _known(network)
    if not known.outputs:
        known.outputs = _look(network, known, network.layers)
    return {name: form for name in known.outputs if isinstance(form := known.found[name], LayerMap)}


def layer_map(network: Network, layer: str) -> LayerMap:
    """The form of ``layer``'s output.

    Raises:
        ValueError: for a layer that is unknown, that is not run, or whose output is no map of the image; it reports
            what the output is, and names layers that are maps.
    """
    network.layer(layer)
    known = _known(network)
    if layer not in known.found:
        _look(network, known, [layer])
    found = known.found[layer]
    if isinstance(found, LayerMap):
        return found
    maps = _examples(network)
    if not found:
        raise ValueError(
            f"layer: {layer!r} is not run in the forward pass; layers of {network.name} that are maps: {maps}"
        )
    raise ValueError(
        f"layer: {layer!r} has no spatial features (expected N×C×h×w or N×h×w×C with h, w ≥ 2, got {found}); layers of "
        f"{network.name} that are maps: {maps}"
    )


def _examples(network: Network) -> str:
    """The names of maps of the most common sizes, the outermost and last of each, from the input on."""
    maps = layer_maps(network)
    sizes = [size for size, _ in Counter(form.size for form in maps.values()).most_common(5)]
    of_size = [[name for name in maps if maps[name].size == size] for size in sorted(sizes, reverse=True)]
    return ", ".join(min(reversed(names), key=lambda name: name.count(".")) for names in of_size) or "none"


def later_tokens(network: Network, layer: str) -> tuple[int, ...] | None:
    """The shape N×T×C, for one image, of the last layer with tokens that is run after ``layer``; None without one."""
    layer_maps(network)
    outputs = list(_known(network).outputs.items())
    after = outputs[[name for name, _ in outputs].index(layer) + 1 :]
    shapes = [output.form for _, output in after if isinstance(output.form, tuple)]
    return next((shape for shape in reversed(shapes) if len(shape) == 3 and min(shape[1:]) > 1), None)


def example_image(network: Network) -> Tensor:
    """A gray image with a little noise, 1×3×H×W: a flat one would leave whole layers without a signal."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, network.channels, *_sides(network), generator=generator, dtype=torch.float32)
    return (0.3 + 0.4 * noise).to(network.device)


def _sides(network: Network) -> tuple[int, int]:
    """(H, W) of the input."""
    return network.input_shape


class _Output(NamedTuple):
    """The output of a layer's last run for one image: a tensor's shape, or the name of another type."""

    form: tuple[int, ...] | str
    runs: int


@dataclass
class _Known:
    """What is known about the layers of a module.

    ``found``: a map, or a phrase about the output that is none. ``outputs``: those of all layers in the order in which
    they last ran, empty until all were examined.
    """

    layers: tuple[tuple[str, int], ...]
    sides: tuple[int, int]
    found: dict[str, LayerMap | str] = field(default_factory=dict)
    outputs: dict[str, _Output] = field(default_factory=dict)


_KNOWN: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def _known(network: Network) -> _Known:
    """What is known about ``network``'s layers; nothing where a layer was replaced by another since."""
    sides = _sides(network)
    layers = tuple((name, id(layer)) for name, layer in network.module.named_modules())
    known = _KNOWN.get(network.module)
    if known is None or known.layers != layers or known.sides != sides:
        known = _KNOWN[network.module] = _Known(layers, sides)
    return known


def _look(network: Network, known: _Known, names: Collection[str]) -> dict[str, _Output]:
    """Examines the layers ``names``, notes the result in ``known`` and returns their outputs.

    A pass with one image gives the shapes, a pass with five images shows whether outputs of a map's shape are maps.
    """
    outputs = _outputs(network, quadrant_images(known.sides, 0, network.channels)[:1], names)
    runs = {name: output.runs for name, output in outputs.items() if _layouts(output.form, known.sides)}
    responses = _responses(network, runs, known.sides, 0)
    resolution = _DOUBTFUL * torch.finfo(network.dtype).eps
    small = [name for name, seen in responses.items() if 0 < seen.share < resolution and seen.layout is None]
    responses.update(_in_double_precision(network, {name: runs[name] for name in small}, known.sides))
    for before, rounds in zip((1, *_ROUNDS), _ROUNDS, strict=False):
        unclear = {name: runs[name] for name, seen in responses.items() if seen.is_open(few=_FEW_VALUES)}
        for number in range(before, rounds):
            for name, again in _responses(network, unclear, known.sides, number).items():
                for last, changes in responses[name].changes.items():
                    changes += again.changes.get(last, [])
    for name in names:
        known.found[name] = _judged(outputs.get(name), responses.get(name), known.sides)
    return outputs


def _judged(output: _Output | None, seen: Response | None, sides: tuple[int, int]) -> LayerMap | str:
    """The form of a map, or a phrase that describes the output if it is none (empty for a layer that is not run)."""
    if output is None:
        return ""
    if isinstance(output.form, str):
        return output.form
    got = f"{_times(output.form)} for one image"
    if len(output.form) != 4:
        return got
    if seen is None:
        if output.form[0] != 1:
            return f"{got}, more than one row"
        return f"{got}, which has not the shape of the input, {_times(sides)}"
    if seen.shape != (5, *output.form[1:]):
        return f"{got} and {_times(seen.shape)} for five"
    channels_last = seen.layout
    if channels_last is None:
        return f"{got}, whose places do not answer to the places of the image"
    channels, (height, width) = _sizes(output.form, channels_last)
    return LayerMap(channels, height, width, channels_last, output.runs)


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _sizes(shape: tuple[int, ...], channels_last: bool) -> tuple[int, tuple[int, int]]:
    """C and (h, w) of a shape of four dimensions."""
    _, *rest = shape
    return (rest[2], (rest[0], rest[1])) if channels_last else (rest[0], (rest[1], rest[2]))


def _layouts(form: tuple[int, ...] | str, sides: tuple[int, int]) -> list[bool]:
    """The values of ``channels_last`` with which a shape for one image has the image's shape H×W."""
    if isinstance(form, str) or len(form) != 4 or form[0] != 1:
        return []
    return [last for last in (False, True) if _has_shape(_sizes(form, last)[1], sides)]


def _has_shape(size: tuple[int, int], sides: tuple[int, int]) -> bool:
    """Whether h/w is H/W, up to rounding.

    A stage rounds a side by at most 1 of its px. Convolutions without padding take the same small number of px off both
    sides, which is a larger share of the shorter one.
    """
    (h, w), (height, width) = size, sides
    rounding = 1 + 2 * (1 - min(height, width) / max(height, width))
    return min(h, w) >= 2 and abs(h * width - w * height) <= rounding * max(height, width)


def _in_double_precision(
    network: Network, runs: dict[str, int], sides: tuple[int, int]
) -> dict[str, Response]:
    """The responses of a copy in double precision; empty for a module that does not run in it."""
    try:
        exact = copy.copy(network)
        exact.module = copy.deepcopy(network.module).double() if runs else network.module
        exact.dtype = torch.float64
        return _responses(exact, runs, sides, 0)
    except Exception:  # the module or the device may raise anything
        return {}


def _outputs(network: Network, image: Tensor, names: Collection[str]) -> dict[str, _Output]:
    """The outputs of the layers for one image, in the order in which they last ran."""
    outputs: dict[str, _Output] = {}

    def note(name: str, output: Any) -> None:
        before = outputs.pop(name, None)
        form: tuple[int, ...] | str = type(output).__name__
        if isinstance(output, Tensor):
            form = tuple(output.shape) if output.is_floating_point() else f"values of {output.dtype}"
        outputs[name] = _Output(form, 1 if before is None else before.runs + 1)

    _pass(network, image, names, note)
    return outputs


def _responses(
    network: Network, runs: dict[str, int], sides: tuple[int, int], round_: int
) -> dict[str, Response]:
    """The response of each layer's last run to the five images; only numbers are kept, no tensors of the pass."""
    responses: dict[str, Response] = {}
    done: dict[str, int] = {}
    latest: list[tuple[Tensor, int, Response]] = []

    def respond(output: Any) -> Response:
        shape = tuple(output.shape) if isinstance(output, Tensor) else ()
        if len(shape) != 4 or shape[0] != 5 or not output.is_floating_point():
            return Response(shape, {}, 0.0)
        # A block often returns the very tensor of its last layer; an inference tensor has no version.
        version = -len(responses) - 1 if output.is_inference() else output._version
        if not latest or latest[0][0] is not output or latest[0][1] != version:
            changes, share = {}, 0.0
            for last in _layouts((1, *shape[1:]), sides):
                change, share = quadrant_changes(output.permute(0, 3, 1, 2) if last else output)
                changes[last] = [change]
            latest[:] = [(output, version, Response(shape, changes, share))]
        _, _, seen = latest[0]
        return seen._replace(changes={last: list(rounds) for last, rounds in seen.changes.items()})

    def note(name: str, output: Any) -> None:
        done[name] = done.get(name, 0) + 1
        if done[name] >= runs[name]:
            responses[name] = respond(output)

    if runs:
        _pass(network, quadrant_images(sides, round_, network.channels), runs, note)
    return responses


@torch.inference_mode(False)
@torch.no_grad()
def _pass(network: Network, images: Tensor, names: Collection[str], note: Callable[[str, Any], None]) -> None:
    """One pass of the module in its own precision, with ``note(name, output)`` called after each run of a layer."""

    def watch(name: str) -> Any:
        @of_this_thread
        def hook(_: nn.Module, inputs: Any, output: Any) -> None:
            note(name, output)

        return hook

    handles = [network.module.get_submodule(name).register_forward_hook(watch(name)) for name in names]
    try:
        with torch.autocast(network.device.type, enabled=False):
            network.output(images.to(network.device))
    finally:
        for handle in handles:
            handle.remove()


__all__ = ["LayerMap", "example_image", "later_tokens", "layer_map", "layer_maps"]
