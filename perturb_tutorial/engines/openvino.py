"""engine="onnx": the joint graph (module ``joint_graph``), run by OpenVINO on the CPU.

OpenVINO lays a network's weights out once, merges clips into convolutions and writes one loop for a chain of
elementwise operations, forward and backward alike, where PyTorch runs each operation by itself and writes every
result to memory. Its gradients equal PyTorch's up to rounding. For a network with many max poolings, such as GoogLeNet,
OpenVINO is slower: their backward pass takes many small operations in the graph and one in PyTorch.

A graph of one image runs in as many streams at once as PyTorch has threads (``torch.set_num_threads``), each on
a core of its own, so an image's mask does not depend on its neighbors. The scores of the disc search and those before
and after come from the same graph without its gradient.

A runtime could silently be wrong about a network, so the first gradient of a compiled graph is compared with PyTorch's,
and a network whose gradients differ is refused. With ``precision="bfloat16"`` score and gradient round to three digits,
which only this comparison's looser form can check; the graph itself has passed the strict one in float32 before.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary
from xml.etree import ElementTree

import torch
from torch import Tensor

from perturb_tutorial.engines.gradient_check import coarse_fault, engine_fault
from perturb_tutorial.engines.graph_files import Graph, built_in, joint_graph
from perturb_tutorial.engines.joint_graph import INPUTS
from perturb_tutorial.networks import Network
from perturb_tutorial.settings import MaskSettings

HINTS = {"float32": "f32", "tf32": "f32", "bfloat16": "bf16"}
"""OpenVINO's name of each precision; a processor has no TF32."""
FORWARD = "forward"
"""The graph without its gradient, in float32."""

_compiled: WeakKeyDictionary[Network, dict[tuple[Any, ...], Any]] = WeakKeyDictionary()
"""OpenVINO's compiled graphs, or the sentence with which the network was refused."""


class JointRuntime:
    """Score and gradient of masks on N images at once.

    Raises:
        ImportError: without the packages.
        ValueError: for a network that is not on the CPU, that cannot be exported, or whose gradient by OpenVINO
            differs from PyTorch's; for a processor without bfloat16 where that is asked for.
    """

    def __init__(
        self, network: Network, settings: MaskSettings, count: int, precision: str = "float32"
    ) -> None:
        if network.device.type != "cpu":
            raise ValueError(
                f"engine: 'onnx' runs on the CPU, the network is on {network.device}; give device='cpu'"
            )
        self._graphs = _Graphs(network, settings, min(torch.get_num_threads(), count))
        self._joint = _requests(self._graphs.joint(HINTS[precision]), self._graphs.streams)
        self._forward: list[Any] | None = None

    def __call__(
        self, grid: Tensor, images: Tensor, backgrounds: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores and gradients of N masks.

        Args:
            grid: the masks m, N×1×h×w.
            images: N×C×H×W in [0, 1].
            backgrounds: what shows where a mask is 0, N×C×H×W in [0, 1].
            weights: N×K, 1 for each target class.

        Returns:
            The scores, N values, and ∂score/∂m, N×1×h×w.
        """
        score, gradient, _ = _run(self._joint, (grid, images, backgrounds, weights))
        return score, gradient

    def scores(self, grid: Tensor, images: Tensor, backgrounds: Tensor, weights: Tensor) -> Tensor:
        """The scores alone, float32 whatever the precision of the gradients, at the price of a forward pass."""
        if self._forward is None:
            self._forward = _requests(self._graphs.forward(), self._graphs.streams)
        return _run(self._forward, (grid, images, backgrounds, weights))[0]


class _Graphs:
    """A network's graphs, compiled for a number of streams, each once as long as the network lives."""

    def __init__(self, network: Network, settings: MaskSettings, streams: int) -> None:
        self.network, self.settings, self.streams = network, settings, streams
        self.threads = torch.get_num_threads()
        self.openvino = _openvino()
        self.core = self.openvino.Core()

    def joint(self, hint: str) -> Any:
        """Score and gradient; ``ValueError`` where they are not PyTorch's."""
        strict = self._kept("f32", self._strictly_checked)
        return strict if hint == "f32" else self._kept(hint, self._coarsely_checked)

    def forward(self) -> Any:
        """The score alone."""
        self.joint("f32")
        return self._kept(FORWARD, self._without_gradient)

    def _kept(self, name: str, make: Callable[[], Any]) -> Any:
        kept = _compiled.setdefault(self.network, {})
        key = (built_in(self.settings), self.streams, self.threads, name)
        if key not in kept:
            kept[key] = make()
        if isinstance(kept[key], str):
            raise ValueError(kept[key])
        return kept[key]

    def _strictly_checked(self) -> Any:
        """The compiled graph if its gradient equals PyTorch's, else the sentence that refuses the network."""
        refusal = ""
        for anew in (False, True):  # a file in the cache may be truncated or damaged
            graph = joint_graph(self.network, self.settings, anew=anew)
            try:
                compiled = self._compiled(self._model(graph), "f32")
                fault = engine_fault(
                    self._runner(compiled),
                    self.network,
                    self.settings,
                    kinked=graph.kinked,
                    rows=self.streams,
                )
            except RuntimeError as error:
                fault = _reason(error)
            if not fault:
                return compiled
            refusal = f"network: {self.network.name} gets from OpenVINO {fault}; engine='torch' works with it"
            if not graph.from_cache:
                break
        return refusal

    def _coarsely_checked(self) -> Any:
        """The same in bfloat16, or the sentence that refuses it."""
        if "BF16" not in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return "precision: this processor has no bfloat16; give precision='float32'"
        model = self._model(joint_graph(self.network, self.settings))
        try:
            compiled = self._compiled(_with_depthwise_kernels(self.openvino, self.core, model), "bf16")
            fault = coarse_fault(self._runner(compiled), self.network, self.settings, rows=self.streams)
        except RuntimeError as error:
            fault = _reason(error)
        if not fault:
            return compiled
        return (
            f"precision: {self.network.name} gets from OpenVINO in bfloat16 {fault}; give precision='float32'"
        )

    def _without_gradient(self) -> Any:
        model = self._model(joint_graph(self.network, self.settings))
        score = [model.output(0).get_node().input_value(0)]
        return self._compiled(self.openvino.Model(score, model.get_parameters()), "f32")

    def _model(self, graph: Graph) -> Any:
        model = self.core.read_model(graph.content, b"")
        _separate_weights(self.openvino, model)
        return model

    def _compiled(self, model: Any, hint: str) -> Any:
        options = {
            "INFERENCE_PRECISION_HINT": hint,  # bfloat16 where the CPU has it, otherwise
            "NUM_STREAMS": self.streams,
            "INFERENCE_NUM_THREADS": self.threads,
            "ENABLE_CPU_PINNING": False,
        }
        return self.core.compile_model(model, "CPU", options)

    def _runner(self, compiled: Any) -> Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        requests = _requests(compiled, self.streams)

        def run(*inputs: Tensor) -> tuple[Tensor, Tensor]:
            score, gradient, _ = _run(requests, inputs)
            return score, gradient

        return run


def _reason(error: RuntimeError) -> str:
    last = (str(error).strip().splitlines() or [""])[-1].strip()
    return f"an error ({last})"


def _requests(compiled: Any, count: int) -> list[Any]:
    return [compiled.create_infer_request() for _ in range(count)]


def _run(requests: list[Any], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """What the graph returns for N rows of ``INPUTS``; as many rows run at once as there are requests."""
    count = len(inputs[0])
    rows: list[list[Tensor]] = []
    for start in range(0, count, len(requests)):
        running = requests[: count - start]
        for row, request in enumerate(running, start):
            arrays = (values[row : row + 1].contiguous().numpy() for values in inputs)
            request.start_async(dict(zip(INPUTS, arrays, strict=True)))
        # Waited for in turn, not by callbacks, which would need the interpreter's lock from other threads.
        for request in running:
            request.wait()
            rows.append([torch.from_numpy(tensor.data.copy()) for tensor in request.output_tensors])
    return [torch.cat(column) for column in zip(*rows, strict=True)]


def _separate_weights(openvino: Any, model: Any) -> None:
    """In place: no weight that could be arranged in two ways is read by two operations.

    OpenVINO 2026.4 arranges a weight in memory for each operation that reads it, and looks an arranged weight up by
    the weight's address and the arranged shape alone. An operation that reads the same numbers in another order,
    with a result of the same shape, then computes with the first one's arrangement: a convolution and the transposed
    one of its backward pass where there are as many input as output channels, or the products with Wᵀ and W where W
    is square. So what is computed from weights alone, such as Wᵀ, becomes a constant of its own first, and a
    constant that is still read twice is copied if its shape could be that of its transpose.
    """
    manager = openvino.passes.Manager()
    manager.register_pass(openvino.passes.ConstantFolding())
    manager.run_passes(model)
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant":
            continue
        sides = [side for side in node.get_output_shape(0) if side > 1]
        readers = list(node.output(0).get_target_inputs())
        transposed = any("Backprop" in reader.get_node().get_type_name() for reader in readers)
        if len(sides) > 1 and (transposed or len(set(sides)) < len(sides)):
            for reader in readers[1:]:
                reader.replace_source_output(openvino.op.Constant(node.data.copy()).output(0))


def _with_depthwise_kernels(openvino: Any, core: Any, model: Any) -> Any:
    """The model with the backward passes of strided depthwise convolutions by the kernel made for them.

    In bfloat16 OpenVINO 2026.4 takes a general kernel for them, if another operation can be merged into it, that is
    some fifty times slower. The choice can be written into its own format only.
    """
    with tempfile.TemporaryDirectory() as folder:
        graph, weights = Path(folder, "graph.xml"), Path(folder, "graph.bin")
        openvino.serialize(model, graph, weights)
        tree = ElementTree.parse(graph)
        for layer in tree.iter("layer"):
            if layer.get("type") == "GroupConvolutionBackpropData":
                about = ElementTree.SubElement(layer, "rt_info")
                ElementTree.SubElement(
                    about, "attribute", name="primitives_priority", version="0", value="cpu:jit_avx512_dw"
                )
        tree.write(graph, encoding="unicode")
        return core.read_model(graph.read_bytes(), weights.read_bytes())


def _openvino() -> Any:
    # OpenVINO reports its import to Google Analytics otherwise; without this package it uses a stub of its own.
    absent = "openvino_telemetry" not in sys.modules
    if absent:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
        import openvino.passes
    except ImportError as error:
        raise ImportError(
            "engine 'onnx' needs the packages onnx, onnxscript and openvino: run: pip install 'perturb_tutorial[onnx]'"
        ) from error
    finally:
        if absent:
            sys.modules.pop("openvino_telemetry", None)
    return openvino


__all__ = ["JointRuntime"]
