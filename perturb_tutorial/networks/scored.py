"""A score of the user's own, read from whatever the module returns, in place of softmax probabilities.

Segmentation, detection, regression and several labels at once have no N×K logits to explain, but they have a number for
each image: the mean logit of a class over a region, the score of a box, the predicted age, the logit of one label. A
function that reads this number f from the module's output takes the place of the target score:

    learned masks      Σ_{c∈C} f_c(Φ(x; M))  becomes  f(Φ(x; M)) / |f(x)|
    other methods      the logit z_C         becomes  f

The division makes the score 1 or −1 on the image itself, because λ₁ was made for probabilities, which lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from perturb_tutorial.networks.checkpoints import without_checkpoints
from perturb_tutorial.networks.checks import check_function_of_the_image
from perturb_tutorial.networks.class_table import ClassTable
from perturb_tutorial.networks.logits import LogitsOnly
from perturb_tutorial.networks.network import Network

Score = Callable[[Any], Tensor]
"""From a module's output for N images to N numbers."""


class ScoredNetwork(Network):
    """A network with the logits (f, 0): class 0 is the score, class 1 is there because logits have at least two.

    ``relative``: whether a mask's score is divided by its absolute value on the image.
    """

    relative: bool

    def target_scores(self, logits: Tensor, weights: Tensor, scale: str = "softmax") -> Tensor:
        """f, or f / |f(x)| as ``weights`` has it, N values, float32; there is no other scale."""
        return (logits.float() * weights).sum(1)

    def score_weights(self, images: Tensor) -> Tensor:
        """N×2: what multiplies f and 0 in the score of a mask on each image.

        Raises:
            ValueError: where a relative score is to be divided by 0 or by no finite number.
        """
        weights = torch.zeros(len(images), 2, dtype=torch.float32, device=self.device)
        weights[:, 0] = 1.0
        if not self.relative:
            return weights
        with torch.inference_mode():
            value = self.logits(images)[:, 0].float().abs()
        unusable = (~value.isfinite() | (value == 0)).nonzero().flatten().tolist()
        if unusable:
            raise ValueError(
                f"score: expected a finite value other than 0 on each image, by which it is divided, got "
                f"{value[unusable[0]]:.3g}; leave that image out, or set relative_score=False"
            )
        weights[:, 0] /= value
        return weights


def scored_network(network: Network, score: Score, *, relative: bool = True) -> ScoredNetwork:
    """``network`` with ``score`` in place of its logits; its layers and weights are shared.

    Raises:
        ValueError: for a score that is no function, fails on the module's output, does not give one number for each
            image, or whose value for an image changes with its neighbors in the batch or from one pass to the next.
    """
    if not callable(score):
        raise ValueError(
            f"score: expected a function of the module's output, got {type(score).__name__}; it returns a number for "
            "each image"
        )
    scored = ScoredNetwork.__new__(ScoredNetwork)
    scored.__dict__.update(network.__dict__)
    scored.relative = relative
    read = _Reader(score)
    scored._read, scored._not_logits = read, None
    scored._labels = ClassTable([("score",), ("none",)])
    scored._folded = LogitsOnly(network.folded, read)
    _check(scored, scored._folded)
    return scored


class _Reader:
    """From a module's output to the logits (f, 0)."""

    def __init__(self, score: Score) -> None:
        self.score = score

    def __call__(self, output: Any) -> Tensor:
        value = self.score(output)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            got = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"score: expected a float tensor with a number for each image, got {got}")
        if value.dim() not in (1, 2) or value[:1].numel() != 1:
            raise ValueError(
                f"score: expected a number for each image (N or N×1), got {'×'.join(map(str, value.shape)) or 'one'}"
            )
        value = value.flatten()
        return torch.stack([value, torch.zeros_like(value)], 1)


def _check(network: ScoredNetwork, module: nn.Module) -> None:
    example, others = network.example_inputs()
    with torch.autocast(network.device.type, enabled=False), without_checkpoints():
        with torch.inference_mode():
            alone = _values(module, example)
            _values(module, others)
        check_function_of_the_image(module, example, others, alone, what="scores")


def _values(module: nn.Module, inputs: Tensor) -> Tensor:
    """The logits (f, 0) of some inputs; ``ValueError`` where there is not one row for each."""
    try:
        logits = cast(Tensor, module(inputs))
    except Exception as error:  # the user's function may raise anything
        if isinstance(error, ValueError) and str(error).startswith("score: "):
            raise
        line = " ".join(str(error).split())
        raise ValueError(
            f"score: it fails on the module's output ({type(error).__name__}: {line})"
        ) from error
    if len(logits) != len(inputs):
        raise ValueError(
            f"score: expected a number for each image, got {len(logits)} for {len(inputs)}; leave the first dimension "
            "of the output as it is"
        )
    return logits
