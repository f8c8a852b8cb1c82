"""A forward pass that leaves a graph in which activations can be read (module ``rectifiers``).

Torch hides an activation in two ordinary spellings, which are intercepted where the functions are called:

- in place on a view (``x.flatten(1).relu_()``, or on what ``nn.Linear`` makes of 4-d features): activation and copy
    become one node, so the activation runs on a copy, which is then written back
- as a product with a comparison, ``x * (x > 0)``: the graph keeps no comparison, so that one is only noticed
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from perturb_tutorial.baselines.graphs import tensors_in


def words(text: str) -> frozenset[str]:
    """The set of the words in ``text``."""
    return frozenset(text.split())


_IN_PLACE = words(
    "relu relu6 hardtanh threshold clamp clamp_min clamp_max clip leaky_relu rrelu elu selu celu silu mish hardswish "
    "hardsigmoid sigmoid tanh"
)
_COMPARISONS = words("gt ge lt le greater greater_equal less less_equal heaviside signbit")


class ReadablePass(TorchFunctionMode):
    """Within this context in-place activations on views become nodes of their own, and products with a comparison of
    features (x > 0) are noticed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written: set[Node] = set()
        """Nodes of in-place writes into views by torch's own functions, which hide no activation."""
        self.compared = False
        """Whether a comparison of features was used in computing features."""
        self._masks: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        spelled = getattr(func, "__name__", "")
        name = spelled.strip("_")
        if not args and "input" in named:  # functional.relu(input=x, inplace=True)
            args = (named.pop("input"),)
        target = args[0] if args and isinstance(args[0], Tensor) else None
        in_place = named.get("inplace") is True or (spelled.endswith("_") and not spelled.endswith("__"))
        if (
            in_place
            and name in _IN_PLACE
            and target is not None
            and target._is_view()
            and target.requires_grad
        ):
            copy = target.clone()
            func(copy, *args[1:], **named)
            self._write(lambda: target.copy_(copy), target)
            return target
        if target is None or name in _IN_PLACE:
            result = func(*args, **named)
        else:
            result = self._write(lambda: func(*args, **named), target)
        self._compare(name, [*args, *named.values()], result)
        return result

    def _write(self, run: Callable[[], Any], target: Tensor) -> Any:
        """Calls ``run`` and returns its result; records the node if this wrote into a view."""
        base = target if target._base is None else target._base
        before = base.grad_fn
        result = run()
        after = base.grad_fn
        if after is not None and after is not before:
            self.written.add(after)
        return result

    def _compare(self, name: str, values: list[Any], result: Any) -> None:
        tensors = list(tensors_in(values))
        if name in _COMPARISONS:
            if isinstance(result, Tensor) and any(value.requires_grad for value in tensors):
                self._masks.append(result)
        elif name != "getitem" and any(value is mask for value in tensors for mask in self._masks):
            made = tensors[0] if result is None else result  # x[x < 0] = 0 returns nothing
            if isinstance(made, Tensor) and made.requires_grad:
                self.compared = True
            elif isinstance(made, Tensor):
                self._masks.append(made)
