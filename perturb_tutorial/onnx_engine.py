"""engine="onnx": the joint graph (module ``joint_graph``), run by OpenVINO on the CPU.

OpenVINO lays a network's weights out once, merges clips into convolutions and writes one loop for a chain of
elementwise operations, forward and backward alike, where PyTorch runs each operation by itself and writes every
result to memory. Its gradients are those of PyTorch but for rounding. Where a network has many max poolings, as
GoogLeNet has, that does not pay: their way back is many small steps here and one in PyTorch.

A graph of one image runs in as many streams at once as PyTorch has threads (``torch.set_num_threads``), each on
a core of its own, so an image's mask does not depend on its neighbors. Only gradients come from here: the disc
search and the scores before and after are PyTorch's.

Writing the graph takes seconds, so it is kept: for the life of a network in memory, and beyond as a file in the
user's cache folder (``cache_folder``), which can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx

from perturb_tutorial.files import whole_file
from perturb_tutorial.joint_graph import INPUTS, joint_model, trace_joint
from perturb_tutorial.networks import Network
from perturb_tutorial.settings import MaskSettings

_graphs: WeakKeyDictionary[Network, dict[tuple[int, float], bytes]] = WeakKeyDictionary()
_compiled: WeakKeyDictionary[Network, dict[tuple[int, float, int, int], Any]] = WeakKeyDictionary()


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

    Errors: ``ImportError`` without the packages, ``ValueError`` for a network that is not on the CPU or cannot
    be exported.
    """

    def __init__(self, network: Network, settings: MaskSettings, count: int) -> None:
        if network.device.type != "cpu":
            raise ValueError(
                f"engine: 'onnx' runs on the CPU, the network is on {network.device}; give device='cpu'"
            )
        openvino = _openvino()
        threads = torch.get_num_threads()
        key = (settings.grid_size, settings.mask_sigma, min(threads, count), threads)
        kept = _compiled.setdefault(network, {})
        if key not in kept:
            options = {
                "INFERENCE_PRECISION_HINT": "f32",  # bfloat16 where the CPU has it, otherwise
                "NUM_STREAMS": min(threads, count),
                "INFERENCE_NUM_THREADS": threads,
                "ENABLE_CPU_PINNING": False,
            }
            core = openvino.Core()
            try:
                model = core.read_model(joint_bytes(network, settings), b"")
            except RuntimeError:  # a file of the cache that was cut off or overwritten
                model = core.read_model(joint_bytes(network, settings, anew=True), b"")
            kept[key] = core.compile_model(model, "CPU", options)
        self._requests = [kept[key].create_infer_request() for _ in range(min(threads, count))]

    def __call__(
        self, grid: Tensor, images: Tensor, backgrounds: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores, N values, and ∂score/∂m, N×1×h×w; ``grid``: N×1×h×w, pictures N×3×S×S in [0, 1]."""
        score, gradient = torch.empty(len(grid)), torch.empty_like(grid)
        for start in range(0, len(grid), len(self._requests)):
            rows = range(start, min(start + len(self._requests), len(grid)))
            for request, row in zip(self._requests, rows, strict=False):
                inputs = (x[row : row + 1].contiguous().numpy() for x in (grid, images, backgrounds, weights))
                request.start_async(dict(zip(INPUTS, inputs, strict=True)))
            # Waited for in turn, not by callbacks, which would need the interpreter's lock from other threads.
            for request, row in zip(self._requests, rows, strict=False):
                request.wait()
                score[row] = torch.from_numpy(request.get_output_tensor(0).data)[0]
                gradient[row] = torch.from_numpy(request.get_output_tensor(1).data)[0]
        return score, gradient


def _openvino() -> Any:
    # OpenVINO reports its import to Google Analytics otherwise; without this package it uses a stub of its own.
    absent = "openvino_telemetry" not in sys.modules
    if absent:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise ImportError(
            "engine 'onnx' needs the packages onnx, onnxscript and openvino: run: pip install 'perturb_tutorial[onnx]'"
        ) from error
    finally:
        if absent:
            sys.modules.pop("openvino_telemetry", None)
    return openvino


def joint_bytes(network: Network, settings: MaskSettings, *, anew: bool = False) -> bytes:
    """The joint graph of one image as the bytes of an ONNX file, out of memory, the cache folder, or written now;
    ``anew``: written in any case.
    """
    key = (settings.grid_size, settings.mask_sigma)
    kept = _graphs.setdefault(network, {})
    if key not in kept or anew:
        traced = trace_joint(network, settings, 1)
        file = cache_folder() / f"joint_{_fingerprint(traced)}.onnx"
        try:
            if anew:
                raise FileNotFoundError(file)
            kept[key] = file.read_bytes()
        except OSError:
            kept[key] = joint_model(traced, network.name).SerializeToString()
            with contextlib.suppress(OSError):  # a folder that cannot be written to only costs time
                file.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(file) as part:
                    part.write(kept[key])
    return kept[key]


def _fingerprint(traced: fx.GraphModule) -> str:
    """What a traced graph computes, with its numbers and with the versions of what writes the file."""
    digest = hashlib.sha256(traced.code.encode())
    for package in ("torch", "onnx", "onnxscript"):
        with contextlib.suppress(ModuleNotFoundError):
            digest.update(f"{package} {version(package)}\n".encode())
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            value: Any = traced
            for part in str(node.target).split("."):
                value = getattr(value, part)
            digest.update(value.detach().contiguous().numpy().tobytes())
        elif node.op == "placeholder":
            digest.update(str(tuple(node.meta["val"].shape)).encode())
    return digest.hexdigest()[:24]


__all__ = ["JointRuntime", "cache_folder", "joint_bytes"]
