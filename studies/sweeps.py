"""Masks and maps of the sample photographs that take too long for a chapter, computed once and committed.

    python studies/sweeps.py --list          each sweep, its photographs and settings, and whether it exists
    python studies/sweeps.py [NAME…]         make the missing ones; without a name all of them
    python studies/sweeps.py --again NAME…   make them again

NAME may end in ``*`` (in quotes, or the shell expands it). A sweep is ``data/sweeps/NAME.pt``, written by
``Masks.save``: grids, scores and history, one row for each photograph in the order of :attr:`Sweep.photographs`, with
seed 0 and EfficientNet-Lite0 where the sweep names no other network. The maps of a method without a mask are
``data/sweeps/NAME.npy``. A chapter loads the file, computes one row again, asserts that the two agree, and draws the
rest. All of them take some 65 minutes on one core.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import perturb_tutorial as pt
from perturb_tutorial.benchmarks.data import read_samples
from perturb_tutorial.datasets.samples import all_samples
from perturb_tutorial.files import whole_file
from perturb_tutorial.networks.mask_layers import PAPER_LAYERS
from perturb_tutorial.settings import PRESETS

FOLDER = Path(__file__).resolve().parent.parent / "data" / "sweeps"
SEED = 0

PHOTOGRAPHS = tuple(name for name, sample in all_samples().items() if sample.class_index is not None)
DRAWN_PHOTOGRAPHS = tuple(
    PHOTOGRAPHS[index]
    for index in sorted(np.random.default_rng(SEED).choice(len(PHOTOGRAPHS), 8, replace=False))
)
"""Drawn by seed, not selected."""
LAYER_PHOTOGRAPHS = ("dalmatian", "bald_eagle", "chelsea", "cannon")
STAGES = {112: "_blocks.0", 56: "_blocks.2", 28: "_blocks.4", 14: "_blocks.10", 7: "_swish"}
"""Side of the output → layer: the last of each size, as :func:`perturb_tutorial.networks.mask_layers.stage_layers` has
it."""

WEIGHT_PHOTOGRAPHS = ("dalmatian", "chelsea")
WEIGHT_SIDES = (28, 14, 7)  # the larger maps would be most of the folder's bytes
WEIGHT_ITERATIONS = 75
AREA_WEIGHTS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
TV_WEIGHTS = (1e-3, 1e-2, 1e-1, 1.0)
METHOD_PHOTOGRAPH = "chelsea"
METHOD_AREA_WEIGHTS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""λ₁ of the chapter on the method, around the paper's 1e-4."""


@dataclass(frozen=True)
class Sweep:
    """Masks of some photographs; ``layer``: on that layer's output (§6.4); ``target_count``: if above 1, the target is
    the set of that many best classes (eq. 2), else the photograph's class.
    """

    photographs: tuple[str, ...]
    settings: pt.MaskSettings
    layer: str | None = None
    target_count: int = 1
    network: str = "efficientnet_lite0"
    seed: int = SEED

    suffix = ".pt"

    @property
    def place(self) -> str:
        """What the masks lie on."""
        return self.layer or "image"

    def make(self, network: pt.Network, file: Path) -> None:
        """Learns the masks and writes them to ``file``."""
        self.learn(network).save(file)

    def learn(self, network: pt.Network) -> pt.Masks:
        """The masks, one row for each photograph."""
        images, targets = self.inputs(network)
        if self.layer is None:
            return pt.learn_masks(network, images, targets, self.settings, seed=self.seed)
        return pt.learn_activation_masks(network, images, targets, self.layer, self.settings, seed=self.seed)

    def inputs(self, network: pt.Network) -> tuple[torch.Tensor, Any]:
        """The photographs N×3×S×S and their targets."""
        samples = pt.load_samples(network.input_size, names=self.photographs)
        if self.target_count == 1:
            return samples.images, samples.targets
        return samples.images, pt.top_classes(network, samples.images, self.target_count)


@dataclass(frozen=True)
class ObjectSweep(Sweep):
    """A row for each category in each photograph that has classes of the network, in the order of
    ``read_samples().questions()``: several categories of one photograph are several rows.
    """

    def inputs(self, network: pt.Network) -> tuple[torch.Tensor, Any]:
        """The photographs, repeated, and the classes of each row's category."""
        questions = read_samples().questions()
        images = pt.load_images([question.image.path for question in questions], network.input_size)
        return images, [list(question.targets) for question in questions]


@dataclass(frozen=True)
class MapSweep:
    """Maps of some photographs by a method without a mask, for the photographs' own classes: float32 N×1×28×28 of raw
    scale, each cell the mean over its pixels.
    """

    photographs: tuple[str, ...]
    method: str
    network: str = "efficientnet_lite0"

    suffix = ".npy"
    place = "image"

    def make(self, network: pt.Network, file: Path) -> None:
        """Computes the maps and writes them to ``file``."""
        samples = pt.load_samples(network.input_size, names=self.photographs)
        maps = on_grid(pt.saliency(network, samples.images, samples.targets, self.method))
        with whole_file(file) as opened:
            np.save(opened, maps.cpu().numpy())


def on_grid(maps: torch.Tensor) -> torch.Tensor:
    """Maps N×1×H×W as means over the cells of the masks' grid, N×1×28×28."""
    return torch.nn.functional.adaptive_avg_pool2d(maps, pt.MaskSettings().grid_size)


def object_photographs() -> tuple[str, ...]:
    """The photograph of each row of an :class:`ObjectSweep`."""
    names = {Path(sample.package_path).name: name for name, sample in all_samples().items()}
    return tuple(names[question.image.path.name] for question in read_samples().questions())


def all_sweeps() -> dict[str, Sweep | MapSweep]:
    """Every sweep by its name."""
    localization = PRESETS["localization"]
    sweeps: dict[str, Sweep | MapSweep] = {
        "deletion": Sweep(PHOTOGRAPHS, pt.MaskSettings()),
        "preservation": Sweep(PHOTOGRAPHS, pt.MaskSettings(game="preservation")),
        "localization": Sweep(PHOTOGRAPHS, localization.settings, target_count=localization.target_count),
        # One change of the localization setting at a time.
        "localization_classes": Sweep(PHOTOGRAPHS, pt.MaskSettings(), target_count=localization.target_count),
        **{
            f"localization_{name}": Sweep(
                PHOTOGRAPHS, pt.MaskSettings(**{name: getattr(localization.settings, name)})
            )
            for name in ("area_weight", "tv_exponent")
        },
        **{
            f"deletion_{name}": Sweep(DRAWN_PHOTOGRAPHS, pt.MaskSettings(), network=f"efficientnet_{name}")
            for name in ("lite1", "lite2")
        },
        "deletion_seed1": Sweep(DRAWN_PHOTOGRAPHS, pt.MaskSettings(), seed=1),
        "objects": ObjectSweep(object_photographs(), pt.MaskSettings()),
        "occlusion": MapSweep(DRAWN_PHOTOGRAPHS, "occlusion"),
        **{
            f"area_weight_{weight:g}": Sweep((METHOD_PHOTOGRAPH,), pt.MaskSettings(area_weight=weight))
            for weight in METHOD_AREA_WEIGHTS
        },
    }
    for row in PAPER_LAYERS["vgg16"]:
        layer = STAGES[row.side]
        paper = pt.MaskSettings(area_weight=row.area_weight, tv_weight=row.tv_weight)
        sweeps[f"layer_{row.side}"] = Sweep(LAYER_PHOTOGRAPHS, paper, layer)
        if row.side in WEIGHT_SIDES:
            short = paper.replace(iterations=WEIGHT_ITERATIONS)
            for name, weights in (("area_weight", AREA_WEIGHTS), ("tv_weight", TV_WEIGHTS)):
                for weight in weights:
                    sweeps[f"layer_{row.side}_{name}_{weight:g}"] = Sweep(
                        WEIGHT_PHOTOGRAPHS, short.replace(**{name: weight}), layer
                    )
    return sweeps


def chosen(names: list[str], sweeps: dict[str, Sweep | MapSweep]) -> list[str]:
    """The sweeps that ``names`` match, in the order of ``sweeps``; ``ValueError`` for a name that matches none."""
    for name in names:
        if not fnmatch.filter(sweeps, name):
            raise ValueError(f"no sweep is called {name}; there are: {', '.join(sweeps)}")
    return [sweep for sweep in sweeps if not names or any(fnmatch.fnmatch(sweep, name) for name in names)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make data/sweeps: masks that take too long for a chapter.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="sweeps to make; default all")
    parser.add_argument("--list", action="store_true", help="list the sweeps")
    parser.add_argument("--again", action="store_true", help="make sweeps that are there already, too")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of the sweeps")
    options = parser.parse_args(argv)
    sweeps = all_sweeps()
    try:
        names = chosen(options.names, sweeps)
    except ValueError as error:
        print(f"sweeps: {error}", file=sys.stderr)
        return 2
    files = {name: options.folder / f"{name}{sweeps[name].suffix}" for name in names}
    if options.list:
        for name, file in files.items():
            sweep, there = sweeps[name], "there" if file.is_file() else "missing"
            print(f"{name:28} {len(sweep.photographs):2} photographs, {sweep.place:10} {there}")
        return 0
    missing = {name: file for name, file in files.items() if options.again or not file.is_file()}
    if not missing:
        print("sweeps: nothing to do")
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    networks: dict[str, pt.Network] = {}
    for name, file in missing.items():
        start, needed = time.perf_counter(), sweeps[name].network
        if needed not in networks:
            networks[needed] = pt.load_network(needed, device="cpu")
        sweeps[name].make(networks[needed], file)
        print(
            f"{name}: {file.stat().st_size / 1000:.0f} kB in {time.perf_counter() - start:.0f} s", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
