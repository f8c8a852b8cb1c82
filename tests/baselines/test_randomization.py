"""Sanity checks (Adebayo et al., 2018): a map that explains a network changes with the network's weights."""

from __future__ import annotations

import copy

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial import baselines

METHODS = [
    "gradient",
    "guided_backprop",
    "excitation_backprop",
    "contrastive_excitation_backprop",
    "grad_cam",
]


@pytest.fixture(scope="module")
def similarities(lite0, foolbox_photographs):
    """Mean rank correlation of each method's maps on 8 photographs before and after the top is randomized.

    Randomized: classifier, head and last five blocks, their weights drawn again with the spread they had.
    """
    module = copy.deepcopy(lite0.module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for part in (module._fc, module._conv_head, *module._blocks[11:]):
            for layer in part.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    layer.weight.data = torch.randn_like(layer.weight) * layer.weight.std()
    random = pt.Network(
        module,
        mean=lite0.mean,
        std=lite0.std,
        name="efficientnet_lite0",
        categories=lite0.labels,
        device="cpu",
    )
    images, targets = foolbox_photographs.images[:8], foolbox_photographs.targets[:8]
    result = {}
    for method in METHODS:
        pairs = zip(*(getattr(baselines, method)(n, images, targets) for n in (lite0, random)), strict=True)
        ranks = [
            spearmanr(left.flatten(), right.flatten()).statistic for left, right in pairs if right.std() > 0
        ]
        result[method] = float(torch.tensor(ranks).mean()) if ranks else 0.0
    return result


@pytest.mark.parametrize("method", METHODS)
def test_maps_change(similarities, method):
    assert similarities[method] < 0.98, similarities


def test_the_known_weakness_of_guided_backprop(similarities):
    """It changes least of the methods at the pixels: much of it is the image's own edges."""
    assert similarities["guided_backprop"] > similarities["gradient"] + 0.05, similarities
    assert similarities["guided_backprop"] > similarities["grad_cam"] + 0.2, similarities


def test_the_same_weakness_of_excitation_backprop_and_what_the_contrast_mends(similarities):
    """Positive weights alone tend to one direction whatever the class (Sixt et al., 2020)."""
    assert similarities["excitation_backprop"] > similarities["grad_cam"] + 0.2, similarities
    assert similarities["contrastive_excitation_backprop"] < similarities["excitation_backprop"] - 0.2, (
        similarities
    )
