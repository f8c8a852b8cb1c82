"""Options that several commands share, and checks of their values before any computation."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perturb_tutorial._outside import printable
from perturb_tutorial.games import GAMES
from perturb_tutorial.settings import AUTO, ENGINES, LARGEST_SEED, PRESETS, MaskSettings

if TYPE_CHECKING:
    from perturb_tutorial.networks import Network

DONE, FAULT, MISTAKE, INTERRUPTED = 0, 1, 2, 130

BAR = "{l_bar}{bar}| {n:.1f}/{total_fmt} {unit}s [{elapsed}<{remaining}]"
"""A progress bar that also counts fractions of images or masks."""

SEEDS = click.IntRange(min=0, max=LARGEST_SEED)
"""The seeds that torch's generators accept."""


class _Text(click.types.StringParamType):
    """Text that is not empty, as an unset variable of a script is."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value or "\0" in value:
            self.fail(f"expected a {self.name}, got {value!r}", param, ctx)
        return str(value)


class _File(click.Path):
    """A path that is not empty, which would be the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not str(value) or "\0" in str(value):
            self.fail(f"expected a path, got {value!r}", param, ctx)
        return Path(value)


class _Folder(_Text):
    """A folder's path or URL, as text: pathlib has no URLs."""

    name = "path"


TEXT, PATH, FOLDER = _Text(), _File(), _Folder()

network = click.option(
    "--network", "network_name", type=TEXT, default="efficientnet_lite0", show_default=True, metavar="NAME"
)
weights = click.option(
    "--weights",
    type=PATH,
    metavar="FILE",
    help="The network's state dict, if not downloaded.",
)
device = click.option("--device", type=TEXT, default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
seed = click.option("--seed", type=SEEDS, default=0, show_default=True)
game = click.option(
    "--game", type=click.Choice(GAMES), help="Delete the evidence, or preserve it.  [default: deletion]"
)
preset = click.option("--preset", type=click.Choice(list(PRESETS)), default="default", show_default=True)
paper = click.option(
    "--paper",
    is_flag=True,
    help="Optimize as the paper did, 300 iterations for every mask, instead of with fewer passes.",
)
settings = click.option(
    "--settings",
    "settings_file",
    type=PATH,
    metavar="FILE",
    help="JSON of mask settings.",
)


def mask_engine(default: str) -> Callable[..., Any]:
    """What computes the gradients of masks."""
    return click.option(
        "--mask-engine",
        type=click.Choice((*ENGINES, AUTO)),
        default=default,
        show_default=True,
        help="onnx: the same gradients, on a CPU faster for EfficientNets; auto: the fastest, measured once.",
    )


def say(line: str, *, err: bool = False) -> None:
    """Prints one line: the commands' way to the terminal, which gets no control character from outside."""
    click.echo(printable(line), err=err)


def together(*options: Callable[..., Any]) -> Callable[..., Any]:
    """One decorator that adds ``options`` in the order in which the help lists them."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


@contextmanager
def mistake(option: str) -> Iterator[None]:
    """Reports a ``ValueError`` in the block as the user's mistake: one line that names the option."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        bare = option.lstrip("-")
        raise click.ClickException(f"{option}: {text.removeprefix(f'{bare}: ')}") from error


def load(name: str, weights: Path | None, device: str) -> Network:
    """The network of ``--network``, ``--weights`` and ``--device``."""
    from perturb_tutorial.networks import WeightsUnavailable, load_network, pick_device

    with mistake("--device"):
        chosen = pick_device(device)
    with mistake("--weights" if weights else "--network"):
        try:
            return load_network(name, weights=weights, device=chosen)
        except WeightsUnavailable as error:
            raise click.ClickException(str(error)) from error


def changed(settings: MaskSettings, settings_file: Path | None, game: str | None) -> MaskSettings:
    """``settings`` changed by ``--settings`` and then by ``--game``: an explicit option overrides a preset."""
    if settings_file is not None:
        settings = MaskSettings.from_file(settings_file, settings)
    return settings if game is None else settings.replace(game=game)


def prepare(output: Path) -> None:
    """Creates the folder ``output`` and checks that it can be written to, before any computation."""
    try:
        if output.exists() and not output.is_dir():
            raise click.ClickException(f"--output: {output} is a file; give a folder")
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise unwritable(output, error, "another folder") from error


def unwritable(output: Path, error: OSError, instead: str) -> click.ClickException:
    """The error where ``--output`` cannot be written; the message suggests to give ``instead``."""
    return click.ClickException(
        f"--output: {output} cannot be written ({error.strerror or error}); give {instead}"
    )
