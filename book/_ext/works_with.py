"""Sphinx extension for the page "What works with what": its tables, made from the stored sweep.

- `{works-with-summary}` : how many networks there are, and how each method did with them.
- `{works-with-table} SOURCE` : the networks of a source in rows, the methods in columns.
- `{works-with-reasons}` : what refusals, faults and omissions say, grouped by sentence.

A sign in a table has its meaning as text, for readers who do not see it; a refusal's number leads to its reason.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from book_pages import MadeOfMarkdown

STORED = Path(__file__).resolve().parents[2] / "bench" / "results" / "any_network.json"
VERDICTS = ("right", "refused", "wrong", "error")
SIGNS = {"right": "✓", "refused": "–", "wrong": "✗", "error": "!"}
SHORT = {
    "mask": "mask",
    "gradient": "gradient",
    "guided_backprop": "guided",
    "excitation_backprop": "excitation",
    "contrastive_excitation_backprop": "contrastive",
    "grad_cam": "Grad-CAM",
    "occlusion": "occlusion",
    "blur_occlusion": "blur occl.",
    "variable_occlusion": "variable occl.",
    "mask, onnx": "mask, onnx",
    "mask on a layer": "mask on a layer",
}
"""Method → the head of its column, where there is little room."""
METHOD_NAMED = re.compile(rf"(?<=refused: )({'|'.join(SHORT)}): ")
LEFT_OUT = "left out: "

Row = dict[str, Any]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("works-with-summary", Summary)
    app.add_directive("works-with-table", Table)
    app.add_directive("works-with-reasons", Reasons)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def stored_rows(path: Path = STORED) -> list[Row]:
    """The rows of the sweep (bench/any_network.py)."""
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def verdict(found: str) -> str:
    """The first word of a check's outcome."""
    return found.partition(":")[0]


def sentence(row: Row, found: str) -> str:
    """An outcome without what is the network's or the method's own, so that equal reasons are one."""
    text = found.replace(row["network"], "the network")
    text = re.sub(r"; layers of the network that are maps: .*", "", text)
    text = METHOD_NAMED.sub("", text)
    text = re.sub(r"'[^']*[\d._][^']*'", "'…'", text)
    return re.sub(r"(?<![\w.])\d[\d.,×e-]*", "…", text)


def reasons(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Sentence → the networks that get it, the most frequent first."""
    found: dict[str, list[str]] = {}
    for row in rows:
        outcomes = [LEFT_OUT + row["left_out"]] if "left_out" in row else row["checks"].values()
        for text in dict.fromkeys(sentence(row, one) for one in outcomes if verdict(one) != "right"):
            found.setdefault(text, []).append(row["network"])
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def is_answered(row: Row) -> bool:
    """Whether every method is right for a network, or refused in a sentence."""
    return bool(row["checks"]) and all(verdict(one) in ("right", "refused") for one in row["checks"].values())


def summary_lines(rows: list[Row]) -> list[str]:
    """The sums in a sentence, and a table with a row a method."""
    tried = [row for row in rows if "left_out" not in row]
    answered = sum(map(is_answered, tried))
    sources = Counter(row["source"] for row in rows)
    named = ", ".join(f"{count} of {source}" for source, count in sources.items())
    lines = [
        f"**{answered} of {len(tried)} networks: every method is right, or refused in a sentence.** There are {named}"
        + (f"; {len(rows) - len(tried)} could not be tried." if len(tried) < len(rows) else "."),
        "",
        "| method | right | refused | wrong | error |",
        "|---|--:|--:|--:|--:|",
    ]
    for method in SHORT:
        counts = Counter(verdict(row["checks"][method]) for row in tried if method in row["checks"])
        lines.append(f"| {method} | " + " | ".join(str(counts[one]) for one in VERDICTS) + " |")
    return lines


def table_lines(rows: list[Row], source: str) -> list[str]:
    """The networks of a source, and the sign of each method."""
    numbers = {text: number for number, text in enumerate(reasons(rows), start=1)}
    heads = list(SHORT.values())
    lines = [
        f"| network | parameters | input, px | {' | '.join(heads)} | Grad-CAM reads |",
        f"|---|--:|--:|{':-:|' * len(heads)}---|",
    ]
    for row in rows:
        if row["source"] != source:
            continue
        parameters = f"{row['parameters'] / 1e6:.2f} M" if "parameters" in row else ""
        layer = f"`{row['layer']}`" if row.get("layer") else ""
        cells = " | ".join(cell(row, method, numbers) for method in SHORT)
        lines.append(f"| {row['network']} | {parameters} | {row['size']} | {cells} | {layer} |")
    return lines


def cell(row: Row, method: str, numbers: dict[str, int]) -> str:
    """A sign with its meaning for those who do not see it, and the number of the reason."""
    if "left_out" in row:
        found, kind, sign = LEFT_OUT + row["left_out"], "left out", "○"
    else:
        found = row["checks"][method]
        kind = verdict(found)
        sign = SIGNS[kind]
    shown = f'<span role="img" aria-label="{kind}" title="{kind}">{sign}</span>'
    if kind == "right":
        return shown
    number = numbers[sentence(row, found)]
    return f"{shown} [{number}](#works-with-{number})"


def reason_lines(rows: list[Row]) -> list[str]:
    """A numbered entry for each reason: the sentence, and whose it is."""
    lines: list[str] = []
    for number, (text, networks) in enumerate(reasons(rows).items(), start=1):
        kind, _, said = text.partition(": ")
        lines += [
            f"(works-with-{number})=",
            f"**{number}** {kind}: {escaped(said)} *({len(networks)}: {', '.join(networks)})*",
            "",
        ]
    return lines


def escaped(text: str) -> str:
    """A sentence as Markdown that shows its very characters."""
    return re.sub(r"([\\`*_{}\[\]<>#$|~])", r"\\\1", text)


class FromTheSweep(MadeOfMarkdown):
    """A directive that shows the stored rows."""

    def lines(self, rows: list[Row]) -> list[str]:
        """What the directive shows, as Markdown; each directive has its own."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(STORED))
        return self.parsed(self.lines(stored_rows()))


class Summary(FromTheSweep):
    """The sums."""

    def lines(self, rows: list[Row]) -> list[str]:
        return summary_lines(rows)


class Table(FromTheSweep):
    """The networks of a source."""

    required_arguments = 1

    def lines(self, rows: list[Row]) -> list[str]:
        return table_lines(rows, self.arguments[0])


class Reasons(FromTheSweep):
    """Why."""

    def lines(self, rows: list[Row]) -> list[str]:
        return reason_lines(rows)
