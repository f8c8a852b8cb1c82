"""engine="auto": measured once, kept, and only what is right and faster."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from small_inputs import tiny_module

import perturb_tutorial as pt
from perturb_tutorial import fastest
from perturb_tutorial.engines.graph_files import cache_folder
from perturb_tutorial.fastest import ONNX, ROUNDED, TORCH, fastest_engine, known_engine

SETTINGS = pt.MaskSettings(iterations=2)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads what another run left, nor leaves anything."""
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "cache"))


def timed(monkeypatch, seconds, agrees=True):
    """Lets each engine take the given time; one without a time cannot run the network."""
    asked = []

    def measured(network, settings, rows, choice):
        asked.append(choice)
        if choice not in seconds:
            raise ValueError("engine: it cannot run this network")
        return seconds[choice]

    monkeypatch.setattr(fastest, "_seconds", measured)
    monkeypatch.setattr(fastest, "_ends_as_low", lambda network, settings: agrees)
    return asked


@pytest.mark.parametrize(
    ("seconds", "agrees", "expected"),
    [
        ({TORCH: 3.0, ONNX: 1.0}, True, ONNX),
        ({TORCH: 1.0, ONNX: 3.0}, True, TORCH),
        ({TORCH: 3.0}, True, TORCH),
        ({TORCH: 3.0, ONNX: 1.0, ROUNDED: 0.8}, True, ROUNDED),
        ({TORCH: 3.0, ONNX: 1.0, ROUNDED: 0.95}, True, ONNX),  # not worth its rounding
        ({TORCH: 3.0, ONNX: 1.0, ROUNDED: 0.5}, False, ONNX),  # its masks are worse
    ],
)
def test_the_fastest_that_is_right(tiny, monkeypatch, seconds, agrees, expected):
    timed(monkeypatch, seconds, agrees)
    assert fastest_engine(tiny, SETTINGS, 1) == expected


def test_what_was_measured_is_kept_for_the_next_process(tiny, monkeypatch):
    asked = timed(monkeypatch, {TORCH: 3.0, ONNX: 1.0})
    assert known_engine(tiny, SETTINGS, 1) is None
    assert fastest_engine(tiny, SETTINGS, 1) == fastest_engine(tiny, SETTINGS, 1) == ONNX
    assert asked == [TORCH, ONNX, ROUNDED]

    def again():
        return pt.Network(tiny.module, mean=tiny.mean, std=tiny.std, input_size=32, device="cpu")

    assert known_engine(again(), SETTINGS, 1) == ONNX
    # Exactness is another question, and so is another network.
    assert known_engine(again(), SETTINGS, 1, exact=True) is None
    other = tiny_module()
    with torch.no_grad():
        next(other.parameters()).add_(0.1)
    assert known_engine(pt.Network(other, input_size=32, device="cpu"), SETTINGS, 1) is None


@pytest.mark.parametrize(
    "content", ["", "{}", '{"engine": "rm", "precision": "float32"}', "[1]", '{"engine": 1}']
)
def test_a_damaged_note_is_measured_anew(tiny, monkeypatch, content):
    timed(monkeypatch, {TORCH: 3.0, ONNX: 1.0})
    fastest_engine(tiny, SETTINGS, 1)
    (file,) = cache_folder().glob("engine_*.json")
    assert json.loads(file.read_text()) == {"engine": "onnx", "precision": "float32"}
    file.write_text(content)
    again = pt.Network(tiny.module, mean=tiny.mean, std=tiny.std, input_size=32, device="cpu")
    assert known_engine(again, SETTINGS, 1) is None


def test_masks_by_auto_are_those_of_the_engine_that_was_taken(tiny, noise_images, monkeypatch):
    """With nothing replaced: whatever is faster here, the masks are its own."""
    auto = pt.learn_masks(tiny, noise_images, 0, SETTINGS, engine="auto")
    assert (auto.engine, auto.precision) in {TORCH, ONNX, ROUNDED}
    named = pt.learn_masks(tiny, noise_images, 0, SETTINGS, engine=auto.engine, precision=auto.precision)
    assert torch.equal(auto.grid, named.grid)
    exact = pt.learn_masks(tiny, noise_images, 0, SETTINGS, engine="auto", precision="float32")
    assert exact.precision == "float32"


def test_masks_in_bfloat16_that_end_higher_are_noticed(tiny, monkeypatch):
    real = fastest.learn_on

    def worse(canvas, settings, report, precision):
        masks = real(canvas, settings, report, precision)
        higher = 0.05 * settings.rules.sign if precision == "bfloat16" else 0
        return dataclasses.replace(masks, score_masked=masks.score_masked + higher)

    # On a processor without bfloat16 float32 stands for it.
    monkeypatch.setattr(fastest, "ROUNDED", fastest.Choice("torch", "bfloat16"))
    monkeypatch.setattr(fastest, "ONNX", TORCH)
    assert fastest._ends_as_low(tiny, SETTINGS)
    monkeypatch.setattr(fastest, "learn_on", worse)
    assert not fastest._ends_as_low(tiny, SETTINGS)


def test_a_score_of_ones_own_and_missing_packages_mean_torch(tiny, monkeypatch):
    timed(monkeypatch, {TORCH: 3.0, ONNX: 1.0})
    assert fastest_engine(tiny, SETTINGS, 1, own_score=True) == TORCH
    monkeypatch.setattr(fastest, "find_spec", lambda name: None if name == "openvino" else True)
    assert fastest_engine(tiny, SETTINGS, 1) == TORCH
