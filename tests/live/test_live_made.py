"""tools/live.py: what the page serves is the package's, may be passed on, and is stored once."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_javascript import PAGE, ROOT

import perturb_tutorial as pt
from perturb_tutorial.datasets.samples import all_samples
from perturb_tutorial.settings import PRESETS

sys.path.insert(0, str(ROOT / "tools"))

import live


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return dict(json.loads(live.PRECOMPUTED.read_text(encoding="utf-8")))


def test_only_photographs_that_may_be_passed_on() -> None:
    pytest.importorskip("skimage", reason="needs the extra samples")
    pytest.importorskip("sklearn", reason="needs the extra samples")
    names = set(live.free_samples())
    assert names == {"chelsea", "coffee", "rocket", "astronaut", "grace_hopper", "china", "flower"}
    assert not [name for name in names if all_samples()[name].package == "foolbox"]


def test_the_numbers_are_the_packages() -> None:
    numbers = json.loads(json.dumps(live.numbers()))
    assert [row["name"] for row in numbers["settings_table"]] == list(pt.MaskSettings().to_dict())
    assert numbers["presets"]["localization"] == {
        "settings": PRESETS["localization"].settings.to_dict(),
        "target_count": 5,
    }
    # Each constant that the modules name is there, and no other.
    declared = re.search(
        r"@typedef {object} Constants\n(.*?)\*/", (PAGE / "settings.js").read_text("utf-8"), re.DOTALL
    )
    assert declared is not None
    assert set(re.findall(r"@property {.*} (\w+)", declared[1])) == set(numbers["constants"])
    assert len(numbers["colormap"]) == 256 * 6


def test_large_tensors_of_two_graphs_are_stored_once() -> None:
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    from onnx import helper, numpy_helper

    big, other = np.arange(900, dtype=np.float32), np.arange(900, dtype=np.float32) + 1
    models = []
    for tensors in ({"a": big, "small": big[:3]}, {"b": big, "c": other}):
        initializers = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
        models.append(helper.make_model(helper.make_graph([], "g", [], [], initializers)))
    content = live.share_weights(models)
    assert len(content) == -(-big.nbytes // 64) * 64 + other.nbytes
    for model, name, value in ((models[0], "a", big), (models[1], "b", big), (models[1], "c", other)):
        tensor = next(item for item in model.graph.initializer if item.name == name)
        place = {entry.key: entry.value for entry in tensor.external_data}
        start = int(place["offset"])
        assert start % 64 == 0
        found = np.frombuffer(content[start : start + int(place["length"])], np.float32)
        assert np.array_equal(found, value)
    small = next(item for item in models[0].graph.initializer if item.name == "small")
    assert np.array_equal(onnx.numpy_helper.to_array(small), big[:3])


def test_a_packed_file_is_described_and_stable(tmp_path: Path) -> None:
    content = b"weights" * 1000
    (tmp_path / "x.gz").write_bytes(live.packed(content))
    found = live.asset(tmp_path, "x.gz")
    assert found["unpacked"] == len(content)
    assert found["bytes"] == (tmp_path / "x.gz").stat().st_size < len(content)
    assert live.packed(content) == live.packed(content)
    before = (tmp_path / "x.gz").stat().st_mtime_ns
    (tmp_path / "x").write_bytes(content)
    live.write_if_new(tmp_path / "x.gz", tmp_path / "x")
    assert (tmp_path / "x.gz").stat().st_mtime_ns == before
    (tmp_path / "x").write_bytes(content[1:])
    live.write_if_new(tmp_path / "x.gz", tmp_path / "x")
    assert gzip.decompress((tmp_path / "x.gz").read_bytes()) == content[1:]


def test_the_stored_results_cover_every_sample_and_game(stored: dict[str, Any]) -> None:
    assert list(stored["samples"]) == list(live.free_samples())
    assert stored["frames"] == list(live.FRAMES)
    for name, entry in stored["samples"].items():
        assert len(entry["top"]) == 5
        for game in live.GAMES:
            run = entry[game]
            assert len(run["score"]) == live.PRECOMPUTED_ITERATIONS
            assert len(base64.b64decode(run["grids"])) == len(live.FRAMES) * 28 * 28
            reached = run["score_masked"] < run["score_original"]
            assert reached if game == "deletion" else run["score_masked"] > run["score_perturbed"], name


def test_a_stored_result_can_be_made_again(stored: dict[str, Any]) -> None:
    """One photograph for as many iterations as one of the frames has."""
    from perturb_tutorial.engines.joint_graph import with_half_weights

    frame = live.FRAMES.index(20)
    network = with_half_weights(pt.load_network(live.NETWORK, device="cpu"))
    entry = stored["samples"]["chelsea"]
    assert entry["top"][0][0] == all_samples()["chelsea"].class_index
    shown = pt.load_samples(names=["chelsea"])
    masks = pt.learn_masks(network, shown.images, shown.targets, pt.MaskSettings(iterations=20))
    grids = np.frombuffer(base64.b64decode(entry["deletion"]["grids"]), np.uint8)
    grid = torch.from_numpy(grids.reshape(-1, 28, 28)[frame].astype(np.float32)) / 255
    found = masks.grid[0, 0]
    # Rounding differs between machines, and Adam enlarges it.
    assert (found - grid).abs().mean() <= 0.02
    assert float(torch.corrcoef(torch.stack([found.flatten(), grid.flatten()]))[0, 1]) >= 0.99
    score = torch.tensor(entry["deletion"]["score"][:20])
    assert (masks.history.score[0] - score).abs().max() <= 0.02
