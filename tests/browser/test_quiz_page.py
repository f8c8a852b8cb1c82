"""The quizzes in Chromium, on a page of their own with twenty questions drawn from all chapters."""

from __future__ import annotations

import functools
import http.server
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from built_site import Handler, Site
from quiz_page import QUIZZES, build_page, extension, shown

Questions = list[Any]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Questions]]:
    """Twenty questions by seed, each in a section of its own, and the page that asks them."""
    entries = [
        entry
        for path in sorted(QUIZZES.glob("*.yml"))
        for section in yaml.safe_load(path.read_text(encoding="utf-8")).values()
        for entry in section
    ]
    chosen = random.Random(20).sample(entries, 20)
    assert {"number", "choices"} <= {kind for entry in chosen for kind in entry}
    folder = tmp_path_factory.mktemp("quiz")
    page = "# Questions\n" + "".join(f"\n## Section {number}\n\nProse.\n" for number in range(20))
    quiz = yaml.safe_dump({f"section-{number}": [entry] for number, entry in enumerate(chosen)})
    done = build_page(folder, {"index": page}, {"index": quiz})
    assert done.returncode == 0, done.stderr
    served = functools.partial(Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), served)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    site = Site("quiz", folder / "site", address=f"http://127.0.0.1:{server.server_port}/site")
    yield site, [extension().question(entry) for entry in chosen]
    server.shutdown()
    server.server_close()
    thread.join()


def test_right_answers_are_accepted_and_wrong_ones_refused_with_their_reason(
    drawn: tuple[Site, Questions], open_page: Callable[..., Any]
) -> None:
    """Every answer of twenty questions, by clicks, under the page's policy and without a request to others."""
    site, questions = drawn
    tab, visit = open_page(site, "index.html")
    quizzes = tab.locator("fieldset.quiz")
    assert quizzes.count() == 20
    for number, question in enumerate(questions):
        quiz = quizzes.nth(number)
        verdict = quiz.locator(".quiz-verdict")
        assert quiz.locator("legend").inner_text().endswith(shown(question.ask))
        # The right one last, as it unfolds the reasons.
        for position, answer in sorted(enumerate(question.answers), key=lambda entry: entry[1].right):
            if question.of_number:
                other = 1000 + 7 * sum(abs(known.number or 0) for known in question.answers)
                written = other if answer.number is None else answer.number + 0.9 * answer.tolerance
                quiz.locator("input").fill(f"{written:.9f}")
            else:
                quiz.locator("input").nth(position).check()
            assert verdict.get_attribute("data-result") is None, "not checked yet"
            assert not quiz.evaluate("(quiz) => quiz.querySelector('details').open")
            quiz.locator("button").click()
            assert verdict.get_attribute("data-result") == ("right" if answer.right else "wrong")
            said = verdict.inner_text()
            assert said == f"{'Right.' if answer.right else 'Not this.'} {shown(answer.why)}"
        assert quiz.evaluate("(quiz) => quiz.querySelector('details').open")
        assert quiz.locator("li").count() == len(question.answers)
    assert not visit.errors
    assert not visit.outside
    assert not visit.failed
    assert not tab.evaluate("Object.keys(localStorage).filter((name) => name.includes('quiz')).length")
    tab.reload()
    assert tab.locator("fieldset.quiz input:checked").count() == 0
    assert tab.locator(".quiz-verdict[data-result]").count() == 0
    tab.context.close()


def test_a_quiz_is_answered_by_keyboard(drawn: tuple[Site, Questions], open_page: Callable[..., Any]) -> None:
    site, questions = drawn
    tab, _ = open_page(site, "index.html", width=360, height=740)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    number = next(number for number, question in enumerate(questions) if not question.of_number)
    quiz = tab.locator("fieldset.quiz").nth(number)
    quiz.locator("button").click()
    assert quiz.locator(".quiz-verdict").inner_text() == "Choose an answer first."
    quiz.locator("input").first.focus()
    tab.keyboard.press("Space")
    for _ in range([answer.right for answer in questions[number].answers].index(True)):
        tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert quiz.locator(".quiz-verdict").inner_text().startswith("Right.")
    number = next(number for number, question in enumerate(questions) if question.of_number)
    quiz = tab.locator("fieldset.quiz").nth(number)
    right = questions[number].answers[0].number
    quiz.locator("input").focus()
    for written, begins in (
        ("two", "Write a number"),
        ("", "Write a number"),
        (f"{2 * right:.9g}/2", "Right."),
    ):
        quiz.locator("input").fill(written)
        tab.keyboard.press("Enter")
        assert quiz.locator(".quiz-verdict").inner_text().startswith(begins), written
    tab.context.close()


def test_numbers_are_read_as_people_write_them(
    drawn: tuple[Site, Questions], open_page: Callable[..., Any]
) -> None:
    site, questions = drawn
    tab, _ = open_page(site, "index.html")
    number = next(number for number, question in enumerate(questions) if question.of_number)
    quiz = tab.locator("fieldset.quiz").nth(number)
    read = {
        "0,5": 0.5,
        "−3": -3,
        " 1/8 ": 0.125,
        "3,842": 3842,
        "1,234.5": 1234.5,
        "0,125": 0.125,
        "1e-3": 0.001,
    }
    for written, value in read.items():
        quiz.evaluate(
            "(quiz, value) => (quiz.querySelector('[data-right]').dataset.number = value)", str(value)
        )
        quiz.locator("input").fill(written)
        quiz.locator("button").click()
        assert quiz.locator(".quiz-verdict").get_attribute("data-result") == "right", written
    for text in ("1/2/3", "1/", "1/0", "0.5 px", "Infinity"):
        quiz.locator("input").fill(text)
        quiz.locator("button").click()
        assert quiz.locator(".quiz-verdict").inner_text().startswith("Write a number"), text
    tab.context.close()


def test_without_scripts_an_answer_unfolds_and_on_paper_only_questions_stand(
    drawn: tuple[Site, Questions], browser: Any
) -> None:
    site, questions = drawn
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(f"{site.address}/index.html")
    quiz = tab.locator("fieldset.quiz").first
    assert quiz.locator("button").is_hidden()
    assert quiz.locator("li").first.is_hidden()
    quiz.locator("summary").click()
    right = next(answer for answer in questions[0].answers if answer.right)
    assert shown(right.why) in quiz.locator("li[data-right]").inner_text()
    tab.emulate_media(media="print")
    assert quiz.locator("legend").is_visible()
    assert quiz.locator("input").first.is_visible()
    assert quiz.locator("li").first.is_hidden()
    assert quiz.locator("summary").is_hidden()
    context.close()
