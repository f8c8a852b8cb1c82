"""``perturb-tutorial explain``: pictures, saliency and results of photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perturb_tutorial.cli import options
from perturb_tutorial.cli.options import (
    BAR,
    DONE,
    MISTAKE,
    PATH,
    TEXT,
    changed,
    load,
    mistake,
    prepare,
    say,
    unwritable,
)
from perturb_tutorial.settings import AUTO, MOST_DRAWS, MaskSettings, find_preset

if TYPE_CHECKING:
    from perturb_tutorial.explain import Request
    from perturb_tutorial.networks import Network


@click.command()
@click.argument("images", nargs=-1, metavar="[IMAGE]...", type=click.Path())
@click.option(
    "--sample",
    "samples_",
    type=TEXT,
    multiple=True,
    metavar="NAME",
    help="A sample photograph; may be repeated.",
)
@options.together(options.network, options.weights)
@click.option(
    "--target",
    type=TEXT,
    default="auto",
    show_default=True,
    metavar="NAME|INDEX|auto",
    help="Exact class name, index or wnid; auto: the best class, or of the preset localization the five best.",
)
@options.game
@click.option(
    "--method",
    type=TEXT,
    default="mask",
    show_default=True,
    metavar="NAME",
    help="See: perturb-tutorial methods.",
)
@click.option(
    "--layer", type=TEXT, metavar="NAME", help="The layer that the method reads, or that the mask masks."
)
@options.together(options.preset, options.paper, options.settings)
@options.together(options.seed, options.device, options.mask_engine(AUTO))
@click.option(
    "--draws",
    type=click.IntRange(1, MOST_DRAWS),
    default=1,
    show_default=True,
    metavar="K",
    help="Masks of each photograph, by other jitters and starts: their mean, and where they agree.",
)
@click.option(
    "--export",
    type=click.Choice(["png", "polygon", "rle"]),
    multiple=True,
    help="Also the map for other programs, at the photograph's own size, in DIR/masks; may be repeated.",
)
@click.option("--output", type=PATH, required=True, metavar="DIR", help="Made if it is not there.")
def explain(
    images: tuple[str, ...],
    samples_: tuple[str, ...],
    network_name: str,
    weights: Path | None,
    target: str,
    game: str | None,
    method: str,
    layer: str | None,
    preset: str,
    paper: bool,
    settings_file: Path | None,
    seed: int,
    device: str,
    mask_engine: str,
    draws: int,
    export: tuple[str, ...],
    output: Path,
) -> int:
    """Explain photographs: a picture, the saliency as an array and a line of results for each."""
    if not images and not samples_:
        raise click.UsageError(
            "expected at least one IMAGE or --sample NAME (perturb-tutorial samples lists them)"
        )
    if mask_engine not in ("torch", AUTO) and (method != "mask" or layer is not None):
        raise click.UsageError(
            f"--mask-engine {mask_engine} is for masks on the photograph; leave it out here"
        )
    if draws > 1 and (method != "mask" or layer is not None):
        raise click.UsageError(f"--draws {draws} is for masks on the photograph; leave it out here")
    if paper and method != "mask":
        raise click.UsageError("--paper is for the method mask; leave it out here")
    with mistake("--sample"):
        sample_paths = _sample_paths(samples_)
    prepare(output)
    network = load(network_name, weights, device)
    layer = _check_method(network, method, layer)
    with mistake("--settings"):
        base = _preset(network, preset, layer if method == "mask" else None)
        base = base if game is None else base.replace(game=game)
        settings = changed(base if paper else base.fast(), settings_file, game)
    with mistake("--target"):
        chosen = None if target == "auto" else network.class_index(target)

    from perturb_tutorial.explain import Request

    if mask_engine == AUTO and method == "mask" and layer is None:
        _announce_measurement(network, settings, len(images) + len(samples_), draws)
    count, kinds = find_preset(preset).target_count, tuple(dict.fromkeys(export))
    request = Request(network, settings, chosen, count, method, layer, seed, mask_engine, kinds, draws)
    names = [name or "''" for name in images] + list(samples_)
    return _run(request, [*map(Path, images), *sample_paths], names, output)


def _run(request: Request, paths: Sequence[Path], names: Sequence[str], output: Path) -> int:
    from tqdm import tqdm

    from perturb_tutorial.explain import explain_files

    # disable=None: a bar on a terminal, none in a pipe.
    with tqdm(total=len(paths), unit="image", disable=None, bar_format=BAR) as bar:

        def progress(done: float) -> None:
            bar.update(done - bar.n)

        try:
            outcome = explain_files(paths, request, output, names=names, progress=progress, report=tqdm.write)
        # A layer, a target or an engine that cannot be used on this network; packages that are not installed.
        except (ValueError, ImportError) as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:  # results.json cannot be written: a full disk, a folder that was deleted
            raise unwritable(output, error, "another folder") from error
    for line in outcome.errors:
        say(f"error: {line}", err=True)
    return MISTAKE if outcome.errors else DONE


def _sample_paths(names: Sequence[str]) -> list[Path]:
    if not names:
        return []
    from perturb_tutorial.datasets.samples import sample_path

    return [sample_path(name) for name in names]


def _check_method(network: Network, method: str, layer: str | None) -> str | None:
    """The layer's name in the network, once method and layer are known to exist."""
    from perturb_tutorial.baselines import find_method
    from perturb_tutorial.networks.mask_layers import resolve_layer

    with mistake("--method"):
        find_method(method)
    with mistake("--layer"):
        return None if layer is None else resolve_layer(network, layer)


def _announce_measurement(network: Network, settings: MaskSettings, count: int, draws: int) -> None:
    """A line before the seconds in which nothing else is seen."""
    from perturb_tutorial.explain import IMAGES_AT_ONCE
    from perturb_tutorial.fastest import known_engine

    if known_engine(network, settings, draws * min(count, IMAGES_AT_ONCE)) is None:
        say(
            f"finding the fastest engine for {network.name} on this machine, once; --mask-engine torch starts at once",
            err=True,
        )


def _preset(network: Network, preset: str, layer: str | None) -> MaskSettings:
    """The preset's settings, or for masks on a layer those of §6.4."""
    if layer is None:
        return MaskSettings.preset(preset, network=network.name)
    from perturb_tutorial.activations import layer_settings

    with mistake("--layer"):
        return layer_settings(network, layer)
