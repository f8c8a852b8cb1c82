"""The stored sweeps are those that ``studies/sweeps.py`` describes, and of a use: settings, photographs, scores.

That a sweep agrees with a mask learned anew is asserted where it is shown, in the chapter that draws it.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from data_rows import check_rows

import perturb_tutorial as pt
from perturb_tutorial.datasets.samples import Samples, all_samples
from perturb_tutorial.networks.mask_layers import stage_layers

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies"))
import sweeps

SWEEPS = sweeps.all_sweeps()
MAPS = {name: sweep for name, sweep in SWEEPS.items() if isinstance(sweep, sweeps.MapSweep)}


@lru_cache
def network_of(name: str) -> pt.Network:
    return pt.load_network(name, device="cpu")


@lru_cache
def scores_of(network: str, photographs: tuple[str, ...]) -> tuple[Samples, torch.Tensor]:
    """The photographs and the scores of all their classes: many sweeps show the same ones."""
    samples = pt.load_samples(network_of(network).input_size, names=photographs)
    with torch.inference_mode():
        return samples, network_of(network).scores(samples.images)


@pytest.fixture(scope="module")
def stored() -> dict[str, tuple[sweeps.Sweep, pt.Masks]]:
    """Each stored file's masks and the sweep of its name."""
    names = sorted(path.stem for path in sweeps.FOLDER.glob("*.pt"))
    assert [name for name in names if name not in SWEEPS] == [], "files that no sweep describes"
    return {name: (SWEEPS[name], pt.Masks.load(sweeps.FOLDER / f"{name}.pt")) for name in names}


def test_every_sweep_is_stored():
    stored = {path.name for path in sweeps.FOLDER.iterdir()}
    assert stored == {f"{name}{sweep.suffix}" for name, sweep in SWEEPS.items()}


def test_stored_masks_are_what_the_sweep_describes(stored):
    def check(row):
        sweep, masks = row
        assert len(masks) == len(sweep.photographs)
        assert masks.layer == sweep.layer
        assert masks.history.score.shape == (len(masks), sweep.settings.iterations)
        # On a layer, the grid and what belongs to it follow from the layer (§6.4).
        layer_owned = {"mask_scale", "mask_sigma", "jitter", "perturbation"} if sweep.layer else set()
        for name, value in sweep.settings.to_dict().items():
            if name not in layer_owned:
                assert getattr(masks.settings, name) == value, name
        side = next(
            (s for s, layer in sweeps.STAGES.items() if layer == sweep.layer), sweep.settings.grid_size
        )
        assert masks.grid.shape[-2:] == (side, side)

    check_rows(stored, check)


def test_stored_masks_are_finite_and_in_range(stored):
    def check(row):
        _, masks = row
        assert torch.isfinite(masks.grid).all()
        assert masks.grid.min() >= 0
        assert masks.grid.max() <= 1
        for score in (masks.score_original, masks.score_perturbed, masks.score_masked):
            assert (score >= 0).all()
            assert (score <= 1 + 1e-5).all()

    check_rows(stored, check)


def test_stored_files_are_small():
    assert sum(path.stat().st_size for path in sweeps.FOLDER.iterdir()) < 2_500_000


def test_stored_scores_are_those_of_the_photographs(stored):
    """The rows are in the order of the photographs, and the network is the one that made them."""

    def check(row):
        pytest.importorskip("foolbox", reason="carries the photographs")
        sweep, masks = row
        if isinstance(sweep, sweeps.ObjectSweep):
            return  # its rows ask for several categories of a photograph: the next test
        samples, scores = scores_of(sweep.network, sweep.photographs)
        if sweep.target_count == 1:
            expected = scores.gather(1, torch.tensor(samples.targets)[:, None]).sum(1)
        else:
            expected = scores.topk(sweep.target_count, dim=1).values.sum(1)
        torch.testing.assert_close(masks.score_original, expected, atol=1e-3, rtol=0)

    check_rows(stored, check)


def test_stored_objects_are_the_questions_of_the_samples():
    """Each row's score is the sum over its category's classes, by the annotations' own table."""
    import json

    from perturb_tutorial.datasets.samples import sample_path

    pytest.importorskip("foolbox", reason="carries the photographs")
    sweep, masks = SWEEPS["objects"], pt.Masks.load(sweeps.FOLDER / "objects.pt")
    content = json.loads((sweeps.FOLDER.parent / "samples" / "annotations.json").read_text(encoding="utf-8"))
    classes = {c["id"]: c["imagenet_indices"] for c in content["categories"]}
    rows = [
        (image["name"], category)
        for image in content["images"]
        for category in sorted(
            {a["category_id"] for a in content["annotations"] if a["image_id"] == image["id"]}
        )
        if classes[category]
    ]
    assert [name for name, _ in rows] == list(sweep.photographs)
    assert len(masks) == len(rows) > len(set(sweep.photographs))
    network = network_of(sweep.network)
    names = list(dict.fromkeys(sweep.photographs))
    with torch.inference_mode():
        scores = network.scores(pt.load_images([sample_path(name) for name in names], network.input_size))
    expected = [scores[names.index(name), classes[category]].sum() for name, category in rows]
    torch.testing.assert_close(masks.score_original, torch.stack(expected), atol=1e-3, rtol=0)


def test_stored_maps_are_one_a_photograph():
    def check(name):
        maps = np.load(sweeps.FOLDER / f"{name}.npy")
        assert maps.shape == (len(MAPS[name].photographs), 1, 28, 28)
        assert maps.dtype == np.float32
        assert np.isfinite(maps).all()
        assert (np.ptp(maps, axis=(1, 2, 3)) > 0).all()

    check_rows({name: name for name in MAPS}, check)


def test_stored_occlusion_is_the_drop_in_logit():
    """One cell of one photograph by hand: the squares over each of its pixels, the mean of their drops."""
    sweep, row, cell = MAPS["occlusion"], 3, (13, 12)
    network = network_of(sweep.network)
    samples = pt.load_samples(network.input_size, names=sweep.photographs[row : row + 1])
    image, target = samples.images[0], samples.targets[0]
    corners = [[c for c in range(28) if 8 * c <= p < 8 * c + 35] for p in range(224)]
    near = [sorted({c for p in range(8 * cell[a], 8 * cell[a] + 8) for c in corners[p]}) for a in (0, 1)]
    drops = {}
    with torch.inference_mode():
        original = network.logits(image[None])[0, target].item()
        for y in near[0]:
            for x in near[1]:
                occluded = image.clone()
                occluded[:, 8 * y : 8 * y + 35, 8 * x : 8 * x + 35] = network.mean_color.view(3, 1, 1)
                drops[y, x] = original - network.logits(occluded[None])[0, target].item()
    pixels = [
        np.mean([drops[y, x] for y in corners[p] for x in corners[q]])
        for p in range(8 * cell[0], 8 * cell[0] + 8)
        for q in range(8 * cell[1], 8 * cell[1] + 8)
    ]
    stored = np.load(sweeps.FOLDER / "occlusion.npy")[row, 0][cell]
    # Another order of summation moves a logit of some 10 by less than 1e-4.
    assert np.mean(pixels) == pytest.approx(stored, abs=1e-3)


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


def test_maps_are_means_over_the_cells(tiny, tmp_path, monkeypatch):
    pytest.importorskip("skimage", reason="carries the photograph")
    heat = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    asked = []
    monkeypatch.setattr(pt, "saliency", lambda *arguments: asked.append(arguments[1:]) or heat)
    sweeps.MapSweep(("chelsea",), "gradient").make(tiny, tmp_path / "maps.npy")
    samples = pt.load_samples(32, names=["chelsea"])
    ((images, targets, method),) = asked
    assert torch.equal(images, samples.images)
    assert [targets, method] == [samples.targets, "gradient"]
    maps = np.load(tmp_path / "maps.npy")
    assert maps.shape == (1, 1, 28, 28)
    # 28 cells on 32 px: cell i takes the pixels from ⌊8i/7⌋ up to ⌈8(i + 1)/7⌉.
    assert maps[0, 0, 0, 0] == pytest.approx(heat[0, 0, :2, :2].mean().item(), rel=1e-5)
    assert maps[0, 0, 27, 3] == pytest.approx(heat[0, 0, 30:32, 3:5].mean().item(), rel=1e-5)
    wide = torch.arange(224.0).expand(1, 1, 224, 224)
    torch.testing.assert_close(sweeps.on_grid(wide)[0, 0, 5], torch.arange(28.0) * 8 + 3.5)
