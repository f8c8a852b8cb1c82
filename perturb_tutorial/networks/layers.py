"""Which layers of a network are maps of the image, and their shapes.

Four dimensions do not make a map: attention matrices, the heads of a transformer, tables of position biases and
the weights that a parametrization gives have four as well, many networks keep their channels last, and transformers
keep tokens. A layer's output, or the first tensor in it (module ``outputs``), is a map of an H×W image if it is
N×C×h×w, N×h×w×C or N×T×C (module ``forms``) and

(a) has one row an image: N is 1 for one image and 5 for five;
(b) has the image's shape: h/w is H/W, up to the pixels that strides and padding round off, with h, w ≥ 2;
(c) responds to position: a change in one quadrant of the image changes the same quadrant of the layer most (module
    ``places``).

Which form it has is decided by (b) and (c) as well. Layers with the same number of tokens have the same form: the one
with the largest sum of their contrasts (module ``places``).
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from perturb_tutorial.networks.forms import LayerMap, candidates
from perturb_tutorial.networks.hooks import of_this_thread
from perturb_tutorial.networks.network import Network
from perturb_tutorial.networks.outputs import first_tensor
from perturb_tutorial.networks.places import Response, quadrant_changes, quadrant_images

_ROUNDS = (4, 16)
"""Rounds of noise for a layer that one round does not decide, and for one that four do not: where the layer mixes much
of the image, and where it has few values to average over."""
_FEW_VALUES = 4096
"""Below this many values C·h·w one round may accept a layer but not reject it."""
_DOUBTFUL = 1000.0
"""A layer whose typical change is below this many roundings of its values is judged again in double precision."""


def layer_maps(network: Network) -> dict[str, LayerMap]:
    """Every layer whose output is a map, in the order in which they last ran; computed once for each network."""
    about = known(network)
    if not about.outputs:
        about.outputs = _look(network, about, network.layers)
    return {name: form for name in about.outputs if isinstance(form := about.found[name], LayerMap)}


def layer_map(network: Network, layer: str) -> LayerMap:
    """The form of ``layer``'s output.

    Raises:
        ValueError: for a layer that is unknown, that is not run, or whose output is no map of the image; it reports
            what the output is, and names layers that are maps.
    """
    network.layer(layer)
    about = known(network)
    if layer not in about.found and any(
        output.has_tokens for output in _look(network, about, [layer]).values()
    ):
        layer_maps(network)  # layers with tokens are judged together
    found = about.found[layer]
    if isinstance(found, LayerMap):
        return found
    maps = _examples(network)
    if not found:
        raise ValueError(
            f"layer: {layer!r} is not run in the forward pass; layers of {network.name} that are maps: {maps}"
        )
    raise ValueError(
        f"layer: {layer!r} has no spatial features (expected N×C×h×w, N×h×w×C or tokens N×T×C with h, w ≥ 2, got "
        f"{found}); layers of {network.name} that are maps: {maps}"
    )


def _examples(network: Network) -> str:
    """The names of maps of the most common sizes, the outermost and last of each, from the input on."""
    maps = layer_maps(network)
    sizes = [size for size, _ in Counter(form.size for form in maps.values()).most_common(5)]
    of_size = [[name for name in maps if maps[name].size == size] for size in sorted(sizes, reverse=True)]
    return ", ".join(min(reversed(names), key=lambda name: name.count(".")) for names in of_size) or "none"


def later_tokens(network: Network, layer: str, *, maps: bool) -> tuple[int, ...] | None:
    """The shape, for one image, of the last layer with tokens that is run after ``layer``; None without one.

    ``maps``: whether tokens that are a map of the image count, too.
    """
    found = layer_maps(network)
    outputs = list(known(network).outputs.items())
    after = outputs[[name for name, _ in outputs].index(layer) + 1 :]
    shapes = [output.form for name, output in after if output.has_tokens and (maps or name not in found)]
    return shapes[-1] if shapes else None


def example_image(network: Network) -> Tensor:
    """A gray image with a little noise, 1×3×H×W: a flat one would leave whole layers without a signal."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    noise = torch.rand(
        1, network.channels, *_sides(network), generator=generator, dtype=torch.float32, device="cpu"
    )
    return (0.3 + 0.4 * noise).to(network.device)


def _sides(network: Network) -> tuple[int, int]:
    """(H, W) of the input."""
    return network.input_shape


class _Output(NamedTuple):
    """The output of a layer's last run for one image: a tensor's shape, or what ``other`` it is."""

    form: tuple[int, ...]
    runs: int
    other: str = ""

    @property
    def has_tokens(self) -> bool:
        """Whether it is N×T×C, or T×N×C, with more than one token and more than one channel."""
        return len(self.form) == 3 and 1 in self.form[:2] and sorted(self.form)[1] > 1


@dataclass
class _Known:
    """What is known about the layers of a module.

    ``found``: a map, or a phrase about the output that is none. ``outputs``: those of all layers in the order in which
    they last ran, empty until all were examined. ``reached``: module ``influence`` notes there what it finds.
    """

    layers: tuple[tuple[str, int], ...]
    sides: tuple[int, int]
    found: dict[str, LayerMap | str] = field(default_factory=dict)
    outputs: dict[str, _Output] = field(default_factory=dict)
    reached: frozenset[str] | None = None


_KNOWN: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def known(network: Network) -> _Known:
    """What is known about ``network``'s layers; nothing where a layer was replaced by another since."""
    sides = _sides(network)
    layers = tuple((name, id(layer)) for name, layer in network.module.named_modules())
    about = _KNOWN.get(network.module)
    if about is None or about.layers != layers or about.sides != sides:
        about = _KNOWN[network.module] = _Known(layers, sides)
    return about


def _look(network: Network, about: _Known, names: Collection[str]) -> dict[str, _Output]:
    """Examines the layers ``names``, notes the result in ``about`` and returns their outputs.

    A pass with one image gives the shapes, a pass with five images shows whether outputs of a map's shape are maps.
    """
    outputs = _outputs(network, quadrant_images(about.sides, 0, network.channels)[:1], names)
    runs = {name: output.runs for name, output in outputs.items() if candidates(output.form, about.sides)}
    responses = _responses(network, runs, about.sides, 0)
    resolution = _DOUBTFUL * torch.finfo(network.dtype).eps
    small = [name for name, seen in responses.items() if 0 < seen.share < resolution and not seen.clear]
    responses.update(_in_double_precision(network, {name: runs[name] for name in small}, about.sides))
    for before, rounds in zip((1, *_ROUNDS), _ROUNDS, strict=False):
        unclear = {name: runs[name] for name, seen in responses.items() if seen.is_open(few=_FEW_VALUES)}
        for number in range(before, rounds):
            for name, again in _responses(network, unclear, about.sides, number).items():
                for form, changes in responses[name].changes.items():
                    changes += again.changes.get(form, [])
    clear = _clear_forms(responses)
    for name in names:
        seen = responses.get(name)
        about.found[name] = _judged(outputs.get(name), seen, clear.get(name), about.sides)
    return outputs


def _clear_forms(responses: dict[str, Response]) -> dict[str, LayerMap]:
    """The form in which each layer clearly responds to position; of tokens the one that the layers agree on."""
    clear = {name: seen.clear for name, seen in responses.items()}
    total: defaultdict[LayerMap, float] = defaultdict(float)
    for contrasts in clear.values():
        for form, contrast in contrasts.items():
            total[form._replace(channels=0)] += contrast

    def best(name: str) -> LayerMap | None:
        own = clear[name]
        weights = {
            form: total[form._replace(channels=0)] if form.tokens else own.get(form, 0.0)
            for form in responses[name].changes
        }
        most = max(weights, key=lambda form: weights[form]) if weights else None
        return most if most in own else None

    return {name: chosen for name in responses if (chosen := best(name)) is not None}


def _judged(
    output: _Output | None, seen: Response | None, form: LayerMap | None, sides: tuple[int, int]
) -> LayerMap | str:
    """``form`` with its runs, or a phrase that describes the output if it is no map (empty for a layer not run)."""
    if output is None:
        return ""
    if output.other:
        return output.other
    got = f"{_times(output.form)} for one image"
    if len(output.form) not in (3, 4):
        return got
    if seen is None:
        if output.form[0] != 1:
            return f"{got}, more than one row"
        what = "which has" if len(output.form) == 4 else "whose tokens have"
        return f"{got}, {what} not the shape of the input, {_times(sides)}"
    if seen.shape != (5, *output.form[1:]):
        return f"{got} and {_times(seen.shape)} for five"
    if form is None:
        return f"{got}, whose positions do not respond to the positions of the image"
    return form._replace(runs=output.runs)


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


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
        runs = outputs.pop(name).runs + 1 if name in outputs else 1
        tensor = first_tensor(output)
        if tensor is None:
            outputs[name] = _Output((), runs, type(output).__name__)
        elif not tensor.is_floating_point():
            outputs[name] = _Output((), runs, f"values of {tensor.dtype}")
        else:
            outputs[name] = _Output(tuple(tensor.shape), runs)

    _pass(network, image, names, note)
    return outputs


def _responses(
    network: Network, runs: dict[str, int], sides: tuple[int, int], round_: int
) -> dict[str, Response]:
    """The response of each layer's last run to the five images; only numbers are kept, no tensors of the pass."""
    responses: dict[str, Response] = {}
    done: dict[str, int] = {}
    latest: list[tuple[Tensor, int, Response]] = []

    def respond(output: Tensor | None) -> Response:
        if output is None or output.shape[:1] != (5,) or not output.is_floating_point():
            return Response(() if output is None else tuple(output.shape), {}, 0.0)
        # A block often returns the very tensor of its last layer; an inference tensor has no version.
        version = -len(responses) - 1 if output.is_inference() else output._version
        if not latest or latest[0][0] is not output or latest[0][1] != version:
            changes, share = {}, 0.0
            for form in candidates((1, *output.shape[1:]), sides):
                change, share = quadrant_changes(form.channels_first(output))
                changes[form] = [change]
            latest[:] = [(output, version, Response(tuple(output.shape), changes, share))]
        _, _, seen = latest[0]
        return seen._replace(changes={form: list(rounds) for form, rounds in seen.changes.items()})

    def note(name: str, output: Any) -> None:
        done[name] = done.get(name, 0) + 1
        if done[name] >= runs[name]:
            responses[name] = respond(first_tensor(output))

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


__all__ = ["example_image", "later_tokens", "layer_map", "layer_maps"]
