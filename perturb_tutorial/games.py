"""Deletion and preservation: all that the two games differ in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Game:
    """All that deletion and preservation differ in; m is a mask, s the score under it.

    ``sign``: of the score in the objective, +1 in deletion, which minimizes it, −1 in preservation.
    ``threshold``: the normalized score at which a disc is large enough to start from (§2).
    """

    name: str
    sign: int
    threshold: float

    def salient(self, mask: Tensor) -> Tensor:
        """What the mask's area counts, high where the evidence is: 1 − m in deletion, m in preservation."""
        return 1 - mask if self.sign > 0 else mask

    def disc(self, inside: Tensor) -> Tensor:
        """The mask whose salient part is ``inside``, 1 in a disc: deletion perturbs the disc, preservation keeps it."""
        return self.salient(inside)  # 1 − m is its own inverse

    def suffices(self, normalized: Tensor) -> Tensor:
        """Whether a disc with this normalized score is large enough: ŝ ≤ 0.01 in deletion, ŝ ≥ 0.99 in preservation."""
        return normalized <= self.threshold if self.sign > 0 else normalized >= self.threshold

    def mostly_suffices(self, normalized: Tensor) -> Tensor:
        """Whether most is done: ŝ ≤ 0.3 in deletion, ŝ ≥ 0.7 in preservation."""
        return normalized <= 0.3 if self.sign > 0 else normalized >= 0.7

    def gain(self, masked: Tensor, original: Tensor, perturbed: Tensor) -> Tensor:
        """How far a mask has moved the score: s₀ − s in deletion, s − s∞ in preservation.

        ``masked``, ``original``, ``perturbed``: s under the mask, s₀ of the image, s∞ of the fully perturbed image.
        """
        return original - masked if self.sign > 0 else masked - perturbed

    def reached(self, masked: Tensor, original: Tensor, perturbed: Tensor) -> Tensor:
        """Whether a mask has moved the score as the game asks: s < s₀ in deletion, s > s∞ in preservation."""
        return masked < original if self.sign > 0 else masked > perturbed


GAMES = {
    game.name: game
    for game in (Game("deletion", sign=+1, threshold=0.01), Game("preservation", sign=-1, threshold=0.99))
}
"""Both games by name."""
