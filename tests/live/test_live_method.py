"""The method in JavaScript against the package: same grids, same gradients, same shifts, same steps."""

from __future__ import annotations

import pytest
import torch
from live_javascript import f32, run

import perturb_tutorial as pt
from perturb_tutorial import canvas, initialization, masks, perturbations

SIZE, CELLS = 224, 28
SETTINGS = pt.MaskSettings()
ADAM = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}


def tensor(values: list[float], *shape: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(*shape)


@pytest.mark.parametrize(("seed", "jitter"), [(0, 4), (1, 1), (20_171_022, 7), (2**32 - 1, 16)])
def test_a_seed_gives_the_packages_shifts(seed: int, jitter: int) -> None:
    """700 iterations draw 1,400 numbers: the generator refills its 624 twice."""
    (shifts,) = run(("random.js", "jitterShifts", [700, jitter, seed]))
    settings = SETTINGS.replace(iterations=700, jitter=jitter)
    assert [tuple(pair) for pair in shifts] == canvas.jitter_shifts(settings, SIZE, seed)


@pytest.mark.parametrize("sigma", [0.0, 2.3, 5.0, 40.0])
def test_upsampling_and_blur(sigma: float) -> None:
    image = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    grid = torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(1))
    up = masks.upsampling_matrix(40, 9, sigma)
    calls = [
        ("masks.js", "upsamplingMatrix", [40, 9, sigma, masks.TRUNCATE]),
        ("masks.js", "blur", [image.flatten().tolist(), 40, sigma, masks.TRUNCATE]),
        ("masks.js", "upsample", [grid.flatten().tolist(), up.flatten().tolist(), 9]),
    ]
    matrix, blurred, mask = run(*calls)
    # float64 throughout, one result of float32.
    assert (tensor(matrix, 40, 9) - up).abs().max() < 1e-12
    assert (tensor(blurred, 3, 40, 40) - masks.blur(image.double(), sigma)).abs().max() < 1e-7
    assert (tensor(mask, 1, 1, 40, 40) - masks.upsample(grid.double(), 40, sigma)).abs().max() < 1e-7


def test_the_discs_of_the_search() -> None:
    radii = initialization.DISC_RADII
    arguments = [masks.INITIAL_DISC_SIGMA, masks.TRUNCATE]
    grids = run(*(("masks.js", "discGrid", [SIZE, CELLS, radius, *arguments]) for radius in radii[::5]))
    expected = initialization.disc_candidates(SETTINGS.replace(game="preservation"), SIZE)[::5]
    assert (
        torch.tensor(grids).view_as(expected) - expected
    ).abs().max() < 1e-6  # float32 blur in the package


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0, 4.5])
def test_total_variation_and_its_gradient(exponent: float) -> None:
    grid = torch.rand(1, 1, 7, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    grid[0, 0, :3, :3] = 0.5  # flat: the derivative must be 0, not NaN
    grid.requires_grad_(True)
    value = masks.total_variation(grid, exponent)
    (gradient,) = torch.autograd.grad(value.sum(), grid)
    arguments = [grid.flatten().tolist(), 7, exponent, masks.TV_EPSILON]
    (found,) = run(("masks.js", "totalVariation", arguments))
    assert found["value"] == pytest.approx(value.item(), rel=1e-12)
    assert (tensor(found["gradient"], 1, 1, 7, 7) - gradient).abs().max() < 1e-9


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (3, 0), (0, 3), (1, 2)])
def test_shift_replicates_the_edges(dx: int, dy: int) -> None:
    image = torch.rand(3, 11, 11, generator=torch.Generator().manual_seed(3))
    (moved,) = run(("./adapters.mjs", "shifted", [f32(image), 11, dx, dy]))
    padded = torch.nn.ReplicationPad2d((3, 0, 3, 0))(image)
    assert torch.equal(torch.tensor(moved).view(3, 11, 11), canvas.shift(padded, dx, dy, 11))


def test_perturbation() -> None:
    generator = torch.Generator().manual_seed(4)
    image, background, mask = (torch.rand(c, 5, 5, generator=generator) for c in (3, 3, 1))
    (pixels,) = run(
        ("masks.js", "perturb", [image.flatten().tolist(), *(f32(t) for t in (background, mask))])
    )
    expected = perturbations.perturb(image, background, mask)
    assert (torch.tensor(pixels).view(3, 5, 5) - expected).abs().max() < 1e-6


def test_adam_takes_torchs_steps() -> None:
    generator = torch.Generator().manual_seed(5)
    grid = torch.rand(20, generator=generator)
    gradients = 1e-2 * torch.randn(60, 20, generator=generator)
    arguments = [f32(grid), [f32(row) for row in gradients], 0.1, ADAM]
    (steps,) = run(("./adapters.mjs", "adamSteps", arguments))
    learned = grid.clone().requires_grad_(True)
    adam = torch.optim.Adam([learned], lr=0.1)
    for found, gradient in zip(steps, gradients, strict=True):
        learned.grad = gradient.clone()
        adam.step()
        with torch.no_grad():
            learned.clamp_(0, 1)
        # Sixty steps of 0.1, each rounded to float32.
        assert (torch.tensor(found) - learned.detach()).abs().max() < 1e-5


@pytest.mark.parametrize("game", ["deletion", "preservation"])
def test_a_whole_run_on_a_network_of_one_formula(game: str) -> None:
    """A network that both sides can write down: logits linear in the mean colors of 28×28 tiles of noise.

    The noise is what the blur takes away, so the best class falls to a third or so under full perturbation.
    """
    generator = torch.Generator().manual_seed(6)
    image = torch.rand(1, 3, SIZE, SIZE, generator=generator)
    weight = 3 * torch.randn(3, 3 * 28 * 28, generator=generator)

    class Tiles(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(x, 28).flatten(1) @ weight.T

    network = pt.Network(Tiles(), device="cpu")
    ((target,),) = pt.top_classes(network, image, k=1)
    assert float(network.scores(image)[0, target]) > 0.9
    settings = SETTINGS.replace(game=game, iterations=40)
    learned = pt.learn_masks(network, image, target, settings, seed=3)
    constants = {
        "input_size": SIZE,
        "truncate": masks.TRUNCATE,
        "tv_epsilon": masks.TV_EPSILON,
        "initial_disc_sigma": masks.INITIAL_DISC_SIGMA,
        "disc_radii": initialization.DISC_RADII,
        "suppressed": initialization.SUPPRESSED,
        "preserved": initialization.PRESERVED,
        "adam": ADAM,
    }
    arguments = [f32(image), f32(weight), target, settings.to_dict(), constants, 3]
    (run_here,) = run(("./adapters.mjs", "learnOnTiles", arguments))
    radius = learned.radius[0]
    assert run_here["start"]["radius"] == (None if radius.isnan() else float(radius))
    assert run_here["start"]["scoreOriginal"] == pytest.approx(float(learned.score_original), abs=1e-5)
    assert run_here["start"]["scorePerturbed"] == pytest.approx(float(learned.score_perturbed), abs=1e-5)
    steps = run_here["steps"]
    for name in ("score", "area", "tv"):
        found = torch.tensor([step[name] for step in steps])
        expected = getattr(learned.history, name)[0]
        # Float32 on both sides; 40 steps of Adam on a smooth network let it grow to this.
        assert (found - expected).abs().max() < 1e-3 * max(1.0, float(expected.abs().max())), name
    grid = torch.tensor(steps[-1]["grid"]).view(CELLS, CELLS)
    assert (grid - learned.grid[0, 0]).abs().max() < 1e-2
