"""``perturb-tutorial gallery``: a contact sheet of one class."""

from __future__ import annotations

import os
from pathlib import Path

import click

from perturb_tutorial._words import counted
from perturb_tutorial.cli import options
from perturb_tutorial.cli.options import (
    BAR,
    DONE,
    MISTAKE,
    PATH,
    TEXT,
    load,
    mistake,
    prepare,
    say,
    unwritable,
)
from perturb_tutorial.settings import PRESETS


@click.command()
@click.argument("folder", type=PATH)
@click.option(
    "--target",
    type=TEXT,
    required=True,
    metavar="NAME|INDEX",
    help="Exact name, index or wnid of the folder's class.",
)
@click.option("--preset", type=click.Choice([*PRESETS, "both"]), default="both", show_default=True)
@options.together(options.paper, options.network, options.weights, options.seed, options.device)
@click.option("--output", type=PATH, required=True, metavar="FILE.png")
def gallery(
    folder: Path,
    target: str,
    preset: str,
    paper: bool,
    network_name: str,
    weights: Path | None,
    seed: int,
    device: str,
    output: Path,
) -> int:
    """Every photograph of a folder, all of one class, with its mask, the class's probability and C or I."""
    from tqdm import tqdm

    from perturb_tutorial.study.gallery import check_replaceable, image_files, learn_gallery, save_png

    if output.suffix.lower() != ".png" or output.is_dir():
        raise click.ClickException(f"--output: expected a file FILE.png, got {output}")
    with mistake("FOLDER"):
        paths = image_files(folder)
    if os.path.realpath(output) in {os.path.realpath(path) for path in paths}:
        raise click.ClickException(f"--output: {output} is one of the photographs; give another name")
    with mistake("--output"):
        check_replaceable(output)
    prepare(output.parent)
    network = load(network_name, weights, device)
    presets = list(PRESETS) if preset == "both" else [preset]
    with tqdm(total=len(paths) * len(presets), unit="mask", disable=None, bar_format=BAR) as bar:

        def progress(done: float) -> None:
            bar.update(done - bar.n)

        with mistake("--target"):
            result = learn_gallery(
                network, paths, target, presets, fast=not paper, seed=seed, progress=progress
            )
    for line in result.errors:
        say(f"error: {line}", err=True)
    if len(result):
        try:
            save_png(result.figure(), output)
        except OSError as error:
            raise unwritable(output, error, "another place") from error
        say(f"{output}  {counted(len(result), 'photograph')}, {sum(result.correct)} correct")
    return MISTAKE if result.errors else DONE
