"""Network: a frozen classifier that takes pixels.

It owns the normalization (x − mean) / std, class names and named layers. Pixels are N×C×H×W float tensors in
[0, 1], C = 3 for RGB, 1 for gray, 4 for RGBA or any other four. Logits are N×K; a score is a softmax probability.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from perturb_tutorial._forks import check_not_forked
from perturb_tutorial.networks.batchnorm_gradients import with_right_batchnorm_gradients
from perturb_tutorial.networks.checkpoints import without_checkpoints
from perturb_tutorial.networks.checks import (
    MODULE_EXPECTED,
    NotLogitsError,
    as_logits,
    check_function_of_the_image,
    check_pixels,
    example_logits,
    other_images,
)
from perturb_tutorial.networks.class_table import ClassTable, class_labels
from perturb_tutorial.networks.devices import pick_device
from perturb_tutorial.networks.folding import fold_batchnorm
from perturb_tutorial.networks.formats import in_own_format
from perturb_tutorial.networks.logits import LogitsOnly
from perturb_tutorial.objectives import class_score
from perturb_tutorial.sizes import Size, check_size, sides


class Network:
    """A classifier of N×C×H×W pixels in [0, 1], frozen: a copy of ``module`` in evaluation mode, without gradients.

    The attribute ``module`` is that copy: layer names and comparison methods refer to it. Scores and masks use a second
    copy whose BatchNorms are folded into the convolutions; its logits agree to 1e-4. Weights in half precision become
    float32 in these copies (module ``networks.formats``); ``dtype`` is the format of the module's input.

    Args:
        module: returns N×K logits (or an object with ``.logits``). It is copied, never changed. A module that returns
            something else is explained by a score of one's own (``score=`` of :func:`learn_masks`).
        mean: C numbers in pixel units, 1, 3 or 4 of them, which says how many channels an image has; the module gets
            (x − mean) / std.
        std: C numbers above 0 in pixel units.
        input_size: side of the input in image px where it is square, else (height, width), at least 8 each; the
            attribute is an int for a square however it was given, and ``input_shape`` always (height, width).
        categories: K names, a :class:`ClassTable`, or None for "class 0" and so on.
        name: how messages and tables call the network; None is the module's class.
        device: where it runs (``pick_device``).
        channels_last: memory layout of the copy behind scores and masks; None chooses it where it is faster (a module
            with 2-d convolutions on CPU or CUDA).

    Raises:
        ValueError: for an argument of the wrong form, a module that fails on a gray image or on several images, and one
            whose logits for an image change with its neighbors in the batch or from one pass to the next (module
            ``networks.checks``). Whatever needs logits raises it for a module that returns none, or a single one.

    Examples:
        >>> import torch
        >>> import perturb_tutorial as pt
        >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 2))
        >>> pt.Network(module, input_size=32, categories=["cat", "dog"], device="cpu")
        Network('Sequential', input_size=32, classes=2, device='cpu')
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        module: nn.Module,
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        input_size: Size = 224,
        categories: Sequence[str] | ClassTable | None = None,
        name: str | None = None,
        device: str | torch.device = "auto",
        channels_last: bool | None = None,
    ) -> None:
        check_not_forked()
        if not isinstance(module, nn.Module):
            raise ValueError(f"{MODULE_EXPECTED}, got {type(module).__name__}")
        for argument, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, 3, 4):
                raise ValueError(f"{argument}: expected 1, 3 or 4 numbers, one a channel, got {len(values)}")
        if len(mean) != len(std):
            raise ValueError(f"std: expected as many numbers as mean, {len(mean)}, got {len(std)}")
        if min(std) <= 0:
            raise ValueError(f"std: expected numbers above 0, got {tuple(std)}")
        self.input_size = check_size("input_size", input_size)
        self.name = name or type(module).__name__
        self.device = pick_device(device)
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self._normalization: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        self.module = _copied(module).to(self.device)
        self._read: Callable[[Any], Tensor] = as_logits
        self._not_logits: str | None = None
        self._labels: ClassTable | None = None
        with torch.autocast(self.device.type, enabled=False), without_checkpoints():
            self.module, self.dtype = in_own_format(self.module, self._example())
            self._folded = self._checked_and_folded(categories).requires_grad_(False)
        self._channels_last = channels_last
        self._lay_out()

    def _checked_and_folded(self, categories: Sequence[str] | ClassTable | None) -> nn.Module:
        """The copy behind scores and masks, after all checks; of a module without logits it is the module itself."""
        example, others = self.example_inputs()
        try:
            logits = example_logits(self.module, example)
        except NotLogitsError as error:
            if categories is not None:
                raise
            self._not_logits = f"{error}; score=FUNCTION explains another output"
            return LogitsOnly(self.module)
        self._labels = class_labels(categories, logits.shape[1])
        check_function_of_the_image(self.module, example, others, logits)
        return self._fold(example)

    def _fold(self, example: Tensor) -> nn.Module:
        """The folded copy, compared on the CPU: a GPU's rounding (TF32) may exceed the tolerance of the comparison."""
        module = LogitsOnly(self.module)
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
        return cast(LogitsOnly, self._folded).module is not self.module

    def __repr__(self) -> str:
        classes = None if self._labels is None else len(self._labels)
        what = f"input_size={self.input_size}, classes={classes}, device={str(self.device)!r}"
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
            copy.deepcopy(self._folded).to(target)
            if self._folded_is_a_copy
            else LogitsOnly(moved.module, self._read)
        )
        moved._lay_out()
        return moved

    @property
    def labels(self) -> ClassTable:
        """The classes; ``ValueError`` for a module that does not return logits."""
        if self._labels is None:
            raise NotLogitsError(self._not_logits)
        return self._labels

    @property
    def class_count(self) -> int:
        """K; ``ValueError`` for a module that does not return logits."""
        return len(self.labels)

    @property
    def categories(self) -> list[str]:
        """The K class names."""
        return [names[0] for names in self.labels.names]

    @property
    def input_shape(self) -> tuple[int, int]:
        """(height, width) of the input in image px."""
        return sides(self.input_size)

    @property
    def channels(self) -> int:
        """C, the number of channels of an image: 1, 3 or 4."""
        return len(self.mean)

    @property
    def mean_color(self) -> Tensor:
        """The C values in [0, 1] that the normalization maps to 0."""
        return torch.tensor(self.mean, dtype=torch.float32, device="cpu")

    def normalize(self, images: Tensor) -> Tensor:
        """The input of ``module``: (x − mean) / std for pixels N×C×H×W."""
        place = (images.device, images.dtype)
        if (
            place not in self._normalization
        ):  # kept there: a copy from the CPU's memory cannot be recorded by a GPU
            with torch.inference_mode(False):
                mean, std = (
                    torch.tensor(values, device=images.device, dtype=images.dtype).view(1, -1, 1, 1)
                    for values in (self.mean, self.std)
                )
            self._normalization[place] = mean, std
        mean, std = self._normalization[place]
        return (images - mean) / std

    def example_inputs(self) -> tuple[Tensor, Tensor]:
        """Normalized inputs for checks: an image 1×C×H×W, gray with noise, and two others, 2×C×H×W."""
        others = self.normalize(other_images(self.channels, self.input_shape).to(self.device))
        return self._example().to(self.dtype), others.to(self.dtype)

    def _example(self) -> Tensor:
        shape = (1, self.channels, *self.input_shape)
        gray = torch.full(shape, 0.5, dtype=torch.float32, device=self.device)
        seeded = torch.Generator(device="cpu").manual_seed(0)
        noise = torch.randn(shape, generator=seeded, dtype=torch.float32, device="cpu")
        return self.normalize(gray) + 0.1 * noise.to(self.device)

    def _inputs(self, images: Tensor) -> Tensor:
        """Normalized pixels on the network's device, in the format of its input."""
        exact = torch.promote_types(self.dtype, torch.float32)
        return self.normalize(images.to(self.device, exact)).to(self.dtype)

    def normalized_logits(self, inputs: Tensor) -> Tensor:
        """Logits N×K of normalized inputs by the folded copy, differentiable in them; a caller's autocast holds."""
        self._check_usable()
        inputs = inputs.to(self.dtype)
        if self.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with without_checkpoints():
            return cast(Tensor, self._folded(inputs))

    def logits(self, images: Tensor) -> Tensor:
        """Logits N×K of pixels N×C×H×W in [0, 1], on the network's device; differentiable in the pixels.

        They are computed in the module's own number format, whatever autocast the caller has switched on.
        """
        with torch.autocast(self.device.type, enabled=False):
            return self.normalized_logits(self._inputs(images))

    def unfolded_logits(self, images: Tensor) -> Tensor:
        """The same logits by ``module`` itself, whose named layers run in this pass; differentiable in the pixels."""
        self._check_usable()
        return self._read(self.output(images))

    def output(self, images: Tensor) -> Any:
        """What ``module`` itself returns for pixels N×C×H×W, on the network's device."""
        check_not_forked()
        with torch.autocast(self.device.type, enabled=False), without_checkpoints():
            return self.module(self._inputs(images))

    def _check_usable(self) -> None:
        check_not_forked()
        if self._not_logits is not None:
            raise NotLogitsError(self._not_logits)

    def target_scores(self, logits: Tensor, weights: Tensor, scale: str = "softmax") -> Tensor:
        """Σ_{c∈C} f_c, the score that a mask is to change: N values from N×K logits and weights, 1 for each class in C,
        0 elsewhere; with ``scale="logit"`` its log-odds.
        """
        return class_score(logits, weights, scale)

    @property
    def folded_logits(self) -> nn.Module:
        """The module behind ``normalized_logits``: normalized inputs → logits N×K."""
        return self._folded

    @property
    def folded(self) -> nn.Module:
        """The copy behind ``logits``, with ``module``'s layer names; ``module`` itself where nothing was folded."""
        return cast(LogitsOnly, self._folded).module

    def scores(self, images: Tensor) -> Tensor:
        """Softmax probabilities N×K, float32, of pixels N×C×H×W in [0, 1]; differentiable in the pixels."""
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

    def class_index(self, text: str | int) -> int:
        """The class that ``text`` denotes: an exact name, or else an index or a wnid (:meth:`ClassTable.find`)."""
        return self.labels.find(text)

    def check_images(self, images: Tensor) -> Tensor:
        """``images`` if it is N×C×H×W of the network's, floating point, finite, in [0, 1]; else ``ValueError``."""
        check_not_forked()
        return check_pixels(images, self.channels, self.input_shape)


def _copied(module: nn.Module) -> nn.Module:
    try:
        return with_right_batchnorm_gradients(copy.deepcopy(module).eval().requires_grad_(False))
    except Exception as error:  # the module's own copying may raise anything
        raise ValueError(
            f"module: it cannot be copied and frozen ({type(error).__name__}: {error})"
        ) from error
