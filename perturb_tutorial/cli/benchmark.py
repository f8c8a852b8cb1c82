"""``perturb-tutorial benchmark``: one command for each measurement."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perturb_tutorial._words import counted
from perturb_tutorial.cli import options
from perturb_tutorial.cli.options import DONE, FOLDER, MISTAKE, TEXT, changed, load, say
from perturb_tutorial.settings import MaskSettings

if TYPE_CHECKING:
    from perturb_tutorial.benchmarks.run import Outcome
    from perturb_tutorial.benchmarks.settings import BenchmarkSettings

SHOWN = 60
"""Number of figures on the screen; summary.json has all of them."""

_common = options.together(
    click.option("--data", type=TEXT, default="samples", show_default=True, metavar="DIR|URL|samples",
                 help="The data set's folder; as a URL s3://bucket/folder."),
    click.option("--split", type=TEXT, metavar="NAME", help="Such as val2014; needed where the folder has several."),
    click.option("--methods", type=TEXT, metavar="A,B", help="See: perturb-tutorial methods.  [default: the paper's]"),
    *(options.network, options.weights, options.preset, options.settings, options.game, options.mask_engine("torch")),
    *(options.seed, options.device),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N images, drawn by the seed."),
    click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True, metavar="N"),
    click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True),
    click.option("--ray-address", type=TEXT, metavar="ADDRESS", help="A cluster.  [default: RAY_ADDRESS, or here]"),
    click.option("--cores-per-worker", type=click.IntRange(min=1), metavar="N",
                 help="Of each of Ray's workers without a GPU."),
    click.option("--dry-run", is_flag=True, help="Say how many questions, how long and how much disc; write nothing."),
    click.option("--output", type=FOLDER, required=True, metavar="DIR|URL", help="Made, or resumed."),
)  # fmt: skip


@click.group()
def benchmark() -> None:
    """Measure methods: on the samples, or on your own COCO, ImageNet or animal parts."""


@benchmark.command("pointing-game")
@_common
@click.option(
    "--per-class", type=click.IntRange(min=1), default=400, show_default=True, help="First images of a class."
)
@click.option("--near", is_flag=True, help="Also use categories with only a near match in ImageNet.")
def pointing_game(**values: Any) -> int:
    """Does the peak of the map lie on the object? (§4)"""
    return _run("pointing-game", **values)


@benchmark.command("grid-pointing-game")
@_common
@click.option(
    "--cells", type=click.IntRange(min=2), default=2, show_default=True, help="Mosaics of N×N images."
)
@click.option(
    "--mosaics", type=click.IntRange(min=1), metavar="N", help="How many.  [default: each image about once]"
)
def grid_pointing_game(**values: Any) -> int:
    """Which cell of a mosaic does the attribution fall in?"""
    return _run("grid-pointing-game", **values)


@benchmark.command()
@_common
@click.option(
    "--held-out-share",
    type=float,
    metavar="X",
    help="Share of the images on which α* is searched.  [default: 0.1; samples: 0.5]",
)
def localization(**values: Any) -> int:
    """Does the box around the map's high part fit the object? (§5)"""
    if values["held_out_share"] is None:
        values["held_out_share"] = 0.5 if values["data"] == "samples" else 0.1
    return _run("localization", **values)


@benchmark.command("animal-parts")
@_common
@click.option("--images", type=FOLDER, metavar="DIR|URL", help="ImageNet's images, if not in --data.")
@click.option(
    "--minimum-images",
    type=click.IntRange(min=0),
    metavar="N",
    help="Classes with more images than this.  [default: 10; samples: 0]",
)
def animal_parts(**values: Any) -> int:
    """Are eyes more salient than feet? (§7)"""
    if values["minimum_images"] is None:
        values["minimum_images"] = 0 if values["data"] == "samples" else 10
    return _run("animal-parts", **values)


@benchmark.command()
@_common
@click.option(
    "--steps", type=click.IntRange(min=1), default=50, show_default=True, help="Steps of each curve."
)
def faithfulness(**values: Any) -> int:
    """Does the score follow the map when pixels are deleted and inserted?"""
    return _run("faithfulness", **values)


def _run(
    name: str,
    *,
    data: str,
    split: str | None,
    methods: str | None,
    network_name: str,
    weights: Path | None,
    preset: str,
    settings_file: Path | None,
    game: str | None,
    device: str,
    output: str,
    engine: str,
    ray_address: str | None,
    cores_per_worker: int | None,
    dry_run: bool = False,
    images: str | None = None,
    near: bool = False,
    **values: Any,
) -> int:
    from tqdm import tqdm

    from perturb_tutorial.benchmarks.data import read_data
    from perturb_tutorial.benchmarks.report import write_report
    from perturb_tutorial.benchmarks.run import run_benchmark
    from perturb_tutorial.benchmarks.settings import BenchmarkSettings

    with _mistakes():
        mask = changed(MaskSettings.preset(preset, network=network_name), settings_file, game)
        named = () if methods is None else tuple(part.strip() for part in methods.split(","))
        chosen = tuple(filter(None, named)) or named[:1]
        settings = BenchmarkSettings.preset(preset, network=network_name, methods=chosen, **values).replace(
            mask=mask
        )
        _check(name, settings)
        source = read_data(name, data, split, images=images, near=near)
        for line in source.dataset.problems:
            say(f"left out: {line}", err=True)
        network = load(network_name, weights, device)
        if dry_run:
            from perturb_tutorial.benchmarks.estimate import estimate

            for line in estimate(name, source, network, settings).lines():
                say(line)
            return DONE
        # disable=None: a bar on a terminal, none in a pipe.
        with tqdm(unit="record", disable=None) as bar, _lines_above(bar):

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            outcome = run_benchmark(
                name,
                source,
                network,
                output,
                settings,
                engine=engine,
                ray_address=ray_address,
                cores_per_worker=cores_per_worker,
                progress=progress,
                show_workers=bar.set_postfix_str,
            )
        write_report(outcome.folder, outcome.summary)
    _print_outcome(outcome)
    return DONE if _has_good_images(outcome) else MISTAKE


@contextmanager
def _lines_above(bar: Any) -> Iterator[None]:
    """Prints warnings above the progress bar, not into it."""
    usual = warnings.showwarning

    def show(*args: Any, **options: Any) -> None:
        with bar.external_write_mode(file=sys.stderr):
            usual(*args, **options)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


def _has_good_images(outcome: Outcome) -> bool:
    """Whether anything could be measured: the last step's records, or where it has none the first step's, say so."""
    records = outcome.summary["records"]
    return bool(records["with_problem"] < records["finished"])


def _check(name: str, settings: BenchmarkSettings) -> None:
    """Checks the methods' names before any data is read."""
    from perturb_tutorial.benchmarks.registry import find_benchmark

    find_benchmark(name).chosen_methods(settings)


@contextmanager
def _mistakes() -> Iterator[None]:
    """Reports the user's mistakes as one line; if a message begins with an argument's name, it becomes the option's."""
    from perturb_tutorial.benchmarks.store import BenchmarkError
    from perturb_tutorial.places.requests import BucketError

    known = {name for parameter in click.get_current_context().command.params for name in parameter.opts}
    try:
        yield
    except ValueError as error:
        text = str(error)
        option = f"--{text.partition(': ')[0].replace('_', '-')}"
        raise click.ClickException(option + text[len(option) - 2 :] if option in known else text) from error
    except (BenchmarkError, BucketError, ImportError) as error:
        raise click.ClickException(str(error)) from error


def _print_outcome(outcome: Outcome) -> None:
    """Prints the figures, the numbers of bad images and unusable maps, and the path of summary.json."""
    from perturb_tutorial.benchmarks.registry import find_benchmark

    summary = outcome.summary
    for line in outcome.repaired:
        say(line, err=True)
    for figure in summary["figures"][:SHOWN]:
        say(_line(figure))
    if len(summary["figures"]) > SHOWN:
        say(f"… and {len(summary['figures']) - SHOWN} more")
    records = summary["records"]
    if records["bad_images"]:
        bad = counted(records["bad_images"], "bad image is", "bad images are")
        say(f"{bad} in no figure:", err=True)
        for problem in records["problems"]:
            say(f"  {problem}", err=True)
    if records["set_aside"]:
        say(
            f"set aside: {counted(records['set_aside'], 'record')} of these images, from another start of the run; "
            "a new folder measures all methods on them as they are now",
            err=True,
        )
    for method, count in records["unusable_maps"].items():
        maps = counted(count, "map is", "maps are")
        say(f"{method}: {maps} zero everywhere or not finite", err=True)
    first = find_benchmark(summary["benchmark"]).first_step()
    if first is not None:
        before = counted(summary[first.name]["records"]["finished"], "record")
        say(f"{first.name}: {before}, {outcome.computed_before:,} of them new")
    finished = counted(records["finished"], "record")
    say(f"{finished}, {outcome.computed:,} of them new; all figures: {outcome.folder / 'summary.json'}")


def _line(figure: dict[str, Any]) -> str:
    numbers = ("estimate", "low", "high", "rows", "images", "reason")
    about = [f"{key} {value}" for key, value in figure.items() if key not in (*numbers, "name", "method")]
    title = f"{figure['name']} ({', '.join(about)})" if about else figure["name"]
    estimate, low, high = ("–" if figure[key] is None else f"{figure[key]:.4f}" for key in numbers[:3])
    span = f"{estimate} [{low}, {high}]"
    of = f"{counted(figure['rows'], 'row')} of {counted(figure['images'], 'image')}"
    reason = f"  ({figure['reason']})" if "reason" in figure else ""
    return f"{title:<64} {figure['method']:<32} {span}  {of}{reason}"
