"""The questions of the chapters, and how the build puts them on the pages."""

from __future__ import annotations

import json
import math
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docutils.nodes import make_id
from quiz_page import QUIZZES, ROOT, build_page, extension

CHAPTERS = sorted((ROOT / "book").glob("[0-9][0-9]_*.ipynb"))
WITHOUT = {"the-paper-and-here", "summary", "next", "the-whole-experiment", "every-setting-and-its-source"}
"""Sections that only list, sum up or name a command."""
PICTURES = {"09_localization_setting": {"the-same-photographs-under-both-settings"}}
"""Sections that are a picture to look at."""

GOOD = """\
first:
  - ask: Is $x$ *small*?
    choices:
      - {text: "No", why: It is.}
      - {text: "Yes, `x < 1`", right: true, why: "Since $x = 0$."}
      - {text: Perhaps, why: One can know.}
second:
  - ask: How much is one half & one half?
    number: 1
    tolerance: 0.01
    why: Two halves.
    mistakes: {0.25: That is the product.}
    otherwise: Add them.
"""
PAGE = (
    "# Title\n\n## First\n\nProse.\n\n## Second\n\nMore.\n\n### Deeper\n\nStill more.\n\n## Third\n\nEnd.\n"
)


def questions() -> list[tuple[str, str, Any]]:
    """(chapter, section, question) of all files."""
    return [
        (path.stem, section, question)
        for path in sorted(QUIZZES.glob("*.yml"))
        for section, asked in extension().read_questions(path).items()
        for question in asked
    ]


def headings(chapter: Path) -> dict[str, str]:
    """Anchor of each section of a chapter → that of the section above it."""
    cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    found, above = {}, ""
    for level, title in re.findall(r"^(###?) (.+)$", text, re.MULTILINE):
        anchor = make_id(title)
        above = anchor if level == "##" else above
        found[anchor] = above
    return found


def test_each_section_that_teaches_has_a_question_and_no_other() -> None:
    for chapter in CHAPTERS:
        asked = set(extension().read_questions(QUIZZES / f"{chapter.stem}.yml"))
        sections = headings(chapter)
        assert asked <= set(sections), f"{chapter.stem}: no such section: {asked - set(sections)}"
        covered = {sections[anchor] for anchor in asked}
        left = set(sections.values()) - covered - WITHOUT - PICTURES.get(chapter.stem, set())
        assert not left, f"{chapter.stem}: no question after {left}"
    assert {path.stem for path in QUIZZES.glob("*.yml")} == {chapter.stem for chapter in CHAPTERS}


def test_questions_and_reasons_are_short() -> None:
    """A choice is read on a phone, and a reason is one sentence."""
    for chapter, section, question in questions():
        where = f"{chapter}, {section}: {question.ask}"
        assert len(question.ask) <= 160, where
        assert question.ask.rstrip().endswith("?"), where
        for answer in question.answers:
            assert len(answer.text) <= 100, where
            assert len(answer.why) <= 130, f"{where}: {answer.why}"
            assert answer.why.endswith("."), f"{where}: {answer.why}"
            assert not re.search(r"[.!?] [A-Z]", answer.why), f"{where}: {answer.why}"
        texts = [answer.text or answer.number for answer in question.answers]
        assert len(set(texts)) == len(texts), where


def test_neither_place_nor_length_gives_the_right_choice_away() -> None:
    """By guessing a place or the longest choice nobody gets half of the answers."""
    asked = [question.answers for _, _, question in questions() if not question.of_number]
    right = [[answer.right for answer in answers].index(True) for answers in asked]
    longest = [int(np.argmax([len(answer.text) for answer in answers])) for answers in asked]
    assert max(np.bincount(right)) < len(asked) / 2
    assert np.mean(np.array(right) == np.array(longest)) < 0.5


def mean_ratio(values: list[float]) -> float:
    return float(np.mean([feet / eyes for eyes, feet in product(values, values)]))


def iou(shift: int, side: int = 10) -> float:
    first, second = np.zeros((30, 30), bool), np.zeros((30, 30), bool)
    first[:side, :side] = second[:side, shift : side + shift] = True
    return float((first & second).sum() / (first | second).sum())


BY_ANOTHER_WAY = {
    "01_method/taking-something-away": 0.4 + 0.25 * (0.8 - 0.4),
    "01_method/what-a-good-mask-is": float(1e-4 * np.abs(1 - np.repeat([0, 1], 392)).sum()),
    "03_initialization/the-smallest-disc-that-does-the-job": float(np.interp(0.3, [0.1, 0.9], [0, 1])),
    "04_comparison/guided-backprop": max(-3, 0) * (2 > 0),
    "04_comparison/excitation-backprop": 0.6 * float(np.array([3, 1])[0] / np.array([3, 1]).sum()),
    "04_comparison/grad-cam": max(0, float(np.dot([1, -2], [4, 1]))),
    "05_pointing_game/several-maxima": float(np.mean([20, 80])),
    "05_pointing_game/two-averages": float(np.mean([np.mean([1]), np.mean([1] * 3 + [0] * 6)])),
    "05_pointing_game/coco": next(n for n in range(785) if not (n + 1) * 1e-4 <= 0.001 + 1e-12),
    "05_pointing_game/does-the-size-matter": np.zeros((320, 448))[::32, ::32].size,
    "05_pointing_game/a-game-without-annotations": float(np.full((4, 4), 1 / 16)[0, 0]),
    "06_occlusion/a-square-and-a-disc": len(range(0, 224, 28)) ** 2,
    "07_localization/from-a-map-to-a-box": iou(2),
    "08_random_examples/where-the-weight-lies": 0.70 - 0.45,
    "09_localization_setting/three-changes": 1 / float((np.diff([0, 0.5, 1]) ** 3).sum()),
    "09_localization_setting/coverage-and-sharpness": (40 - 10) / 40,
    "10_architectures/a-stricter-test-use-the-other-s-mask": 1 - float(np.interp(0.2, [0.1, 0.8], [0, 1])),
    "11_layers/the-paper-s-weights": (float(np.full((14, 14), 1e-3).sum()), 28**2 / 14**2),
    "11_layers/other-networks": np.zeros(224)[::2][::2][::2][::2].size,
    "13_failures/a-score-that-is-exactly-1": 1.0 * (1 - 1.0),
    "14_coco/from-a-category-to-a-set-of-classes": 1 - 0.9,
    "14_coco/does-the-mask-follow-the-question": 0.30 / 0.12,
    "15_animal_parts/for-all-classes": math.hypot(0.03, 0.04),
    "15_animal_parts/table-2-again": 1 / math.sqrt(25),
    "15_animal_parts/a-mean-of-ratios": mean_ratio([1, 2]),
    "16_speed/against-others": 800 / 300,
    "16_speed/a-calculator": 30_989 * 10 / 60 / 60,
    "17_paper_and_here/how-close-is-close": 20 * (1 - 0.95),
}
"""The numbers that are asked for, by a calculation of their own."""


def test_the_right_numbers_are_right() -> None:
    asked: dict[str, list[Any]] = {}
    for chapter, section, question in questions():
        if question.of_number:
            asked.setdefault(f"{chapter}/{section}", []).append(question.answers[0])
    assert set(asked) == set(BY_ANOTHER_WAY)
    for where, answers in asked.items():
        expected = np.atleast_1d(BY_ANOTHER_WAY[where])
        # A reader may keep all digits: half of the tolerance is left for what the file has rounded.
        for answer, value in zip(answers, expected, strict=True):
            assert abs(answer.number - value) <= answer.tolerance / 2, where


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("right: true, ", "", "expected 1 right choice, got 0"),
        ("why: It is.", "right: true, why: It is.", "expected 1 right choice, got 2"),
        (", why: It is.", "", "expected a choice with text and why"),
        ("      - {text: Perhaps, why: One can know.}\n", "", "expected 3 or 4 choices, got 2"),
        ("why: One can know.", "why: ", "expected a sentence, got None"),
        ("    otherwise: Add them.\n", "", "expected ['ask', 'choices'] or"),
        ("0.25:", "1.01:", "expected mistakes apart from 1, got 1.01"),
        (GOOD, "first: 3\n", "expected a list of questions, got 3"),
        (GOOD, "- first\n", "expected sections with lists of questions"),
    ],
)
def test_a_file_that_cannot_be_asked_is_refused(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = tmp_path / "page.yml"
    path.write_text(GOOD, encoding="utf-8")
    assert len(extension().read_questions(path)) == 2
    assert GOOD.count(old) == 1
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(extension().QuizError, match=re.escape(expected)):
        extension().read_questions(path)


def test_the_questions_stand_at_the_end_of_their_sections(tmp_path: Path) -> None:
    """As a named group of choices, with a folded answer and formulas; a page without questions loads nothing."""
    done = build_page(
        tmp_path, {"index": PAGE, "other": "---\norphan: true\n---\n# Other\n"}, {"index": GOOD}
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    places = [page.index(text) for text in ("Prose.", "Is <span", '<section id="second"', "Still more.")]
    places += [page.index(text) for text in ("one half &amp; one half", '<section id="third"')]
    assert places == sorted(places)
    first, second = re.findall(r'<fieldset class="quiz">.*?</fieldset>', page, re.DOTALL)
    assert first.index("</legend>") < first.index("<input")
    assert first.count('type="radio"') == first.count("<label>") == first.count("<li ") == 3
    assert set(re.findall(r'name="([^"]+)"', first)) == {"quiz-first-1"}
    assert re.findall(r'data-choice="(\d)" data-right', first) == ["1"]
    assert r">\(x = 0\)</span>" in first
    assert "<em>small</em>" in first
    assert first.index("<details>") < first.index("Since ")
    assert 'data-number="1.0" data-tolerance="0.01" data-right' in second
    assert "quiz.js" in page
    # The page's only formulas are those of a question.
    assert "formulas.js" in page
    other = (tmp_path / "site" / "other.html").read_text(encoding="utf-8")
    assert "quiz.js" not in other
    assert "quiz.css" not in other


@pytest.mark.parametrize(
    ("quiz", "expected"),
    [
        (GOOD.replace("second:", "secnd:"), "expected a section of the page, got 'secnd'"),
        (GOOD.replace("right: true, ", ""), "index.yml, first, question 1: expected 1 right choice, got 0"),
    ],
)
def test_a_build_with_a_bad_file_fails(tmp_path: Path, quiz: str, expected: str) -> None:
    done = build_page(tmp_path, {"index": PAGE}, {"index": quiz})
    assert done.returncode != 0
    assert expected in done.stderr
