"""Erasing by hand on the live page: strokes, steps back, paintings in links, and who has deleted less."""

from __future__ import annotations

import base64
import random
from typing import Any

import numpy as np
import pytest
from live_javascript import run

CELLS = 28
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def text_of(painted: np.ndarray) -> str:
    """NumPy's bits in the standard library's letters."""
    return base64.urlsafe_b64encode(np.packbits(painted.flatten()).tobytes()).decode().rstrip("=")


def random_painting(seed: int, cells: int = CELLS) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (cells, cells), dtype=np.uint8)


def test_a_painting_goes_into_a_link_and_comes_out() -> None:
    paintings = [random_painting(seed) for seed in range(4)]
    paintings += [random_painting(4, 27), np.eye(CELLS, dtype=np.uint8), np.ones((CELLS, CELLS), np.uint8)]
    texts = run(*(("painting.js", "writePainting", [{"bytes": p.flatten().tolist()}]) for p in paintings))
    assert texts == list(map(text_of, paintings))
    assert {len(text) for text, p in zip(texts, paintings, strict=True) if len(p) == CELLS} == {131}
    read = run(*(("painting.js", "readPainting", [t, len(p)]) for t, p in zip(texts, paintings, strict=True)))
    assert all(np.array_equal(found, p.flatten()) for found, p in zip(read, paintings, strict=True))


def test_what_is_no_painting_is_none() -> None:
    good = text_of(random_painting(0))
    # 784 bits fill 131 letters but for two bits of the last one, which are 0.
    other_end = good[:-1] + ALPHABET[ALPHABET.index(good[-1]) + 1]
    empty = text_of(np.zeros((CELLS, CELLS), np.uint8))
    bad = ["", good[:-1], good + "A", good[:-1] + "=", "A" * 100_000, "ä" * 131, "<" * 131, " " * 131]
    bad += [other_end, empty, good.replace(good[5], "+"), good[:130] + "\n", "\x00" * 131]
    assert run(*(("painting.js", "readPainting", [text, CELLS]) for text in bad)) == [None] * len(bad)


@pytest.mark.parametrize("radius", [0.5, 1.5, 3])
def test_a_stroke_covers_what_its_brush_passes(radius: float) -> None:
    """Against a slow brush that goes in tiny steps; at both ends of the line, to the cell, and nothing outside."""
    rng = random.Random(0)
    lines = [[[rng.uniform(-2, 30) for _ in "xy"] for _ in range(2)] for _ in range(12)]
    results = run(*(("./adapters.mjs", "paintings", [CELLS, [["line", *line, radius, 1]]]) for line in lines))
    for (start, end), (result,) in zip(lines, results, strict=True):
        found = np.array(result["painted"]).reshape(CELLS, CELLS).astype(bool)
        columns, rows = np.meshgrid(np.arange(CELLS) + 0.5, np.arange(CELLS) + 0.5)
        near, under = np.zeros((CELLS, CELLS), bool), np.zeros((CELLS, CELLS), bool)
        for part in np.linspace(0, 1, 2001):
            x, y = (a + part * (b - a) for a, b in zip(start, end, strict=True))
            near |= np.hypot(columns - x, rows - y) <= radius
            under |= (columns - 0.5 <= x) & (x < columns + 0.5) & (rows - 0.5 <= y) & (y < rows + 0.5)
        assert not (found & ~near & ~under).any(), "nothing that the brush has not touched"
        # The page's steps are half a cell long: a cell whose center is only just touched in between may be left out.
        inner = np.zeros_like(near)
        for part in np.linspace(0, 1, 2001):
            x, y = (a + part * (b - a) for a, b in zip(start, end, strict=True))
            inner |= np.hypot(columns - x, rows - y) <= radius - 0.25
        assert not (inner & ~found).any(), "no gaps"


def test_steps_are_taken_back_and_again() -> None:
    """Against a list of states, with 300 operations drawn by seed."""
    rng = random.Random(1)
    operations: list[list[Any]] = []
    for _ in range(300):
        name = rng.choice(["line", "line", "undo", "undo", "redo", "clear"])
        places = [[rng.uniform(0, 9) for _ in "xy"] for _ in range(2)]
        operations.append([name, *places, 1, rng.choice([0, 1])] if name == "line" else [name])
    (results,) = run(("./adapters.mjs", "paintings", [9, operations]))
    past: list[list[int]] = []
    future: list[list[int]] = []
    now = [0] * 81
    for (name, *_), result in zip(operations, results, strict=True):
        found = list(result["painted"])
        if name in ("undo", "redo"):
            taken, given = (past, future) if name == "undo" else (future, past)
            if taken:
                given.append(now)
                now = taken.pop()
        elif found != now:  # what changes nothing is no step
            past.append(now)
            future.clear()
            now = [0] * 81 if name == "clear" else found
        assert found == now
        assert (result["canUndo"], result["canRedo"]) == (bool(past), bool(future))


@pytest.mark.parametrize(
    ("reader", "learned", "winner"),
    [
        ((0.05, 0.10), (0.01, 0.20), "reader"),
        ((0.05, 0.30), (0.01, 0.20), "mask"),
        ((0.08, 0.202), (0.01, 0.20), "draw"),
        ((0.50, 0.01), (0.01, 0.20), "unfinished"),
        ((0.081, 0.01), (0.01, 0.20), "unfinished"),
        ((0.05, 0.90), (0.30, 0.10), "reader"),
        ((0.50, 0.10), (0.30, 0.10), "neither"),
    ],
)
def test_who_deleted_less(reader: tuple[float, float], learned: tuple[float, float], winner: str) -> None:
    """The photograph's own score is 0.8: down is 0.08 and less."""
    deeds = [{"score": score, "area": area} for score, area in (reader, learned)]
    found, sentence = run(("duel.js", "winner", [*deeds, 0.8]), ("duel.js", "verdict", [*deeds, 0.8, 0.25]))
    assert found == winner
    starts = {
        "reader": "You deleted less: ",
        "mask": "The mask deleted less: ",
        "draw": "A draw: ",
        "unfinished": "Too much evidence is left: ",
        "neither": "Neither ",
    }
    assert sentence.startswith(starts[winner])


def test_shares_are_written_with_the_digits_that_mean_something() -> None:
    shares = [0, 0.0004, 0.0094, 0.0095, 0.049, 0.9951, 1]
    written = run(*(("duel.js", "percent", [share]) for share in shares))
    assert written == ["0 %", "0.0 %", "0.9 %", "1 %", "5 %", "100 %", "100 %"]
