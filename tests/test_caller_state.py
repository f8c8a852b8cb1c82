"""What a caller has set in torch changes nothing: default device and number format, autocast, no_grad, inference_mode.

One tour of the package on a tiny network, with torch as it comes and under each setting; the results are the same to
the last bit, since every tensor names its format and every pass its arithmetic.
"""

from __future__ import annotations

import ast
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_inputs import tiny_module
from torch import Tensor

import perturb_tutorial as pt
from perturb_tutorial import baselines, metrics
from perturb_tutorial.initialization import disc_scores
from perturb_tutorial.masks import discs
from perturb_tutorial.plotting import overlay

METHODS = [name for name in baselines.METHODS if name != "mask"]
READS_A_LAYER = {"excitation_backprop", "contrastive_excitation_backprop", "grad_cam"}


def tour(module, folder: Path, engines: tuple[str, ...]) -> dict[str, Tensor | np.ndarray]:
    """Everything that is computed from two photographs, by name."""
    network = pt.Network(
        module,
        mean=(0.5, 0.4, 0.3),
        std=(0.25, 0.3, 0.2),
        input_size=32,
        device="cpu",
        categories=list("abcde"),
    )
    images = pt.load_images(sorted(folder.glob("*.png")), size=32)
    found: dict[str, Tensor | np.ndarray] = {
        "images": images,
        "no images": pt.load_images([], size=32),
        "logits": network.logits(images).detach(),
        "unfolded": network.unfolded_logits(images).detach(),
        "scores": network.scores(images).detach(),
        "top": np.array(pt.top_classes(network, images, 3)),
        "mean color": network.mean_color,
        "discs": discs(32, torch.tensor([3.0, 9.0], device="cpu")),
        "points": baselines.variable_occlusion_points(network, images, [0, 1]),
        "disc scores": disc_scores(network, images, [0, 1])[0],
    }
    for name in METHODS:
        layer = {"layer": "2"} if name in READS_A_LAYER else {}
        found[name] = pt.saliency(network, images, [0, 1], method=name, **layer)
    learned = {
        "disc": pt.MaskSettings(iterations=3),
        "random": pt.MaskSettings(
            iterations=3, game="preservation", perturbation="noise", initialization="random"
        ),
        "half": pt.MaskSettings(iterations=3, perturbation="constant", initialization="half"),
    }
    for kind, settings in learned.items():
        for engine in engines if kind == "half" else ("torch",):
            masks = pt.learn_masks(network, images, [0, 1], settings, engine=engine)
            found |= parts(f"{kind} by {engine}", masks)
    found |= parts("activations", pt.learn_activation_masks(network, images, [0, 1], "2", learned["disc"]))
    masks = pt.learn_masks(network, images, [0, 1], learned["disc"])
    masks.save(folder / "masks.pt")
    found |= parts("loaded", pt.Masks.load(folder / "masks.pt"))
    found["resized"] = masks.resized([(20, 30), (40, 16)])[1]
    heat = masks.saliency[0, 0].numpy()
    found["overlay"] = overlay(images[0], heat)
    found["insertion"] = np.stack(list(metrics.insertion_masks(heat, 4)))
    found["maximum"] = np.array(metrics.maximum_point(heat))
    found["resized heat"] = metrics.resize_map(heat, (17, 40))
    return found


def parts(name: str, masks: pt.Masks) -> dict[str, Tensor]:
    """All that masks hold and derive."""
    scores = ("score_original", "score_perturbed", "score_masked")
    own = ("grid", "mask", "saliency", "area", "radius", "converged", *scores)
    history = {f"{name}: history {key}": getattr(masks.history, key) for key in ("score", "area", "tv")}
    return {f"{name}: {key}": getattr(masks, key) for key in own} | history


@contextmanager
def default_format(dtype: torch.dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def autocast_in_inference_mode():
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        yield


@contextmanager
def default_device(name: str):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


STATES = {
    # Tensors made there hold no numbers: one that does not name its device would end the tour.
    "meta by default": lambda: default_device("meta"),
    "float64 by default": lambda: default_format(torch.float64),
    "bfloat16 by default": lambda: default_format(torch.bfloat16),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no_grad": torch.no_grad,
    "autocast in inference_mode": autocast_in_inference_mode,
}


@pytest.fixture(scope="module")
def engines() -> tuple[str, ...]:
    try:
        import onnxscript  # noqa: F401
        import openvino  # noqa: F401
    except ImportError:
        return ("torch",)
    return ("torch", "onnx")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    values = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    for number, pixels in enumerate(values):
        Image.fromarray(pixels).resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def expected(photographs, engines):
    return tour(tiny_module(), photographs, engines)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "cache"))


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
def test_the_callers_torch_changes_no_bit(state, expected, photographs, engines):
    module = tiny_module()
    with state():
        got = tour(module, photographs, engines)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        other = got[name]
        assert other.dtype == value.dtype, name
        np.testing.assert_array_equal(np.asarray(other), np.asarray(value), err_msg=name)


def test_masks_maps_and_scores_are_float32(expected):
    whole = {"top", "points", "overlay", "insertion", "maximum", "resized heat"}
    for name, value in expected.items():
        if name in whole or name.endswith("converged"):
            continue
        assert value.dtype == torch.float32, name


FACTORIES = {
    *("zeros", "ones", "empty", "full", "rand", "randn", "randint", "randperm", "arange", "tensor", "eye", "linspace"),
    *("logspace", "as_tensor", "scalar_tensor", "Generator"),
}  # fmt: skip


def without_a_device(source: str) -> list[int]:
    """The lines that make a tensor or a generator wherever the caller's default device is."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    made = [call for call in calls if ast.unparse(call.func).removeprefix("torch.") in FACTORIES]
    return [
        call.lineno
        for call in made
        if ast.unparse(call.func).startswith("torch.") and all(k.arg != "device" for k in call.keywords)
    ]


def test_every_tensor_that_is_made_names_its_device():
    package = Path(pt.__file__).parent
    found = {
        str(path.relative_to(package)): lines
        for path in package.rglob("*.py")
        if (lines := without_a_device(path.read_text(encoding="utf-8")))
    }
    assert found == {}
    assert without_a_device("x = 1\ny = torch.ones(2).sum()") == [2]
