"""Every number of the supplement beside ours: on what, how honestly comparable, and by which command.

``data/paper/numbers.csv`` says what is printed (:mod:`perturb_tutorial.datasets.paper`). This module says, for each of
its keys, where ours comes from: an expression of the package, such as
``perturb_tutorial.settings: MaskSettings().iterations``, or a figure of a run that is stored in ``data/measured``.
Nothing is typed in by hand; a number that was not measured says why.

A row's label is one of

    reproduced      the same quantity by the same rule: a setting that is used, or a table computed again
    scaled down     the same rule on less data, or with another network
    slip            printed by mistake; ours is what the argument leads to (see the book's page on slips)
    not measured    the reason is in the note
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from perturb_tutorial.datasets.paper import GROUPS, paper_numbers
from perturb_tutorial.networks.mask_layers import PAPER_LAYERS
from perturb_tutorial.study.measured import Measured, measured, measured_names

LABELS = ("reproduced", "scaled down", "slip", "not measured")
SETTING = "the package's setting"
_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class OurNumber(NamedTuple):
    """Ours for one key: ``value`` in the paper's unit (None where not measured) with its 95 % interval where it is
    a measurement, on what, its label, the command that gives it, and a remark.
    """

    key: str
    value: float | None
    low: float | None
    high: float | None
    on: str
    label: str
    command: str
    note: str


class _Computed(NamedTuple):
    """``module: expression`` of the package, evaluated when it is asked for."""

    command: str
    label: str = "reproduced"
    on: str = SETTING
    note: str = ""


class _Figure(NamedTuple):
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


class _Missing(NamedTuple):
    """Not measured, and why."""

    note: str


_Row = _Computed | _Figure | _Missing

_FINE_TUNED = (
    "the paper's GoogLeNet was fine-tuned on COCO's 80 labels; ours knows ImageNet's classes, and a category is "
    "the set of its classes"
)
_FEW = "so few images say little"
_BOXES = "localization_settings"
_THRESHOLDS = ("value", "energy", "mean")
_DEFAULT, _TOP5 = "mask (default)", "mask (localization)"


def our_number(key: str) -> OurNumber:
    """Ours for the printed number ``key``. Errors: ``ValueError`` for an unknown key."""
    rows = _rows()
    if key not in rows:
        raise ValueError(f"key: no printed number {key!r}; there are {', '.join(rows)}")
    return _resolved(key, rows[key])


def our_numbers() -> dict[str, OurNumber]:
    """Ours for every printed number, in the order of the paper's."""
    rows = _rows()
    return {key: _resolved(key, rows[key]) for key in paper_numbers()}


def evaluate(command: str) -> float:
    """The number that ``module: expression`` gives. The expression has names of the module, attributes, items, calls,
    constants and the four operations, nothing else. Errors: ``ValueError`` for any other.
    """
    module, _, expression = command.partition(": ")
    names = {"len": len, **vars(import_module(module))}
    return float(_value(ast.parse(expression, mode="eval").body, names))


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Name() if node.id in names:
            return names[node.id]
        case ast.Attribute() if not node.attr.startswith("_"):
            return getattr(_value(node.value, names), node.attr)
        case ast.Subscript():
            return _value(node.value, names)[_value(node.slice, names)]
        case ast.Call():
            named = {keyword.arg: _value(keyword.value, names) for keyword in node.keywords if keyword.arg}
            return _value(node.func, names)(*(_value(a, names) for a in node.args), **named)
        case ast.BinOp() if type(node.op) in _OPERATIONS:
            return _OPERATIONS[type(node.op)](_value(node.left, names), _value(node.right, names))
        case ast.UnaryOp(op=ast.USub()):
            return -_value(node.operand, names)
    raise ValueError(f"command: no number can be had from {ast.unparse(node)!r}")


def _resolved(key: str, row: _Row) -> OurNumber:
    if isinstance(row, _Computed):
        return OurNumber(key, evaluate(row.command), None, None, row.on, row.label, row.command, row.note)
    if isinstance(row, _Figure) and row.run in measured_names():
        run = measured(row.run)
        on = _on(run)
        if callable(row.figure):
            return OurNumber(key, row.figure(run), None, None, on, row.label, run.command, row.note)
        if row.minus:
            found = run.difference(row.figure, row.method, row.minus, **row.labels)
        else:
            found = run.figure(row.figure, row.method, **row.labels)
        if math.isnan(found.estimate):
            return _missing(key, "the stored run has no such pair yet")
        numbers = (row.scale * value for value in (found.estimate, found.low, found.high))
        value, low, high = numbers
        counted = f"{on}, {found.images} images" if found.images else on
        return OurNumber(key, value, low, high, counted, row.label, run.command, row.note)
    return _missing(key, row.note if isinstance(row, _Missing) else f"no run {row.run} is stored")


def _missing(key: str, why: str) -> OurNumber:
    return OurNumber(key, None, None, None, "", "not measured", "", why)


def _on(run: Measured) -> str:
    data = run.summary.get("data", {})
    return str(data.get("name", run.name)).replace("instances_", "COCO ").replace("_", " ")


def _count(*path: str) -> Callable[[Measured], float]:
    """A count of the run's summary, by the names of its levels."""

    def read(run: Measured) -> float:
        value: Any = run.summary
        for name in path:
            value = value[name]
        return float(value)

    return read


def _rows() -> dict[str, _Row]:
    return {
        **_settings(),
        **_occlusions(),
        **_pointing(),
        **_localization(),
        **_layers(),
        **_animal_parts(),
    }


def _settings() -> dict[str, _Row]:
    default = "perturb_tutorial.settings: MaskSettings()"
    preset = 'perturb_tutorial.settings: MaskSettings.preset("localization")'
    start = "perturb_tutorial.initialization: "
    alexnet = 'perturb_tutorial.settings: MaskSettings.preset("default", network="alexnet")'
    return {
        "mask.iterations": _Computed(f"{default}.iterations"),
        "mask.learning_rate": _Computed(f"{default}.learning_rate"),
        "mask.tv_exponent": _Computed(f"{default}.tv_exponent"),
        "mask.side": _Computed(f"{default}.grid_size"),
        "mask.alexnet.scale": _Computed(f"{alexnet}.mask_scale * 227 / REFERENCE_SIZE"),
        "mask.alexnet.side": _Computed(f"{alexnet}.grid_size", "slip"),
        "mask.alexnet.input_size": _Computed('perturb_tutorial.networks.zoo: ZOO["alexnet"].input_size'),
        "preset.localization.area_weight": _Computed(f"{preset}.area_weight"),
        "preset.localization.tv_exponent": _Computed(f"{preset}.tv_exponent"),
        "preset.localization.classes": _Computed(
            'perturb_tutorial.settings: PRESETS["localization"].target_count'
        ),
        "initialization.radius.first": _Computed(f"{start}DISC_RADII[0]"),
        "initialization.radius.step": _Computed(f"{start}DISC_RADII[1] - DISC_RADII[0]"),
        "initialization.radius.last": _Computed(f"{start}DISC_RADII[-1]"),
        "initialization.suppression": _Computed(f"{start}1 - SUPPRESSED"),
        "initialization.sigma": _Computed("perturb_tutorial.masks: INITIAL_DISC_SIGMA"),
    }


def _occlusions() -> dict[str, _Row]:
    shared = "perturb_tutorial.baselines.occluders: "
    discs = "perturb_tutorial.baselines.variable_occlusion: "
    stride = f"{shared}REFERENCE_SIZE / POSITIONS"
    return {
        "occlusion.side": _Computed(f"{shared}OCCLUSION_SIZE"),
        "occlusion.stride": _Computed(stride),
        "blur_occlusion.diameter": _Computed(f"{shared}OCCLUSION_SIZE"),
        "blur_occlusion.edge_sigma": _Computed(f"{shared}SOFTENING"),
        "blur_occlusion.blur_sigma": _Computed(f"{shared}SOFTENING"),
        "blur_occlusion.stride": _Computed(stride, "slip"),
        "variable_occlusion.masks": _Computed(f"{discs}DISC_COUNT"),
        "variable_occlusion.top_share": _Computed(f"{discs}SUPPRESSING_SHARE"),
        "variable_occlusion.edge_sigma": _Computed(f"{shared}SOFTENING"),
        "variable_occlusion.blur_sigma": _Computed(f"{shared}SOFTENING"),
        "variable_occlusion.area.mu": _statistic("areas", "fit_lognormal_by_moments", "mean"),
        "variable_occlusion.area.sigma": _statistic("areas", "fit_lognormal_by_moments", "deviation"),
        "variable_occlusion.y.mean": _statistic("y", "fit_normal", "mean"),
        "variable_occlusion.y.sigma": _statistic("y", "fit_normal", "deviation"),
        "statistics.images_per_class": _Computed("perturb_tutorial.datasets.statistics: IMAGES_PER_CLASS"),
        "statistics.classes": _Figure("object_statistics", _count("classes"), label="reproduced"),
        "statistics.samples": _Figure("object_statistics", lambda run: float(len(run.summary["areas"]))),
    }


def _statistic(column: str, fit: str, parameter: str) -> _Figure:
    """A parameter fitted to the stored areas or centers of COCO's objects."""

    def fitted(run: Measured) -> float:
        module = import_module("perturb_tutorial.datasets.statistics")
        return float(getattr(getattr(module, fit)(run.summary[column]), parameter))

    return _Figure("object_statistics", fitted, note="the printed value draws the discs")


def _pointing() -> dict[str, _Row]:
    default = _Figure(
        "pointing_game",
        "precision",
        labels={"subset": "all", "maximum": "mean"},
        scale=100,
        note=_FINE_TUNED,
    )
    difficult = default._replace(labels={"subset": "difficult", "maximum": "mean"})
    # The category is asked for in both, so of the top-5 setting λ₁ and β are left.
    below = _Figure(
        "pointing_settings",
        "precision",
        _TOP5,
        labels=default.labels,
        scale=100,
        note="λ₁ and β of the top-5 setting, with the category as target; most of its masks are empty",
        minus=_DEFAULT,
    )
    return {
        "pointing.input_size": _Computed(
            'perturb_tutorial.networks.zoo: ZOO["efficientnet_lite0"].input_size'
        ),
        "pointing.images_per_class": _Computed("perturb_tutorial.benchmarks.settings: IMAGES_PER_CLASS"),
        "pointing.images": _Figure("pointing_game", _asked_images),
        "pointing.default.all": default,
        "pointing.default.difficult": difficult,
        "pointing.default.below_top5.all": below,
        "pointing.default.below_top5.difficult": below._replace(labels=difficult.labels),
        "pointing.size_effect": _Figure(
            "size_question",
            "precision",
            "gradient, squashed",
            {"maximum": "mean"},
            100,
            note="the gradient: squashed minus scaled to its shorter side",
            minus="gradient, shorter side",
        ),
    }


def _asked_images(run: Measured) -> float:
    """Images with a pair that was asked; the others show no category that the network knows."""
    return float(run.figure("hit_rate", "center", subset="all", maximum="mean").images)


def _localization() -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    for threshold in _THRESHOLDS:
        error = _Figure(_BOXES, "error", _DEFAULT, {"threshold": threshold}, scale=100, note=_FEW)
        rows[f"localization.{threshold}.alpha"] = error._replace(figure=_alpha(threshold, _DEFAULT))
        rows[f"localization.{threshold}.error"] = error
    for name, method in (("default", _DEFAULT), ("top5", _TOP5)):
        rows[f"localization.heldout.{name}.error"] = _Figure(_BOXES, _held_out_error(method), note=_FEW)
        rows[f"localization.heldout.{name}.alpha"] = _Figure(_BOXES, _alpha("mean", method), note=_FEW)
    return rows | {
        "localization.images": _Figure(_BOXES, _count("data", "images")),
        "localization.heldout.images": _Figure(_BOXES, _held_out),
        "localization.default_above_top5.low": _Figure(_BOXES, lambda run: min(_above(run)), note=_FEW),
        "localization.default_above_top5.high": _Figure(_BOXES, lambda run: max(_above(run)), note=_FEW),
        "sunglasses.images": _Missing("the class has no free photographs among the samples"),
        "sunglasses.recall": _Missing("the class has no free photographs among the samples"),
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


def _layers() -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    for key in paper_numbers():
        if not key.startswith("layer."):
            continue
        _, network, layer, field = key.split(".")
        place = [row.paper_name for row in PAPER_LAYERS[network]].index(layer)
        label = "slip" if key == "layer.vgg16.pool4.side" else "reproduced"
        rows[key] = _Computed(
            f'perturb_tutorial.networks.mask_layers: PAPER_LAYERS["{network}"][{place}].{field}', label
        )
    return rows


def _animal_parts() -> dict[str, _Row]:
    computed = "perturb_tutorial.datasets.paper: table2_computed()"
    authors = "the authors' 76 classes of fig. 11"
    rows: dict[str, _Row] = {
        "animal_parts.classes": _Computed("perturb_tutorial.datasets.paper: len(fig11())", on=authors)
    }
    for group in GROUPS:
        cell = f'{computed}["{group}"]'
        for field, name in (("classes", "classes"), ("ratio", "mean"), ("stderr", "stderr")):
            label = "slip" if (group, field) == ("bird", "stderr") else "reproduced"
            rows[f"animal_parts.{group}.{field}"] = _Computed(f"{cell}.{name}", label, authors)
    return rows
