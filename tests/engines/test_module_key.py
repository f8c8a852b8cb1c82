"""The key of what a module computes: the same for the same, another for anything else, none where it cannot be told."""

from __future__ import annotations

import copy
import functools
import importlib.util
import sys

import pytest
import torch
from small_inputs import tiny_module
from torch import nn

from perturb_tutorial.engines.module_key import module_key

SOURCE = """
import torch

def half(x):
    return x / 2

class Net(torch.nn.Module):
    def __init__(self, power=2.0, act=torch.relu):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.power, self.act = power, act

    def forward(self, x):
        return half(self.act(self.layer(x))) ** self.power
"""


def written(tmp_path, source, name="net"):
    """The module ``name`` from a file of its own with this source."""
    path = tmp_path / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def no_module_stays(monkeypatch):
    """What a test writes as a module is gone after it."""
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


def seeded(make, *args, **named):
    torch.manual_seed(0)
    return make(*args, **named).eval()


def test_copies_and_modules_built_again_have_one_key():
    first, second = (seeded(tiny_module) for _ in range(2))
    assert module_key(first) == module_key(second) == module_key(copy.deepcopy(first))
    assert len(module_key(first)) == 64


def test_anything_that_changes_the_output_changes_the_key(tmp_path):
    net = written(tmp_path, SOURCE).Net
    base = seeded(net)
    moved, doubled = copy.deepcopy(base), copy.deepcopy(base).double()
    with torch.no_grad():
        moved.layer.bias[0] += 1e-6
    shared = seeded(lambda: nn.Sequential(layer := nn.Linear(3, 3), layer))
    apart = seeded(lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
    apart[1].load_state_dict(apart[0].state_dict())
    keys = [
        module_key(module)
        for module in (
            base, moved, doubled, seeded(net, power=3.0), seeded(net, act=torch.sigmoid),
            seeded(net, act=functools.partial(torch.clamp, min=0)),
            seeded(net, act=functools.partial(torch.clamp, min=1)), seeded(net).train(),
            seeded(nn.Conv2d, 3, 3, 3, padding=1), seeded(nn.Conv2d, 3, 3, 3, padding=1, stride=2), shared, apart,
        )
    ]  # fmt: skip
    assert None not in keys
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("change", [("** self.power", "** -self.power"), ("x / 2", "x / 3")])
def test_another_source_is_another_key(tmp_path, change):
    """Also of a function in the same file that the class calls."""
    keys = {
        module_key(seeded(written(tmp_path, source, name).Net))
        for name, source in (("net", SOURCE), ("net2", SOURCE), ("net3", SOURCE.replace(*change)))
    }
    assert len(keys) == 3
    first = module_key(seeded(written(tmp_path, SOURCE, "same").Net))
    changed = module_key(seeded(written(tmp_path, SOURCE.replace(*change), "same").Net))
    assert first != changed


def test_what_may_compute_anything_has_no_key(tmp_path):
    net = written(tmp_path, SOURCE).Net
    slope = 0.5
    hooked = seeded(net)
    hooked.register_forward_hook(lambda *_: None)

    class Local(nn.Module):
        def forward(self, x):
            return x * slope

    unkeyed = {
        "a closure": seeded(net, act=lambda x: x * slope),
        "a hook": hooked,
        "a class of a function": Local(),
        "an object": seeded(net, act=object()),
        "a bound method": seeded(net, act=torch.nn.ReLU().forward),
        "a recorded graph": torch.fx.symbolic_trace(nn.Sequential(nn.ReLU())),
        "a script": torch.jit.script(nn.Sequential(nn.ReLU())),
    }
    assert {name: module_key(module) for name, module in unkeyed.items()} == dict.fromkeys(unkeyed)
