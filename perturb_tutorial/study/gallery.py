"""A gallery of one class (§6.2, fig. 5 and 6): the photographs of a folder with their masks on one sheet.

Over each photograph is the softmax probability of the class, and C or I: whether it is the network's best class
(correct) or not (incorrect). Under the localization preset the mask deletes the five best classes
together, whatever they are, so it shows what else the network looks at.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from perturb_tutorial._outside import check_whole, printable_errors
from perturb_tutorial.batches import check_batch_size
from perturb_tutorial.files import whole_file
from perturb_tutorial.images import load_images
from perturb_tutorial.networks import Network, best_targets
from perturb_tutorial.optimizer import learn_masks
from perturb_tutorial.plotting import HEAT_COLORMAP, as_picture, bare, overlay
from perturb_tutorial.reading import open_regular
from perturb_tutorial.results import Masks
from perturb_tutorial.sealed import PROGRAM
from perturb_tutorial.settings import PRESETS, MaskSettings, check_seed, find_preset

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Extensions of a folder's image files, in upper or lower case."""

COLUMNS = 10
"""Photographs in a row; five rows of them are the paper's 50."""
MAX_PIXELS = 40_000_000
"""A sheet that would have more is written at a lower resolution."""
MAX_MEGABYTES = 1_000
"""Of a PNG file that may be a sheet."""

_IMAGES_AT_ONCE = 16
_TILE = 160  # px of one photograph on the sheet
_LABEL = 24  # px of the line over it
_INCHES = 1.0  # of one tile

Progress = Callable[[float], None]
"""Called with the number of masks done, one for each file and preset; a fraction while they are being learned."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """N photographs of one class with their masks.

    ``names``: of the photographs. ``pictures``: N×C×H×W uint8. ``probability``: of the class, N
    values. ``predicted``: the best class of each. ``masks``: by preset, N each. ``errors``: a line for each
    bad file.
    """

    network: str
    target: int
    label: str
    names: list[str] = field(default_factory=list)
    pictures: Tensor = field(default_factory=lambda: torch.empty(0, 3, 1, 1, dtype=torch.uint8, device="cpu"))
    probability: list[float] = field(default_factory=list)
    predicted: list[int] = field(default_factory=list)
    masks: dict[str, Masks] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def correct(self) -> list[bool]:
        """Whether each photograph's best class is the gallery's class."""
        return [index == self.target for index in self.predicted]

    @property
    def recall(self) -> float:
        """The share of correct photographs; NaN without any."""
        return sum(self.correct) / len(self) if self.names else math.nan

    def figure(self, *, columns: int = COLUMNS, colormap: str = HEAT_COLORMAP) -> Figure:
        """The contact sheet, with one block for each preset."""
        return contact_sheet(self, columns=columns, colormap=colormap)


@printable_errors
def image_files(folder: str | Path) -> list[Path]:
    """The image files of ``folder`` by name, recognized by their extensions; subfolders and hidden files are left out.

    Errors: ``ValueError`` where there is no such folder or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "a file" if folder.exists() else "not there"
        raise ValueError(f"folder: expected a folder with images, {folder} is {what}")
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ValueError(f"folder: {folder} cannot be read ({error.strerror})") from error
    found = [
        path
        for path in entries
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    ]
    if not found:
        endings = ", ".join(IMAGE_SUFFIXES)
        raise ValueError(
            f"folder: expected image files ({endings}) in {folder}, found none among {len(entries)} entries"
        )
    return found


@printable_errors
def learn_gallery(
    network: Network,
    paths: Sequence[str | Path],
    target: int | str,
    presets: Sequence[str] = ("default", "localization"),
    *,
    changes: Mapping[str, Any] | None = None,
    fast: bool = False,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Gallery:
    """The masks of photographs of one class under each preset.

    Args:
        network: the network that is explained.
        paths: the files of the photographs. A bad file becomes a line of ``Gallery.errors``.
        target: the class, an index, a wnid or an exact name.
        presets: "default", "localization" or both.
        changes: settings that differ from the presets', such as ``{"iterations": 100}``.
        fast: whether the masks are learned with fewer passes (:meth:`MaskSettings.fast`).
        seed: of the masks.
        batch_size: images at once, None for the device's usual number.
        progress: called with the number of masks done, a fraction while they are being learned.

    Raises:
        ValueError: for an unknown target, preset or setting.
    """
    check_batch_size(batch_size)
    index, seed = network.class_index(target), check_seed(seed)
    chosen = {name: find_preset(name) for name in presets}
    if not chosen or len(chosen) < len(presets):
        raise ValueError(
            f"presets: expected some of {', '.join(PRESETS)}, each once, got {', '.join(presets) or 'none'}"
        )
    zoo_name = network.name.partition(" ")[0]
    settings = {}
    for name in chosen:
        of_preset = MaskSettings.preset(name, network=zoo_name)
        settings[name] = (of_preset.fast() if fast else of_preset).replace(**dict(changes or {}))
    gallery = Gallery(network.name, index, network.labels.name(index))
    pictures: list[Tensor] = []
    parts: dict[str, list[Masks]] = {name: [] for name in chosen}
    total = len(paths) * len(chosen)
    for start in range(0, len(paths), _IMAGES_AT_ONCE):
        part = [Path(path) for path in paths[start : start + _IMAGES_AT_ONCE]]
        images, bad = load_images(part, network.input_size, channels=network.channels, on_error="skip")
        gallery.errors.extend(map(str, bad))
        missing = {error.index for error in bad}
        if len(images):
            with torch.inference_mode():
                scores = network.scores(images).cpu()
            best = best_targets(network, images, max(preset.target_count for preset in chosen.values()))
            gallery.names.extend(path.name for row, path in enumerate(part) if row not in missing)
            gallery.probability.extend(scores[:, index].tolist())
            gallery.predicted.extend(row[0] for row in best)
            pictures.append((images * 255).round().to(torch.uint8))
        for order, (name, preset) in enumerate(chosen.items()):
            done = start * len(chosen) + order * len(part)
            if len(images):
                sets = (
                    [[index]] * len(images)
                    if preset.target_count == 1
                    else [row[: preset.target_count] for row in best]
                )

                def report(now: int, of: int, done: int = done, size: int = len(part)) -> None:
                    if progress is not None:
                        progress(min(total, done + size * now / max(1, of)))

                learned = learn_masks(
                    network, images, sets, settings[name], seed=seed, batch_size=batch_size, progress=report
                )
                parts[name].append(learned.to("cpu"))
            if progress is not None:
                progress(done + len(part))
    if not pictures:
        return gallery
    gallery.masks.update((name, Masks.concatenate(rows)) for name, rows in parts.items())
    return Gallery(**{**vars(gallery), "pictures": torch.cat(pictures)})


def gallery(
    network: Network,
    paths: Sequence[str | Path],
    target: int | str,
    presets: Sequence[str] = ("default", "localization"),
    *,
    columns: int = COLUMNS,
    colormap: str = HEAT_COLORMAP,
    **options: Any,
) -> Figure:
    """The contact sheet of :func:`learn_gallery`, which takes the same arguments and ``options``."""
    return learn_gallery(network, paths, target, presets, **options).figure(
        columns=columns, colormap=colormap
    )


def contact_sheet(gallery: Gallery, *, columns: int = COLUMNS, colormap: str = HEAT_COLORMAP) -> Figure:
    """Fig. 5 and 6 as one figure: a block for each preset, photographs in rows, probability and C or I over each.

    A mask that did not converge has an asterisk, a photograph whose score is not finite a dash; without masks
    there is one block of the photographs alone.
    """
    columns = max(1, min(check_whole("columns", columns, 1), len(gallery)))
    rows = max(1, math.ceil(len(gallery) / columns))
    blocks = max(1, len(gallery.masks))
    height = rows * (_TILE + _LABEL) / _TILE + 0.4
    figure = Figure(
        figsize=(max(3.0, columns * _INCHES), blocks * height * _INCHES + 0.3), layout="constrained"
    )
    right = f", {sum(gallery.correct)} of {len(gallery)} correct (C)" if gallery.names else ": no photographs"
    failed = any(not masks.converged.all() for masks in gallery.masks.values())
    star = "; * did not converge" if failed else ""
    figure.suptitle(f"{gallery.label}, {gallery.network}{right}{star}", fontsize=8, parse_math=False)
    for axis, name in zip(figure.subplots(blocks, 1, squeeze=False).flat, gallery.masks or [""], strict=True):
        bare(axis)
        axis.set_title(name, fontsize=8, loc="left")
        sheet = np.ones((rows * (_TILE + _LABEL), columns * _TILE, 3), dtype=np.float32)
        masks = gallery.masks.get(name)
        for index in range(len(gallery)):
            top, left = (index // columns) * (_TILE + _LABEL) + _LABEL, (index % columns) * _TILE
            picture = gallery.pictures[index].float() / 255
            if masks is None:
                tile = as_picture(picture)
            else:
                tile = overlay(picture, masks[index].saliency[0], colormap=colormap)
            sheet[top : top + _TILE - 4, left : left + _TILE - 4] = _thumbnail(tile, _TILE - 4)
            label = _label(gallery, index, masks is None or bool(masks.converged[index]))
            axis.text(left + _TILE / 2, top - 3, label, fontsize=6, ha="center", va="bottom")
        axis.imshow(sheet)
    return figure


def _label(gallery: Gallery, index: int, converged: bool) -> str:
    """The line over one photograph."""
    probability = gallery.probability[index]
    judged = (
        f"{probability:.3f} {'C' if gallery.correct[index] else 'I'}" if math.isfinite(probability) else "–"
    )
    return judged + ("" if converged else "*")


def _thumbnail(tile: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """``tile`` (H×W×3) in the middle of a white square of ``side`` px, its longer side as long as the square's."""
    height, width = (max(1, round(side * length / max(tile.shape[:2]))) for length in tile.shape[:2])
    pixels = torch.from_numpy(np.ascontiguousarray(tile)).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(pixels, size=(height, width), mode="bilinear", antialias=True)
    square = np.ones((side, side, 3), dtype=np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = small[0].permute(1, 2, 0).clamp(0, 1).numpy()
    return square


def save_png(figure: Figure, path: str | Path, *, dpi: float = 160) -> None:
    """``figure`` as a PNG file, whole or not at all; at a lower resolution where it would pass
    ``MAX_PIXELS``.
    """
    width, height = figure.get_size_inches()
    content = io.BytesIO()
    dpi = min(dpi, math.sqrt(MAX_PIXELS / (width * height)))
    figure.savefig(content, format="png", dpi=dpi, metadata={"Software": PROGRAM})
    with whole_file(path) as file:
        file.write(content.getvalue())


def check_replaceable(path: Path) -> None:
    """``ValueError`` where something is at ``path`` that :func:`save_png` did not write."""
    if not os.path.lexists(path):
        return
    try:
        with open_regular(path, MAX_MEGABYTES) as file, Image.open(file, formats=("PNG",)) as picture:
            own = picture.info.get("Software") == PROGRAM
    except Exception:  # whatever Pillow raises for a file that is no PNG
        own = False
    if not own:
        raise ValueError(f"output: {path} is there, and {PROGRAM} did not write it; give another name")
