"""learn_masks: one batched loop for both games.

For each image x and set of classes C it minimizes over the grid m ∈ [0, 1]^(h×w), by Adam with a clip to
[0, 1] after each step, the objective of module ``objectives`` with E_τ taken by one random shift an iteration:

    deletion  min λ₁ ‖1 − m‖₁ + λ₂ TV_β(m) + E_τ Σ_{c∈C} f_c(Φ(x(· − τ); M))      (eq. 6; eq. 2)

The loss of a batch is the sum over its images, so each has the gradient it would have alone; the shifts are
one sequence a seed, the same for every image; of several draws (module ``draws``) each has its own. The network is
frozen: the only gradient is the mask's.

The loop itself is module ``loop``, a step of it module ``steps``: other settings, such as those of
:meth:`MaskSettings.fast`, step otherwise and let each image end when it is done.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from perturb_tutorial import __version__
from perturb_tutorial._outside import check_whole
from perturb_tutorial.batches import check_batch_size, in_batches, usual_batch_size
from perturb_tutorial.canvas import CANVASES, ImageCanvas
from perturb_tutorial.draws import draw_numbers, mean_of_draws
from perturb_tutorial.fastest import Choice, fastest_engine
from perturb_tutorial.loop import Report, learn_on
from perturb_tutorial.networks import Network, pick_device
from perturb_tutorial.networks.arithmetic import arithmetic
from perturb_tutorial.networks.batch_invariance import batch_invariant
from perturb_tutorial.networks.scored import Score, scored_network
from perturb_tutorial.objectives import class_weights, mask_sets
from perturb_tutorial.results import Masks
from perturb_tutorial.settings import AUTO, MOST_DRAWS, PRECISIONS, MaskSettings, check_seed

Progress = Callable[[int, int], object]
"""Called as (iterations done, iterations in all), summed over the images, of which one that ended sooner counts as if
it had done them all; False ends the run."""
WeightsOf = Callable[[list[int], Tensor], Tensor]
"""From the numbers of n images and their pixels to the weights of their logits, n×K."""


def learn_masks(
    network: Network,
    images: Tensor,
    targets: Any,
    settings: MaskSettings | None = None,
    *,
    draws: int = 1,
    seed: int = 0,
    device: str | torch.device | None = None,
    engine: str = "torch",
    precision: str | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
    score: Score | None = None,
    relative_score: bool = True,
) -> Masks:
    r"""A mask for each of N images.

    Args:
        images: N×C×H×W in [0, 1], of ``network.channels`` and ``network.input_size``.
        targets: a class index, N indices, or N sets of indices whose scores are summed (eq. 2); None with ``score``.
        settings: None is :class:`MaskSettings` as it comes.
        draws: masks learned for each image, 1 to 64, from other jitters and starts (module ``draws``), to show how
            sure the answer is; the result is their mean, and ``masks.agreement`` and ``masks.spread`` tell how they
            differ. They cost what so many images cost, and share batches with them.
        seed: fixes jitter, noise and random starts; the same seed gives the same mask, alone or in a batch (within
            float rounding).
        device: None is the network's.
        engine: what computes score and gradient, one of ``ENGINES``. "onnx" needs
            ``pip install 'perturb_tutorial[onnx]'``, is faster on a CPU for most networks (not for GoogLeNet and
            VGG-16) and gives the same masks within rounding. "compile" is for hundreds of images on a GPU: it takes a
            minute before it starts. "auto" is the fastest of the first two, measured once for a network and a machine
            (module ``fastest``), which takes some seconds.
        precision: of the network's two passes in an iteration, one of ``PRECISIONS``; None is "float32", and with
            engine "auto" what was found to be fastest. "tf32", on NVIDIA's GPUs, and "bfloat16" are faster and round so
            coarsely that masks differ. Masks, regularizers, the disc search and the scores before and after are float32
            in any case.
        batch_size: images at once, None to begin with the device's usual number; halved and tried again when the
            device runs out of memory.
        progress: called with (done, total) image-iterations; where it returns False the run ends.
        score: of the user's own, for modules without classes: a differentiable function f from the module's output for
            some images to one number for each. Σ f_c(Φ(x; M)) becomes f(Φ(x; M)) / \|f(x)\|, since λ₁ was made for
            scores between 0 and 1; so it is 1 on the image, or −1. Only for engine "torch".
        relative_score: False takes f as it is; choose λ₁ (``settings.area_weight``) by its size then.

    Returns:
        :class:`Masks` on the images' device. Where ``progress`` ended the run, they are the masks so far, of the first
        images, as many as had been begun, with all their draws; ``masks.iterations`` has how far each is.

    Raises:
        ValueError: for arguments of the wrong form, or a network that the engine cannot run.
        ImportError: for an engine whose packages are not installed.

    Examples:
        >>> network = pt.load_network("efficientnet_lite0", device="cpu")
        >>> cat = pt.load_samples(network.input_size, names=["chelsea"])
        >>> masks = pt.learn_masks(network, cat.images, cat.targets, pt.MaskSettings(iterations=20))
        >>> bool(masks.score_masked < masks.score_original / 2), masks.saliency.shape
        (True, torch.Size([1, 1, 224, 224]))
    """
    settings, seed = settings or MaskSettings(), check_seed(seed)
    _check_engine(engine, precision)
    batch_size, draws = check_batch_size(batch_size), check_whole("draws", draws, 1, MOST_DRAWS)
    _check_arguments(network, images)
    network = network if device is None else network.to(pick_device(device))
    engine, precision = _chosen(
        engine, precision, network, settings, draws * len(images), own_score=score is not None
    )
    kind = CANVASES[engine]
    if score is not None and not kind.own_scores:
        raise ValueError(f"engine: expected 'torch' with score=, got {engine!r}")
    network, weights_of = score_to_learn(
        network, images, targets, score, relative_score, settings.score_scale
    )
    count = draws * len(images)  # rows: the draws of an image, then those of the next
    before = 0  # rows in the part before

    def learn(start: int, stop: int, report: Report) -> Masks:
        nonlocal before
        rows = list(range(start, stop))
        if kind.fixed_batch and stop == count:  # the last part is filled up to the size of the others
            rows += [stop - 1] * (before - len(rows))
        before = len(rows)
        numbers, drawn = draw_numbers(rows, draws)
        pixels = images[numbers].to(network.device, torch.float32)
        weights = weights_of(numbers, pixels)
        # Before its layers are padded, since this may export the network.
        canvas = kind(network, pixels, weights, settings, seed, precision, drawn)
        with batch_invariant(network.folded, off=kind.fixed_batch):
            return learn_on(canvas, settings, report, precision)[: stop - start].to(images.device)

    masks = learn_in_batches(learn, count, settings.iterations, network.device, batch_size, progress)
    if draws > 1:

        def masked(grid: Tensor) -> Tensor:
            return _scores_under(grid, network, images, weights_of, settings, seed, batch_size)

        masks = mean_of_draws(masks, draws, masked)
    if score is None:
        warn_of_empty(masks)
    return replace(masks, seed=seed, engine=engine, precision=precision, version=__version__)


def _scores_under(
    grid: Tensor,
    network: Network,
    images: Tensor,
    weights_of: WeightsOf,
    settings: MaskSettings,
    seed: int,
    batch_size: int | None,
) -> Tensor:
    """The score of each of the first images under its mask, without jitter, in float32."""
    scores = torch.empty(len(grid), dtype=torch.float32, device=grid.device)

    def read(start: int, stop: int) -> None:
        numbers = list(range(start, stop))
        pixels = images[numbers].to(network.device, torch.float32)
        with torch.inference_mode(False), arithmetic(network.device), torch.no_grad():
            canvas = ImageCanvas(network, pixels, weights_of(numbers, pixels), settings, seed)
            with batch_invariant(network.folded):
                scores[start:stop] = canvas.masked(grid[start:stop].to(network.device)).to(scores)

    in_batches(len(grid), batch_size or usual_batch_size(network.device), read)
    return scores


def warn_of_empty(masks: Masks) -> None:
    """One warning, with the mend, where masks of softmax scores are empty."""
    if masks.settings.score_scale == "softmax" and (count := int(masks.empty.sum())):
        warnings.warn(
            f"{count} of {len(masks)} masks are empty: a cell costs more than the score that it would change; "
            "MaskSettings(score_scale='relative') asks about small scores, too",
            stacklevel=3,
        )


def _check_engine(engine: str, precision: str | None) -> None:
    if engine != AUTO and engine not in CANVASES:
        raise ValueError(f"engine: expected one of {', '.join((*CANVASES, AUTO))}, got {engine!r}")
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")


def _chosen(
    engine: str,
    precision: str | None,
    network: Network,
    settings: MaskSettings,
    count: int,
    *,
    own_score: bool,
) -> Choice:
    """The engine and the precision that a call means."""
    if engine != AUTO:
        return Choice(engine, precision or "float32")
    exact = precision is not None
    choice = fastest_engine(network, settings, count, own_score=own_score, exact=exact)
    return choice if precision is None else Choice(choice.engine, precision)


def _check_arguments(network: Network, images: Tensor) -> None:
    network.check_images(images)
    if len(images) == 0:
        raise ValueError("images: expected at least one image, got none")


def score_to_learn(
    network: Network, images: Tensor, targets: Any, score: Score | None, relative: bool, scale: str
) -> tuple[Network, WeightsOf]:
    """What a mask's score is read from: the network, and the weights of its logits for rows of ``images``.

    The function takes the rows' numbers and their pixels on the network's device. ``scale``: the settings'
    ``score_scale``. ``ValueError`` for targets of the wrong form, and for a score that :func:`scored_network` refuses.
    """
    if score is None:
        sets = mask_sets(targets, len(images), network.class_count)

        def weights_of(rows: list[int], pixels: Tensor) -> Tensor:
            return class_weights([sets[row] for row in rows], network.class_count).to(network.device)

        return network, weights_of
    if targets is not None:
        raise ValueError("targets: expected None with score=, which has no classes")
    if scale != "softmax":
        raise ValueError(
            f"score_scale: expected 'softmax' with score=, which relative_score scales, got {scale!r}"
        )
    scored = scored_network(network, score, relative=relative)
    return scored, lambda rows, pixels: scored.score_weights(pixels)


def learn_in_batches(
    learn: Callable[[int, int, Report], Masks],
    count: int,
    iterations: int,
    device: torch.device,
    batch_size: int | None,
    progress: Progress | None,
) -> Masks:
    """``learn(start, stop, report)`` over ``count`` images, as many at once as the device's memory holds.

    ``progress`` gets (done, total) image-iterations; once it returns False no other batch is begun.
    """
    parts: list[Masks] = []

    def run(start: int, stop: int) -> bool:
        goes_on = True

        def report(iteration: float) -> bool:
            nonlocal goes_on
            if progress is not None:
                done = start * iterations + round((stop - start) * iteration)
                goes_on = progress(done, count * iterations) is not False
            return goes_on

        with torch.inference_mode(False), arithmetic(device):  # whatever the caller has switched on
            parts.append(learn(start, stop, report))
        return goes_on

    in_batches(count, min(batch_size or usual_batch_size(device), count), run)
    return Masks.concatenate(parts)


__all__ = ["Progress", "learn_in_batches", "learn_masks", "score_to_learn"]
