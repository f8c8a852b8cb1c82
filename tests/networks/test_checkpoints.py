"""Parts under ``torch.utils.checkpoint`` are explained like any other, and other threads keep theirs."""

from __future__ import annotations

import threading

import pytest
import torch
from small_inputs import tiny_module
from torch import nn
from torch.utils import checkpoint

import perturb_tutorial as pt
from perturb_tutorial import baselines
from perturb_tutorial.networks.checkpoints import without_checkpoints

METHODS = [name for name in baselines.METHODS if name != "mask" and "occlusion" not in name]
SETTINGS = pt.MaskSettings(iterations=3)


class Checkpointed(nn.Module):
    """The tiny network, its first layers under a checkpoint."""

    def __init__(self, **form):
        super().__init__()
        self.layers, self.form = tiny_module(), form

    def forward(self, x):
        first, rest = self.layers[:3], self.layers[3:]
        return rest(checkpoint.checkpoint(first, x, **self.form) if self.form else first(x))


def network_of(**form):
    return pt.Network(Checkpointed(**form), input_size=32, device="cpu")


@pytest.mark.parametrize("reentrant", [True, False])
def test_every_method_is_as_without_the_checkpoint(reentrant, noise_images):
    plain, network = network_of(), network_of(use_reentrant=reentrant)
    for name in METHODS:
        for layer in ("layers.0", "layers.3"):  # in the part and after it
            expected, got = (
                pt.saliency(n, noise_images, 1, method=name, layer=layer) for n in (plain, network)
            )
            assert torch.equal(got, expected), (name, layer)
    for name in ("gradient", "guided_backprop"):
        expected, got = (pt.saliency(n, noise_images, 1, method=name) for n in (plain, network))
        assert torch.equal(got, expected), name
    expected, got = (pt.learn_masks(n, noise_images, 1, SETTINGS).grid for n in (plain, network))
    assert torch.equal(got, expected)
    expected, got = (
        pt.learn_activation_masks(n, noise_images, 1, "layers.0", SETTINGS).grid for n in (plain, network)
    )
    assert torch.equal(got, expected)


def test_the_exported_graph_too(tmp_path, monkeypatch, noise_images):
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected, got = (
        pt.learn_masks(n, noise_images, 1, SETTINGS, engine="onnx").grid
        for n in (network_of(), network_of(use_reentrant=True))
    )
    assert torch.equal(got, expected)


def test_a_part_that_holds_torchs_function_itself_is_refused(noise_images):
    function = checkpoint.CheckpointFunction

    class Held(Checkpointed):
        def forward(self, x):
            return self.layers[3:](function.apply(self.layers[:3], True, x))

    network = pt.Network(Held(), input_size=32, device="cpu")
    for learn in (pt.learn_masks, baselines.gradient):
        with pytest.raises(
            ValueError, match=r"^module: a part under .* use_reentrant=True .*; turn checkpointing off"
        ):
            learn(network, noise_images, 1)


@pytest.mark.parametrize("reentrant", [True, False])
def test_another_thread_keeps_its_checkpoints_and_torch_gets_its_own_back(reentrant):
    before = checkpoint.CheckpointFunction, checkpoint._checkpoint_without_reentrant_generator
    runs, gradients = [], []

    def part(x):
        runs.append(threading.get_ident())
        return x * x

    def other():
        x = torch.ones(2, requires_grad=True)
        checkpoint.checkpoint(part, x, use_reentrant=reentrant).sum().backward()
        gradients.append(x.grad)

    def passes():
        x = torch.ones(2, requires_grad=True)
        checkpoint.checkpoint(part, x, use_reentrant=reentrant).sum().backward()
        assert runs == [threading.get_ident()]  # once: there was no second run
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert len(runs) == 3  # forward and again backward
        assert torch.equal(gradients[0], torch.full((2,), 2.0))
        raise KeyError  # torch gets its own back after an error, too

    with pytest.raises(KeyError), without_checkpoints(), without_checkpoints():
        passes()
    assert before == (checkpoint.CheckpointFunction, checkpoint._checkpoint_without_reentrant_generator)
