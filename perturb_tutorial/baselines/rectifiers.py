"""The rectifiers behind the logits, and the other activations: what guided backprop finds in a graph.

How each spelling is classified:

- a rectifier: ReLU, ReLU6, ``hardtanh`` and ``clamp`` from 0, ``threshold`` at 0, ``maximum(x, 0)``, LeakyReLU of
  slope 0; as modules, functions or methods, in place or not, scripted, under ``torch.utils.checkpoint``
- no rectifier, as it passes negative values: GELU, SiLU, Mish, Hardswish (also written out as
  ``x · relu6(x + 3) / 6``), ELU, SELU, CELU, LeakyReLU, PReLU, RReLU, Hardtanh from −1, Softplus, Sigmoid, Tanh, GLU;
  they are counted and named in a warning
- a gate: an activation whose value only multiplies another path, as in squeeze-and-excite. Its sigmoid is not
  counted, since it shapes no features; the ReLUs inside the gate are, and a network with no other ones gets a warning
- refused: ``x * (x > 0)`` and other products with a comparison, ``minimum(x, 0)``, and what hides its operations
  (module ``graphs``)

The forward pass runs inside a :class:`ReadablePass`, which keeps in-place activations readable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from perturb_tutorial.baselines.graphs import LayersOfOperations, hidden, known_name, operation_name
from perturb_tutorial.baselines.readable_pass import ReadablePass, words
from perturb_tutorial.networks.gradients import graph_nodes

_LOWER_BOUND = {
    "Hardtanh": "_saved_min_val",
    "Clamp": "_saved_min",
    "ClampMin": "_saved_min",
    "Threshold": "_saved_threshold",
    "LeakyRelu": "_saved_negative_slope",
}
"""The attribute in which a clipping node stores its lower bound or its slope below 0; either is 0 in a rectifier."""
_UPPER_BOUND = {"Hardtanh": "_saved_max_val", "Clamp": "_saved_max", "ClampMax": "_saved_max"}
_OTHERS = words(
    "Gelu Silu Mish Hardswish Elu Celu LeakyRelu PreluKernel RreluWithNoise Hardtanh Threshold Softplus Sigmoid Tanh "
    "Hardsigmoid LogSigmoid Glu Hardshrink Softshrink Erf"
)
"""Activations that do not rectify; for LeakyRelu, Hardtanh and Threshold that depends on their parameters."""
_GATES = {"Sigmoid", "Hardsigmoid", "Tanh", "Erf", "Softmax", "Hardtanh", "Clamp"}
_POINTWISE = {
    "Add",
    "Sub",
    "Rsub",
    "Mul",
    "Div",
    "Neg",
    "Pow",
    "Exp",
    "Log1P",
    "ToCopy",
    "Clone",
    *_OTHERS,
    "Clamp",
}
_SHAPES = {
    "View",
    "UnsafeView",
    "ReshapeAlias",
    "Expand",
    "Unsqueeze",
    "Squeeze",
    "Permute",
    "Transpose",
    "Select",
}
_WRITTEN_OUT = {
    "Sigmoid": "SiLU",
    "Erf": "GELU",
    "Hardsigmoid": "Hardswish",
    "Hardtanh": "Hardswish",
    "Clamp": "Hardswish",
}
"""The activation that x · gate(x) amounts to, by gate."""


@dataclass(frozen=True)
class Activations:
    """The activations between a leaf and the logits: the nodes that rectify, how many of them are in gates, and the
    names of the others, one for each node.
    """

    rectifiers: list[Node]
    in_gates: int
    others: list[str]

    def note(self, method: str) -> str | None:
        """The warning that the user needs about the map, one sentence; None where every activation rectifies."""
        count, total = len(self.rectifiers), len(self.rectifiers) + len(self.others)
        only_gates = self.in_gates == count
        if count == total and not only_gates:
            return None
        where = ", all of them in gates such as squeeze-and-excite" if only_gates else ""
        names = f" ({', '.join(sorted(set(self.others)))})" if self.others else ""
        return (
            f"{method}: {count} of {total} activations rectify{where}; the signal passes the rest{names} as in the "
            "plain gradient"
        )


def read_activations(
    logits: Tensor, leaf: Tensor, run: ReadablePass, layers: LayersOfOperations, method: str
) -> Activations:
    """Finds the activations of a forward pass in its graph.

    Args:
        logits: N×K, the end of the pass.
        leaf: the tensor at which the graph begins, the pixels or a layer's output.
        run: the context that the pass was computed in.
        layers: of the same pass, to name them.
        method: the method's name in error messages.

    Raises:
        ValueError: for an operation that cannot be read.
    """
    graph = _Graph(logits, leaf)
    for node in graph.nodes:
        _refuse_hidden(node, run, layers, method)
    if run.compared:
        raise ValueError(
            f"{method}: the module multiplies or fills by a comparison of its features, such as x * (x > 0), which may "
            "be a rectifier that cannot be read; write nn.ReLU or the like, or use gradient"
        )
    gates = {node for node in graph.nodes if _may_gate(node) and graph.role(node) == "gate"}
    trunk = graph.above_gates(gates)
    rectifiers, in_gates, others = [], 0, []
    for node in graph.nodes:
        name, role = operation_name(node), graph.role(node)
        if node in gates:
            continue
        if _is_rectifier(node) and not (role == "written out" and _may_gate(node)):
            rectifiers.append(node)
            in_gates += role == "gate" or node not in trunk
        elif name in _OTHERS and not graph.feeds_activations(node):
            others.append(
                _WRITTEN_OUT.get(name, known_name(node)) if role == "written out" else known_name(node)
            )
    return Activations(rectifiers, in_gates, others)


def _refuse_hidden(node: Node, run: ReadablePass, layers: LayersOfOperations, method: str) -> None:
    reason = hidden(node)
    if reason is not None:
        raise ValueError(f"{method}: the module contains {layers[node]}, {reason.why}; {reason.remedy}")
    if operation_name(node) == "torch::autograd::CopySlices" and node not in run.written:
        raise ValueError(
            f"{method}: the module contains an in-place operation on a view that cannot be read; set inplace=False, or "
            "use gradient"
        )
    if _is_zero(_bound(node, _UPPER_BOUND)) or _with_zero(node, "Minimum", "Fmin"):
        raise ValueError(
            f"{method}: the module contains {layers[node]} from above at 0, a rectifier with the opposite sign; "
            "write -nn.ReLU()(-x), or use gradient"
        )


def _is_rectifier(node: Node) -> bool:
    """Whether the value is x where x is above 0 (and below the upper bound, if there is one), else constant."""
    if operation_name(node) == "Relu" or _with_zero(node, "Maximum", "Fmax"):
        return True
    return _is_zero(_bound(node, _LOWER_BOUND))


def _may_gate(node: Node) -> bool:
    """Whether the values are bounded, as a gate's are."""
    if operation_name(node) not in _GATES:
        return False
    return operation_name(node) not in _UPPER_BOUND or _bound(node, _UPPER_BOUND) is not None


def _bound(node: Node, places: dict[str, str]) -> Any:
    return getattr(node, places.get(operation_name(node), ""), None)


def _is_zero(bound: Any) -> bool:
    if isinstance(bound, Tensor):
        return not bound.detach().any()
    return isinstance(bound, int | float) and bound == 0


def _with_zero(node: Node, *names: str) -> bool:
    """Whether ``node`` is one of ``names`` of a value and a constant 0."""
    if operation_name(node) not in names:
        return False
    sides = zip(("_saved_self", "_saved_other"), node.next_functions, strict=True)
    return any(below is None and _is_zero(getattr(node, saved)) for saved, (below, _) in sides)


_Edge = tuple[Node, int]


class _Graph:
    """The part of a graph that lies between ``leaf`` and ``logits``, read in both directions."""

    def __init__(self, logits: Tensor, leaf: Tensor) -> None:
        everything = list(graph_nodes(logits))
        self.above: dict[Node, list[Node]] = {}
        for node in everything:
            for below, _ in node.next_functions:
                if below is not None:
                    self.above.setdefault(below, []).append(node)
        waiting = [node for node in everything if getattr(node, "variable", None) is leaf]
        reached = set(waiting)
        while waiting:
            for node in self.above.get(waiting.pop(), []):
                if node not in reached:
                    reached.add(node)
                    waiting.append(node)
        self.nodes = [node for node in everything if node in reached]
        self._reached, self._top = reached, logits.grad_fn

    def _inputs(self, node: Node) -> list[_Edge]:
        return [(below, place) for below, place in node.next_functions if below in self._reached]

    def role(self, node: Node) -> str:
        """The role of an activation: "gate" where the value only multiplies another path, "written out" where it only
        multiplies what it is itself computed from, x · gate(x), else "plain".
        """
        partners = self._partners(node)
        if not partners or any(other is node for other, _ in partners):
            return "plain"
        own = self._sources((node, 0))
        return "written out" if all(self._sources(edge) == own for edge in partners) else "gate"

    def _partners(self, node: Node) -> list[_Edge]:
        """What the value is multiplied by, if it is used for nothing else; otherwise empty."""
        found: list[_Edge] = []
        waiting = [node]
        while waiting:
            value = waiting.pop()
            if value is self._top:
                return []
            for user in self.above.get(value, []):
                name, inputs = operation_name(user), self._inputs(user)
                if name == "Mul" and len(inputs) == 2:
                    found += [edge for edge in inputs if edge[0] is not value] or inputs[:1]
                elif len(inputs) == 1 and name in _SHAPES | _POINTWISE - _OTHERS - {"Clamp"}:
                    waiting.append(user)
                else:
                    return []
        return found

    def _sources(self, edge: _Edge) -> set[_Edge]:
        """The nodes that the value is computed from by elementwise operations alone."""
        found: set[_Edge] = set()
        seen: set[_Edge] = set()
        waiting = [edge]
        while waiting:
            value = waiting.pop()
            if value in seen:
                continue
            seen.add(value)
            if operation_name(value[0]) in _POINTWISE:
                waiting += self._inputs(value[0])
            else:
                found.add(value)
        return found

    def above_gates(self, gates: set[Node]) -> set[Node]:
        """The nodes that reach the logits by a path through no gate."""
        found: set[Node] = set()
        waiting = [self._top] if self._top in self._reached else []
        while waiting:
            node = waiting.pop()
            if node is None or node in found:
                continue
            found.add(node)
            if node not in gates:
                waiting += [below for below, _ in self._inputs(node)]
        return found

    def feeds_activations(self, node: Node) -> bool:
        """Whether the value only enters other activations: tanh(softplus(x)) is one."""
        users = self.above.get(node, [])
        return bool(users) and all(operation_name(user) in _OTHERS for user in users)
