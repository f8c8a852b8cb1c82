"""The settings of a mask: one table, each value with its symbol, its unit and its source.

Lengths are in image px of a 224 px input and scale with √(H·W) / 224 for an input of H×W px, which is
``input_size / 224`` for a square. A mask px is one cell of the grid that is optimized. "§" is a section of the
supplement, "eq. 6" an equation of the main text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from perturb_tutorial._outside import is_number, printable_errors, short, whole_number
from perturb_tutorial.games import GAMES, Game
from perturb_tutorial.reading import read_json
from perturb_tutorial.sizes import REFERENCE_SIZE, Size, scaled, square_cells

ENGINES = ("torch", "onnx", "compile")
"""torch: PyTorch on any device. onnx: an exported graph, on the CPU, faster for most networks (``engines.openvino``).
compile: PyTorch's compiler, for many images on a GPU (``compiled``)."""
AUTO = "auto"
"""The engine that is fastest for a network on this machine (module ``fastest``)."""
PRECISIONS = ("float32", "tf32", "bfloat16")
"""Of the network's two passes in an iteration. tf32 is of NVIDIA's GPUs; elsewhere it is float32."""
MOST_DRAWS = 64
"""Of one image (module ``draws``)."""
PERTURBATIONS = ("blur", "constant", "noise")
INITIALIZATIONS = ("disc", "random", "half", "zeros", "ones", "gradient")
"""The paper's, four rivals, and that of :meth:`MaskSettings.fast`."""
OPTIMIZERS = ("adam", "averaged")
"""The paper's, and that of :meth:`MaskSettings.fast` (module ``steps``)."""
SCORE_SCALES = ("softmax", "relative", "logit")
"""The paper's, and two under which every question has an answer (module ``objectives``)."""

MOST_ITERATIONS = 1_000_000
"""More are a slip of the finger: the path of the score would fill the memory."""
LARGEST_VALUE = 1e12
"""Of a setting that is no length: far above any use, and float32 holds its products with scores and sums."""
FAST_TOLERANCE = {"deletion": 2e-3, "preservation": 1e-3}
"""Of :meth:`MaskSettings.fast`: what the objective has to fall by within ten iterations for an image to go on. In
preservation it falls more slowly, and further."""
_DEPTH = 16
"""How deeply a file of settings may be nested; the settings themselves are numbers and names."""
LARGEST_SEED = 2**63 - 1
"""Every generator here takes seeds from 0 to this one, and results.json holds them exactly."""
ALEXNET_MASK_SCALE = REFERENCE_SIZE / 30
"""AlexNet's 227 px input and its 30×30 grid, δ = 227/30 px at its own size (§6.3)."""


class Lengths(NamedTuple):
    """σ_m and τ of :class:`MaskSettings` in px of one input; τ is a whole number of at least 1, which is no jitter."""

    mask_sigma: float
    jitter: int


def check_seed(seed: Any) -> int:
    """``seed`` as an int: a whole number from 0 to 2⁶³ − 1, of Python, NumPy or torch. Errors: ``ValueError``."""
    expected = "seed: expected a whole number from 0 to 2**63 - 1"
    number = whole_number(seed)
    if number is None:
        raise ValueError(f"{expected}, got {short(seed)} ({type(seed).__name__})")
    if not 0 <= number <= LARGEST_SEED:
        raise ValueError(f"{expected}, got {number}")
    return number


def plain_value(value: Any) -> Any:
    """``value`` as Python's own str, int or float where it is another library's, such as ``numpy.float64``.

    Files of masks and of results hold plain values; arrays of one number without axes count as that number.
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    for kind in (str, int, float):
        if isinstance(value, kind) and not isinstance(value, bool):
            return kind.__str__(value) if kind is str else kind(value)
    return value


def _setting(default: Any, symbol: str, unit: str, meaning: str, source: str) -> Any:
    return field(
        default=default, metadata={"symbol": symbol, "unit": unit, "meaning": meaning, "source": source}
    )


@dataclass(frozen=True)
class MaskSettings:
    """How a mask is learned. Frozen; use :meth:`replace` for a changed copy.

    On an input of H×W px every length is multiplied by √(H·W) / 224, and the grid has about (224 / δ)² square mask px,
    (224 / δ) · √(H/W) rows and (224 / δ) · √(W/H) columns (:meth:`grid_shape`), so that λ₁ and λ₂ weigh as many cells
    on a rectangle as on a square.

    Errors: ``ValueError`` with one line that names the setting, what was expected and what came.

    Examples:
        >>> settings = MaskSettings(game="preservation", iterations=100)
        >>> settings.replace(tv_exponent=2.0).tv_exponent, settings.fast().optimizer
        (2.0, 'averaged')
    """

    game: str = _setting("deletion", "–", "–", "delete or preserve the evidence", "eq. 6; eq. 1")
    iterations: int = _setting(300, "N", "–", "optimizer steps", "main text, §6.4")
    learning_rate: float = _setting(0.1, "γ", "–", "Adam's step size", "main text, §6.4")
    area_weight: float = _setting(1e-4, "λ₁", "–", "weight of the mask's area, a sum over the grid", "eq. 6")
    tv_weight: float = _setting(
        1e-2, "λ₂", "–", "weight of the total variation, a sum over the grid", "eq. 6"
    )
    tv_exponent: float = _setting(3.0, "β", "–", "exponent of the total variation", "eq. 6")
    mask_scale: float = _setting(8.0, "δ", "image px per mask px", "side of one mask px", "main text, §6.3")
    mask_sigma: float = _setting(5.0, "σ_m", "image px", "softening of the upsampled mask", "main text, §1")
    jitter: int = _setting(4, "τ", "image px", "the image is shifted by 0 … τ − 1", "main text, §1")
    perturbation: str = _setting("blur", "Φ", "–", "what stands where the mask is 0", "main text, §6.4")
    initialization: str = _setting("disc", "m₀", "–", "the mask at the start", "§2")
    blur_sigma: float = _setting(
        10.0, "σ₀", "image px", "blur of the fully perturbed image", "main text, §4.1"
    )
    score_scale: str = _setting(
        "softmax",
        "f",
        "–",
        "what the area is weighed against: p, p/p₀ or log-odds",
        "eq. 6; module objectives",
    )
    optimizer: str = _setting("adam", "–", "–", "how the grid moves", "main text, §6.4; module steps")
    tolerance: float = _setting(
        0.0, "ε", "–", "an image ends once its objective falls by less; 0: after N steps", "module steps"
    )

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            object.__setattr__(self, item.name, plain_value(getattr(self, item.name)))
        for name, choices in (
            ("game", tuple(GAMES)),
            ("perturbation", PERTURBATIONS),
            ("initialization", INITIALIZATIONS),
            ("optimizer", OPTIMIZERS),
            ("score_scale", SCORE_SCALES),
        ):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
        for name, low, high in (("iterations", 0, MOST_ITERATIONS), ("jitter", 1, REFERENCE_SIZE)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"{name}: expected a whole number of at least {low}, got {value!r}")
            if value > high:
                raise ValueError(f"{name}: expected at most {high:,}, got {value!r}")
        for name in ("learning_rate", "tv_exponent"):
            if not is_number(getattr(self, name)) or getattr(self, name) <= 0:
                raise ValueError(f"{name}: expected a number above 0, got {getattr(self, name)!r}")
        for name in ("area_weight", "tv_weight", "mask_sigma", "blur_sigma", "mask_scale", "tolerance"):
            if not is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name}: expected a number of at least 0, got {getattr(self, name)!r}")
        for name in ("learning_rate", "tv_exponent", "area_weight", "tv_weight", "tolerance"):
            if getattr(self, name) > LARGEST_VALUE:
                raise ValueError(f"{name}: expected at most {LARGEST_VALUE:g}, got {getattr(self, name)!r}")
        if not 1 <= self.mask_scale <= REFERENCE_SIZE:
            raise ValueError(
                f"mask_scale: expected 1 to {REFERENCE_SIZE} image px for a mask px, got {self.mask_scale!r}"
            )
        for name in ("mask_sigma", "blur_sigma"):
            if getattr(self, name) > REFERENCE_SIZE:
                raise ValueError(
                    f"{name}: expected at most {REFERENCE_SIZE} image px, got {getattr(self, name)!r}"
                )

    @property
    def grid_size(self) -> int:
        """Side of a square input's grid in mask px: 224 / δ, whatever the input size, since δ scales with it."""
        return round(REFERENCE_SIZE / self.mask_scale)

    def grid_shape(self, size: Size) -> tuple[int, int]:
        """(h, w) of the grid in mask px for an input of ``size`` px: :func:`square_cells`."""
        return square_cells(self.grid_size, size)

    @property
    def rules(self) -> Game:
        """What ``game`` means: the sign of the score, what is salient and what counts as reached."""
        return GAMES[self.game]

    def lengths(self, size: Size) -> Lengths:
        """σ_m and τ for an input of ``size`` px (a side, or (height, width)), in its own px."""
        return Lengths(scaled(self.mask_sigma, size), max(1, round(scaled(self.jitter, size))))

    @classmethod
    def preset(cls, name: str, *, network: str | None = None) -> MaskSettings:
        """The settings called ``name``, ``default`` or ``localization``.

        ``network="alexnet"`` gives AlexNet's own grid of 30×30 (§6.3); any other name changes nothing.
        """
        settings = find_preset(name).settings
        return settings.replace(mask_scale=ALEXNET_MASK_SCALE) if network == "alexnet" else settings

    def fast(self) -> MaskSettings:
        """These settings with a better way of optimizing: the same objective in fewer passes.

        The mask is a running mean, and each image ends when it is done, so that ``iterations`` is the most (module
        ``steps``). A disc is found by bisection, and in preservation gradients take its place (module
        ``initialization``); another start than the disc stays.
        """
        by_gradient = self.initialization == "disc" and self.game == "preservation"
        start = "gradient" if by_gradient else self.initialization
        return self.replace(
            initialization=start,
            optimizer="averaged",
            learning_rate=0.2,
            tolerance=FAST_TOLERANCE[self.game],
        )

    @printable_errors
    def replace(self, /, **changes: Any) -> MaskSettings:
        """A copy with ``changes``; an unknown setting raises and lists what there is."""
        unknown = sorted(set(changes) - {item.name for item in dataclasses.fields(self)})
        if unknown:
            known = ", ".join(item.name for item in dataclasses.fields(self))
            raise ValueError(f"settings: expected {known}; got {', '.join(unknown)}")
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Every setting by its name, as it stands in results.json."""
        return dataclasses.asdict(self)

    @classmethod
    @printable_errors
    def from_file(cls, path: str | Path, base: MaskSettings | None = None) -> MaskSettings:
        """``base`` (the defaults) changed by a JSON object of settings, such as results.json's."""
        try:
            changes = read_json(path, 1, depth=_DEPTH)
        except OSError as error:
            raise ValueError(f"settings: {path} cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise ValueError(f"settings: {path} is not JSON ({error})") from error
        if not isinstance(changes, Mapping):
            raise ValueError(f'settings: {path} should hold one JSON object such as {{"iterations": 100}}')
        try:
            return (base or cls()).replace(**changes)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


class Preset(NamedTuple):
    """Named settings, and how many of the best classes make the target set C (eq. 2)."""

    settings: MaskSettings
    target_count: int
    source: str


PRESETS: dict[str, Preset] = {
    "default": Preset(MaskSettings(), 1, "main text"),
    "localization": Preset(MaskSettings(area_weight=1e-3, tv_exponent=2.0), 5, "§6.2"),
}


def find_preset(name: str) -> Preset:
    """The preset called ``name``; an unknown one raises and lists what there is."""
    if name not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]


def settings_table(settings: MaskSettings | None = None) -> list[dict[str, Any]]:
    """One row a setting: name, symbol, value, unit, meaning and source, for the book and for a reader.

    Examples:
        >>> [(row["symbol"], row["value"]) for row in settings_table()[:3]]
        [('–', 'deletion'), ('N', 300), ('γ', 0.1)]
    """
    settings = settings or MaskSettings()
    return [
        {"name": item.name, "value": getattr(settings, item.name), **item.metadata}
        for item in dataclasses.fields(settings)
    ]
