"""Network: a frozen classifier that takes pixels.

It owns the normalization (x − mean) / std, class names and named layers. Pixels are N×3×H×W float tensors in
[0, 1], RGB. Logits are N×K; a score is a softmax probability.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from perturb_tutorial._forks import check_not_forked
from perturb_tutorial.networks.checkpoints import without_checkpoints
from perturb_tutorial.networks.checks import (
    MODULE_EXPECTED,
    as_logits,
    check_function_of_the_image,
    check_pixels,
    example_logits,
    other_images,
)
from perturb_tutorial.networks.class_table import ClassTable
from perturb_tutorial.networks.folding import fold_batchnorm
from perturb_tutorial.networks.formats import in_own_format


def pick_device(device: str | torch.device | None = "auto") -> torch.device:
    """The device by its name; "auto" is cuda, else mps, else cpu. ``ValueError`` for one that torch cannot use here."""
    if device is None or device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except Exception as error:  # a missing backend may raise anything
        raise ValueError(
            f"device: {device!r} cannot be used here; expected auto, cpu, cuda or mps"
        ) from error
    return chosen


class Network:
    """A classifier of N×3×H×W pixels in [0, 1], frozen: a copy of ``module`` in evaluation mode, without gradients.

    The attribute ``module`` is that copy: layer names and comparison methods refer to it. Scores and masks use a second
    copy whose BatchNorms are folded into the convolutions; its logits agree to 1e-4. Weights in half precision become
    float32 in these copies (module ``networks.formats``); ``dtype`` is the format of the module's input.

    Args:
        module: returns N×K logits (or an object with ``.logits``). It is copied, never changed.
        mean: 3 numbers in pixel units; the module gets (x − mean) / std.
        std: 3 numbers above 0 in pixel units.
        input_size: side of the square input in image px.
        categories: K names, a :class:`ClassTable`, or None for "class 0" and so on.
        name: how messages and tables call the network; None is the module's class.
        device: where it runs (:func:`pick_device`).
        channels_last: memory layout of the copy behind scores and masks; None chooses it where it is faster (a module
            with 2-d convolutions on CPU or CUDA).

    Raises:
        ValueError: for an argument of the wrong form, a module that fails on a gray image or on several images, one
            with a single logit, and one whose logits for an image change with its neighbors in the batch or from one
            pass to the next (module ``networks.checks``).
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        module: nn.Module,
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        input_size: int = 224,
        categories: Sequence[str] | ClassTable | None = None,
        name: str | None = None,
        device: str | torch.device = "auto",
        channels_last: bool | None = None,
    ) -> None:
        check_not_forked()
        if not isinstance(module, nn.Module):
            raise ValueError(f"{MODULE_EXPECTED}, got {type(module).__name__}")
        for argument, values in (("mean", mean), ("std", std)):
            if len(values) != 3:
                raise ValueError(f"{argument}: expected 3 numbers, one a color, got {len(values)}")
        if min(std) <= 0:
            raise ValueError(f"std: expected numbers above 0, got {tuple(std)}")
        if isinstance(input_size, bool) or not isinstance(input_size, int) or input_size < 8:
            raise ValueError(
                f"input_size: expected a whole number of at least 8 image px, got {input_size!r}"
            )
        self.name = name or type(module).__name__
        self.input_size = input_size
        self.device = pick_device(device)
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self._normalization: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        self.module = _copied(module).to(self.device)
        with torch.autocast(self.device.type, enabled=False), without_checkpoints():
            gray = torch.full((1, 3, input_size, input_size), 0.5, dtype=torch.float32, device=self.device)
            example = self.normalize(gray) + 0.1 * _noise(input_size).to(self.device)
            self.module, self.dtype = in_own_format(self.module, example)
            example = example.to(self.dtype)
            logits = example_logits(self.module, example)
            self.class_count = logits.shape[1]
            self.labels = _labels(categories, self.class_count)
            others = self.normalize(other_images(input_size).to(self.device)).to(self.dtype)
            check_function_of_the_image(self.module, example, others, logits)
            self._folded = self._fold(example).requires_grad_(False)
        self._channels_last = channels_last
        self._lay_out()

    def _fold(self, example: Tensor) -> nn.Module:
        """The folded copy, compared on the CPU: a GPU's rounding (TF32) may exceed the tolerance of the comparison."""
        module = _LogitsOnly(self.module)
        if self.device.type == "cpu":
            return fold_batchnorm(module, example)
        on_cpu = copy.deepcopy(module).cpu()
        try:
            folded = fold_batchnorm(on_cpu, example.cpu())
        except Exception:  # a module that runs on its own device only
            return fold_batchnorm(module, example)
        return module if folded is on_cpu else folded.to(self.device)

    def _lay_out(self) -> None:
        """Decides ``channels_last`` for the device, and brings the folded copy into that layout."""
        convolves = any(isinstance(layer, nn.Conv2d) for layer in self.module.modules())
        faster = convolves and self.device.type in ("cpu", "cuda")
        self.channels_last = faster if self._channels_last is None else self._channels_last
        if self._folded_is_a_copy:
            layout = torch.channels_last if self.channels_last else torch.contiguous_format
            self._folded.to(memory_format=layout)  # type: ignore[call-overload]  # no such form in torch's stub

    @property
    def _folded_is_a_copy(self) -> bool:
        return cast(_LogitsOnly, self._folded).module is not self.module

    def __repr__(self) -> str:
        what = f"input_size={self.input_size}, classes={self.class_count}, device={str(self.device)!r}"
        return f"Network({self.name!r}, {what})"

    @torch.inference_mode(False)
    def to(self, device: str | torch.device) -> Network:
        """This network on ``device``: itself if it is there already, else a copy."""
        target = pick_device(device)
        if target == self.device or (target.type == self.device.type and target.index is None):
            return self
        moved = copy.copy(self)
        moved.device = target
        moved.module = copy.deepcopy(self.module).to(target)
        moved._folded = (
            copy.deepcopy(self._folded).to(target) if self._folded_is_a_copy else _LogitsOnly(moved.module)
        )
        moved._lay_out()
        return moved

    @property
    def categories(self) -> list[str]:
        """The K class names."""
        return [names[0] for names in self.labels.names]

    @property
    def mean_color(self) -> Tensor:
        """The 3 values in [0, 1] that the normalization maps to 0."""
        return torch.tensor(self.mean, dtype=torch.float32)

    def normalize(self, images: Tensor) -> Tensor:
        """The input of ``module``: (x − mean) / std for pixels N×3×H×W."""
        place = (images.device, images.dtype)
        if (
            place not in self._normalization
        ):  # kept there: a copy from the CPU's memory cannot be recorded by a GPU
            with torch.inference_mode(False):
                mean, std = (
                    torch.tensor(values, device=images.device, dtype=images.dtype).view(1, 3, 1, 1)
                    for values in (self.mean, self.std)
                )
            self._normalization[place] = mean, std
        mean, std = self._normalization[place]
        return (images - mean) / std

    def _inputs(self, images: Tensor) -> Tensor:
        """Normalized pixels on the network's device, in the format of its input."""
        exact = torch.promote_types(self.dtype, torch.float32)
        return self.normalize(images.to(self.device, exact)).to(self.dtype)

    def normalized_logits(self, inputs: Tensor) -> Tensor:
        """Logits N×K of normalized inputs by the folded copy, also under autocast; differentiable in the inputs."""
        check_not_forked()
        inputs = inputs.to(self.dtype)
        if self.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with without_checkpoints():
            return cast(Tensor, self._folded(inputs))

    def logits(self, images: Tensor) -> Tensor:
        """Logits N×K of pixels N×3×H×W in [0, 1], on the network's device; differentiable in the pixels.

        They are computed in the module's own number format, whatever autocast the caller has switched on.
        """
        check_not_forked()
        with torch.autocast(self.device.type, enabled=False):
            return self.normalized_logits(self._inputs(images))

    def unfolded_logits(self, images: Tensor) -> Tensor:
        """The same logits by ``module`` itself, whose named layers run in this pass; differentiable in the pixels."""
        check_not_forked()
        with torch.autocast(self.device.type, enabled=False), without_checkpoints():
            return as_logits(self.module(self._inputs(images)))

    @property
    def folded_logits(self) -> nn.Module:
        """The module behind ``normalized_logits``: normalized inputs → logits N×K."""
        return self._folded

    @property
    def folded(self) -> nn.Module:
        """The copy behind ``logits``, with ``module``'s layer names; ``module`` itself where nothing was folded."""
        return cast(_LogitsOnly, self._folded).module

    def scores(self, images: Tensor) -> Tensor:
        """Softmax probabilities N×K, float32, of pixels N×3×H×W in [0, 1]; differentiable in the pixels."""
        return self.logits(images).float().softmax(1)

    @property
    def layers(self) -> list[str]:
        """The names of the module's layers, in the order of their definition."""
        return [name for name, _ in self.module.named_modules() if name]

    def layer(self, name: str) -> nn.Module:
        """The module's layer called ``name``; ``ValueError`` names the nearest ones if it is unknown."""
        layers: dict[str, nn.Module] = dict(self.module.named_modules())
        if name not in layers or not name:
            import difflib

            near = difflib.get_close_matches(name, self.layers, n=5) or self.layers[:8]
            raise ValueError(f"layer: {self.name} has no layer {name!r}; near it or first: {', '.join(near)}")
        return layers[name]

    def class_index(self, text: str) -> int:
        """The class that ``text`` denotes: an index, a wnid or an exact name (:meth:`ClassTable.find`)."""
        return self.labels.find(text)

    def check_images(self, images: Tensor) -> Tensor:
        """``images`` if it is N×3×S×S floating point, finite, in [0, 1], S the input size; else ``ValueError``."""
        check_not_forked()
        return check_pixels(images, self.input_size)


def top_classes(network: Network, images: Tensor, k: int = 5) -> list[list[int]]:
    """The ``k`` classes of the highest scores for each of N images, best first: targets for :func:`learn_masks`."""
    network.check_images(images)
    if not 1 <= k <= network.class_count:
        raise ValueError(f"k: expected 1 to {network.class_count} classes, got {k}")
    with torch.inference_mode():
        rows = [network.logits(part).topk(k, 1).indices for part in images.split(16)]
    return cast("list[list[int]]", torch.cat(rows).tolist()) if rows else []


def best_targets(network: Network, images: Tensor, count: int) -> list[list[int]]:
    """The ``count`` best classes of each of N images, whose scores are summed (eq. 2), best first.

    For a network with no more classes than that, all but the worst: the scores of all classes sum to 1 on any image,
    so no mask would change the sum.
    """
    return top_classes(network, images, min(count, network.class_count - 1))


class _LogitsOnly(nn.Module):
    """The module with nothing but its logits as output."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        return as_logits(self.module(inputs))


def _noise(size: int) -> Tensor:
    """Normally distributed, 1×3×size×size."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, size, size, generator=generator, dtype=torch.float32)


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module).eval().requires_grad_(False)
    except Exception as error:  # the module's own copying may raise anything
        raise ValueError(
            f"module: it cannot be copied and frozen ({type(error).__name__}: {error})"
        ) from error


def _labels(categories: Sequence[str] | ClassTable | None, count: int) -> ClassTable:
    if categories is None:
        return ClassTable([(f"class {index}",) for index in range(count)])
    table = (
        categories
        if isinstance(categories, ClassTable)
        else ClassTable([(str(name),) for name in categories])
    )
    if len(table) != count:
        raise ValueError(f"categories: expected {count} names, one for each logit, got {len(table)}")
    return table
