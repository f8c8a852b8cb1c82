"""Sphinx extension for what the book's pages say about the book: made from the chapters and the package.

- `{chapter-map}` : every chapter in the order of the table of contents with its promise and its times, which
  it reads from the chapters' own **Time** lines.
- `{lesson-plan} 45` : rows `minutes | what`; a plan whose minutes do not add up to its title is an error.
- `{photograph-credits}` : who made the sample photographs, from the package.
- `{settings-table}` : the settings of a mask, from the package.
- the first use of each term of glossary and symbols on a page leads to its entry. The chapters themselves stay
  free of roles, which Jupyter would show as they are typed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from chapter_facts import ChapterFacts, ChapterFactsError, chapter_facts, spoken

WITH_TERMS = re.compile(r"\d\d_(?!welcome)|live$|teachers$")  # pages that teach
TEX_SYMBOLS = {
    r"\lambda_1": "λ₁",
    r"\lambda_2": "λ₂",
    r"\beta": "β",
    r"\tau": "τ",
    r"\delta": "δ",
    r"\gamma": "γ",
    r"\alpha": "α",
    r"\Lambda": "Λ",
    r"\Phi": "Φ",
    r"\sigma_m": "σ_m",
    r"\sigma_0": "σ₀",
    "M": "M",
    "m": "m",
    "N": "N",
    "C": "C",
    "z_c": "z_c",
    "f_c": "f_c",
    "f_c(x)": "f_c",
}
"""Inline formulas that are one symbol → the symbol's entry."""
ONLY_AS_FORMULA = {"M", "m", "N", "C", "x"}
AMBIGUOUS = {"gradient"}  # descent, of the mask, or the method: the reader would be led astray
SECTION_TITLE = re.compile(r"§\s?(\d(?:\.\d)?)\b")
SECTION_NAMED = re.compile(r"chapters? on (?:the )?§\s?(\d(?:\.\d)?)\b")
OPAQUE = (
    nodes.reference,
    nodes.literal,
    nodes.literal_block,
    nodes.title,
    nodes.math,
    nodes.math_block,
    nodes.raw,
    nodes.caption,
    nodes.rubric,
    nodes.topic,
    nodes.table,
    nodes.Admonition,
)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("chapter-map", ChapterMap)
    app.add_directive("lesson-plan", LessonPlan)
    app.add_directive("photograph-credits", PhotographCredits)
    app.add_directive("settings-table", SettingsTable)
    app.connect("doctree-resolved", link_terms)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def parts_of(toc: Path) -> list[tuple[str, list[str]]]:
    """(caption, files) of each part of a table of contents; one part without a caption for a plain list."""
    content = yaml.safe_load(toc.read_text(encoding="utf-8"))
    if "parts" in content:
        return [
            (part.get("caption", ""), [entry["file"] for entry in part["chapters"]])
            for part in content["parts"]
        ]
    return [("", [entry["file"] for entry in content.get("chapters", [])])]


class MadeOfMarkdown(SphinxDirective):
    """A directive that writes MyST and lets the page's own parser read it."""

    def parsed(self, lines: list[str]) -> list[nodes.Node]:
        holder = nodes.container()
        self.state.nested_parse(StringList(lines, self.get_source_info()[0]), self.content_offset, holder)
        return list(holder.children)


class ChapterMap(MadeOfMarkdown):
    """The chapters with their promise and times, part by part, and the sums."""

    def run(self) -> list[nodes.Node]:
        book = Path(self.env.srcdir)
        lines = ["| chapter | read | run | quick run |", "|---|---|---|---|"]
        whole: list[ChapterFacts] = []
        for caption, files in parts_of(Path(self.config.external_toc_path)):
            chapters = [book / f"{file}.ipynb" for file in files if (book / f"{file}.ipynb").is_file()]
            for chapter in chapters:
                self.env.note_dependency(str(chapter))
            try:
                facts = [chapter_facts(chapter) for chapter in chapters]
            except ChapterFactsError as error:
                raise self.error(str(error)) from None
            whole += facts
            lines += [f"| **{caption}** | | | |"] if caption and facts else []
            lines += [
                f"| {{doc}}`{fact.name}` <br>*{fact.promise}* | {unbroken(fact.read)} | {unbroken(fact.run)} "
                f"| {unbroken(fact.quick)} |"
                for fact in facts
            ]
        sums = [spoken(sum(getattr(fact, name) for fact in whole)) for name in ("read", "run", "quick")]
        lines += [
            "",
            f"Together {len(whole)} chapters: {sums[0]} to read and {sums[1]} to run, or {sums[2]} in the quick run.",
        ]
        return self.parsed(lines)


class LessonPlan(MadeOfMarkdown):
    """`{lesson-plan} MINUTES` with rows `minutes | what`."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        promised = int(self.arguments[0])
        rows = [line.split("|", 1) for line in self.content if line.strip()]
        total = sum(int(minutes) for minutes, _ in rows)
        if total != promised:
            raise self.error(f"lesson-plan: the rows add up to {total} minutes, not to {promised}")
        lines = ["| minutes | what |", "|---|---|"]
        lines += [f"| {minutes.strip()} | {what.strip()} |" for minutes, what in rows]
        lines.append(f"| **{total}** | **together** |")
        return self.parsed(lines)


class PhotographCredits(MadeOfMarkdown):
    """Each credit once, with the photographs that it is for."""

    def run(self) -> list[nodes.Node]:
        from perturb_tutorial.datasets.samples import all_samples

        credited: dict[str, list[str]] = {}
        for name, sample in all_samples().items():
            credited.setdefault(sample.credit, []).append(name.replace("_", " "))
        return self.parsed([f"- {', '.join(names)}: {credit}" for credit, names in credited.items()])


class SettingsTable(MadeOfMarkdown):
    """Every setting of a mask with its symbol, default, unit and source, as the package has them."""

    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        from perturb_tutorial import settings_table

        lines = ["| symbol | setting | default | unit | meaning | source |", "|---|---|---|---|---|---|"]
        lines += [
            f"| {row['symbol']} | `{row['name']}` | {plain(row['value'])} | {row['unit']} | {row['meaning']} "
            f"| {row['source']} |"
            for row in settings_table()
        ]
        return self.parsed(lines)


def unbroken(minutes: float) -> str:
    """A time that stays on one line of a narrow column."""
    return spoken(minutes).replace(" ", "\u00a0")


def plain(value: object) -> str:
    """A value as a reader writes it: 0.0001, not 1e-04."""
    return f"{value:.10f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def link_terms(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Make the first use of each term on a page a link to its entry."""
    if app.builder.format != "html":
        return
    link_sections(app, doctree, docname)
    if not WITH_TERMS.match(docname):
        return
    entries = {
        name: f"{app.builder.get_relative_uri(docname, page)}#{anchor}"
        for name, _, kind, page, anchor, _ in app.env.get_domain("std").get_objects()
        if kind == "term"
    }
    if not entries:
        return
    linked: set[str] = {
        node["refuri"].rpartition("#")[2] for node in doctree.findall(nodes.reference) if "refuri" in node
    }
    words = {name.lower(): name for name in entries if name not in ONLY_AS_FORMULA | AMBIGUOUS}
    pattern = pattern_of(words)
    for node in list(candidates(doctree)):
        if isinstance(node, nodes.math):
            name = TEX_SYMBOLS.get(node.astext().strip(), "")
            if name in entries and entries[name].rpartition("#")[2] not in linked:
                linked.add(entries[name].rpartition("#")[2])
                node.replace_self(link(entries[name], name, node.deepcopy()))
        else:
            replace_words(node, pattern, words, entries, linked)


def link_sections(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """ "the chapter on § 6.5" leads to the chapter whose title begins with § 6.5, where there is one."""
    chapters = {}
    for name, title in app.env.titles.items():
        if match := SECTION_TITLE.match(title.astext()):
            chapters[match.group(1)] = app.builder.get_relative_uri(docname, name)
    in_tables_too = tuple(kind for kind in OPAQUE if kind is not nodes.table)
    for node in list(candidates(doctree, in_tables_too)):
        if not isinstance(node, nodes.Text):
            continue
        text, at = node.astext(), 0
        pieces: list[nodes.Node] = []
        for match in SECTION_NAMED.finditer(text):
            if address := chapters.get(match.group(1)):
                pieces.append(nodes.Text(text[at : match.start()]))
                pieces.append(nodes.reference("", match.group(), internal=True, refuri=address))
                at = match.end()
        if pieces:
            pieces.append(nodes.Text(text[at:]))
            node.parent.replace(node, [piece for piece in pieces if piece.astext()])


def pattern_of(words: dict[str, str]) -> re.Pattern[str]:
    """Any of the terms as a whole word, in singular or plural, the longest first."""
    longest = sorted(words, key=lambda word: (-len(word), word))
    alternatives = "|".join(re.escape(word) for word in longest)
    return re.compile(rf"(?<![\w-])({alternatives})(e?s)?(?![\w-])", re.IGNORECASE)


def candidates(
    doctree: nodes.document, opaque: tuple[type[nodes.Node], ...] = OPAQUE
) -> Iterator[nodes.Node]:
    """Texts and inline formulas of running prose, in the page's order, outside of ``opaque`` nodes."""
    for node in doctree.findall(lambda n: isinstance(n, nodes.Text | nodes.math)):
        parents = list(ancestors(node))
        inside_prose = any(isinstance(parent, nodes.paragraph) for parent in parents)
        # The glance at a chapter's head is a list of promises; what it names is explained below it.
        if inside_prose and not any(isinstance(parent, opaque) for parent in parents):
            yield node


def ancestors(node: nodes.Node) -> Iterator[nodes.Node]:
    parent = node.parent
    while parent is not None:
        yield parent
        parent = parent.parent


def replace_words(
    node: nodes.Node,
    pattern: re.Pattern[str],
    words: dict[str, str],
    entries: dict[str, str],
    linked: set[str],
) -> None:
    """Split a text around the terms in it that have no link yet."""
    text, at = node.astext(), 0
    pieces: list[nodes.Node] = []
    for match in pattern.finditer(text):
        name = words[match.group(1).lower()]
        anchor = entries[name].rpartition("#")[2]
        if anchor in linked:
            continue
        linked.add(anchor)
        pieces += [nodes.Text(text[at : match.start()]), link(entries[name], name, nodes.Text(match.group()))]
        at = match.end()
    if pieces:
        pieces.append(nodes.Text(text[at:]))
        node.parent.replace(node, [piece for piece in pieces if piece.astext()])


def link(address: str, name: str, shown: nodes.Node) -> nodes.reference:
    reference = nodes.reference("", "", internal=True, refuri=address, classes=["term-link"])
    reference["reftitle"] = f"Glossary: {name}"
    reference += shown
    return reference
