"""The stored masks and maps are those of the files, under the names that the study gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from perturb_tutorial.datasets import stored, stored_maps, stored_names

FOLDER = Path(__file__).resolve().parents[2] / "data" / "sweeps"


def test_every_file_is_stored_under_its_name() -> None:
    files = {path.stem for path in FOLDER.iterdir() if path.suffix == ".pt"}
    assert set(stored_names()) == files
    for name in files:
        # The file's own tensors, read without the package.
        content = torch.load(FOLDER / f"{name}.pt", weights_only=True)
        assert torch.equal(stored(name).grid, content["grid"]), name


def test_maps_are_as_they_were_written() -> None:
    maps = stored_maps("occlusion")
    assert maps.shape[1:] == (1, 28, 28)
    assert np.array_equal(maps.numpy(), np.load(FOLDER / "occlusion.npy"))


@pytest.mark.parametrize("name", ["deletions", "", "../samples/annotations", "occlusion", "deletion.pt"])
def test_another_name_is_a_mistake_that_lists_the_names(name: str) -> None:
    with pytest.raises(ValueError, match=r"^name: expected one of .*\bdeletion\b.*, got ") as told:
        stored(name)
    assert "\n" not in str(told.value)


def test_masks_are_no_maps() -> None:
    with pytest.raises(ValueError, match="expected one of occlusion, got 'deletion'"):
        stored_maps("deletion")
