"""The exported score-and-gradient graph against automatic differentiation, run by ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from engine_inputs import by_autograd, example
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial.engines import backward, joint_graph
from perturb_tutorial.engines.joint_graph import (
    INPUTS,
    OUTPUTS,
    export_joint_graph,
    trace_joint,
    with_half_weights,
)
from perturb_tutorial.perturbations import fully_perturbed


def run(path, inputs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    assert tuple(item.name for item in session.get_inputs()) == INPUTS
    assert tuple(item.name for item in session.get_outputs()) == OUTPUTS
    outputs = session.run(None, dict(zip(INPUTS, (x.numpy() for x in inputs), strict=True)))
    return [torch.from_numpy(output) for output in outputs]


def differences(expected, got):
    """‖a − b‖ / ‖a‖ of each output."""
    return [((a - b).norm() / a.norm()).item() for a, b in zip(expected, got, strict=True)]


class Everything(nn.Module):
    """What networks for images are made of: strides, groups, dilation, pooling, clips, in-place layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)),
            nn.Conv2d(3, 8, 3, stride=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(inplace=True),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.ReLU6(),
            nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(12, 12, 5, stride=2, padding=2, groups=12),
            nn.Hardtanh(-0.5, 0.5),
            nn.Conv2d(12, 16, 1),
            nn.SiLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(16 * 16, 5)

    def forward(self, inputs):
        return 4 * self.head(self.layers(inputs))


@pytest.mark.parametrize("count", [1, 3])
def test_graph_is_the_gradient_of_everything(tmp_path, count):
    settings = pt.MaskSettings(mask_scale=16)
    network = pt.Network(Everything(), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), input_size=64, device="cpu")
    inputs = example(network, count, settings)
    expected = by_autograd(network, settings, *inputs)
    # float32 sums in another order.
    assert max(differences(expected, trace_joint(network, settings, count)(*inputs))) < 1e-5
    export_joint_graph(network, tmp_path / "joint.onnx", settings=settings, batch_size=count)
    assert max(differences(expected, run(tmp_path / "joint.onnx", inputs))) < 1e-5


@pytest.mark.parametrize(("shape", "channels"), [((32, 64), 4), ((64, 32), 1)])
def test_graph_of_a_rectangle_with_other_channels(tmp_path, shape, channels):
    settings = pt.MaskSettings(mask_scale=16)
    module = Everything()
    torch.manual_seed(1)
    module.layers[1] = nn.Conv2d(channels, 8, 3, stride=2, bias=False)
    module.layers[-2] = nn.AdaptiveAvgPool2d((4, 4))
    network = pt.Network(
        module, mean=(0.5,) * channels, std=(0.3,) * channels, input_size=shape, device="cpu"
    )
    inputs = example(network, 2, settings)
    expected = by_autograd(network, settings, *inputs)
    export_joint_graph(network, tmp_path / "joint.onnx", settings=settings, batch_size=2)
    assert max(differences(expected, run(tmp_path / "joint.onnx", inputs))) < 1e-5  # float32 sums
    # Both matrices of the upsampling keep their 32 bits: the gradient is the rounded network's.
    export_joint_graph(network, tmp_path / "half.onnx", settings=settings, batch_size=2, half_weights=True)
    expected = by_autograd(with_half_weights(network), settings, *inputs)
    assert max(differences(expected, run(tmp_path / "half.onnx", inputs))) < 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 1, "padding": 1},
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "ceil_mode": True},
        {"kernel_size": (2, 5), "stride": (3, 2), "padding": (1, 2), "ceil_mode": True},
        {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 1},
        {"kernel_size": (3, 2), "stride": (1, 4), "dilation": (1, 3)},
    ],
)
def test_max_pooling_sends_a_gradient_to_the_first_of_equals(options):
    # Numbers out of three: every window has ties, which PyTorch gives to the first in reading order.
    inputs = torch.randint(-1, 2, (2, 3, 11, 14), generator=torch.Generator().manual_seed(0)).float()
    pool = nn.MaxPool2d(**options)
    wanted = inputs.clone().requires_grad_(True)
    output = pool(wanted)
    gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    (expected,) = torch.autograd.grad(output, wanted, gradient)
    settings = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    settings = [[value] * 2 if isinstance(value, int) else list(value) for value in settings]
    got = backward._max_pool_backward(gradient, inputs, *settings, pool.ceil_mode, None)
    torch.testing.assert_close(got, expected)


def test_no_pooling_asks_for_indices():
    # Runtimes compute them forty times as slowly as the maxima.
    settings = pt.MaskSettings(mask_scale=16)
    network = pt.Network(Everything(), input_size=64, device="cpu")
    model = joint_graph.joint_model(trace_joint(network, settings, 1), "everything")
    pools = [node for node in model.graph.node if node.op_type == "MaxPool"]
    assert [len([name for name in node.output if name]) for node in pools] == [1, 1]
    assert not [node for node in model.graph.node if node.op_type.startswith("Scatter")]


def test_the_tiny_network_of_the_other_tests(tiny, tmp_path):
    settings = pt.MaskSettings()
    inputs = example(tiny, 2, settings)
    export_joint_graph(tiny, tmp_path / "joint.onnx", batch_size=2)
    got = run(tmp_path / "joint.onnx", inputs)
    assert max(differences(by_autograd(tiny, settings, *inputs), got)) < 1e-5


@pytest.fixture(scope="module")
def lite0_graph(lite0, tmp_path_factory):
    """EfficientNet-Lite0's graph with weights of 16 bits."""
    folder = tmp_path_factory.mktemp("graph")
    export_joint_graph(lite0, folder / "joint.onnx", half_weights=True)
    return folder / "joint.onnx"


def test_efficientnet_lite0_with_half_weights(lite0, lite0_graph):
    rounded = with_half_weights(lite0)
    samples = pt.load_samples(names=["chelsea"])
    settings = pt.MaskSettings()
    mask, _, _, _ = example(lite0, 1, settings)
    background = fully_perturbed(samples.images, "blur", color=lite0.mean_color)
    weights = torch.zeros(1, 1000)
    weights[0, samples.targets[0]] = 1
    inputs = (0.5 + 0.5 * mask, samples.images, background, weights)
    expected = by_autograd(rounded, settings, *inputs)
    score, gradient, probabilities = differences(expected, run(lite0_graph, inputs))
    assert score < 1e-5
    assert probabilities < 1e-5
    # Rounding moves a few units across the edges of ReLU6, where the gradient jumps.
    assert gradient < 5e-3
    # The rounded network is near the trained one, and not it.
    exact = by_autograd(lite0, settings, *inputs)
    cosine = nn.functional.cosine_similarity(exact[1].flatten(), expected[1].flatten(), dim=0)
    assert 0.9 < cosine < 0.99999


def test_files_of_the_graph(lite0_graph):
    # 4.65 million weights of 2 bytes, the operations, and nothing that tells where they were made.
    assert 9.3e6 < lite0_graph.stat().st_size < 10e6
    model = onnx.load(lite0_graph)
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert b"site-packages" not in lite0_graph.read_bytes()
    assert {"Resize", "ScatterElements"}.isdisjoint(node.op_type for node in model.graph.node)


def test_wrong_arguments_are_named(tiny, tmp_path):
    with pytest.raises(ValueError, match="batch_size: expected a whole number of at least 1, got 0"):
        export_joint_graph(tiny, tmp_path / "joint.onnx", batch_size=0)
    assert list(tmp_path.iterdir()) == []


class Transposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 5, 2, stride=2)

    def forward(self, inputs):
        return self.up(inputs).mean((2, 3))


def test_what_cannot_be_exported_says_which_engine_can(tmp_path):
    network = pt.Network(Transposed(), input_size=16, device="cpu")
    with pytest.raises(ValueError, match=r"Transposed has a transposed convolution .* engine='torch' works"):
        export_joint_graph(network, tmp_path / "joint.onnx")


def test_a_transposed_convolution_has_a_weight_of_its_own():
    # What OpenVINO would arrange for the strided convolution and then take for the transposed one, too.
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.Tanh(),
        nn.Conv2d(8, 8, 3, stride=2, groups=2),
        nn.Flatten(),
        nn.LazyLinear(3),
    )
    module(torch.zeros(1, 3, 32, 32))
    network = pt.Network(module, input_size=32, device="cpu")
    model = joint_graph.joint_model(trace_joint(network, pt.MaskSettings(), 1), "strided")
    weights = [node.input[1] for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert len(weights) == 4
    assert len(set(weights)) == 4
    assert set(weights) <= {item.name for item in model.graph.initializer}


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 4)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, inputs):
        tokens = self.patches(inputs).flatten(2).transpose(1, 2)
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


def test_attention_is_recorded_as_matrix_products(tmp_path):
    torch.manual_seed(0)
    settings = pt.MaskSettings()
    network = pt.Network(Attention(), input_size=32, device="cpu")
    inputs = example(network, 2, settings)
    export_joint_graph(network, tmp_path / "joint.onnx", batch_size=2)
    got = run(tmp_path / "joint.onnx", inputs)
    assert max(differences(by_autograd(network, settings, *inputs), got)) < 1e-5


class Undecided(nn.Module):
    def forward(self, inputs):
        means = inputs.mean((2, 3))
        return means if means[0, 0] > 0 else 2 * means


class Unconnected(nn.Module):
    def forward(self, inputs):
        with torch.no_grad():
            return inputs.mean((2, 3))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Undecided(), "Undecided has a step that cannot be recorded .* engine='torch' works with it"),
        (Unconnected(), "expected logits with a gradient"),
    ],
)
def test_what_cannot_be_recorded_is_told_in_a_sentence(module, words):
    network = pt.Network(module, input_size=16, device="cpu")
    with pytest.raises(ValueError, match=words) as raised:
        trace_joint(network, pt.MaskSettings(), 1)
    assert "\n" not in str(raised.value)


def test_exporting_leaves_the_network_as_it_was(tiny, tmp_path, noise_images):
    before = tiny.logits(noise_images)
    layout = next(tiny.folded.parameters()).stride()
    export_joint_graph(tiny, tmp_path / "joint.onnx")
    assert torch.equal(tiny.logits(noise_images), before)
    assert next(tiny.folded.parameters()).stride() == layout
    assert np.isfinite(before.numpy()).all()
