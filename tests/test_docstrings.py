"""Examples in docstrings: every one runs and prints what it says, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import perturb_tutorial as pt
from perturb_tutorial import baselines

ROOT = Path(pt.__file__).resolve().parent
NO_FUNCTIONS = {"METHODS", "ROLES", "Method"}


def with_examples() -> list[str]:
    names = (info.name for info in pkgutil.walk_packages(pt.__path__, "perturb_tutorial."))
    return [name for name in names if ">>> " in source(name)]


def source(name: str) -> str:
    path = ROOT.parent.joinpath(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", with_examples())
def test_examples_run_and_print_what_they_say(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if 'names=["chelsea"]' in source(name) or "sample_path(" in source(name):
        pytest.importorskip("skimage", reason="needs the extra samples")
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    result = doctest.testmod(
        module, extraglobs={"pt": pt}, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    )
    assert result.attempted > 0
    assert result.failed == 0, "the output above says which"
    assert list(tmp_path.iterdir()) == [], "an example leaves no file behind"


def test_every_public_name_has_an_example() -> None:
    without = {name for name in pt.__all__ if ">>> " not in (getattr(pt, name).__doc__ or "")}
    assert without == set()
    functions = [name for name in baselines.__all__ if name not in NO_FUNCTIONS]
    assert [name for name in functions if ">>> " not in (getattr(baselines, name).__doc__ or "")] == []
