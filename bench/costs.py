"""The cost of arithmetic on this machine, and how an engine spends its time."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import perturb_tutorial as pt

KINDS = {
    "convolution": ("conv",),
    "clip": ("hardtanh", "clamp", "relu", "threshold"),
    "batch norm": ("batch_norm",),
    "copy and fill": ("copy_", "fill_", "zero_", "pad", "cat"),
}
OPENVINO_KINDS = {"convolution": ("Convolution",), "clip and other elementwise": ("Subgraph", "Eltwise")}


def machine_limits() -> dict[str, float]:
    """GFLOP/s of a float32 product of two 2048×2048 matrices, GB/s of a copy: the best of several."""
    a, b = torch.rand(2, 2048, 2048)
    source, sink = torch.rand(2, 16_000_000)

    def best(work: Callable[[], object]) -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    return {
        "matmul_gflops": 2 * 2048**3 / best(lambda: a @ b) / 1e9,
        "copy_gbytes": 2 * 4 * 16_000_000 / best(lambda: sink.copy_(source)) / 1e9,
    }


def gradient_of(
    network: pt.Network, inputs: Tensor, logits: Callable[[Tensor], Tensor] | None = None
) -> Callable[[], object]:
    """The folded network's forward pass and the gradient of its normalized inputs; ``logits`` runs it otherwise."""
    inputs, logits = inputs.clone().requires_grad_(True), logits or network.normalized_logits
    return lambda: torch.autograd.grad(logits(inputs)[:, 0].sum(), inputs)


def gflops(network: pt.Network) -> dict[str, float]:
    """Arithmetic of one image: a multiplication and an addition count as two operations."""
    image = torch.rand(1, 3, network.input_size, network.input_size, device=network.device)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network.normalized_logits(image)
    with FlopCounterMode(display=False) as both:
        gradient_of(network, image)()
    return {
        "forward": forward.get_total_flops() / 1e9,
        "forward_and_gradient": both.get_total_flops() / 1e9,
    }


def torch_shares(work: Callable[[], object], rounds: int = 3) -> dict[str, float]:
    """Share of the CPU's time by kind of operation."""
    work()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(rounds):
            work()
    spent: dict[str, float] = defaultdict(float)
    for event in profiled.key_averages():
        if event.key.startswith("aten::"):
            name = event.key.removeprefix("aten::")
            kind = next((k for k, parts in KINDS.items() if any(p in name for p in parts)), "other")
            spent[kind] += event.self_cpu_time_total
    return _shares(spent)


def openvino_shares(graph: bytes, inputs: dict[str, Tensor], rounds: int = 5) -> dict[str, float]:
    """The same in OpenVINO, on one thread."""
    import openvino

    core = openvino.Core()
    model = core.compile_model(
        core.read_model(graph, b""),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERF_COUNT": True},
    )
    request = model.create_infer_request()
    for _ in range(rounds):
        request.infer({name: value.numpy() for name, value in inputs.items()})
    spent: dict[str, float] = defaultdict(float)
    for entry in request.profiling_info:
        kinds = OPENVINO_KINDS.items()
        kind = next((k for k, parts in kinds if any(p in entry.node_type for p in parts)), "other")
        spent[kind] += entry.real_time.total_seconds()
    return _shares(spent)


def _shares(spent: dict[str, float]) -> dict[str, float]:
    whole = sum(spent.values())
    return {kind: value / whole for kind, value in sorted(spent.items(), key=lambda item: -item[1])}
