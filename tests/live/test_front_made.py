"""tools/front.py: the masks of the first screen's slider, their scores and their pictures."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from live_javascript import ROOT

import perturb_tutorial as pt
from perturb_tutorial import masks, perturbations

sys.path.insert(0, str(ROOT / "tools"))

import front

SETTINGS = pt.MaskSettings.preset("localization")


def random_grid(seed: int = 0) -> torch.Tensor:
    values = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(seed))
    return (1.5 * values - 0.25).clamp(0, 1)


def test_the_stops_delete_ever_more_of_the_mask_and_end_in_it() -> None:
    grid = random_grid()
    grids = front.grids_of_stops(grid)
    assert torch.equal(grids[0], torch.ones(1, 28, 28))
    assert torch.equal(grids[-1], grid[0])
    assert (grids[1:] <= grids[:-1] + 1e-6).all()
    deleted = (1 - grids).sum((1, 2, 3)) / (1 - grid).sum()
    assert (deleted - torch.linspace(0, 1, front.STOPS + 1)).abs().max() < 1e-4
    # A cell is deleted whole before the next one begins: between the two there is one cell at most.
    for stop in grids:
        part = (1 - stop) / (1 - grid[0]).clamp(min=1e-9)
        assert int(((part > 1e-3) & (part < 1 - 1e-3) & (grid[0] < 1)).sum()) <= 1
    assert torch.equal(front.grids_of_stops(torch.ones(1, 1, 28, 28)), torch.ones(front.STOPS + 1, 1, 28, 28))


def test_the_stored_scores_are_the_networks() -> None:
    """Of one photograph, by the package's own objects; the others have the same form."""
    stored = front.stored()
    assert list(stored) == list(front.free_samples())
    network = pt.load_network(front.NETWORK, device="cpu")
    for name, entry in stored.items():
        assert len(entry["scores"]) == len(entry["areas"]) == len(entry["best"]) == front.STOPS + 1
        assert entry["scores"][-1] <= 0.3 * entry["scores"][0], name
        assert entry["best"][0] == [entry["target"], entry["scores"][0]]
        assert entry["areas"] == sorted(entry["areas"])
    entry = stored["chelsea"]
    image = pt.load_samples(names=["chelsea"]).images
    background = perturbations.background_for(SETTINGS, image, color=network.mean_color)
    for stop in (0, 10, 20):
        mask = masks.upsample(front.grids_of_stops(entry["grid"])[stop : stop + 1], 224, SETTINGS.mask_sigma)
        scores = network.scores(perturbations.perturb(image, background, mask))[0]
        index, score = entry["best"][stop]
        assert int(scores.argmax()) == index
        # Rounded to four digits; processors differ in the last digits of float32.
        assert float(scores[index]) == pytest.approx(score, abs=2e-3)
        assert float(scores[entry["target"]]) == pytest.approx(entry["scores"][stop], abs=2e-3)
        assert float(1 - mask.mean()) == pytest.approx(entry["areas"][stop], abs=1e-4)


def test_the_pictures_show_what_was_scored() -> None:
    """At the network's size the pictures are the package's Φ; the strip holds each stop's mask."""
    from PIL import Image

    grid = random_grid(1)
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    blurred, deleted = front.under(Image.fromarray(pixels), grid)
    background = perturbations.background_for(SETTINGS, image, color=torch.zeros(3))
    mask = masks.upsample(grid, 224, SETTINGS.mask_sigma)
    expected = {"blurred": background, "deleted": perturbations.perturb(image, background, mask)}
    for name, picture in (("blurred", blurred), ("deleted", deleted)):
        found = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
        assert (found - 255 * expected[name]).abs().max() <= 0.51, name
    alpha = np.array(front.strip(grid).getchannel("A")).reshape(front.STOPS + 1, front.MASK_SIDE, -1)
    means = mask[0, 0].view(front.MASK_SIDE, 4, front.MASK_SIDE, 4).mean((1, 3))
    assert np.abs(alpha[-1] - 255 * (1 - means.numpy())).max() <= 0.51
    assert not alpha[0].any()
    wide, _ = front.under(Image.fromarray(pixels[:100]), grid)
    assert wide.size == (224, 100)


def test_the_page_knows_the_size_of_a_mask() -> None:
    script = (ROOT / "book" / "front" / "front.js").read_text(encoding="utf-8")
    assert f"const SIDE = {front.MASK_SIDE};" in script
    page = (ROOT / "book" / "front" / "page.html").read_text(encoding="utf-8")
    assert f'min="0" max="{front.STOPS}"' in page
