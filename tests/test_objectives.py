"""The objectives against a slow float64 reference written from eq. 6, 1 and 2, and by hand on a few weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial import masks, objectives, perturbations


def slow_loss(game, grid, image, perturbed, weight, bias, classes, area_weight, tv_weight, beta, sigma):
    """Eq. 6 (or 1) cell by cell and pixel by pixel, for a linear classifier of the pixels, in float64."""
    cells, size = grid.shape[0], image.shape[-1]
    area = sum(
        (1 - grid[i, j]) if game == "deletion" else grid[i, j] for i in range(cells) for j in range(cells)
    )
    tv = 0.0
    for i in range(cells):
        for j in range(cells):
            down = grid[i + 1, j] - grid[i, j] if i + 1 < cells else 0.0
            right = grid[i, j + 1] - grid[i, j] if j + 1 < cells else 0.0
            tv += (down**2 + right**2) ** (beta / 2)
    reach = int(4 * sigma + 0.5)
    kernel = [math.exp(-((k / sigma) ** 2) / 2) for k in range(-reach, reach + 1)]
    kernel = [value / sum(kernel) for value in kernel]
    nearest = [[grid[y * cells // size, x * cells // size] for x in range(size)] for y in range(size)]

    def clip(position):
        return min(max(position, 0), size - 1)

    logits = list(bias)
    for y in range(size):
        for x in range(size):
            mask = 0.0
            for a, wa in zip(range(-reach, reach + 1), kernel, strict=True):
                for b, wb in zip(range(-reach, reach + 1), kernel, strict=True):
                    mask += wa * wb * nearest[clip(y + a)][clip(x + b)]
            for color in range(3):
                pixel = image[color, y, x] * mask + perturbed[color, y, x] * (1 - mask)
                for k in range(len(logits)):
                    logits[k] += weight[k, color, y, x] * pixel
    top = max(logits)
    exponentials = [math.exp(value - top) for value in logits]
    score = sum(exponentials[c] for c in classes) / sum(exponentials)
    return area_weight * area + tv_weight * tv + (score if game == "deletion" else -score)


@pytest.mark.parametrize("game", ["deletion", "preservation"])
@pytest.mark.parametrize(("classes", "beta"), [([1], 3.0), ([0, 2], 2.0)])
def test_loss_and_gradient_are_the_formulas(game, classes, beta):
    size, cells, sigma = 8, 3, 0.6
    random = np.random.default_rng(7)
    grid = random.uniform(0.05, 0.95, (cells, cells))
    image, perturbed = random.uniform(0, 1, (2, 3, size, size))
    weight, bias = random.normal(0, 0.3, (4, 3, size, size)), random.normal(0, 0.3, 4)
    settings = pt.MaskSettings(game=game, area_weight=0.03, tv_weight=0.05, tv_exponent=beta)

    def reference(values):
        return slow_loss(game, values, image, perturbed, weight, bias, classes, 0.03, 0.05, beta, sigma)

    m = torch.tensor(grid).view(1, 1, cells, cells).requires_grad_(True)
    pixels = perturbations.perturb(
        torch.tensor(image)[None], torch.tensor(perturbed)[None], masks.upsample(m, size, sigma)
    )
    logits = pixels.flatten(1) @ torch.tensor(weight).flatten(1).T + torch.tensor(bias)
    chosen = objectives.class_weights([classes], 4).double()
    score = (logits.softmax(1) * chosen).sum(1)
    loss = objectives.objective(m, score, settings)
    (gradient,) = torch.autograd.grad(loss.sum(), m)

    assert loss.item() == pytest.approx(reference(grid), abs=1e-9)
    step = 1e-5
    for i in range(cells):
        for j in range(cells):
            up, down = grid.copy(), grid.copy()
            up[i, j] += step
            down[i, j] -= step
            slope = (reference(up) - reference(down)) / (2 * step)
            assert gradient[0, 0, i, j].item() == pytest.approx(slope, abs=1e-7)


class ThreePixels(nn.Module):
    """Three logits: the mean red, green and blue, times 2."""

    def forward(self, inputs):
        return 2 * inputs.mean((2, 3))


def test_scores_by_hand():
    network = pt.Network(ThreePixels(), input_size=8, device="cpu")
    image = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    e = [math.exp(2), math.exp(1), 1.0]
    logits = network.logits(image)
    for classes in ([0], [1, 2]):
        expected = sum(e[c] for c in classes) / sum(e)
        assert objectives.target_score(
            logits, objectives.class_weights([classes], 3)
        ).item() == pytest.approx(expected)
    grid = torch.full((1, 1, 2, 2), 0.25)
    deletion = objectives.objective(grid, torch.tensor([0.5]), pt.MaskSettings(area_weight=0.1))
    assert deletion.item() == pytest.approx(0.1 * 4 * 0.75 + 0.5)
    preservation = objectives.objective(
        grid, torch.tensor([0.5]), pt.MaskSettings(area_weight=0.1, game="preservation")
    )
    assert preservation.item() == pytest.approx(0.1 * 4 * 0.25 - 0.5)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (3, [[3], [3]]),
        ([1, 4], [[1], [4]]),
        ([{4, 1}, [2]], [[1, 4], [2]]),
        (torch.tensor([1, 2]), [[1], [2]]),
        (np.array([[1, 2], [3, 3]]), [[1, 2], [3]]),
        ([np.int64(2), torch.tensor(0)], [[2], [0]]),
        ([[0, 1], [1]], [[0, 1], [1]]),
        (np.array([[0, 1, 1], [2, 3, 4]]), [[0, 1], [2, 3, 4]]),  # a shorter set, filled up by its own
        ([{0, 1}, frozenset({torch.tensor(1)})], [[0, 1], [1]]),
        (torch.tensor([[0], [1]]), [[0], [1]]),
        (iter([[0, 1], 1]), [[0, 1], [1]]),
    ],
)
def test_targets_in_every_form(targets, expected):
    assert objectives.class_sets(targets, 2, 5) == expected


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([1, 2, 3], "one class or set of classes for each of 2 images, got 3"),
        (5, "from 0 to 4, got 5"),
        (-1, "from 0 to 4, got -1"),
        ([[], [1]], "at least one class index"),
        ("cat", "expected an int"),
        (["cat", "dog"], "a class index or a set of them, got 'cat'"),
        (1.5, "expected an int"),
        (True, "expected an int"),
        ([0.5, 1], "a class index or a set"),
        ({0: 1, 1: 2}, "expected an int"),
        (b"ab", "expected an int"),
        ([b"ab", 1], "a class index or a set of them"),
        (torch.tensor([1.0, 2.0]), "a class index or a set of them, got 1.0"),
        ([[0.2, 0.8], [0.5, 0.5]], "at least one class index, all whole numbers"),
    ],
)
def test_wrong_targets_are_named(targets, message):
    with pytest.raises(ValueError, match=f"^targets: .*{message}"):
        objectives.class_sets(targets, 2, 5)


def test_a_set_where_a_list_belongs_is_refused():
    # {4, 1} for two images would be read as 1, 4 or as 4, 1.
    with pytest.raises(ValueError, match="got one set, which has no order"):
        objectives.class_sets({4, 1}, 2, 5)
    assert objectives.class_sets([{4, 1}], 1, 5) == [[1, 4]]


@pytest.mark.parametrize("classes", [2, 3, 5, 1000])
def test_one_hot_rows_are_not_taken_for_the_classes_0_and_1(classes):
    labels = torch.tensor([1, 0, classes - 1])
    rows = torch.nn.functional.one_hot(labels, classes)
    several = rows.clone()
    several[:, -1] = 1
    for marks in (rows, several):
        for form in (marks, marks.bool(), marks.float(), marks.half()):
            arrays = (
                form,
                form.numpy(),
                form.tolist(),
                [*form],
                [*form.numpy()],
                [tuple(row) for row in form.tolist()],
            )
            for targets in arrays:
                with pytest.raises(ValueError, match=r"got rows of 0 and 1 .*argmax\(1\)") as caught:
                    objectives.class_sets(targets, 3, classes)
                assert "\n" not in str(caught.value)
                assert len(str(caught.value)) < 260, "a row is not listed whole"
    for form in (rows, rows.bool(), rows.float(), rows.numpy(), rows.tolist()):
        mended = torch.as_tensor(form).int().argmax(1)
        assert objectives.class_sets(mended, 3, classes) == [[label] for label in labels.tolist()]


def test_one_hot_rows_of_another_number_of_classes_are_seen_too():
    with pytest.raises(ValueError, match="got rows of 0 and 1"):
        objectives.class_sets(torch.eye(10).long()[[3, 5]], 2, 1000)
    with pytest.raises(ValueError, match="got rows of 0 and 1"):
        objectives.class_sets(torch.eye(10)[3], 1, 10)  # one image's row
    assert objectives.class_sets([], 0, 10) == []


def test_masks_refuse_a_set_of_all_classes(tiny, noise_images):
    for targets in ([{0, 1}, 0], [0, frozenset({1, 0})], [range(2), 1]):
        with pytest.raises(
            ValueError, match="fewer than all 2 classes in a set, got all, whose scores always sum to 1"
        ):
            objectives.mask_sets(targets, 2, 2)
        assert [0, 1] in objectives.class_sets(targets, 2, 2), "their mean logit is no constant"
    assert objectives.mask_sets([{0, 1}], 1, 3) == [[0, 1]]
    with pytest.raises(ValueError, match="fewer than all 5 classes"):
        pt.learn_activation_masks(tiny, noise_images, [range(5), 1, 2], "2")
