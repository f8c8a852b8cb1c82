"""A benchmark's summary, reduced and stored: data/measured/NAME.json, which a chapter reads.

    python studies/measured.py RUN… NAME --command "perturb-tutorial benchmark … --data COCO …" --note "…"
    python studies/measured.py RUN RUN NAME --compare default,localization --command "…" --note "…"

RUN is the --output folder of a run; several runs of the same settings on different data (COCO's splits) are merged into
one summary; with --compare, two runs of different settings on the same data are side by side, with their paired
differences; with --so-far, the runs may be unfinished. The file has the command, with COCO, IMAGENET and ANIMAL_PARTS
for the reader's folders, a note, the versions of the packages, and the summary: figures, differences, counts and
settings. A path of this machine in any of them is refused. The same run gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from perturb_tutorial.benchmarks.compare import compared_summary
from perturb_tutorial.benchmarks.merge import merged_summary
from perturb_tutorial.benchmarks.store import BenchmarkError

FOLDER = Path(__file__).resolve().parent.parent / "data" / "measured"
PACKAGES = ("perturb_tutorial", "torch", "numpy")
DIGITS = 6
LINES = 5
"""How many lines about left-out images are quoted."""

_PATH = re.compile(r"""(?:^|[\s"'=(:,])(?:/(?=[\w.])|~/|[A-Za-z]:\\|file:)""")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def trimmed(summary: Mapping[str, Any]) -> dict[str, Any]:
    """``summary`` with its numbers to six digits and long lists of complaints cut."""
    content = dict(_rounded(summary))
    for holder, key in ((content.get("data"), "left_out"), (content.get("records"), "problems")):
        if isinstance(holder, dict) and len(holder.get(key, ())) > LINES:
            holder[key] = [*holder[key][:LINES], f"and {len(holder[key]) - LINES} more"]
    return content


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def machine_paths(value: Any, where: str = "") -> list[str]:
    """Where ``value`` has a string with a path of some machine, such as "command"."""
    if isinstance(value, Mapping):
        return [
            found
            for key, item in value.items()
            for found in (*machine_paths(key, where), *machine_paths(item, f"{where}.{key}".strip(".")))
        ]
    if isinstance(value, list | tuple):
        return [found for item in value for found in machine_paths(item, where)]
    return [where] if isinstance(value, str) and _PATH.search(value) else []


def versions() -> dict[str, str]:
    """The versions of Python and the packages of this environment."""
    return {"python": python_version(), **{name: version(name) for name in PACKAGES}}


def write_measured(
    name: str, command: str, note: str, summary: Mapping[str, Any], folder: Path = FOLDER
) -> Path:
    """Writes ``folder/NAME.json``, one line for each record.

    Args:
        name: of the file, lower-case letters, digits and _.
        command: what measured it, without paths of this machine.
        note: what a reader should know about it.
        summary: a run's summary.
        folder: where the file is written.

    Returns:
        The file's path.

    Raises:
        ValueError: for a name, command or note of the wrong form.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"NAME: expected lower-case letters, digits and _, got {name!r}")
    if not command.strip():
        raise ValueError("--command: expected the command that measured it, got nothing")
    content = {"command": command, "note": note, "versions": versions(), "summary": trimmed(summary)}
    if paths := machine_paths(content):
        raise ValueError(
            f"{', '.join(dict.fromkeys(paths))}: expected no path of this machine; write COCO, IMAGENET or "
            "ANIMAL_PARTS for a data folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(_lines(content) + "\n", encoding="utf-8")
    return path


def _lines(value: Any, depth: int = 0) -> str:
    """JSON with a line for each innermost object, so that a change shows as the figures that changed."""
    indent = " " * (depth + 1)
    if isinstance(value, dict) and any(isinstance(item, dict | list) for item in value.values()):
        rows = [f"{indent}{json.dumps(key)}: {_lines(item, depth + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{' ' * depth}}}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "[\n" + ",\n".join(f"{indent}{_lines(i, depth + 1)}" for i in value) + f"\n{' ' * depth}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def summed_up(runs: list[Path], compare: str | None, so_far: bool = False) -> dict[str, Any]:
    """One summary of all runs, or with labels ``A,B`` a comparison of two."""
    if compare is None:
        return merged_summary(runs, so_far=so_far)
    labels = compare.split(",")
    if len(labels) != 2 or len(runs) != 2:
        raise ValueError(f"--compare: expected two runs and two labels, got {len(runs)} and {len(labels)}")
    return compared_summary(runs[0], runs[1], (labels[0], labels[1]))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Keep a benchmark's summary as data/measured/NAME.json.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folder of a run")
    parser.add_argument("name", metavar="NAME", help="of the file")
    parser.add_argument("--command", required=True, help="what measured it, without paths of this machine")
    parser.add_argument(
        "--note", default="", help="what a reader should know beside it, such as the machine's kind"
    )
    parser.add_argument(
        "--compare", metavar="A,B", help="labels of two runs whose settings differ, with their differences"
    )
    parser.add_argument("--so-far", action="store_true", help="also of runs that are not finished")
    parser.add_argument(
        "--cpu-seconds",
        type=float,
        metavar="S",
        help="user and system time of all runs, as `time -v` reports it",
    )
    parser.add_argument("--peak-gigabytes", type=float, metavar="G", help="the largest resident set of a run")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the file goes")
    options = parser.parse_args(argv)
    try:
        summary = summed_up(options.runs, options.compare, options.so_far)
        cost = {"cpu_seconds": options.cpu_seconds, "peak_gigabytes": options.peak_gigabytes}
        if known := {key: value for key, value in cost.items() if value is not None}:
            summary["cost"] = known
        path = write_measured(options.name, options.command, options.note, summary, options.folder)
    except (ValueError, OSError, BenchmarkError) as error:
        print(f"measured: {error}", file=sys.stderr)
        return 2
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
