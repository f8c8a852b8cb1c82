"""The joint graph: score, gradient and probabilities of a masked image as one ONNX file.

A runtime without automatic differentiation can optimize a mask once the gradient is part of the graph:

    mask m (N×1×h×w), image x, background x′ (N×C×H×W), weights w (N×K)
      → score  s = Σ_c w_c f_c(x · M + x′ · (1 − M)),  M = U_h m U_wᵀ   N values
      → gradient  ∂s/∂m                                                 N×1×h×w
      → probabilities  f                                                N×K

x and x′ are pixels in [0, 1]; normalization and upsampling are in the graph, the regularizers, Adam and the
jitter (both pictures shifted) are the caller's. w is 1 for each target class. With ``score_scale="logit"`` s is the
log-odds of that sum (``objectives.log_odds``).

The network is the folded copy. Its backward pass is recorded by running ``torch.autograd.grad`` under a tracer,
in operations that every runtime has (module ``backward``).
"""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from perturb_tutorial._outside import check_whole
from perturb_tutorial.engines.backward import BACKWARD, NoRuleError, clips_from_outputs, pools_without_indices
from perturb_tutorial.files import whole_file
from perturb_tutorial.masks import upsampling_matrices
from perturb_tutorial.networks import Network
from perturb_tutorial.networks.checkpoints import without_checkpoints
from perturb_tutorial.networks.checks import as_logits
from perturb_tutorial.networks.gradients import check_gradient
from perturb_tutorial.objectives import log_odds
from perturb_tutorial.settings import MaskSettings

INPUTS = ("mask", "image", "background", "weights")
OUTPUTS = ("score", "gradient", "probabilities")
OPSET = 18
HALVED_FROM = 100
"""Numbers from which a layer's weight is halved; the mean and deviation of the normalization have three."""
_MISSING = "the joint graph needs the packages onnx and onnxscript: run: pip install 'perturb_tutorial[onnx]'"
_UNKNOWN = "network: {name} has {what}; engine='torch' works with it"


def export_joint_graph(
    network: Network,
    path: str | Path,
    *,
    settings: MaskSettings | None = None,
    batch_size: int = 1,
    half_weights: bool = False,
) -> None:
    """Writes the joint graph of ``network`` (module docstring) to ``path``, whole or not at all.

    Args:
        network: the network whose score and gradient are exported.
        path: the ONNX file.
        settings: their grid, their softening and whether the score is a logit are built into the graph, nothing else;
            None is the default.
        batch_size: N.
        half_weights: whether the weights of layers are stored as float16 and cast back, which halves the file; the
            arithmetic stays float32 (:func:`with_half_weights` is the same network in PyTorch).

    Raises:
        ImportError: without the packages onnx and onnxscript.
        ValueError: for a network whose backward pass needs an operation that the format cannot express.
    """
    settings = settings or MaskSettings()
    model = joint_model(trace_joint(network, settings, batch_size), network.name)
    if half_weights:
        cells = settings.grid_shape(network.input_size)
        _halve(model, upsampling=[{*pair} for pair in zip(network.input_shape, cells, strict=True)])
    with whole_file(path) as file:
        file.write(model.SerializeToString())


def trace_joint(network: Network, settings: MaskSettings, batch_size: int) -> fx.GraphModule:
    """The joint function of ``INPUTS`` to ``OUTPUTS`` as a graph of plain tensor operations, on the CPU."""
    batch_size = check_whole("batch_size", batch_size, 1)
    example = _example(network, settings, batch_size)
    function = joint_function(network, settings)
    try:
        function(*example)  # a fault of the module itself is found before anything is recorded
        # Attention as its matrix products: a fused one has a backward pass that no file can express.
        with sdpa_kernel(SDPBackend.MATH), _Recordable():
            graph = make_fx(function, decomposition_table=BACKWARD)(*example)
    except ValueError:
        raise
    except NoRuleError as error:
        raise ValueError(_UNKNOWN.format(name=network.name, what=error)) from error
    except Exception as error:  # a module may do anything that cannot be recorded, such as an if on its input
        what = f"a step that cannot be recorded ({type(error).__name__}: {_first_line(error)})"
        raise ValueError(_UNKNOWN.format(name=network.name, what=what)) from error
    clips_from_outputs(graph)
    pools_without_indices(graph)
    return graph


class _Recordable(TorchFunctionMode):
    """Within the block pooling to one place is a mean, and no activation works in place.

    PyTorch's pooling gives its result the memory layout of an input with channels last, by an operation on strides
    whose backward pass no file can express; an activation in place after a linear layer becomes such an operation, too.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if named.get("inplace") is True:
            named = {**named, "inplace": False}
        if getattr(function, "__name__", "") == "adaptive_avg_pool2d" and len(args) + len(named) == 2:
            values = {**named, **dict(zip(("input", "output_size"), args, strict=False))}
            if values["output_size"] in (1, (1, 1), [1, 1]):
                return values["input"].mean((-2, -1), keepdim=True)
        return function(*args, **named)


def joint_function(
    network: Network, settings: MaskSettings
) -> Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """The joint function by automatic differentiation, on the CPU: what the graph is recorded from."""
    size = network.input_size
    sigma = settings.lengths(size).mask_sigma
    rows, columns = upsampling_matrices(
        size, settings.grid_shape(size), sigma, torch.empty(0, dtype=torch.float32, device="cpu")
    )
    # Contiguous weights: a file has no memory layout, and a conversion would stay in the graph.
    module = copy.deepcopy(network.to("cpu").folded).float()
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # no such form in torch's stub

    def joint(
        mask: Tensor, image: Tensor, background: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            grid = mask.detach().requires_grad_(True)
            upsampled = rows @ grid @ columns.T
            pixels = background + (image - background) * upsampled
            with without_checkpoints():
                output = as_logits(module(network.normalize(pixels)))
            probabilities = output.float().softmax(1)
            logit = settings.score_scale == "logit"
            score = log_odds(output, weights) if logit else (probabilities * weights).sum(1)
            check_gradient(score, grid)
            (gradient,) = torch.autograd.grad(score.sum(), grid)
        return score.detach(), gradient, probabilities.detach()

    return joint


def joint_model(graph: fx.GraphModule, name: str) -> Any:
    """The traced graph as an ``onnx.ModelProto``."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(_MISSING) from error
    example = tuple(node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own use of old names
            program = torch.onnx.export(
                graph,
                tuple(torch.zeros(value.shape, dtype=value.dtype, device="cpu") for value in example),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        operation = re.search(r"op='(?:\w+\.)?(\w+)", str(error))
        what = f"the operation {operation[1]}" if operation else "an operation"
        raise ValueError(_UNKNOWN.format(name=name, what=f"{what}, which ONNX lacks")) from error
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model: Any = program.model_proto
    model.graph.name = name
    # The exporter notes this machine's paths at every node.
    for item in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    _separate_transposed_weights(model)
    return model


def _separate_transposed_weights(model: Any) -> None:
    """In place: the weight of each transposed convolution becomes an initializer of its own.

    OpenVINO takes the weight that it has arranged for the convolution of the forward pass where the two share one
    initializer and have as many input as output channels, and that arrangement is the wrong one.
    """
    weights = {item.name: item for item in model.graph.initializer}
    for index, node in enumerate(model.graph.node):
        if node.op_type == "ConvTranspose" and node.input[1] in weights:
            own = model.graph.initializer.add()
            own.CopyFrom(weights[node.input[1]])
            own.name = node.input[1] = f"{own.name}_transposed{index}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def with_half_weights(network: Network) -> Network:
    """A network whose folded weights are rounded to float16 and back: what ``half_weights`` stores."""
    module = copy.deepcopy(network.folded)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.dim() > 1 and weight.numel() >= HALVED_FROM:
                weight.copy_(weight.half().to(weight))
    return Network(
        module,
        mean=network.mean,
        std=network.std,
        input_size=network.input_size,
        categories=network.labels,
        name=network.name,
        device=network.device,
        channels_last=network.channels_last,
    )


def _example(network: Network, settings: MaskSettings, count: int) -> tuple[Tensor, ...]:
    cells = settings.grid_shape(network.input_size)
    pixels = (network.channels, *network.input_shape)
    generator = torch.Generator(device="cpu").manual_seed(0)
    mask, image, background = (
        torch.rand(count, *shape, generator=generator, dtype=torch.float32, device="cpu")
        for shape in ((1, *cells), pixels, pixels)
    )
    return mask, image, background, torch.zeros(count, network.class_count, dtype=torch.float32, device="cpu")


def _halve(model: Any, upsampling: Sequence[set[int]]) -> None:
    """In place: float32 weights of layers become float16 and a cast back; ``upsampling``: the sides of each U."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for item in list(model.graph.initializer):
        small = len(item.dims) < 2 or math.prod(item.dims) < HALVED_FROM
        upsamples = any(pair <= set(item.dims) for pair in upsampling)  # the third dimension is the batch
        if small or upsamples or item.data_type != TensorProto.FLOAT:
            continue
        half = numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float16), f"{item.name}_half")
        casts.append(helper.make_node("Cast", [half.name], [item.name], to=TensorProto.FLOAT))
        model.graph.initializer.remove(item)
        model.graph.initializer.append(half)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


__all__ = [
    "INPUTS",
    "OUTPUTS",
    "export_joint_graph",
    "joint_function",
    "joint_model",
    "trace_joint",
    "with_half_weights",
]
