"""The settings that records depend on: one frozen table, stored with the records and compared when a run is resumed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from perturb_tutorial._outside import check_whole
from perturb_tutorial.settings import AUTO, ENGINES, MaskSettings, check_seed, find_preset, plain_value

IMAGES_PER_CLASS = 400
"""The pointing game's subset: the first images of each class (§4)."""
MINIMUM_IMAGES = 10
"""A class of animals takes part with more than this many images that show an eye and a foot (§7)."""


@dataclass(frozen=True)
class BenchmarkSettings:
    """How a benchmark is run.

    Args:
        methods: names of methods, empty for the benchmark's own choice.
        mask: settings of the method "mask".
        mask_engine: of :func:`~perturb_tutorial.learn_masks`; "onnx" is faster on a CPU and the same within rounding;
            "auto" is the fastest when the run begins, and stays the run's.
        target_count: how many of the best predicted classes the mask of the localization benchmark has as targets; 1 is
            the true class (§6.2 has 5); never all classes of a network.
        seed: of masks, variable occlusion, drawn images and resamples.
        limit: at most that many images, drawn by seed, so that a smaller number is part of a larger one.
        batch_size: questions in a batch; a record is computed in the same batch however often a run is resumed.
        per_class: pointing game: the first images of each class.
        cells: grid pointing game: mosaics of cells × cells images.
        mosaics: grid pointing game: their number; None uses each recognized image about once, at most 500 mosaics.
        held_out_share: localization: share of the images for the search for α*.
        minimum_images: animal parts: a class takes part with more than that many.
        steps: faithfulness: steps of the curves.

    Raises:
        ValueError: with one line for a value of the wrong form.
    """

    methods: tuple[str, ...] = ()
    mask: MaskSettings = dataclasses.field(default_factory=MaskSettings)
    mask_engine: str = "torch"
    target_count: int = 1
    seed: int = 0
    limit: int | None = None
    batch_size: int = 16
    per_class: int = IMAGES_PER_CLASS
    cells: int = 2
    mosaics: int | None = None
    held_out_share: float = 0.1
    minimum_images: int = MINIMUM_IMAGES
    steps: int = 50

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            object.__setattr__(self, item.name, plain_value(getattr(self, item.name)))
        object.__setattr__(self, "methods", tuple(map(plain_value, self.methods)))
        object.__setattr__(self, "seed", check_seed(self.seed))
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods: expected each once, got {', '.join(self.methods)}")
        if self.mask_engine not in (*ENGINES, AUTO):
            known = ", ".join((*ENGINES, AUTO))
            raise ValueError(f"mask_engine: expected one of {known}, got {self.mask_engine!r}")
        least = {
            "target_count": 1,
            "batch_size": 1,
            "per_class": 1,
            "cells": 2,
            "minimum_images": 0,
        }
        for name, low in (least | {"steps": 1, "limit": 1, "mosaics": 1}).items():
            value = getattr(self, name)
            if value is None and name in ("limit", "mosaics"):
                continue
            object.__setattr__(self, name, check_whole(name, value, low))
        share = self.held_out_share
        if not isinstance(share, float) or not 0 < share < 1:
            raise ValueError(f"held_out_share: expected a share between 0 and 1, got {self.held_out_share!r}")

    @classmethod
    def preset(cls, name: str, *, network: str | None = None, **changes: Any) -> BenchmarkSettings:
        """The preset called ``name``, ``default`` or ``localization``, of masks (§6.2), and ``changes``."""
        mask = MaskSettings.preset(name, network=network)
        return cls(mask=mask, target_count=find_preset(name).target_count, **changes)

    def replace(self, **changes: Any) -> BenchmarkSettings:
        """A copy with ``changes``."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, as in settings.json."""
        return {**dataclasses.asdict(self), "methods": list(self.methods)}
