"""Where each of our numbers comes from: a setting or table of the package, a stored run, or why there is none.

A row computed from the package has the expression that a reader can type, and a function with the same value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from perturb_tutorial import initialization, masks
from perturb_tutorial.baselines import occluders
from perturb_tutorial.baselines.variable_occlusion import DISC_COUNT, SUPPRESSING_SHARE
from perturb_tutorial.benchmarks import settings as benchmark_settings
from perturb_tutorial.datasets import statistics
from perturb_tutorial.datasets.paper import GROUPS, fig11, paper_numbers, table2_computed
from perturb_tutorial.networks.mask_layers import PAPER_LAYERS
from perturb_tutorial.networks.zoo import ZOO
from perturb_tutorial.settings import PRESETS, MaskSettings
from perturb_tutorial.sizes import REFERENCE_SIZE
from perturb_tutorial.study.measured import Measured

SETTING = "the package's setting"


class Computed(NamedTuple):
    """An expression of the package as it is printed, ``module: expression``, and the function that computes it."""

    command: str
    value: Callable[[], float]
    label: str = "reproduced"
    on: str = SETTING
    note: str = ""


class Figure(NamedTuple):
    """A figure of a stored run by name, method and labels, or a function of the run; ``scale`` to the paper's unit."""

    run: str
    figure: str | Callable[[Measured], float]
    method: str = "mask"
    labels: Mapping[str, Any] = {}
    scale: float = 1.0
    label: str = "scaled down"
    note: str = ""
    minus: str = ""
    """Another method: the figure is the paired difference to it."""


class Missing(NamedTuple):
    """Not measured, and why."""

    note: str


Row = Computed | Figure | Missing

_FINE_TUNED = (
    "the paper's GoogLeNet was fine-tuned on COCO's 80 labels; ours knows ImageNet's classes, and a category is "
    "the set of its classes"
)
_FEW = "so few images say little"
_BOXES = "localization_settings"
_THRESHOLDS = ("value", "energy", "mean")
_DEFAULT, _TOP5 = "mask (default)", "mask (localization)"


def _count(*path: str) -> Callable[[Measured], float]:
    """A count of the run's summary, by the names of its levels."""

    def read(run: Measured) -> float:
        value: Any = run.summary
        for name in path:
            value = value[name]
        return float(value)

    return read


def rows() -> dict[str, Row]:
    """Where ours comes from, for every key of the printed numbers."""
    return {
        **_settings(),
        **_occlusions(),
        **_pointing(),
        **_localization(),
        **_layers(),
        **_animal_parts(),
    }


def _settings() -> dict[str, Row]:
    of_default = "perturb_tutorial.settings: MaskSettings()"
    of_preset = 'perturb_tutorial.settings: MaskSettings.preset("localization")'
    of_alexnet = 'perturb_tutorial.settings: MaskSettings.preset("default", network="alexnet")'
    default, preset = MaskSettings(), MaskSettings.preset("localization")
    alexnet = MaskSettings.preset("default", network="alexnet")
    start = "perturb_tutorial.initialization: "
    radii = initialization.DISC_RADII
    return {
        "mask.iterations": Computed(f"{of_default}.iterations", lambda: default.iterations),
        "mask.learning_rate": Computed(f"{of_default}.learning_rate", lambda: default.learning_rate),
        "mask.tv_exponent": Computed(f"{of_default}.tv_exponent", lambda: default.tv_exponent),
        "mask.side": Computed(f"{of_default}.grid_size", lambda: default.grid_size),
        "mask.alexnet.scale": Computed(
            f"{of_alexnet}.mask_scale * 227 / REFERENCE_SIZE",
            lambda: alexnet.mask_scale * 227 / REFERENCE_SIZE,
        ),
        "mask.alexnet.side": Computed(f"{of_alexnet}.grid_size", lambda: alexnet.grid_size, "slip"),
        "mask.alexnet.input_size": Computed(
            'perturb_tutorial.networks.zoo: ZOO["alexnet"].input_size', lambda: ZOO["alexnet"].input_size
        ),
        "preset.localization.area_weight": Computed(f"{of_preset}.area_weight", lambda: preset.area_weight),
        "preset.localization.tv_exponent": Computed(f"{of_preset}.tv_exponent", lambda: preset.tv_exponent),
        "preset.localization.classes": Computed(
            'perturb_tutorial.settings: PRESETS["localization"].target_count',
            lambda: PRESETS["localization"].target_count,
        ),
        "initialization.radius.first": Computed(f"{start}DISC_RADII[0]", lambda: radii[0]),
        "initialization.radius.step": Computed(
            f"{start}DISC_RADII[1] - DISC_RADII[0]", lambda: radii[1] - radii[0]
        ),
        "initialization.radius.last": Computed(f"{start}DISC_RADII[-1]", lambda: radii[-1]),
        "initialization.suppression": Computed(
            f"{start}1 - SUPPRESSED", lambda: 1 - initialization.SUPPRESSED
        ),
        "initialization.sigma": Computed(
            "perturb_tutorial.masks: INITIAL_DISC_SIGMA", lambda: masks.INITIAL_DISC_SIGMA
        ),
    }


def _occlusions() -> dict[str, Row]:
    shared = "perturb_tutorial.baselines.occluders: "
    drawn = "perturb_tutorial.baselines.variable_occlusion: "
    stride = Computed(f"{shared}REFERENCE_SIZE / POSITIONS", lambda: REFERENCE_SIZE / occluders.POSITIONS)
    side = Computed(f"{shared}OCCLUSION_SIZE", lambda: occluders.OCCLUSION_SIZE)
    softening = Computed(f"{shared}SOFTENING", lambda: occluders.SOFTENING)
    return {
        "occlusion.side": side,
        "occlusion.stride": stride,
        "blur_occlusion.diameter": side,
        "blur_occlusion.edge_sigma": softening,
        "blur_occlusion.blur_sigma": softening,
        "blur_occlusion.stride": stride._replace(label="slip"),
        "variable_occlusion.masks": Computed(f"{drawn}DISC_COUNT", lambda: DISC_COUNT),
        "variable_occlusion.top_share": Computed(f"{drawn}SUPPRESSING_SHARE", lambda: SUPPRESSING_SHARE),
        "variable_occlusion.edge_sigma": softening,
        "variable_occlusion.blur_sigma": softening,
        "variable_occlusion.area.mu": _statistic("areas", statistics.fit_lognormal_by_moments, "mean"),
        "variable_occlusion.area.sigma": _statistic(
            "areas", statistics.fit_lognormal_by_moments, "deviation"
        ),
        "variable_occlusion.y.mean": _statistic("y", statistics.fit_normal, "mean"),
        "variable_occlusion.y.sigma": _statistic("y", statistics.fit_normal, "deviation"),
        "statistics.images_per_class": Computed(
            "perturb_tutorial.datasets.statistics: IMAGES_PER_CLASS", lambda: statistics.IMAGES_PER_CLASS
        ),
        "statistics.classes": Figure("object_statistics", _count("classes"), label="reproduced"),
        "statistics.samples": Figure("object_statistics", lambda run: float(len(run.summary["areas"]))),
    }


def _statistic(column: str, fit: Callable[[Any], Any], parameter: str) -> Figure:
    """A parameter fitted to the stored areas or centers of COCO's objects."""

    def fitted(run: Measured) -> float:
        return float(getattr(fit(run.summary[column]), parameter))

    return Figure("object_statistics", fitted, note="the printed value draws the discs")


def _pointing() -> dict[str, Row]:
    default = Figure(
        "pointing_game",
        "precision",
        labels={"subset": "all", "maximum": "mean"},
        scale=100,
        note=_FINE_TUNED,
    )
    difficult = default._replace(labels={"subset": "difficult", "maximum": "mean"})
    # Both have the category as target, so they differ only in λ₁ and β of the top-5 setting.
    below = Figure(
        "pointing_settings",
        "precision",
        _TOP5,
        labels=default.labels,
        scale=100,
        note="λ₁ and β of the top-5 setting, with the category as target; most of its masks are empty",
        minus=_DEFAULT,
    )
    return {
        "pointing.input_size": Computed(
            'perturb_tutorial.networks.zoo: ZOO["efficientnet_lite0"].input_size',
            lambda: ZOO["efficientnet_lite0"].input_size,
        ),
        "pointing.images_per_class": Computed(
            "perturb_tutorial.benchmarks.settings: IMAGES_PER_CLASS",
            lambda: benchmark_settings.IMAGES_PER_CLASS,
        ),
        "pointing.images": Figure("pointing_game", _measured_images),
        "pointing.default.all": default,
        "pointing.default.difficult": difficult,
        "pointing.default.below_top5.all": below,
        "pointing.default.below_top5.difficult": below._replace(labels=difficult.labels),
        "pointing.size_effect": Figure(
            "size_question",
            "precision",
            "gradient, squashed",
            {"maximum": "mean"},
            100,
            note="the gradient: squashed minus scaled to its shorter side",
            minus="gradient, shorter side",
        ),
    }


def _measured_images(run: Measured) -> float:
    """Images with a pair that was measured; the others show no category that the network knows."""
    return float(run.figure("hit_rate", "center", subset="all", maximum="mean").images)


def _localization() -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for threshold in _THRESHOLDS:
        error = Figure(_BOXES, "error", _DEFAULT, {"threshold": threshold}, scale=100, note=_FEW)
        rows[f"localization.{threshold}.alpha"] = error._replace(figure=_alpha(threshold, _DEFAULT))
        rows[f"localization.{threshold}.error"] = error
    for name, method in (("default", _DEFAULT), ("top5", _TOP5)):
        rows[f"localization.heldout.{name}.error"] = Figure(_BOXES, _held_out_error(method), note=_FEW)
        rows[f"localization.heldout.{name}.alpha"] = Figure(_BOXES, _alpha("mean", method), note=_FEW)
    return rows | {
        "localization.images": Figure(_BOXES, _count("data", "images")),
        "localization.heldout.images": Figure(_BOXES, _held_out),
        "localization.default_above_top5.low": Figure(_BOXES, lambda run: min(_above(run)), note=_FEW),
        "localization.default_above_top5.high": Figure(_BOXES, lambda run: max(_above(run)), note=_FEW),
        "sunglasses.images": Missing("the class has no free photographs among the samples"),
        "sunglasses.recall": Missing("the class has no free photographs among the samples"),
    }


def _error_row(run: Measured, threshold: str, method: str) -> Mapping[str, Any]:
    return next(
        row
        for row in run.summary["figures"]
        if row["name"] == "error" and row["method"] == method and row["threshold"] == threshold
    )


def _alpha(threshold: str, method: str) -> Callable[[Measured], float]:
    return lambda run: float(_error_row(run, threshold, method)["alpha"])


def _held_out_error(method: str) -> Callable[[Measured], float]:
    return lambda run: 100 * float(_error_row(run, "mean", method)["held_out_error"])


def _above(run: Measured) -> list[float]:
    """By how many points the default setting's error is above the localization setting's, by each rule."""
    return [
        100 * run.difference("error", _DEFAULT, _TOP5, threshold=threshold).estimate
        for threshold in _THRESHOLDS
    ]


def _held_out(run: Measured) -> float:
    return float(_error_row(run, "mean", _DEFAULT)["held_out_rows"])


def _layers() -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for key in paper_numbers():
        if not key.startswith("layer."):
            continue
        _, network, layer, field = key.split(".")
        place = [row.paper_name for row in PAPER_LAYERS[network]].index(layer)
        command = f'perturb_tutorial.networks.mask_layers: PAPER_LAYERS["{network}"][{place}].{field}'
        label = "slip" if key == "layer.vgg16.pool4.side" else "reproduced"
        rows[key] = Computed(command, partial(_field, PAPER_LAYERS[network][place], field), label)
    return rows


def _animal_parts() -> dict[str, Row]:
    paper = "perturb_tutorial.datasets.paper: "
    authors = "the authors' 76 classes of fig. 11"
    rows: dict[str, Row] = {
        "animal_parts.classes": Computed(f"{paper}len(fig11())", lambda: len(fig11()), on=authors)
    }
    for group in GROUPS:
        for field, name in (("classes", "classes"), ("ratio", "mean"), ("stderr", "stderr")):
            label = "slip" if (group, field) == ("bird", "stderr") else "reproduced"
            rows[f"animal_parts.{group}.{field}"] = Computed(
                f'{paper}table2_computed()["{group}"].{name}',
                partial(_of_table2, group, name),
                label,
                authors,
            )
    return rows


def _field(row: Any, name: str) -> float:
    return float(getattr(row, name))


def _of_table2(group: str, name: str) -> float:
    return float(getattr(table2_computed()[group], name))
