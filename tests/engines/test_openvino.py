"""engine="onnx" against engine="torch": the same masks within rounding, and the same promises about batches."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from small_inputs import FailsOnBlack, tiny_module

import perturb_tutorial as pt
from perturb_tutorial.engines.openvino import JointRuntime, cache_folder


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
    torch.testing.assert_close(got.grid, expected.grid, atol=0.5, rtol=0)
    # The first score is before any step: what differs is the rounding of one forward pass.
    torch.testing.assert_close(got.history.score[:, 0], expected.history.score[:, 0], atol=1e-5, rtol=0)
    # Later ones differ as rounding grows under Adam; the bounds are those for engines of the design.
    torch.testing.assert_close(got.history.score, expected.history.score, atol=0.05, rtol=0)
    torch.testing.assert_close(got.history.area, expected.history.area, atol=0.02, rtol=0)
    for a, b in zip(got.saliency, expected.saliency, strict=True):
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] >= 0.9
    assert torch.equal(got.converged, expected.converged)
    assert torch.equal(got.radius, expected.radius)


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
