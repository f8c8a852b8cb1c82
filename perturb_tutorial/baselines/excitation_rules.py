"""The rules of excitation backprop: how a unit's winning probability p is shared among the units below it.

Mass p is non-negative, sums to 1 at the logits, and goes down by (§3; Zhang et al., ECCV 2016)

    weighted sums   p_in = a⁺ · (W⁺)ᵀ (p_out / (W⁺ a⁺))      convolution (any groups), linear; no bias
    averages        the same with the average's own weights  pools, mean, sum
    residual sum    p_x = p_out · x⁺ / Σ x⁺                   +, +=, torch.add
    unchanged       p_in = p_out                              ReLU, ReLU6, BatchNorm, LRN, scale, shift
    gradient        max pooling, concatenation, reshaping, padding, dropout

with a⁺ = max(a, 0), W⁺ = max(W, 0); a quotient is 0 wherever its denominator is 0. The paper's networks have a ≥ 0
everywhere, so there a⁺ = a. In others, such as EfficientNet-Lite with its linear bottlenecks, a unit
with a ≤ 0 wins nothing. Mass is conserved: what enters a layer from above equals what leaves it below plus what stops
at units with W⁺a⁺ = 0 (or Σ x⁺ = 0).

The rules replace the operations of one forward pass, however they are spelled: :class:`ExcitationRules`
intercepts each torch function in this thread. Afterwards the graph is checked, so that an operation without a rule
(a sigmoid, a product of two activations), or one that the rules could not see (in a compiled part, in an
``autograd.Function``, module ``graphs``), raises an error that names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from perturb_tutorial.baselines.graphs import LayersOfOperations, function_of, hidden, operation_name
from perturb_tutorial.networks.gradients import graph_nodes

Function = Callable[..., Tensor]

GRADIENT_OPERATIONS = re.compile(
    r"(Adaptive|Mkldnn)?MaxPool\dD(WithIndices)?|Amax|Cat|Stack|Split(WithSizes)?|UnsafeSplit|Unbind|Chunk|Select|Slice"
    r"|(Unsafe)?View|Reshape(Alias)?|Squeeze|Unsqueeze|Transpose|T|Permute|Expand|Repeat|Flip|Roll|Unfold|AsStrided"
    r"|Alias|Clone|ToCopy|Pixel(Uns|S)huffle|ConstantPadNd|(Reflection|Replication)Pad\dD"
)
"""Operations that only choose, move or copy values: the gradient's own rule moves the mass with them."""


class Sum:
    """A sum that shares its mass: ``operation`` computes its value from activations, ``positive`` computes W⁺a⁺."""

    def __init__(self, operation: Function, positive: Function) -> None:
        self._operation, self._positive = operation, positive
        self.lost: Tensor | None = None
        """Mass that stopped here in the last pass down, one value an image."""

    def operation(self, *activations: Tensor) -> Tensor:
        """The value in the forward pass."""
        return self._operation(*activations)

    def positive(self, *activations: Tensor) -> Tensor:
        """W⁺a⁺ of ``activations`` a⁺, in proportion to which the mass is shared."""
        return self._positive(*activations)

    def share(self, mass: Tensor, activations: Iterable[Tensor]) -> list[Tensor]:
        """p_in of each of the ``activations`` a⁺ from p_out = ``mass``."""
        with torch.enable_grad():
            leaves = [value.detach().requires_grad_() for value in activations]
            total = self.positive(*leaves)
            # Below the smallest normal number a quotient may overflow; such a sum counts as 0.
            wins = total.detach() >= torch.finfo(total.dtype).tiny
            quotient = torch.where(wins, mass / torch.where(wins, total.detach(), 1.0), 0.0)
            shares = torch.autograd.grad(total, leaves, quotient)
        self.lost = torch.where(wins, 0.0, mass).flatten(1).sum(1)
        return [leaf.detach() * share for leaf, share in zip(leaves, shares, strict=True)]


class WeightedSum(Sum):
    """A convolution or a linear layer; with ``negated`` the shares are those under −W.

    Its two forms are methods: a function stored on the instance that refers to the instance would be a reference cycle,
    and the whole graph below would live until the garbage collector runs, which does not count tensors' bytes.
    """

    def __init__(
        self, function: Function, below: Tensor, weight: Tensor, bias: Any, rest: Any, named: Any
    ) -> None:
        def run(value: Tensor, by: Tensor, shift: Any) -> Any:
            return function(value, by, shift, *rest, **named)

        super().__init__(lambda value: run(value, weight, bias), lambda value, by: run(value, by, None))
        self.below = below
        self.negated = False
        self._weight = weight

    def positive(self, *activations: Tensor) -> Tensor:
        weight = -self._weight if self.negated else self._weight
        return super().positive(*activations, weight.detach().clamp(min=0))


class _ShareMass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rule: Sum, *activations: Tensor) -> Tensor:
        # Positive parts are copies, so an in-place operation that follows cannot change them.
        ctx.save_for_backward(*(value.clamp(min=0) for value in activations))
        ctx.rule = rule
        result: Tensor = rule.operation(*activations)
        if result is activations[0]:
            ctx.mark_dirty(result)
        return result

    @staticmethod
    def backward(ctx: Any, *masses: Tensor) -> Any:
        return (None, *ctx.rule.share(masses[0], ctx.saved_tensors))


class _PassMass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operation: Function, value: Tensor) -> Tensor:
        result: Tensor = operation(value)
        if result is value:
            ctx.mark_dirty(result)
        return result

    @staticmethod
    def backward(ctx: Any, *masses: Tensor) -> Any:
        return None, masses[0]


class ExcitationRules(TorchFunctionMode):
    """Within this context operations on activations that need a gradient follow the rules of this module.

    ``constants``: the network's parameters and buffers, which carry no mass.
    """

    def __init__(self, constants: Iterable[Tensor]) -> None:
        super().__init__()
        self.sums: list[Sum] = []
        self._constants = {value.untyped_storage().data_ptr() for value in constants}

    @property
    def classifier(self) -> WeightedSum:
        """The last linear or convolutional layer."""
        weighted = [rule for rule in self.sums if isinstance(rule, WeightedSum)]
        if not weighted:
            raise ValueError(
                "layer: no linear or convolutional layer lies between it and the logits; name a lower one"
            )
        return weighted[-1]

    def is_constant(self, value: Any) -> bool:
        """Whether ``value`` is a number, a parameter, a buffer, or a view of one."""
        if not isinstance(value, Tensor):
            return isinstance(value, int | float)
        return not value.requires_grad and value.untyped_storage().data_ptr() in self._constants

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        rule = _RULES.get(getattr(func, "__name__", "").strip("_"))
        if rule is not None and torch.is_grad_enabled():  # it is not inside an autograd.Function
            values = [*args, *named.values()]
            if any(isinstance(value, Tensor) and value.requires_grad for value in values):
                result = rule(self, func, list(args), dict(named))
                if result is not None:
                    return result
        return func(*args, **named)

    def share(self, rule: Sum, *activations: Tensor) -> Tensor:
        """The value of ``rule`` on ``activations``; on the way back its mass is shared among them."""
        self.sums.append(rule)
        return _ShareMass.apply(rule, *activations)  # type: ignore[no-any-return, no-untyped-call]


# A rule gets (mode, function, positional and named arguments) and returns the operation's value, or None
# where it does not apply; the operation then runs unchanged, and check_graph reports it.


def _take(args: list[Any], named: dict[str, Any], name: str) -> Any:
    return args.pop(0) if args else named.pop(name, None)


def _weighted(mode: ExcitationRules, func: Function, args: list[Any], named: dict[str, Any]) -> Tensor | None:
    value, weight, bias = (_take(args, named, name) for name in ("input", "weight", "bias"))
    if not value.requires_grad:
        return None
    return mode.share(WeightedSum(func, value, weight, bias, args, named), value)


def _average(mode: ExcitationRules, func: Function, args: list[Any], named: dict[str, Any]) -> Tensor | None:
    value = _take(args, named, "input")

    def run(activation: Tensor) -> Any:
        return func(activation, *args, **named)

    return mode.share(Sum(run, run), value)


def _pair(args: list[Any], named: dict[str, Any]) -> list[Any]:
    """The two values of ``a + b``, ``torch.add(a, b)`` or ``torch.add(input=a, other=b)``, taken out."""
    return [_take(args, named, name) for name in ("input", "other")]


def _add(mode: ExcitationRules, func: Function, args: list[Any], named: dict[str, Any]) -> Tensor | None:
    pair = _pair(args, named)
    if any(mode.is_constant(value) for value in pair):
        return _constant(mode, func, [*pair, *args], named)
    if args or named or pair[0].shape != pair[1].shape:
        return None
    return mode.share(Sum(func, torch.add), *pair)


def _constant(mode: ExcitationRules, func: Function, args: list[Any], named: dict[str, Any]) -> Tensor | None:
    """Scale or shift by a constant; only in ``constant + a`` and ``constant * a`` may the constant come first."""
    pair = _pair(args, named)
    if args or not any(mode.is_constant(value) for value in pair):
        return None
    first = not mode.is_constant(pair[0])
    if not first and func.__name__.strip("_") not in ("add", "mul"):
        return None
    value, other = pair if first else pair[::-1]
    if isinstance(other, Tensor) and (value + other).shape != value.shape:
        return None
    return _pass(
        lambda activation: func(*((activation, other) if first else (other, activation)), **named), value
    )


def _unchanged(
    mode: ExcitationRules, func: Function, args: list[Any], named: dict[str, Any]
) -> Tensor | None:
    value = _take(args, named, "input")
    return _pass(lambda activation: func(activation, *args, **named), value)


def _clip(mode: ExcitationRules, func: Function, args: list[Any], named: dict[str, Any]) -> Tensor | None:
    """ReLU6 as Hardtanh or clamp; a clip that does not start at 0 is no rectifier."""
    lower = args[1] if len(args) > 1 else named.get("min_val", named.get("min"))
    is_rectifier = isinstance(lower, int | float) and lower == 0
    return _unchanged(mode, func, args, named) if is_rectifier else None


def _pass(operation: Function, value: Tensor) -> Tensor:
    return _PassMass.apply(operation, value)  # type: ignore[no-any-return, no-untyped-call]


_Rule = Callable[[ExcitationRules, Function, list[Any], dict[str, Any]], Tensor | None]


def _table(*rows: tuple[_Rule, str]) -> dict[str, _Rule]:
    return {name: rule for rule, names in rows for name in names.split()}


# By the function's name without underscores: relu is also relu_, iadd is +=, radd is constant + a.
_RULES = _table(
    (_weighted, "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear"),
    (
        _average,
        "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d",
    ),
    (_average, "mean sum"),
    (_add, "add iadd radd"),
    (_constant, "sub isub mul imul rmul div idiv truediv itruediv"),
    (_unchanged, "relu relu6 batch_norm local_response_norm"),
    (_clip, "hardtanh clamp clamp_min clip"),
)


_RUN_UNSEEN = {"Convolution", "Relu", "AvgPool2D"}
"""Operations with rules. They appear as torch's own nodes only where the call could not be intercepted."""

_CHECKPOINT = (
    "part of the module is under hooks on saved tensors, as of a checkpoint, whose second run no rule sees"
)


@contextmanager
def without_second_runs(method: str) -> Iterator[None]:
    """Within the block hooks on saved tensors raise ``ValueError``: checkpoints other than those that a network's
    passes do without (module ``networks.checkpoints``) run a part again during the backward pass, when the rules of
    this module no longer apply.
    """
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks(_CHECKPOINT):
            yield
    except RuntimeError as error:
        if str(error) != _CHECKPOINT:
            raise
        raise ValueError(f"{method}: {_CHECKPOINT}; turn checkpointing off") from error


def check_graph(logits: Tensor, layers: LayersOfOperations, method: str) -> None:
    """Raises ``ValueError`` that names the operation where ``logits`` depend on one without a rule in ``method``;
    ``layers``: of the same pass.
    """
    for node in graph_nodes(logits):
        if function_of(node) in (_ShareMass, _PassMass):
            continue
        name, unseen = operation_name(node), hidden(node)
        if unseen is None and (
            function_of(node) is not None  # DataParallel's scatter and gather
            or GRADIENT_OPERATIONS.fullmatch(name)
            or name == "torch::autograd::AccumulateGrad"
        ):
            continue
        what = f"{method}: no rule for the operation {layers[node]}"
        if unseen is not None:
            raise ValueError(f"{what}, {unseen.why}; {unseen.remedy}, or name a layer above it")
        if name in _RUN_UNSEEN:
            raise ValueError(
                f"{what} in a scripted or parallel part, where calls are not seen; pass the module without torch.jit "
                "and DataParallel, or name a layer above it"
            )
        raise ValueError(
            f"{what} between the layer read and the logits; name a layer above it, or use another method"
        )
