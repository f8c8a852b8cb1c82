"""The engine that learns the masks of a run: named by the user, or the fastest here and from then on the same."""

from __future__ import annotations

import dataclasses

from perturb_tutorial.benchmarks.settings import BenchmarkSettings
from perturb_tutorial.benchmarks.store import present_settings
from perturb_tutorial.fastest import fastest_engine
from perturb_tutorial.networks import Network
from perturb_tutorial.places import Place
from perturb_tutorial.settings import AUTO, ENGINES


def with_mask_engine(settings: BenchmarkSettings, network: Network, path: Place) -> BenchmarkSettings:
    """``settings`` with one engine in place of "auto": that of the run with settings at ``path``, else the fastest.

    It is float32 in any case, so that a benchmark's figures do not depend on the machine by more than rounding.
    """
    if settings.mask_engine != AUTO:
        return settings
    engine = present_settings(path).get("mask_engine")
    if engine not in ENGINES:
        engine = fastest_engine(network, settings.mask, settings.batch_size, exact=True).engine
    return dataclasses.replace(settings, mask_engine=engine)
