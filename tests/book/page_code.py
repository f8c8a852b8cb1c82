"""Run the Python on a page of the book as it stands there, but for what a test cannot wait for or download."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from perturb_tutorial.networks import torchvision_models

BOOK = Path(__file__).resolve().parents[2] / "book"


def run_page(
    page: str,
    changes: Mapping[str, str],
    after: Callable[[str, dict[str, Any]], None] | None = None,
    *,
    given: Mapping[str, Any] | None = None,
    ignored: str | None = None,
) -> dict[str, Any]:
    """The names that the code on ``book/PAGE`` leaves behind, run from top to bottom with warnings as errors.

    Args:
        page: the file's name.
        changes: text → what stands there in the test; each must occur on the page.
        after: called after each block with its code and the names so far.
        given: names that ``changes`` use.
        ignored: beginning of the warnings that the page speaks of.
    """
    torchvision_models()
    text = (BOOK / page).read_text(encoding="utf-8")
    for old in changes:
        assert old in text, f"{page} has no {old!r} any more"
    names = dict(given or {})
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        code = block
        for old, new in changes.items():
            code = code.replace(old, new)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if ignored is not None:
                warnings.filterwarnings("ignore", message=ignored)
            exec(compile(code, page, "exec"), names)
        if after is not None:
            after(code, names)
    return names
