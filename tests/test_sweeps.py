"""The stored sweeps are those that ``tools/sweeps.py`` describes, and of a use: settings, photographs, scores.

That a sweep agrees with a mask learned anew is asserted where it is shown, in the chapter that draws it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import perturb_tutorial as pt
from perturb_tutorial.datasets.samples import all_samples
from perturb_tutorial.layers import stage_layers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import sweeps

SWEEPS = sweeps.all_sweeps()


@pytest.fixture(params=sorted(path.stem for path in sweeps.FOLDER.glob("*.pt")))
def stored(request: pytest.FixtureRequest) -> tuple[sweeps.Sweep, pt.Masks]:
    """A stored file and the sweep of its name: a file that no sweep describes has none."""
    assert request.param in SWEEPS
    return SWEEPS[request.param], pt.Masks.load(sweeps.FOLDER / f"{request.param}.pt")


def test_every_sweep_is_stored():
    assert {path.stem for path in sweeps.FOLDER.glob("*.pt")} == set(SWEEPS)


def test_stored_masks_are_what_the_sweep_describes(stored):
    sweep, masks = stored
    assert len(masks) == len(sweep.photographs)
    assert masks.layer == sweep.layer
    assert masks.history.score.shape == (len(masks), sweep.settings.iterations)
    # On a layer, the grid and what belongs to it follow from the layer (§6.4).
    layer_owned = {"mask_scale", "mask_sigma", "jitter", "perturbation"} if sweep.layer else set()
    for name, value in sweep.settings.to_dict().items():
        if name not in layer_owned:
            assert getattr(masks.settings, name) == value, name
    side = next((s for s, layer in sweeps.STAGES.items() if layer == sweep.layer), sweep.settings.grid_size)
    assert masks.grid.shape[-2:] == (side, side)


def test_stored_masks_are_finite_and_in_range(stored):
    _, masks = stored
    assert torch.isfinite(masks.grid).all()
    assert masks.grid.min() >= 0
    assert masks.grid.max() <= 1
    for score in (masks.score_original, masks.score_perturbed, masks.score_masked):
        assert (score >= 0).all()
        assert (score <= 1 + 1e-5).all()


def test_stored_files_are_small():
    assert sum(path.stat().st_size for path in sweeps.FOLDER.glob("*.pt")) < 2_500_000


def test_stored_scores_are_those_of_the_photographs(lite0, stored):
    """The rows are in the order of the photographs, and the network is the one that made them."""
    pytest.importorskip("foolbox", reason="carries the photographs")
    sweep, masks = stored
    samples = pt.load_samples(lite0.input_size, names=sweep.photographs)
    with torch.inference_mode():
        scores = lite0.scores(samples.images)
    targets = torch.tensor(samples.targets)[:, None]
    if sweep.target_count > 1:
        targets = torch.tensor(pt.top_classes(lite0, samples.images, sweep.target_count))
    expected = scores.gather(1, targets).sum(1)
    torch.testing.assert_close(masks.score_original, expected, atol=1e-3, rtol=0)


def test_stages_are_the_networks(lite0):
    assert {name: side for side, name in sweeps.STAGES.items()} == {
        name: height for name, (height, _) in stage_layers(lite0).items()
    }


def test_photographs_are_those_with_a_class():
    samples = all_samples()
    assert [samples[name].class_index is None for name in sweeps.PHOTOGRAPHS] == [False] * 25
    assert len(set(sweeps.PHOTOGRAPHS)) == 25


def test_names_and_stars_choose_sweeps():
    assert sweeps.chosen([], SWEEPS) == list(SWEEPS)
    assert sweeps.chosen(["localization", "deletion"], SWEEPS) == ["deletion", "localization"]
    assert len(sweeps.chosen(["layer_7_tv_weight_*"], SWEEPS)) == len(sweeps.TV_WEIGHTS)
    with pytest.raises(ValueError, match="no sweep is called layer_8"):
        sweeps.chosen(["layer_8"], SWEEPS)


def test_unknown_name_is_the_users_mistake(capsys):
    assert sweeps.main(["nothing"]) == 2
    assert capsys.readouterr().err.startswith("sweeps: no sweep is called nothing")


def test_what_is_there_is_not_made_again(tmp_path, capsys):
    file = tmp_path / "deletion.pt"
    file.write_bytes(b"as it was")
    assert sweeps.main(["deletion", "--folder", str(tmp_path)]) == 0
    assert file.read_bytes() == b"as it was"
    assert "nothing to do" in capsys.readouterr().out
    assert sweeps.main(["--list", "deletion", "localization", "--folder", str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("there")
    assert second.endswith("missing")


def test_a_sweep_learns_with_its_settings(tiny):
    """A short sweep on a small network, against the call that it stands for."""
    pytest.importorskip("skimage", reason="carries the photograph")
    short = pt.MaskSettings(iterations=2)
    sweep = sweeps.Sweep(("chelsea",), short, target_count=2)
    samples = pt.load_samples(32, names=["chelsea"])
    expected = pt.learn_masks(tiny, samples.images, pt.top_classes(tiny, samples.images, 2), short, seed=0)
    assert torch.equal(sweep.learn(tiny).grid, expected.grid)
