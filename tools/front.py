"""Make the pictures of the book's first screen: `book/_front`, not committed.

    python tools/front.py               bring book/_front up to date (tools/build_book.py does it)
    python tools/front.py --precompute  learn the masks and take the scores anew: book/front/precomputed.json

The reader's slider deletes what a learned mask deletes, bit by bit: of the grid's deletion 1 − m the cells that it
deletes most, and of these the innermost, come first. At stop t of T they hold t / T of the whole deletion; at the last
stop the mask is the learned one. Masks are the package's, by its preset `localization` on the network's best guess;
scores are of the photograph as the network takes it, under the very grids that are shown. The pictures are the same at
the photograph's own size: mask and blur are scaled with it.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

from live import NETWORK, free_samples
from page_files import command, write_whole

ROOT = Path(__file__).resolve().parent.parent
MADE = ROOT / "book" / "_front"
PRECOMPUTED = ROOT / "book" / "front" / "precomputed.json"
STOPS = 20  # of the slider, beside 0
INNERMOST = 1.5  # mask px: cells count as inner by the deletion around them, blurred by this σ
WIDTH, THUMBNAIL, QUALITY = 640, 112, 82  # px, px, JPEG
MASK_SIDE = 56  # px of a stop's mask in the picture of masks; SIDE in front.js


def main(argv: list[str] | None = None) -> int:
    return command(
        "front", "Make the pictures of the first screen.", PRECOMPUTED, precompute, make, argv, MADE
    )


def stored() -> dict[str, Any]:
    """Name of a photograph → its entry of precomputed.json, the grid as a tensor 1×1×28×28."""
    photographs: dict[str, Any] = json.loads(PRECOMPUTED.read_text(encoding="utf-8"))["photographs"]
    return {name: {**entry, "grid": to_grid(entry["grid"])} for name, entry in photographs.items()}


def to_grid(text: str) -> Any:
    import torch

    values = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8).float() / 255
    side = round(len(values) ** 0.5)
    return values.view(1, 1, side, side)


def grids_of_stops(grid: Any) -> Any:
    """The grids T+1×1×h×w of the slider's stops, from nothing deleted to the learned ``grid`` 1×1×h×w."""
    import torch

    from perturb_tutorial import masks

    deletion = (1 - grid).flatten()
    order = masks.blur(1 - grid, INNERMOST).flatten().argsort(descending=True, stable=True)
    before = deletion[order].cumsum(0) - deletion[order]  # what the cells ahead of each delete
    wanted = torch.linspace(0, 1, STOPS + 1)[:, None] * deletion.sum()
    deleted = torch.minimum((wanted - before).clamp(min=0), deletion[order])
    grids = torch.ones(STOPS + 1, deletion.numel())
    grids[:-1, order] -= deleted[:-1]
    grids[-1] = grid.flatten()  # to the last bit
    return grids.view(-1, *grid.shape[1:])


def make(folder: Path) -> None:
    """Each photograph sharp, blurred, under its mask and small; its masks; credits and sizes in `pictures.json`."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    samples = free_samples()
    sizes = {}
    for name, entry in stored().items():
        with Image.open(samples[name].path) as file:
            photograph = file.convert("RGB")
        height = round(photograph.height * WIDTH / photograph.width)
        small = photograph.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        photograph = photograph.resize((WIDTH, height), Image.Resampling.LANCZOS)
        blurred, deleted = under(photograph, entry["grid"])
        pictures = {"": photograph, ".blurred": blurred, ".deleted": deleted, ".small": small}
        for kind, picture in pictures.items():
            write_whole(folder / f"{name}{kind}.jpg", packed(picture, "JPEG", quality=QUALITY, optimize=True))
        write_whole(folder / f"{name}.masks.png", packed(strip(entry["grid"]), "PNG", optimize=True))
        sizes[name] = {"width": WIDTH, "height": height, "credit": samples[name].credit}
    write_whole(folder / "pictures.json", json.dumps(sizes, ensure_ascii=False).encode())


def packed(picture: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def under(photograph: Any, grid: Any) -> tuple[Any, Any]:
    """x′ and Φ(x; M) of a PIL image of any size; σ₀ and σ_m are the same parts of a side as at the network's input."""
    import torch

    from perturb_tutorial import MaskSettings, masks
    from perturb_tutorial.networks import ZOO

    settings, size = MaskSettings(), ZOO[NETWORK].input_size
    pixels = torch.frombuffer(bytearray(photograph.tobytes()), dtype=torch.uint8).float() / 255
    pixels = pixels.view(photograph.height, photograph.width, 3).permute(2, 0, 1)[None]
    up, blur = [], []
    for side in (photograph.height, photograph.width):
        up.append(masks.upsampling_matrix(side, grid.shape[-1], settings.mask_sigma * side / size).float())
        blur.append(masks.gaussian_matrix(side, settings.blur_sigma * side / size).float())
    kept = up[0] @ grid @ up[1].T
    blurred = blur[0] @ pixels @ blur[1].T
    return to_picture(blurred), to_picture(pixels * kept + blurred * (1 - kept))


def to_picture(pixels: Any) -> Any:
    """A PIL image of 1×3×H×W in [0, 1]."""
    from PIL import Image

    return Image.fromarray((255 * pixels[0].permute(1, 2, 0)).round().byte().numpy())


def strip(grid: Any) -> Any:
    """What the mask of each stop deletes, one below the other, as the alpha of a black PIL image."""
    from PIL import Image
    from torch.nn.functional import adaptive_avg_pool2d

    from perturb_tutorial import MaskSettings, masks
    from perturb_tutorial.networks import ZOO

    mask = masks.upsample(grids_of_stops(grid), ZOO[NETWORK].input_size, MaskSettings().mask_sigma)
    alpha = 255 * (1 - adaptive_avg_pool2d(mask, MASK_SIDE)).clamp(0, 1)
    picture = Image.new("LA", (MASK_SIDE, MASK_SIDE * len(mask)))
    picture.putalpha(Image.fromarray(alpha.view(-1, MASK_SIDE).round().byte().numpy()))
    return picture


def precompute() -> dict[str, Any]:
    """Of every photograph that may be shared its mask, rounded to 8 bits, and the scores at each stop."""
    from perturb_tutorial import MaskSettings, learn_masks, load_images, load_network, top_classes

    network = load_network(NETWORK, device="cpu")
    samples = free_samples()
    pixels = load_images([sample.path for sample in samples.values()], network.input_size)
    targets = [classes[0] for classes in top_classes(network, pixels, k=1)]
    settings = MaskSettings.preset("localization")
    learned = learn_masks(network, pixels, targets, settings=settings, seed=0)
    entries = {}
    for row, name in enumerate(samples):
        grid = base64.b64encode((learned.grid[row] * 255).round().byte().numpy().tobytes()).decode()
        scores = scores_of(network, pixels[row : row + 1], targets[row], to_grid(grid))
        entries[name] = {"target": targets[row], **scores, "grid": grid}
    return {
        "command": "python tools/front.py --precompute",
        "settings": {**settings.to_dict(), "seed": 0},
        "photographs": entries,
    }


def scores_of(network: Any, image: Any, target: int, grid: Any) -> dict[str, Any]:
    """At each stop the target's score, the deleted share of the photograph, and the best guess with its score."""
    import torch

    from perturb_tutorial import MaskSettings, masks, perturbations

    mask = masks.upsample(grids_of_stops(grid), network.input_size, MaskSettings().mask_sigma)
    background = perturbations.fully_perturbed(image, "blur", color=network.mean_color)
    with torch.no_grad():
        scores = network.scores(perturbations.perturb(image, background, mask))
    values, indices = scores.max(1)
    return {
        "scores": [round(value, 4) for value in scores[:, target].tolist()],
        "areas": [round(value, 4) for value in (1 - mask).mean((1, 2, 3)).tolist()],
        "best": [
            [index, round(value, 4)] for index, value in zip(indices.tolist(), values.tolist(), strict=True)
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
