"""The order of the house: who may import whom, how long a room may be, what the root holds, and the public names.

The imports are read from the source, so that one inside a function or for types counts as well.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import perturb_tutorial as pt
from perturb_tutorial.benchmarks import BENCHMARKS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "perturb_tutorial"

# From the ground up: a module imports from its own row and from those above it in this table.
ORDER = (
    {
        "settings",
        "games",
        "sizes",
        "files",
        "reading",
        "sealed",
        "places",
        "masks",
        "metrics",
        "batches",
        "_forks",
        "_outside",
        "_words",
    },
    {"image_files", "images", "perturbations", "objectives", "mask_files", "results", "result_file"},
    {"networks"},
    {"engines", "initialization", "draws"},
    {"canvas", "steps"},
    {"loop"},
    {"fastest"},
    {"optimizer", "activations"},
    {"baselines", "datasets"},
    {"adapters", "plotting", "export", "explain", "benchmarks"},
    {"study"},
    {"cli"},
    {"__main__"},
)
METHOD = {
    "settings", "games", "sizes", "images", "image_files", "files", "reading", "sealed", "result_file",
    "masks", "perturbations", "objectives", "initialization", "draws", "canvas", "steps", "loop", "fastest",
    "batches", "optimizer", "activations", "mask_files", "results", "plotting", "export", "explain", "adapters",
}  # fmt: skip
AROUND = {"__init__", "__main__", "_forks", "_outside", "_words"}
FOLDERS = {"networks", "engines", "baselines", "metrics", "datasets", "benchmarks", "places", "study", "cli"}

PUBLIC = {
    "ClassTable", "ImageError", "ImageErrors", "MaskSettings", "Masks", "Network", "WeightsUnavailable", "image_sizes",
    "learn_activation_masks", "learn_masks", "load_images", "load_network", "load_samples", "saliency",
    "seeded_network", "settings_table", "top_classes",
}  # fmt: skip

LINES = 320
"""What a reader can hold in the head at once."""


def modules(folder: Path) -> dict[str, Path]:
    """Dotted name → file of every module of the package in ``folder``."""
    found = {}
    for path in sorted((folder / PACKAGE).rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: Mapping[str, Path]) -> Iterator[tuple[int, str, bool]]:
    """(line, module, whether at loading) of each import of the package's modules in the file ``path``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    later: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ):
            later.update(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else str(node.module) for name in full]
        else:
            assert not isinstance(node, ast.ImportFrom), f"{path.name}:{node.lineno}: a relative import"
            continue
        for name in names:
            if name in known:
                yield node.lineno, name, node not in later


def misplaced(folder: Path) -> list[str]:
    """A line for each import against the order, and for each module that the order does not know."""
    rows = {name: number for number, names in enumerate(ORDER) for name in names}
    known = modules(folder)
    found = []
    for module, path in known.items():
        own = module.split(".")[1:2]
        if not own:
            continue  # the package's __init__ passes names on
        if own[0] not in rows:
            found.append(f"{module} has no place in the order")
            continue
        for line, name, _ in imported(path, known):
            other = name.split(".")[1:2]
            if other and rows.get(other[0], 0) > rows[own[0]]:
                found.append(f"{module}, line {line}: {own[0]} may not import {other[0]}")
    return found


def circles(folder: Path) -> list[list[str]]:
    """Modules that need each other to load, in the order of their imports."""
    known = modules(folder)
    graph = {
        module: sorted({name for _, name, loads in imported(path, known) if loads and name != module})
        for module, path in known.items()
    }
    done: set[str] = set()
    found: list[list[str]] = []

    def follow(module: str, way: list[str]) -> None:
        if module in way:
            found.append([*way[way.index(module) :], module])
        elif module not in done:
            for name in graph[module]:
                follow(name, [*way, module])
            done.add(module)

    for module in graph:
        follow(module, [])
    return found


def test_modules_import_from_the_ground_up() -> None:
    assert misplaced(ROOT) == []


def test_no_modules_need_each_other() -> None:
    assert circles(ROOT) == []


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"masks.py": f"from {PACKAGE} import cli\n"}, "masks may not import cli"),
        ({"metrics/pointing.py": f"import {PACKAGE}.networks\n"}, "metrics may not import networks"),
        (
            {"images.py": f"def f():\n    from {PACKAGE}.study.games import play\n"},
            "images may not import study",
        ),
        ({"cellar.py": ""}, "cellar has no place"),
    ],
)
def test_an_import_against_the_order_is_found(tmp_path: Path, files: dict[str, str], told: str) -> None:
    base = {"__init__.py": "", "cli/__init__.py": "", "networks/__init__.py": "", "study/games.py": ""}
    for name, text in (base | files).items():
        path = tmp_path / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (line,) = misplaced(tmp_path)
    assert told in line


def test_a_circle_is_found(tmp_path: Path) -> None:
    folder = tmp_path / PACKAGE
    folder.mkdir()
    (folder / "a.py").write_text(f"from {PACKAGE}.b import x\n")
    (folder / "b.py").write_text(f"import {PACKAGE}.c\n")
    (folder / "c.py").write_text(f"from {PACKAGE} import a\n")
    assert circles(tmp_path) == [[f"{PACKAGE}.{name}" for name in "abca"]]
    (folder / "c.py").write_text(f"def late():\n    from {PACKAGE} import a\n")
    assert circles(tmp_path) == []


def test_the_root_is_the_method() -> None:
    folder = ROOT / PACKAGE
    assert {path.stem for path in folder.glob("*.py")} - AROUND <= METHOD
    assert {path.parent.name for path in folder.glob("*/__init__.py")} == FOLDERS


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in (PACKAGE, "tools", "bench", "studies")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LINES
    }
    assert long == {}


def test_chapters_use_public_names_only() -> None:
    """A chapter is read by those who write their own: no name that begins with an underscore, no module of ours
    that only finds files.
    """
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell in cells:
            code = "".join(line for line in cell["source"] if not line.startswith("%"))
            if cell["cell_type"] != "code" or PACKAGE not in code:
                continue
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = [alias.name for alias in node.names] + [getattr(node, "module", "")]
                    parts = [part for name in names for part in name.split(".")]
                    assert not [p for p in parts if p.startswith("_") and p != "__future__"], (
                        f"{path.name}: {parts}"
                    )
                    assert f"{PACKAGE}.files" not in names, path.name


def known_by_name(folder: Path, names: set[str]) -> list[str]:
    """A line for each place in ``folder`` that compares with one of ``names``, or with its class."""
    found = []
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            asked: list[ast.expr] = []
            if isinstance(node, ast.Compare):
                asked = [node.left, *node.comparators]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                asked = node.args[1:]
            for part in (part for expression in asked for part in ast.walk(expression)):
                told = part.value if isinstance(part, ast.Constant) else getattr(part, "id", None)
                if told in names:
                    found.append(f"{path.name}, line {node.lineno}: {told}")
    return found


def test_no_benchmark_is_known_by_name_to_what_runs_it(tmp_path: Path) -> None:
    """What differs from one to the next is an attribute or a method of ``Benchmark``, so that a new one needs a file
    and its line in the registry. ``localization`` is a preset's name as well, which other rooms may compare with.
    """
    names = set(BENCHMARKS) | {type(benchmark).__name__ for benchmark in BENCHMARKS.values()}
    assert known_by_name(ROOT / PACKAGE / "benchmarks", names) == []
    (tmp_path / "worker.py").write_text(
        'if benchmark.name == "localization" and isinstance(benchmark, (int, AnimalParts)):\n    pass\n'
    )
    assert known_by_name(tmp_path, names) == [
        "worker.py, line 1: localization", "worker.py, line 1: AnimalParts"
    ]  # fmt: skip


def test_the_public_names_stay() -> None:
    assert set(pt.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(pt, name) is not None


def test_the_type_checker_sees_the_exports() -> None:
    tree = ast.parse((ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: str(node.module).removeprefix(f"{PACKAGE}.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == pt._EXPORTS
