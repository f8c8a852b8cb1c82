"""``perturb-tutorial networks``, ``methods`` and ``samples``: the available names."""

from __future__ import annotations

import click

from perturb_tutorial.cli.options import say


@click.command()
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
        say(f"{name:<20} {entry.input_size:>3} px  {state:<13} {source}")


@click.command()
def methods() -> None:
    """List the methods that explain, with their sections in the supplement."""
    from perturb_tutorial.baselines import METHODS

    for name, method in METHODS.items():
        say(f"{name:<32} {method.source:<5} {method.about}")


@click.command()
def samples() -> None:
    """List the sample photographs, and the packages that contain them."""
    from perturb_tutorial.datasets.samples import all_samples

    for sample in all_samples().values():
        state = "here" if sample.path else f"pip install {sample.package}"
        say(f"{sample.name:<16} {sample.label:<20} {sample.package:<14} {state}")
