"""Runs functions of the live page's modules in Node.js."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ROOT / "book" / "live"


def node() -> str:
    path = shutil.which("node")
    if path is None:
        pytest.skip("no Node.js on this machine: install it to test the live page's modules")
    return path


def run(*calls: tuple[str, str, list[Any]]) -> list[Any]:
    """The values of (module, function, arguments), or for one that throws the text of its error."""
    done = subprocess.run(
        [node(), str(HERE / "call.mjs")], input=json.dumps(calls), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [result.get("value", result.get("error")) for result in json.loads(done.stdout)]


def f32(values: Any) -> dict[str, list[float]]:
    """A tensor or array as a Float32Array."""
    return {"f32": values.flatten().tolist()}
