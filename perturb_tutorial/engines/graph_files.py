"""Joint graphs (module ``joint_graph``) kept between runs, and what was measured with them, in the user's cache folder.

Writing a graph takes seconds. Its file is found again by a key of the network, of the settings that are built into it,
and of the code that wrote it (module ``module_key``). For a network without a key the graph is traced in every run,
and the file is found by what was traced. The folder can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import fx

import perturb_tutorial
from perturb_tutorial.engines.gradient_check import has_kinks
from perturb_tutorial.engines.joint_graph import joint_model, trace_joint
from perturb_tutorial.engines.module_key import files_key, module_key
from perturb_tutorial.files import whole_file
from perturb_tutorial.networks import Network
from perturb_tutorial.settings import MaskSettings

_WRITERS = ("torch", "onnx", "onnxscript")
_KINDS = {True: "kinked", False: "smooth"}


class Graph(NamedTuple):
    """An ONNX file, whether its network has kinks, and whether it was read from the cache folder."""

    content: bytes
    kinked: bool
    from_cache: bool


_Built = tuple[int, float, bool]
"""What of the settings is built into a graph."""
_graphs: WeakKeyDictionary[Network, dict[_Built, Graph]] = WeakKeyDictionary()


def built_in(settings: MaskSettings) -> _Built:
    """What of the settings is built into a graph."""
    return settings.grid_size, settings.mask_sigma, settings.score_scale == "logit"


def cache_folder() -> Path:
    """Where graphs are kept between runs: ``perturb_tutorial`` in the system's folder for caches."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "perturb_tutorial"


def joint_bytes(network: Network, settings: MaskSettings) -> bytes:
    """The joint graph of one image as the bytes of an ONNX file, from memory, from the cache folder, or written now."""
    return joint_graph(network, settings).content


def joint_graph(network: Network, settings: MaskSettings, *, anew: bool = False) -> Graph:
    """The joint graph of one image; ``anew``: traced and written in any case."""
    kept, built = _graphs.setdefault(network, {}), built_in(settings)
    if built not in kept or anew:
        kept[built] = _read_or_written(network, settings, anew)
    return kept[built]


def _read_or_written(network: Network, settings: MaskSettings, anew: bool) -> Graph:
    key, traced = graph_key(network, settings), None
    if key is None:
        traced = trace_joint(network, settings, 1)
        key = _traced_key(traced)
    if not anew:
        for kinked, kind in _KINDS.items():
            with contextlib.suppress(OSError):
                return Graph(_file(key, kind).read_bytes(), kinked, from_cache=True)
    traced = traced or trace_joint(network, settings, 1)
    graph = Graph(joint_model(traced, network.name).SerializeToString(), has_kinks(traced), from_cache=False)
    keep(_file(key, _KINDS[graph.kinked]), graph.content)
    return graph


def _file(key: str, kind: str) -> Path:
    return cache_folder() / f"joint_{key}_{kind}.onnx"


def keep(path: Path, content: bytes) -> None:
    """Writes a file of the cache folder; a folder that cannot be written to only costs time later."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            part.write(content)


def graph_key(network: Network, settings: MaskSettings) -> str | None:
    """A key of a network's joint graph; None where only tracing tells what the network computes."""
    module = module_key(network.folded)
    if module is None:
        return None
    built = [
        built_in(settings),
        network.mean,
        network.std,
        network.input_shape,
        str(network.dtype),
        network.name,
    ]
    return hashlib.sha256("\n".join([_code(), module, repr(built)]).encode()).hexdigest()[:24]


@cache
def _code() -> str:
    """The code that writes graphs: that of this package, and the versions of the others."""
    package = Path(perturb_tutorial.__file__).parent
    ours = sorted([*package.glob("*.py"), *package.glob("engines/*.py"), *package.glob("networks/*.py")])
    return f"{files_key(ours)} {_versions()}"


def _versions() -> str:
    found = []
    for package in _WRITERS:
        with contextlib.suppress(ModuleNotFoundError):
            found.append(f"{package} {version(package)}")
    return ", ".join(found)


def _traced_key(traced: fx.GraphModule) -> str:
    """A key of a traced graph: its code, its constants, and the packages that write the file."""
    digest = hashlib.sha256(f"{_code()}\n{traced.code}".encode())
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


__all__ = ["Graph", "built_in", "cache_folder", "graph_key", "joint_bytes", "joint_graph", "keep"]
