"""engine="onnx": the joint graph (module ``joint_graph``), run by OpenVINO on the CPU.

OpenVINO lays a network's weights out once, merges clips into convolutions and writes one loop for a chain of
elementwise operations, forward and backward alike, where PyTorch runs each operation by itself and writes every
result to memory. Its gradients equal PyTorch's up to rounding. For a network with many max poolings, such as GoogLeNet,
OpenVINO is slower: their backward pass takes many small operations in the graph and one in PyTorch.

A graph of one image runs in as many streams at once as PyTorch has threads (``torch.set_num_threads``), each on
a core of its own, so an image's mask does not depend on its neighbors. OpenVINO computes gradients only: the disc
search and the scores before and after are PyTorch's.

A runtime could silently be wrong about a network, so the first gradient of a compiled graph is compared with PyTorch's,
and a network whose gradients differ is refused.

Writing the graph takes seconds, so it is kept: in memory as long as the network lives, and as a file in the user's
cache folder (``cache_folder``), which can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx

from perturb_tutorial.engines.gradient_check import engine_fault, has_kinks
from perturb_tutorial.engines.joint_graph import INPUTS, joint_model, trace_joint
from perturb_tutorial.files import whole_file
from perturb_tutorial.networks import Network
from perturb_tutorial.settings import MaskSettings

WRITER = 2
"""To be increased when a change makes another file of the same trace: older files are then not read again."""


class _Graph(NamedTuple):
    """An ONNX file, whether its network has kinks, and whether it was read from the cache folder."""

    content: bytes
    kinked: bool
    from_cache: bool


_Built = tuple[int, float, bool]
"""What of the settings is built into a graph."""
_graphs: WeakKeyDictionary[Network, dict[_Built, _Graph]] = WeakKeyDictionary()
_compiled: WeakKeyDictionary[Network, dict[tuple[_Built, int, int], Any]] = WeakKeyDictionary()
"""OpenVINO's compiled graph, or the sentence with which the network was refused."""


def cache_folder() -> Path:
    """Where graphs are kept between runs: ``perturb_tutorial`` in the system's folder for caches."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "perturb_tutorial"


class JointRuntime:
    """Score and gradient of masks on N images at once.

    Raises:
        ImportError: without the packages.
        ValueError: for a network that is not on the CPU, that cannot be exported, or whose gradient by OpenVINO
            differs from PyTorch's.
    """

    def __init__(self, network: Network, settings: MaskSettings, count: int) -> None:
        if network.device.type != "cpu":
            raise ValueError(
                f"engine: 'onnx' runs on the CPU, the network is on {network.device}; give device='cpu'"
            )
        openvino = _openvino()
        threads = torch.get_num_threads()
        streams = min(threads, count)
        key = (_built(settings), streams, threads)
        kept = _compiled.setdefault(network, {})
        if key not in kept:
            kept[key] = _compiled_and_checked(openvino, network, settings, streams, threads)
        if isinstance(kept[key], str):
            raise ValueError(kept[key])
        self._requests = _requests(kept[key], streams)

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
        return _run(self._requests, (grid, images, backgrounds, weights))


def _requests(compiled: Any, count: int) -> list[Any]:
    return [compiled.create_infer_request() for _ in range(count)]


def _run(requests: list[Any], inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Scores and gradients of N rows of ``INPUTS``; as many rows run at once as there are requests."""
    grid = inputs[0]
    score, gradient = torch.empty(len(grid), dtype=torch.float32, device="cpu"), torch.empty_like(grid)
    for start in range(0, len(grid), len(requests)):
        rows = range(start, min(start + len(requests), len(grid)))
        for request, row in zip(requests, rows, strict=False):
            arrays = (values[row : row + 1].contiguous().numpy() for values in inputs)
            request.start_async(dict(zip(INPUTS, arrays, strict=True)))
        # Waited for in turn, not by callbacks, which would need the interpreter's lock from other threads.
        for request, row in zip(requests, rows, strict=False):
            request.wait()
            score[row] = torch.from_numpy(request.get_output_tensor(0).data)[0]
            gradient[row] = torch.from_numpy(request.get_output_tensor(1).data)[0]
    return score, gradient


def _compiled_and_checked(
    openvino: Any, network: Network, settings: MaskSettings, streams: int, threads: int
) -> Any:
    """The compiled graph if its gradient equals PyTorch's, else the sentence that refuses the network."""
    options = {
        "INFERENCE_PRECISION_HINT": "f32",  # bfloat16 where the CPU has it, otherwise
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    core = openvino.Core()
    refusal = ""
    for anew in (False, True):  # a file in the cache may be truncated or damaged
        graph = _joint(network, settings, anew=anew)
        try:
            model = core.read_model(graph.content, b"")
            _separate_weights(openvino, model)
            compiled = core.compile_model(model, "CPU", options)
            requests = _requests(compiled, streams)
            fault = engine_fault(
                lambda *inputs, requests=requests: _run(requests, inputs),
                network,
                settings,
                kinked=graph.kinked,
                rows=streams,
            )
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or [""])[-1].strip()
            fault = f"an error ({reason})"
        if not fault:
            return compiled
        refusal = f"network: {network.name} gets from OpenVINO {fault}; engine='torch' works with it"
        if not graph.from_cache:
            break
    return refusal


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


def joint_bytes(network: Network, settings: MaskSettings) -> bytes:
    """The joint graph of one image as the bytes of an ONNX file, from memory, from the cache folder, or written now."""
    return _joint(network, settings).content


def _built(settings: MaskSettings) -> _Built:
    return settings.grid_size, settings.mask_sigma, settings.score_scale == "logit"


def _joint(network: Network, settings: MaskSettings, *, anew: bool = False) -> _Graph:
    """The joint graph of one image; ``anew``: traced and written in any case."""
    key = _built(settings)
    kept = _graphs.setdefault(network, {})
    if key not in kept or anew:
        traced = trace_joint(network, settings, 1)
        file = cache_folder() / f"joint_{_fingerprint(traced)}.onnx"
        content = None
        if not anew:
            with contextlib.suppress(OSError):
                content = file.read_bytes()
        from_cache = content is not None
        if content is None:
            content = joint_model(traced, network.name).SerializeToString()
            with contextlib.suppress(OSError):  # a folder that cannot be written to only costs time
                file.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(file) as part:
                    part.write(content)
        kept[key] = _Graph(content, has_kinks(traced), from_cache)
    return kept[key]


def _fingerprint(traced: fx.GraphModule) -> str:
    """A hash of a traced graph, its constants, and the versions of the packages that write the file."""
    digest = hashlib.sha256(f"writer {WRITER}\n{traced.code}".encode())
    for package in ("torch", "onnx", "onnxscript"):
        with contextlib.suppress(ModuleNotFoundError):
            digest.update(f"{package} {version(package)}\n".encode())
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            value: Any = traced
            for part in str(node.target).split("."):
                value = getattr(value, part)
            digest.update(f"{tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().contiguous().numpy().tobytes())
        elif node.op == "placeholder":
            digest.update(str(tuple(node.meta["val"].shape)).encode())
    return digest.hexdigest()[:24]


__all__ = ["JointRuntime", "cache_folder", "joint_bytes"]
