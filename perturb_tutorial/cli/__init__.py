"""The command line, one module for each command.

Exit status: 0 done, 130 interrupted, 2 the user's mistake (one line), 1 ours.

Modules that need torch are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from perturb_tutorial import __version__
from perturb_tutorial.cli import benchmark, explain, gallery, listings
from perturb_tutorial.cli.options import DONE, INTERRUPTED, MISTAKE


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="perturb-tutorial %(version)s")
def app() -> None:
    """Masks by meaningful perturbation: learn them, compare them, measure them."""


for command in (
    *(explain.explain, gallery.gallery, benchmark.benchmark),
    *(listings.networks, listings.methods, listings.samples),
):
    app.add_command(command)


def run(arguments: Sequence[str] | None = None) -> int:
    """The command line as a function: runs ``arguments`` (sys.argv without) and returns the exit status."""
    for stream in (sys.stdout, sys.stderr):  # a pipe on Windows has no → and α
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    formatted, warnings.formatwarning = warnings.formatwarning, _formatted
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
    finally:
        warnings.formatwarning = formatted
    return result if isinstance(result, int) else DONE


def _formatted(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning in one line, without the place in the code."""
    return f"warning: {' '.join(str(message).split())}\n"


def main() -> None:
    """The entry point ``perturb-tutorial``."""
    sys.exit(run())
