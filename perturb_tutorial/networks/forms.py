"""The forms in which a layer may keep a map of the image: N×C×h×w, N×h×w×C, or tokens N×T×C.

Tokens are laid out row by row. Beside the h·w tokens of the positions there may be r extra ones, for the class, for
distillation or as registers: before the positions, after them, or between their two halves. T = r + h·w alone does
not say which, so that there may be several candidates (:func:`candidates`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

MOST_EXTRA_TOKENS = 16
"""The largest r: a class token, one for distillation and up to 8 registers are usual."""


class LayerMap(NamedTuple):
    """The form of a layer's output that is a map of the image: its ``channels`` and its h×w positions.

    ``channels_last``: it is N×h×w×C. ``tokens``: it is N×T×C, with ``extra`` tokens that have no position, in front of
    which ``extra_at`` positions stand. Otherwise it is N×C×h×w. ``runs``: how often the layer runs in a pass; the form
    is that of its last run.
    """

    channels: int
    height: int
    width: int
    channels_last: bool = False
    runs: int = 1
    tokens: bool = False
    extra: int = 0
    extra_at: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        return (self.height, self.width)

    @property
    def is_channels_first(self) -> bool:
        """Whether the output is N×C×h×w."""
        return not (self.channels_last or self.tokens)

    def __str__(self) -> str:
        """The form for one image: 512×7×7, 7×7×512, or "197×768, 14×14 after 1 extra token"."""
        size = f"{self.height}×{self.width}"
        if not self.tokens:
            return f"{size}×{self.channels}" if self.channels_last else f"{self.channels}×{size}"
        where = {0: "after", self.height * self.width: "before"}.get(self.extra_at, "around")
        extra = f" {where} {self.extra} extra token{'s' if self.extra > 1 else ''}" if self.extra else ""
        return f"{self.height * self.width + self.extra}×{self.channels}, {size}{extra}"

    def channels_first(self, values: Tensor) -> Tensor:
        """``values`` in the form of the layer's output as N×C×h×w, without the extra tokens."""
        if self.tokens:
            before, _, after = self._parts(values)
            positions = torch.cat([before, after], 1) if self.extra else values
            return positions.transpose(1, 2).reshape(len(values), -1, *self.size)
        return values.permute(0, 3, 1, 2) if self.channels_last else values

    def as_output(self, values: Tensor, like: Tensor | None = None) -> Tensor:
        """``values`` N×C×h×w (N and C may be 1) in the form of the layer's output.

        The extra tokens are those of ``like``, an output of the layer; without it they are 1.
        """
        if not self.tokens:
            return values.permute(0, 2, 3, 1) if self.channels_last else values
        positions = values.flatten(2).transpose(1, 2)
        if not self.extra:
            return positions
        extra = positions.new_ones(len(positions), self.extra, positions.shape[2])
        if like is not None:
            extra = self._parts(like)[1]
        return torch.cat([positions[:, : self.extra_at], extra, positions[:, self.extra_at :]], 1)

    def _parts(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The positions before the extra tokens, the extra tokens, the positions after them."""
        end = self.extra_at + self.extra
        return values[:, : self.extra_at], values[:, self.extra_at : end], values[:, end:]


def candidates(shape: tuple[int, ...], sides: tuple[int, int]) -> list[LayerMap]:
    """The forms in which an output of ``shape`` for one image would have the image's shape H×W = ``sides``."""
    if shape[:1] != (1,) or len(shape) not in (3, 4):
        return []
    if len(shape) == 3:
        return [form._replace(channels=shape[2]) for form in _token_forms(shape[1], sides)]
    _, *rest = shape
    forms = [LayerMap(rest[0], rest[1], rest[2]), LayerMap(rest[2], rest[0], rest[1], channels_last=True)]
    return [form for form in forms if has_shape(form.size, sides)]


@lru_cache(maxsize=256)
def _token_forms(count: int, sides: tuple[int, int]) -> tuple[LayerMap, ...]:
    """The forms of ``count`` tokens whose h/w is nearest to H/W, fewer extra tokens first."""
    height, width = sides
    sizes = [
        (abs(h * width - positions // h * height), count - positions, h, positions // h)
        for positions in range(count, max(3, count - MOST_EXTRA_TOKENS - 1), -1)
        for h in range(2, positions // 2 + 1)
        if positions % h == 0 and has_shape((h, positions // h), sides)
    ]
    nearest = min((size[0] for size in sizes), default=0)
    return tuple(
        LayerMap(0, h, w, tokens=True, extra=extra, extra_at=at)
        for distance, extra, h, w in sizes
        if distance == nearest
        for at in ((0, h * w, h * w // 2) if extra else (0,))
    )


def has_shape(size: tuple[int, int], sides: tuple[int, int]) -> bool:
    """Whether h/w is H/W, up to rounding.

    A stage rounds a side by at most 1 of its px. Convolutions without padding take the same small number of px off both
    sides, which is a larger share of the shorter one.
    """
    (h, w), (height, width) = size, sides
    rounding = 1 + 2 * (1 - min(height, width) / max(height, width))
    return min(h, w) >= 2 and abs(h * width - w * height) <= rounding * max(height, width)


__all__ = ["LayerMap", "candidates", "has_shape"]
