"""Sphinx extension that puts a quiz at the end of a chapter's sections.

The questions of page ``NAME`` are in `quizzes/NAME.yml` beside it: section (the anchor of its heading) → questions.
Each has choices, of which one is right, or asks for a number; whatever a reader answers has a reason. They are put in
when the site is built, so that the stored notebooks stay as they are. `static/quiz.js` checks the answers in the
browser; without it, the folded answer is there to be opened, and on paper the questions stand alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
STATIC = Path(__file__).resolve().parent / "static"
INLINE = re.compile(r"\$(?P<math>[^$]+)\$|`(?P<literal>[^`]+)`|\*(?P<emphasis>[^*]+)\*")
INLINE_NODES = {"math": nodes.math, "literal": nodes.literal, "emphasis": nodes.emphasis}
OF_CHOICES = {"ask", "choices"}
OF_NUMBER = {"ask", "number", "tolerance", "why", "mistakes", "otherwise"}


class QuizError(ValueError):
    """A file of questions that cannot be asked."""


@dataclass(frozen=True)
class Answer:
    """What a reader may answer, and why it is right or wrong."""

    why: str
    right: bool = False
    text: str = ""
    number: float | None = None
    tolerance: float = 0.0


@dataclass(frozen=True)
class Question:
    """A question; its answers are choices, or numbers of which the last stands for all others."""

    ask: str
    answers: tuple[Answer, ...]

    @property
    def of_number(self) -> bool:
        return self.answers[0].number is not None


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(PutQuestions)
    app.connect("config-inited", lambda _, config: config.html_static_path.append(str(STATIC)), priority=901)
    app.connect("html-page-context", add_files)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def read_questions(path: Path) -> dict[str, list[Question]]:
    """The questions of a file by section.

    Raises:
        QuizError: for anything but what the file's form has, with its place.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise QuizError(f"{path.name}: expected sections with lists of questions, got {content!r}")
    read: dict[str, list[Question]] = {}
    for section, entries in content.items():
        if not isinstance(entries, list) or not entries:
            raise QuizError(f"{path.name}, {section}: expected a list of questions, got {entries!r}")
        read[section] = []
        for position, entry in enumerate(entries, start=1):
            try:
                read[section].append(question(entry))
            except QuizError as error:
                raise QuizError(f"{path.name}, {section}, question {position}: {error}") from None
    return read


def question(entry: object) -> Question:
    """One entry of a file as a question."""
    if not isinstance(entry, dict) or set(entry) not in (OF_CHOICES, OF_NUMBER):
        got = sorted(entry) if isinstance(entry, dict) else repr(entry)
        raise QuizError(f"expected {sorted(OF_CHOICES)} or {sorted(OF_NUMBER)}, got {got}")
    answers = choices(entry["choices"]) if "choices" in entry else numbers(entry)
    asked = Question(entry["ask"], answers)
    for text in (asked.ask, *(answer.why for answer in answers)):
        if not isinstance(text, str) or not text.strip():
            raise QuizError(f"expected a sentence, got {text!r}")
    return asked


def choices(entries: list[dict[str, Any]]) -> tuple[Answer, ...]:
    """Three or four choices, one of them right."""
    if len(entries) not in (3, 4):
        raise QuizError(f"expected 3 or 4 choices, got {len(entries)}")
    for entry in entries:
        if set(entry) - {"right"} != {"text", "why"}:
            raise QuizError(f"expected a choice with text and why, one with right, got {sorted(entry)}")
    answers = tuple(
        Answer(entry["why"], right=entry.get("right") is True, text=str(entry["text"])) for entry in entries
    )
    if sum(answer.right for answer in answers) != 1:
        raise QuizError(f"expected 1 right choice, got {sum(answer.right for answer in answers)}")
    return answers


def numbers(entry: dict[str, Any]) -> tuple[Answer, ...]:
    """The right number, those of known mistakes, and all others."""
    tolerance = float(entry["tolerance"])
    right = Answer(entry["why"], right=True, number=float(entry["number"]), tolerance=tolerance)
    mistakes = [
        Answer(why, number=float(number), tolerance=tolerance) for number, why in entry["mistakes"].items()
    ]
    for mistake in mistakes:
        # Both were made above with a number; None is of answers that are texts.
        if abs(mistake.number - right.number) <= 2 * tolerance:  # type: ignore[operator]
            raise QuizError(f"expected mistakes apart from {right.number:g}, got {mistake.number:g}")
    return (right, *mistakes, Answer(entry["otherwise"]))


class PutQuestions(SphinxTransform):
    """Puts each section's questions at its end."""

    default_priority = 840  # before Sphinx looks which pages have formulas, at 850

    def apply(self, **_: Any) -> None:
        path = Path(self.env.srcdir) / "quizzes" / f"{self.env.docname}.yml"
        if self.app.builder.format != "html" or not path.is_file():
            return
        self.env.note_dependency(str(path))
        sections = {
            anchor: section for section in self.document.findall(nodes.section) for anchor in section["ids"]
        }
        try:
            read = read_questions(path)
        except QuizError as error:
            LOGGER.warning("quiz: %s", error)
            return
        for anchor, questions in read.items():
            if anchor not in sections:
                LOGGER.warning("quiz: %s: expected a section of the page, got %r", path.name, anchor)
                continue
            for position, asked in enumerate(questions, start=1):
                sections[anchor].extend(fieldset(asked, f"quiz-{anchor}-{position}"))


def fieldset(asked: Question, name: str) -> Iterator[nodes.Node]:
    """A question as the page has it."""
    yield raw('<fieldset class="quiz"><legend><span class="quiz-sign">Check yourself</span> ')
    yield from inline(asked.ask)
    yield raw("</legend>")
    if asked.of_number:
        yield raw(
            '<label class="quiz-number">Your answer'
            f'<input type="text" inputmode="decimal" autocomplete="off" name="{name}"></label>'
        )
    else:
        for position, answer in enumerate(asked.answers):
            yield raw(
                f'<label><input type="radio" autocomplete="off" name="{name}" value="{position}"><span>'
            )
            yield from inline(answer.text)
            yield raw("</span></label>")
    yield raw('<button type="button" hidden>Check</button><div class="quiz-verdict" role="status"></div>')
    yield raw("<details><summary>Answer and reasons</summary><ul>")
    for position, answer in enumerate(asked.answers):
        yield raw(f"<li{attributes(answer, position, asked.of_number)}><strong>")
        yield from inline(title(answer, asked.of_number))
        yield raw(f'</strong> <em>{"Right." if answer.right else "Wrong."}</em> <span class="quiz-why">')
        yield from inline(answer.why)
        yield raw("</span></li>")
    yield raw("</ul></details></fieldset>")


def attributes(answer: Answer, position: int, of_number: bool) -> str:
    """What the script asks of an answer."""
    right = " data-right" if answer.right else ""
    if not of_number:
        return f' data-choice="{position}"{right}'
    if answer.number is None:
        return " data-otherwise"
    return f' data-number="{answer.number!r}" data-tolerance="{answer.tolerance!r}"{right}'


def title(answer: Answer, of_number: bool) -> str:
    if not of_number:
        return answer.text
    if answer.number is None:
        return "Any other number"
    return f"{answer.number:.8f}".rstrip("0").rstrip(".").replace("-", "−")


def inline(text: str) -> Iterator[nodes.Node]:
    """A text with ``$formula$``, `` `code` `` and ``*emphasis*``."""
    at = 0
    for match in INLINE.finditer(text):
        yield nodes.Text(text[at : match.start()])
        kind = str(match.lastgroup)
        yield INLINE_NODES[kind]("", match.group(kind))
        at = match.end()
    yield nodes.Text(text[at:])


def raw(markup: str) -> nodes.raw:
    return nodes.raw("", markup, format="html")


def add_files(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Script and style for the pages that have a quiz."""
    if '<fieldset class="quiz">' in context.get("body", ""):
        app.add_js_file("quiz.js", loading_method="defer")
        app.add_css_file("quiz.css", priority=960)
