"""Masks: what :func:`learn_masks` returns, one row an image, and its file."""

from __future__ import annotations

import io
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from perturb_tutorial._outside import printable_errors
from perturb_tutorial.files import whole_file
from perturb_tutorial.mask_files import FORMAT, HISTORY, MADE, OLDER, ROWS, checksum, read_content, wrong_form
from perturb_tutorial.masks import upsample
from perturb_tutorial.objectives import objective, scaled_score
from perturb_tutorial.settings import MaskSettings

EARLY = 5
"""Iterations over which two runs of one optimization stay together, whatever rounds differently in them."""
_SAME_RUN = {"score": 5e-3, "area": 5e-4, "tv": 1e-2}
"""The largest differences over those iterations, TV relative to 1 + TV. Twenty photographs on a processor with and
without AVX-512 differed by at most 0.6 of each; λ₁ or λ₂ times 1.5, a step size times 1.1 or a blur times 0.9 changed
the area by more on every photograph tried."""
_SAME_END = 0.02
"""The largest difference of the objectives at the end; 0.013 was seen on those processors, over two games."""


def _values(record: object) -> list[Any]:
    """The values of a dataclass, of those in it as well."""
    values = [getattr(record, item.name) for item in fields(cast("Any", record))]
    return [part for value in values for part in (_values(value) if isinstance(value, History) else [value])]


def _equal(first: object, second: object) -> bool:
    """Whether two records hold the same numbers, wherever they lie; NaN, the radius without a disc, is like NaN."""

    def same(one: Any, other: Any) -> bool:
        if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
            return one is other or bool(type(one) is type(other) and one == other)
        one, other = one.detach().cpu(), other.detach().cpu()
        return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)

    return all(map(same, _values(first), _values(second)))


@dataclass(frozen=True, eq=False)
class History:
    """What each iteration saw, N×iterations: the jittered score, the area (input size) and TV_β (grid).

    NaN after an image's last iteration.
    """

    score: Tensor
    area: Tensor
    tv: Tensor

    def __eq__(self, other: object) -> bool:
        return _equal(self, other) if isinstance(other, History) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.score.shape)


@dataclass(frozen=True, eq=False)
class Masks:
    """N learned masks.

    ``grid``: N×1×h×w in [0, 1], what was optimized; on images h×w is ``settings.grid_shape(size)``. ``size``: (H, W)
    of the images, px. ``settings``: how. ``score_original``, ``score_perturbed``, ``score_masked``: N target scores,
    summed over each set of classes, of the image, of the fully perturbed image, and under the final mask without
    jitter; with ``settings.score_scale`` "logit" their log-odds, and with any scale as they were read, not divided.
    ``iterations``: N whole numbers, how many each image took. ``radius``: the initial disc, image px of a 224 px
    input (times √(H·W) / 224 in px of this one), NaN without one. ``converged``: N booleans, module ``loop``
    says when. ``layer``: the layer whose output is masked (§6.4), None for a mask on the image. ``seed``, ``engine``,
    ``precision`` and ``version`` (of the package): what else it takes to learn them again, None where it is not known
    or differs between the rows. ``==`` compares all of it; :meth:`agrees_with` asks for the same run.

    ``draws``: N×k×h×w, the grids of k draws (``learn_masks(…, draws=k)``), None with one. Then ``grid`` is their mean
    and ``score_masked`` that mean's score; ``converged`` where the mean and each draw are; ``radius``, ``iterations``
    and ``history`` are those of draw 0, whose mask is that of a run of one draw.

    Examples:
        >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
        >>> network = pt.Network(module, input_size=32, device="cpu")
        >>> masks = pt.learn_masks(network, torch.rand(2, 3, 32, 32), [0, 3], pt.MaskSettings(iterations=2))
        >>> masks.grid.shape, masks.saliency.shape, masks[1].history.score.shape
        (torch.Size([2, 1, 28, 28]), torch.Size([2, 1, 32, 32]), torch.Size([1, 2]))
    """

    grid: Tensor
    size: tuple[int, int]
    score_original: Tensor
    score_perturbed: Tensor
    score_masked: Tensor
    converged: Tensor
    radius: Tensor
    iterations: Tensor
    history: History
    settings: MaskSettings
    layer: str | None = None
    seed: int | None = None
    engine: str | None = None
    precision: str | None = None
    version: str | None = None
    draws: Tensor | None = None

    def __len__(self) -> int:
        return len(self.grid)

    def __eq__(self, other: object) -> bool:
        return _equal(self, other) if isinstance(other, Masks) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.grid.shape, self.size, self.settings, self.layer))

    @property
    def mask(self) -> Tensor:
        """N×1×H×W in [0, 1]: 1 where a pixel is kept, 0 where it is perturbed."""
        return self._at_input_size(self.grid)

    @property
    def saliency(self) -> Tensor:
        """N×1×H×W in [0, 1], high where the evidence is: 1 − mask in the deletion game, the mask in the other.

        Where the grid has deleted nothing it is exactly 0, which the rounding of 1 − mask would hide.
        """
        return self._at_input_size(self.salient_grid)

    @property
    def salient_grid(self) -> Tensor:
        """N×1×h×w in [0, 1], ``grid`` turned so that it is high where the evidence is; it saturates at exactly 1."""
        return self.settings.rules.salient(self.grid)

    @property
    def draw_count(self) -> int:
        """Of how many draws each mask is the mean."""
        return 1 if self.draws is None else self.draws.shape[1]

    @property
    def agreement(self) -> Tensor:
        """N×1×H×W: at each pixel the share of the draws whose saliency is above 0.5 there."""
        salient = [(saliency > 0.5).to(torch.float32) for saliency in self._saliency_of_draws()]
        return torch.stack(salient).mean(0)

    @property
    def spread(self) -> Tensor:
        """N×1×H×W: at each pixel the standard deviation of the saliency over the draws, with k − 1."""
        return torch.stack(list(self._saliency_of_draws())).std(0)

    def _saliency_of_draws(self) -> Iterator[Tensor]:
        if self.draws is None:
            raise ValueError(
                "masks: expected several draws of each, got one; learn_masks(…, draws=8) makes them"
            )
        grids = self.settings.rules.salient(self.draws).split(1, dim=1)
        return map(self._at_input_size, grids)

    def _at_input_size(self, grid: Tensor) -> Tensor:
        return upsample(grid, self.size, self.settings.lengths(self.size).mask_sigma).clamp(0, 1)

    @property
    def area(self) -> Tensor:
        """The mean of each saliency at input size, N values."""
        return self.saliency.mean((1, 2, 3))

    @property
    def empty(self) -> Tensor:
        """Whether each mask has found nothing, N booleans: its area is less than a cell's."""
        return self.salient_grid.sum((1, 2, 3)) < 1

    @property
    def objective(self) -> Tensor:
        """What was minimized (eq. 6 or 1), at ``grid`` and without jitter, N values."""
        scores = (self.score_masked, self.score_original, self.score_perturbed)
        return objective(self.grid, scaled_score(*scores, self.settings.score_scale), self.settings)

    def agrees_with(self, other: Masks) -> bool:
        """Whether ``other`` is the same optimization run again, on this processor or on another.

        Rounding differs between processors, numbers of threads and batches, and 300 steps of Adam make much of it: two
        runs may end in different masks, of which neither is the better. So the first 5 iterations have to agree closely
        in score, area and TV, and the ends in what was minimized, the objective of ``grid`` (eq. 6), to 0.02. Every
        row has to; runs of another number of images, draws, iterations or cells do not.
        """
        shapes = [(m.grid.shape, m.size, m.history.score.shape, m.draw_count) for m in (self, other)]
        if shapes[0] != shapes[1]:
            return False
        early = min([EARLY, *self.iterations.tolist(), *other.iterations.tolist()])
        for name, allowed in _SAME_RUN.items():
            mine, theirs = (getattr(m.history, name)[:, :early] for m in (self, other))
            scale = 1 + theirs if name == "tv" else 1
            if not bool(((mine - theirs).abs() <= allowed * scale).all()):
                return False
        mine, theirs = (m.objective for m in (self, other))
        return bool(((mine - theirs).abs() <= _SAME_END).all())

    def resized(self, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """The saliency of each image at its photograph's own (height, width), N tensors H×W (bilinear)."""
        if len(sizes) != len(self):
            raise ValueError(
                f"sizes: expected one (height, width) for each of {len(self)} masks, got {len(sizes)}"
            )
        return [
            torch.nn.functional.interpolate(row[None], size=tuple(size), mode="bilinear", antialias=True)[
                0, 0
            ]
            for row, size in zip(self.saliency, sizes, strict=True)
        ]

    def __getitem__(self, rows: int | slice | Tensor | Sequence[int]) -> Masks:
        """Some of the masks, always as :class:`Masks`."""
        index: Any = rows
        if not isinstance(rows, slice | list | tuple) and np.ndim(rows) == 0:
            row = operator.index(index)
            if not -len(self) <= row < len(self):
                raise IndexError(f"rows: expected a row of {len(self)} masks, got {row}")
            index = slice(row, row + 1 or None)
        return self._each(lambda value: value[index])

    def to(self, device: str | torch.device) -> Masks:
        """The same on ``device``."""
        return self._each(lambda value: value.to(device))

    def _each(self, change: Any) -> Masks:
        history = History(*(change(getattr(self.history, name)) for name in HISTORY))
        draws = None if self.draws is None else change(self.draws)
        rows = {name: change(getattr(self, name)) for name in ROWS}
        return replace(self, history=history, draws=draws, **rows)

    @classmethod
    def concatenate(cls, parts: Sequence[Masks]) -> Masks:
        """Parts of equal settings, size, layer and number of draws as one."""
        if not parts:
            raise ValueError("parts: expected at least one Masks, got none")
        for name in ("size", "layer", "settings", "draw_count"):
            first, *others = (getattr(part, name) for part in parts)
            for other in others:
                if other != first:
                    raise ValueError(f"parts: expected masks of one {name}, got {first} and {other}")
        history = History(*(torch.cat([getattr(part.history, name) for part in parts]) for name in HISTORY))
        rows: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in ROWS}
        made = {name: {getattr(part, name) for part in parts} for name in MADE}
        common: dict[str, Any] = {
            name: values.pop() if len(values) == 1 else None for name, values in made.items()
        }
        draws = [part.draws for part in parts if part.draws is not None]
        common["draws"] = torch.cat(draws) if draws else None
        return replace(parts[0], history=history, **rows, **common)

    def save(self, path: str | Path) -> None:
        """Writes a file of tensors and plain values, whole or not at all; :meth:`load` reads it.

        Errors: ``ValueError`` for masks that :meth:`load` would not read, ``OSError`` where it cannot be written.
        """
        content: dict[str, Any] = {
            "format": FORMAT,
            "size": list(self.size),
            "settings": self.settings.to_dict(),
            "layer": self.layer,
            "draws": None,
            **{name: getattr(self, name) for name in MADE},
            # A copy of its own: a part of a tensor would be saved with the whole.
            **{name: value.detach().cpu().contiguous().clone() for name, value in self._tensors().items()},
        }
        if wrong := wrong_form(content):
            raise ValueError(f"masks: {wrong}")
        file = io.BytesIO()
        torch.save({**content, "checksum": checksum(content)}, file)
        with whole_file(path) as written:
            written.write(file.getbuffer())

    def _tensors(self) -> dict[str, Tensor]:
        history = {f"history.{name}": getattr(self.history, name) for name in HISTORY}
        rows = {name: getattr(self, name) for name in ROWS} | history
        return rows if self.draws is None else rows | {"draws": self.draws}

    @classmethod
    @printable_errors
    def load(cls, path: str | Path) -> Masks:
        """Reads what :meth:`save` wrote, also of earlier formats; no code in the file is run.

        Errors: ``ValueError`` for another file, a damaged one, or one of a later format.
        """
        content: Any = read_content(path)
        form = content["format"]
        older = form == OLDER[0] and "checksum" not in content
        try:
            if not older and content.pop("checksum", None) != checksum(content):
                raise ValueError("it is damaged: its checksum is not that of its content")
            if form in OLDER:
                content["draws"] = None
            if form in OLDER[:2]:  # every image took all iterations
                count, steps = content["history.score"].shape
                content["iterations"] = torch.full((count,), steps, device="cpu")
            settings = MaskSettings(**content["settings"])
            if wrong := wrong_form(content):
                raise ValueError(wrong)
            return cls(
                size=tuple(content["size"]),
                settings=settings,
                layer=content["layer"],
                history=History(*(content[f"history.{name}"] for name in HISTORY)),
                **{name: content[name] for name in ROWS},
                **{name: content.get(name) for name in MADE},
                draws=content["draws"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"masks: {path} lacks or adds a field ({error}); which version wrote it?"
            ) from error
        except ValueError as error:
            raise ValueError(f"masks: {path}: {error}") from error
        except Exception as error:  # fields of other types than these
            raise ValueError(f"masks: {path} is not a file that Masks.save wrote") from error
