"""summary.html: the figures of a finished run to look at, in one file that asks nothing of the network.

Each figure has a row for every method: a bar up to the estimate, a line for its 95 % interval, and the numbers. Names
of files and classes come from outside and are shown as text.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perturb_tutorial._outside import printable
from perturb_tutorial._words import counted
from perturb_tutorial.benchmarks.errors import unwritable
from perturb_tutorial.places import Place, lies_there, write_whole
from perturb_tutorial.reading import read_bytes

NAME = "summary.html"
MARK = '<meta name="generator" content="perturb-tutorial">'
"""By which a report is known as the program's own."""
LARGEST = 100
"""MB of a report."""
NUMBERS = ("estimate", "low", "high", "rows", "images", "reason")
WIDTH, HEIGHT = 320, 16  # px of a bar's drawing

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{mark}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
body {{ color: #1b2540; background: #fff; }}
table {{ border-collapse: collapse; margin: 0.5rem 0 2rem; }}
th, td {{ text-align: left; padding: 0.2rem 1rem 0.2rem 0; vertical-align: middle; }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; font-weight: 600; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{about}</p>
{facts}
{figures}
{differences}
</body>
</html>
"""


def write_report(folder: Place, summary: Mapping[str, Any]) -> Place:
    """Writes summary.html beside summary.json; the file's path.

    Raises:
        ValueError: where a file of this name is there that is not the program's own.
        BenchmarkError: where it cannot be written.
    """
    path = folder / NAME
    if lies_there(path) and MARK.encode() not in read_bytes(path, LARGEST)[:1000]:
        raise ValueError(f"output: {path} is not of this program and is left alone; move it to get a report")
    try:
        write_whole(path, report(summary).encode())
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def report(summary: Mapping[str, Any]) -> str:
    """The page of one run, from the content of summary.json."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for figure in summary["figures"]:
        groups.setdefault(_title(figure, "method"), []).append(figure)
    return PAGE.format(
        mark=MARK,
        title=_text(f"{summary['benchmark']}: {summary['network']} on {summary['data']['name']}"),
        about=_text(summary["about"]),
        facts=_facts(summary),
        figures="\n".join(_table(title, rows) for title, rows in groups.items()) or "<p>No figures.</p>",
        differences=_differences(summary.get("differences", [])),
    )


def _facts(summary: Mapping[str, Any]) -> str:
    records = summary["records"]
    lines = [
        f"{counted(records['finished'], 'record')} of {counted(summary['data']['images'], 'image')}; "
        f"{counted(records['bad_images'], 'bad image')} in no figure",
        f"intervals: {summary['intervals']['level']:.0%}, by {summary['intervals']['resamples']:,} resamples of the "
        f"{summary['intervals']['resampled']}",
        *(
            f"{method}: {counted(count, 'unusable map')}"
            for method, count in records["unusable_maps"].items()
        ),
        *map(str, records["problems"]),
        *map(str, summary["data"].get("left_out", [])),
    ]
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>"


def _title(figure: Mapping[str, Any], *without: str) -> str:
    labels = [f"{key} {value}" for key, value in figure.items() if key not in (*NUMBERS, *without, "name")]
    return f"{figure['name']} ({', '.join(labels)})" if labels else str(figure["name"])


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    numbers = [row[key] for row in rows for key in ("estimate", "low", "high") if row[key] is not None]
    low, high = min([0.0, *numbers]), max([0.0, *numbers])
    body = "".join(
        f'<tr><th scope="row">{_text(row["method"])}</th><td>{_bar(row, low, high)}</td>{_cells(row)}</tr>'
        for row in rows
    )
    return f"<table><caption>{_text(title)}</caption>{body}</table>"


def _cells(row: Mapping[str, Any]) -> str:
    shown = [
        _number(row["estimate"]),
        f"[{_number(row['low'])}, {_number(row['high'])}]",
        f"{counted(row['rows'], 'row')} of {counted(row['images'], 'image')}",
        row.get("reason", ""),
    ]
    return "".join(f'<td class="number">{_text(value)}</td>' for value in shown)


def _bar(row: Mapping[str, Any], low: float, high: float) -> str:
    """A bar from 0 to the estimate with its interval; the numbers beside it say the same to who cannot see it."""
    if row["estimate"] is None or high == low:
        return ""

    def place(value: float) -> float:
        return round((value - low) / (high - low) * WIDTH, 1)

    zero, end = sorted((place(0.0), place(row["estimate"])))
    parts = [f'<rect x="{zero:g}" y="3" width="{end - zero:g}" height="10" fill="#cfdcf5"/>']
    if row["low"] is not None and row["high"] is not None:
        ends = f'x1="{place(row["low"]):g}" x2="{place(row["high"]):g}"'
        parts.append(f'<line {ends} y1="8" y2="8" stroke="#1b2540" stroke-width="2"/>')
    return f'<svg width="{WIDTH}" height="{HEIGHT}" aria-hidden="true">{"".join(parts)}</svg>'


def _differences(rows: Iterable[Mapping[str, Any]]) -> str:
    body = "".join(
        f'<tr><th scope="row">{_text(_title(row, "method", "minus"))}</th>'
        f"<td>{_text(row['method'])} − {_text(row['minus'])}</td>{_cells(row)}</tr>"
        for row in rows
    )
    return f"<table><caption>Differences, paired by image</caption>{body}</table>" if body else ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _text(value: object) -> str:
    return html.escape(printable(str(value)))
