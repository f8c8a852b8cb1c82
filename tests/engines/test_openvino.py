"""engine="onnx" against engine="torch": the same masks within rounding, and the same promises about batches."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import onnx
import pytest
import torch
from engine_inputs import by_autograd, distance, example
from onnx import TensorProto, helper, numpy_helper
from small_inputs import FailsOnBlack, tiny_module

import perturb_tutorial as pt
from perturb_tutorial.engines import graph_files
from perturb_tutorial.engines import openvino as openvino_engine
from perturb_tutorial.engines.graph_files import cache_folder
from perturb_tutorial.engines.openvino import JointRuntime, _openvino
from perturb_tutorial.perturbations import fully_perturbed

KINKED = 0.02
"""How far gradients may be apart where a rectifier's input may round to the other side of 0."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads what another run left, nor leaves anything."""
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "cache"))


def both(network, images, targets, settings):
    return [pt.learn_masks(network, images, targets, settings, engine=name) for name in ("torch", "onnx")]


@pytest.mark.parametrize("game", ["deletion", "preservation"])
def test_masks_are_those_of_torch(lite0, game):
    pytest.importorskip("foolbox", reason="carries the photographs")
    samples = pt.load_samples(lite0.input_size, names=["dalmatian", "bald_eagle"])
    settings = pt.MaskSettings(game=game, iterations=25)
    expected, got = both(lite0, samples.images, samples.targets, settings)
    # The first score is before any step: what differs is the rounding of one forward pass.
    torch.testing.assert_close(got.history.score[:, 0], expected.history.score[:, 0], atol=1e-5, rtol=0)
    # Later ones differ as rounding grows under Adam, whose first steps are ±γ even where the gradient is rounding
    # alone. The bounds of the protocol for an image alone and in a batch, which differ in rounding, too.
    for a, b in zip(got.saliency, expected.saliency, strict=True):
        assert (a - b).abs().mean() <= 0.02
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] >= 0.99
    torch.testing.assert_close(got.history.score, expected.history.score, atol=0.02, rtol=0)
    torch.testing.assert_close(got.history.area, expected.history.area, atol=0.02, rtol=0)
    assert torch.equal(got.converged, expected.converged)
    assert torch.equal(got.radius, expected.radius)


class SmallResidual(torch.nn.Module):
    """Its maps are small, and it adds in place to what a convolution returned, as torchvision's ResNets do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.block = torch.nn.Conv2d(3, 8, 3, 4, 1), torch.nn.Conv2d(8, 8, 3, 1, 1)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x).tanh()
        y = self.block(x)
        y += x
        return self.head(y.tanh().mean((2, 3)))


def test_a_network_with_small_maps_is_exported_for_one_image():
    """While masks are learned such layers work on padded batches; the graph has its own routines and no padding."""
    network = pt.Network(SmallResidual(), input_size=32, device="cpu")
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected, got = both(network, image, 1, pt.MaskSettings(iterations=3))
    torch.testing.assert_close(got.history.score, expected.history.score, atol=1e-4, rtol=0)


def test_gradients_on_photographs_are_those_of_torch(lite0):
    pytest.importorskip("foolbox", reason="carries the photographs")
    samples = pt.load_samples(lite0.input_size, names=["dalmatian", "bald_eagle"])
    settings = pt.MaskSettings()
    mask, _, _, _ = example(lite0, 2, settings)
    background = fully_perturbed(samples.images, "blur", color=lite0.mean_color)
    weights = torch.eye(lite0.class_count)[torch.tensor([int(target) for target in samples.targets])]
    inputs = (mask, samples.images, background, weights)
    expected_score, expected, _ = by_autograd(lite0, settings, *inputs)
    score, gradient = JointRuntime(lite0, settings, 2)(*inputs)
    torch.testing.assert_close(score, expected_score, atol=1e-5, rtol=1e-4)
    assert distance(gradient, expected) <= KINKED


def test_history_and_sets_of_classes_on_a_small_network(tiny, noise_images):
    settings = pt.MaskSettings(iterations=8)
    targets = [{0, 1}, {2}, {3, 4}]
    expected, got = both(tiny, noise_images, targets, settings)
    for name in ("score", "area", "tv"):
        # Eight steps of a small smooth network: rounding has had no time to grow.
        torch.testing.assert_close(
            getattr(got.history, name), getattr(expected.history, name), atol=1e-3, rtol=1e-3
        )
    torch.testing.assert_close(got.grid, expected.grid, atol=1e-2, rtol=0)


def test_an_image_alone_and_in_a_batch_is_equal_to_the_bit(tiny, noise_images):
    settings = pt.MaskSettings(iterations=8)
    together = pt.learn_masks(tiny, noise_images, [0, 1, 2], settings, engine="onnx")
    alone = pt.learn_masks(tiny, noise_images[1:2], [1], settings, engine="onnx")
    assert torch.equal(alone.grid[0], together.grid[1])


def test_an_image_that_is_not_finite_leaves_its_neighbors_alone(noise_images):
    network = pt.Network(FailsOnBlack(tiny_module()), input_size=32, device="cpu")
    settings = pt.MaskSettings(iterations=4, initialization="half")
    noise_images = noise_images.clamp(0.1, 1)
    clean = pt.learn_masks(network, noise_images, [0, 1, 2], settings, engine="onnx")
    broken = noise_images.clone()
    broken[1] = 0
    masks = pt.learn_masks(network, broken, [0, 1, 2], settings, engine="onnx")
    assert not masks.converged[1]
    assert torch.isfinite(masks.grid).all()
    for row in (0, 2):
        assert torch.equal(masks.grid[row], clean.grid[row])


def test_the_graph_is_kept_as_a_file_and_read_again(tiny, noise_images):
    settings = pt.MaskSettings(iterations=2)
    first = pt.learn_masks(tiny, noise_images, 0, settings, engine="onnx")
    (file,) = cache_folder().glob("joint_*.onnx")
    written = file.stat().st_mtime_ns
    other = (
        tiny.to("cpu")
        if tiny.to("cpu") is not tiny
        else pt.Network(tiny.module, mean=tiny.mean, std=tiny.std, input_size=tiny.input_size, device="cpu")
    )
    second = pt.learn_masks(other, noise_images, 0, settings, engine="onnx")
    assert file.stat().st_mtime_ns == written
    assert len(list(cache_folder().iterdir())) == 1
    assert torch.equal(first.grid, second.grid)


def test_a_cache_that_cannot_be_written_to_only_costs_time(tiny, noise_images, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    masks = pt.learn_masks(tiny, noise_images, 0, pt.MaskSettings(iterations=2), engine="onnx")
    assert torch.isfinite(masks.grid).all()


def test_a_missing_package_is_named_with_the_mend(tiny, noise_images, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"pip install 'perturb_tutorial\[onnx\]'"):
        pt.learn_masks(tiny, noise_images, 0, pt.MaskSettings(iterations=1), engine="onnx")


def test_another_device_than_the_cpu_is_told():
    elsewhere = SimpleNamespace(device=torch.device("cuda", 0))
    with pytest.raises(ValueError, match="engine: 'onnx' runs on the CPU, the network is on cuda:0"):
        JointRuntime(elsewhere, pt.MaskSettings(), 1)


def test_nothing_is_reported_to_anybody(tmp_path):
    # OpenVINO tells Google Analytics that it was imported, and keeps a client's number at home.
    program = """
import socket, sys
asked = []
real = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **more: asked.append(host) or real(host, *rest, **more)
from perturb_tutorial.engines.openvino import _openvino
_openvino()
import time; time.sleep(1)  # a thread of its own would have asked by now
print(asked)
assert not asked and "openvino_telemetry" not in sys.modules
"""
    home = tmp_path / "home"
    home.mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120,
        env={**os.environ, "HOME": str(home), "USERPROFILE": str(home)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert list(home.rglob("*openvino*")) == []


@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_damaged_file_of_the_cache_is_made_anew(tiny, noise_images, keep):
    settings = pt.MaskSettings(iterations=2)
    expected = pt.learn_masks(tiny, noise_images, 0, settings, engine="onnx")
    (file,) = cache_folder().glob("*.onnx")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(keep * len(whole))])
    again = pt.Network(tiny.module, mean=tiny.mean, std=tiny.std, input_size=32, device="cpu")
    got = pt.learn_masks(again, noise_images, 0, settings, engine="onnx")
    torch.testing.assert_close(got.grid, expected.grid)
    assert len(file.read_bytes()) == len(whole)


def test_a_cached_graph_with_wrong_numbers_is_made_anew(tiny, noise_images):
    settings = pt.MaskSettings(iterations=2)
    expected = pt.learn_masks(tiny, noise_images, 0, settings, engine="onnx")
    (file,) = cache_folder().glob("*.onnx")
    model = onnx.load(file)
    for item in model.graph.initializer:
        if list(item.dims) == [12, 8, 3, 3]:
            item.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(item), item.name))
    onnx.save(model, file)
    again = pt.Network(tiny.module, mean=tiny.mean, std=tiny.std, input_size=32, device="cpu")
    got = pt.learn_masks(again, noise_images, 0, settings, engine="onnx")
    torch.testing.assert_close(got.grid, expected.grid)


def test_graphs_of_another_writer_are_not_read(tiny, noise_images, monkeypatch):
    settings = pt.MaskSettings(iterations=1)
    pt.learn_masks(tiny, noise_images, 0, settings, engine="onnx")
    (file,) = cache_folder().glob("*.onnx")
    file.write_bytes(b"")
    monkeypatch.setattr(graph_files, "_code", lambda: "another writer")
    again = pt.Network(tiny.module, mean=tiny.mean, std=tiny.std, input_size=32, device="cpu")
    pt.learn_masks(again, noise_images, 0, settings, engine="onnx")
    assert len(list(cache_folder().glob("*.onnx"))) == 2
    assert file.read_bytes() == b""


@pytest.mark.parametrize(
    ("output", "factor", "words"),
    [
        ("gradient", 1.05, "gets from OpenVINO a gradient that is 0.05 of its largest value apart"),
        ("gradient", float("nan"), "gets from OpenVINO a gradient that is nan of"),
        ("gradient", 0.0, "gets from OpenVINO a gradient that is 1 of"),
        ("score", 1.01, "gets from OpenVINO a score that is 0.01 of"),
        ("score", float("nan"), "gets from OpenVINO a score that is nan of"),
    ],
)
def test_a_wrong_graph_is_refused_at_first_use(tiny, noise_images, monkeypatch, output, factor, words):
    written = []
    real = graph_files.joint_model

    def wrong(graph, name):
        model = real(graph, name)
        for node in model.graph.node:
            node.output[:] = ["right" if value == output else value for value in node.output]
            node.input[:] = ["right" if value == output else value for value in node.input]
        model.graph.initializer.append(helper.make_tensor("factor", TensorProto.FLOAT, [], [factor]))
        model.graph.node.append(helper.make_node("Mul", ["right", "factor"], [output]))
        written.append(name)
        return model

    monkeypatch.setattr(graph_files, "joint_model", wrong)
    for _ in range(2):
        with pytest.raises(ValueError, match=words) as raised:
            pt.learn_masks(tiny, noise_images, 0, pt.MaskSettings(iterations=1), engine="onnx")
        assert str(raised.value).startswith("network: Sequential gets")
        assert str(raised.value).endswith("engine='torch' works with it")
        assert "\n" not in str(raised.value)
    assert len(written) == 1, "a refusal is kept"


def test_what_openvino_cannot_run_is_refused(tiny, noise_images, monkeypatch):
    graph = helper.make_graph(
        [helper.make_node("Unheard", ["x"], ["y"], domain="of")],
        "unheard",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("of", 1)]
    )
    monkeypatch.setattr(graph_files, "joint_model", lambda graph, name: model)
    with pytest.raises(
        ValueError, match=r"Sequential gets from OpenVINO an error \(.+\); engine='torch' works"
    ):
        pt.learn_masks(tiny, noise_images, 0, pt.MaskSettings(iterations=1), engine="onnx")


def test_a_known_network_is_not_traced_again(tiny, noise_images, monkeypatch):
    settings = pt.MaskSettings(iterations=2)
    first = pt.learn_masks(tiny, noise_images, 0, settings, engine="onnx")

    def never(*_):
        raise AssertionError("traced")

    monkeypatch.setattr(graph_files, "trace_joint", never)
    again = pt.Network(tiny.module, mean=tiny.mean, std=tiny.std, input_size=32, device="cpu")
    assert torch.equal(pt.learn_masks(again, noise_images, 0, settings, engine="onnx").grid, first.grid)
    brighter = pt.Network(tiny.module, mean=(0.4, 0.4, 0.3), std=tiny.std, input_size=32, device="cpu")
    with pytest.raises(AssertionError, match="traced"):
        pt.learn_masks(brighter, noise_images, 0, settings, engine="onnx")


def test_a_network_without_a_key_is_traced_and_its_file_found(noise_images):
    class Local(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tiny_module()

        def forward(self, x):
            return self.inner(x) * 2

    networks = [pt.Network(Local(), input_size=32, device="cpu") for _ in range(2)]
    settings = pt.MaskSettings(iterations=2)
    for network in networks:
        assert graph_files.graph_key(network, settings) is None
        pt.learn_masks(network, noise_images, 0, settings, engine="onnx")
    assert len(list(cache_folder().glob("*.onnx"))) == 1


@pytest.mark.parametrize("count", [1, 3])
def test_scores_without_gradients_are_the_networks(tiny, noise_images, count):
    images, settings = noise_images[:count], pt.MaskSettings()
    blurred = fully_perturbed(images, "blur", color=tiny.mean_color)
    weights = torch.eye(5)[torch.arange(count)]
    runtime = JointRuntime(tiny, settings, 2)
    cells = settings.grid_shape(32)
    for value, pixels in ((1.0, images), (0.0, blurred)):
        got = runtime.scores(torch.full((count, 1, *cells), value), images, blurred, weights)
        torch.testing.assert_close(got, (tiny.scores(pixels) * weights).sum(1), atol=1e-6, rtol=1e-5)


class Strided(torch.nn.Module):
    """A strided depthwise convolution with an activation after it, as in EfficientNet."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 32, 1), torch.nn.ReLU6(), torch.nn.Conv2d(32, 32, 3, 2, 1, groups=32),
            torch.nn.ReLU6(), torch.nn.Conv2d(32, 16, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
            torch.nn.Linear(16, 5),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


def test_bfloat16_goes_the_same_way_or_is_refused(noise_images):
    network = pt.Network(Strided(), input_size=32, device="cpu")
    settings = pt.MaskSettings(iterations=5)
    capable = "BF16" in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if not capable:
        with pytest.raises(
            ValueError, match=r"precision: this processor has no bfloat16; give precision='float32'"
        ):
            pt.learn_masks(network, noise_images, 0, settings, engine="onnx", precision="bfloat16")
        return
    exact, rounded = (
        pt.learn_masks(network, noise_images, 0, settings, engine="onnx", precision=precision)
        for precision in ("float32", "bfloat16")
    )
    assert not torch.equal(rounded.history.score, exact.history.score)
    # Three digits of a score; what is reported of the image and of the final mask is float32.
    torch.testing.assert_close(rounded.history.score[:, 0], exact.history.score[:, 0], atol=0, rtol=0.02)
    assert torch.equal(rounded.score_original, exact.score_original)
    graphs = openvino_engine._Graphs(network, settings, 1)
    kernels = [
        node.get_rt_info()["primitiveType"].astype(str)
        for node in graphs.joint("bf16").get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].astype(str) == "Deconvolution"
    ]
    assert ["dw" in kernel for kernel in kernels] == [True], kernels


def test_a_wrong_graph_in_bfloat16_is_refused(tiny, noise_images, monkeypatch):
    settings = pt.MaskSettings(iterations=1)
    if "BF16" not in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16")
    real = openvino_engine._with_depthwise_kernels

    def wrong(openvino, core, model):
        changed = real(openvino, core, model)
        result = changed.outputs[1].get_node()
        flipped = openvino.opset14.negative(result.input_value(0))
        result.input(0).replace_source_output(flipped.output(0))
        return changed

    monkeypatch.setattr(openvino_engine, "_with_depthwise_kernels", wrong)
    with pytest.raises(
        ValueError, match=r"in bfloat16 a score .* a gradient of cosine -.* give precision='float32'"
    ):
        pt.learn_masks(tiny, noise_images, 0, settings, engine="onnx", precision="bfloat16")
