"""Single flipped bits in what the program wrote: noticed in one line that names the file, or without any effect."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import perturb_tutorial as pt
from perturb_tutorial.benchmarks import (
    BenchmarkError,
    BenchmarkSettings,
    Outcome,
    read_records,
    run_benchmark,
)
from perturb_tutorial.explain import Request, explain_files

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from benchmark_cases import records_of, tiny_network, write_coco

SETTINGS = BenchmarkSettings(methods=("gradient", "grad_cam"), batch_size=3, steps=2)


def flipped(content: bytes, count: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """``count`` copies of ``content`` with one bit turned over, each with the bit's number."""
    draw = random.Random(seed)
    for _ in range(count):
        bit = draw.randrange(8 * len(content))
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(changed)


def refusal(name: str, call: Callable[[], object]) -> str | None:
    """The line with which ``call`` refuses the file ``name``; None where it does not. Other errors are not caught."""
    try:
        call()
    except (ValueError, BenchmarkError) as error:
        line = str(error)
        assert name in line
        assert line.isprintable(), line
        return line
    return None


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Callable[[Path], Outcome]]:
    """The folder of a finished run of two batches by two methods, and the run's command for any folder."""
    root = tmp_path_factory.mktemp("run")
    data, network = (
        write_coco(root, 3, [(1, (8.0, 4.0, 40.0, 40.0)), (2, (40.0, 30.0, 20.0, 20.0))]),
        tiny_network(),
    )

    def run(folder: Path) -> Outcome:
        return run_benchmark("faithfulness", data, network, folder, SETTINGS)

    run(root / "out")
    return root / "out", run


def test_a_bit_of_a_part_changes_no_record(
    case: tuple[Path, Callable[[Path], Outcome]], tmp_path: Path
) -> None:
    source, run = case
    folder = shutil.copytree(source, tmp_path / "out")
    before = read_records(folder)
    parts = sorted((folder / "records.parquet").iterdir())
    assert len(parts) == 4
    whole = {part: part.read_bytes() for part in parts}
    for number, part in enumerate(parts):
        for bit, content in flipped(whole[part], 40, seed=number):
            part.write_bytes(content)
            assert refusal(part.name, lambda: read_records(folder))
            if bit % 20 == 0:
                again = run(folder)
                assert (again.computed, len(again.repaired)) == (3, 1)
                assert part.name in again.repaired[0]
                assert again.repaired[0].isprintable()
                pd.testing.assert_frame_equal(records_of(folder), records_of(source), check_exact=True)
            part.write_bytes(whole[part])
    pd.testing.assert_frame_equal(read_records(folder), before, check_exact=True)


def test_a_bit_of_the_settings_resumes_no_other_run(
    case: tuple[Path, Callable[[Path], Outcome]], tmp_path: Path
) -> None:
    source, run = case
    folder = shutil.copytree(source, tmp_path / "out")
    path = folder / "settings.json"
    whole = path.read_bytes()
    for _, content in flipped(whole, 60, seed=4):
        path.write_bytes(content)
        if refusal("out", lambda: run(folder)) is None:
            assert run(folder).computed == 0
        assert path.read_bytes() == content
    pd.testing.assert_frame_equal(records_of(folder), records_of(source), check_exact=True)


def test_a_bit_of_a_masks_file_changes_no_mask(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    masks = pt.learn_masks(tiny_network(), images, [0, 1], pt.MaskSettings(iterations=2, mask_scale=32))
    path = tmp_path / "masks.pt"
    masks.save(path)
    for _, content in flipped(path.read_bytes(), 80, seed=5):
        path.write_bytes(content)
        if refusal("masks.pt", lambda: pt.Masks.load(path)) is None:
            assert values(pt.Masks.load(path)) == values(masks)


def values(masks: pt.Masks) -> dict[str, Any]:
    """All that masks hold, as it can be compared."""
    tensors = {
        name: getattr(masks, name)
        for name in ("grid", "radius", "score_original", "score_perturbed", "score_masked")
    }
    tensors |= {name: getattr(masks.history, name) for name in ("score", "area", "tv")}
    numbers = {name: np.nan_to_num(value.numpy(), nan=-1).tolist() for name, value in tensors.items()}
    made = (masks.settings, masks.size, masks.layer, masks.seed, masks.engine, masks.precision, masks.version)
    return {**numbers, "converged": masks.converged.tolist(), "made": made}


def test_a_bit_of_the_results_makes_no_other_picture_ours(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"")
    good = tmp_path / "cat.png"
    good.write_bytes((write_coco(tmp_path, 1, []).dataset.images[0].path).read_bytes())
    output = tmp_path / "out"
    output.mkdir()
    request = Request(tiny_network(), pt.MaskSettings(iterations=1), target=0, method="gradient")
    explain_files([good], request, output)
    path, picture = output / "results.json", output / "cat.png"
    whole, before = path.read_bytes(), picture.read_bytes()
    noticed = 0
    for _, content in flipped(whole, 60, seed=6):
        path.write_bytes(content)
        # A photograph that cannot be read: nothing is explained, but results.json is read and written.
        found = refusal("results.json", lambda: explain_files([tmp_path / "broken.png"], request, output))
        assert found is None or path.read_bytes() == content
        noticed += found is not None
    assert noticed >= 40  # the others fell on the layout's spaces
    assert picture.read_bytes() == before
