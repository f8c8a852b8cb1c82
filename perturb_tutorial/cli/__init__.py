"""The command line, one module for each command.

Exit status: 0 done, 130 interrupted, 2 the user's mistake (one line), 1 ours.

Modules that need torch are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import io
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import click

from perturb_tutorial import __version__
from perturb_tutorial._outside import printable
from perturb_tutorial.cli import benchmark, explain, gallery, listings
from perturb_tutorial.cli.options import DONE, FAULT, INTERRUPTED, MISTAKE, say


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
    usual, warnings.formatwarning = warnings.formatwarning, _one_line
    try:
        result: Any = app.main(args=arguments, prog_name="perturb-tutorial", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return MISTAKE
    except click.ClickException as error:
        say(f"error: {' '.join(error.format_message().split())}", err=True)
        return MISTAKE
    except (click.Abort, KeyboardInterrupt):
        say("interrupted; what is written is whole", err=True)
        return INTERRUPTED
    finally:
        warnings.formatwarning = usual
    return result if isinstance(result, int) else DONE


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    return f"warning: {printable(' '.join(str(message).split()))}\n"


def main() -> None:
    """The entry point ``perturb-tutorial``."""
    try:
        status = run()
    except Exception:  # a fault of ours; its text may hold a name of the user's
        for line in traceback.format_exc().splitlines():
            say(line, err=True)
        status = FAULT
    sys.exit(status)
