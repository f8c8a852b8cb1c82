"""Before a run: how much it will be. After it: its figures to look at."""

from __future__ import annotations

import html
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_cases import tiny_network, write_coco

pytest.importorskip("pyarrow", reason="needs the extra benchmarks")

import perturb_tutorial as pt
from perturb_tutorial.benchmarks import BenchmarkError, BenchmarkSettings, run_benchmark
from perturb_tutorial.benchmarks import estimate as module
from perturb_tutorial.benchmarks.estimate import Estimate, estimate
from perturb_tutorial.benchmarks.report import NAME, report, write_report

BOXES = [(1, (5.0, 5.0, 30.0, 30.0)), (3, (40.0, 20.0, 30.0, 30.0))]


def settings(**changes: Any) -> BenchmarkSettings:
    mask = pt.MaskSettings(iterations=30, initialization="random")
    return BenchmarkSettings(**{"methods": ("gradient", "mask"), "mask": mask, "batch_size": 4, **changes})


def test_an_estimate_counts_what_the_run_then_has(tmp_path: Path) -> None:
    data, network = write_coco(tmp_path / "data", 6, BOXES), tiny_network()
    before = sorted(os.listdir(tmp_path))
    expected = estimate("pointing-game", data, network, settings())
    assert sorted(os.listdir(tmp_path)) == before, "nothing is written"
    outcome = run_benchmark("pointing-game", data, network, tmp_path / "run", settings())
    assert expected.records == outcome.summary["records"]["planned"] == 36
    assert (expected.images, expected.questions, expected.at_most) == (6, 12, False)
    assert set(expected.seconds) == {"center", "gradient", "mask"}
    real = sum(path.stat().st_size for path in (tmp_path / "run" / "records.parquet").iterdir())
    assert 0.5 * real < expected.disc < 2 * real  # parts differ by what compresses


def test_a_mask_of_many_iterations_is_timed_by_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes 1 s for every iteration and 2 s for everything else."""
    data, network = write_coco(tmp_path, 6, BOXES), tiny_network()
    made: list[int] = []

    def timed(
        benchmark: Any, questions: Any, network: Any, settings: Any, method: str, iterations: int
    ) -> Any:
        made.append(iterations)
        rows = real(benchmark, questions, network, settings, method, 1)[1]
        return 2.0 + (iterations if method == "mask" else 0), rows

    real = module._timed
    monkeypatch.setattr(module, "_timed", timed)
    long = settings(mask=pt.MaskSettings(iterations=300, initialization="random"))
    found = estimate("pointing-game", data, network, long)
    assert found.seconds["mask"] == pytest.approx((2 + 300) / 4)  # of one of four questions
    assert found.seconds["gradient"] == pytest.approx(2 / 4)
    assert found.total == pytest.approx(12 * (302 + 2 + 2) / 4)  # the center is the third method
    assert max(made) <= 15


def test_a_benchmark_in_two_steps_says_at_most(tmp_path: Path) -> None:
    data, network = write_coco(tmp_path, 4, BOXES), tiny_network()
    two_steps = [name for name in ("localization", "faithfulness", "animal-parts") if step(name)]
    for name in two_steps:
        if name == "animal-parts":
            continue  # needs its own data
        found = estimate(name, data, network, settings(methods=("gradient",)))
        assert found.at_most
        assert "at most" in found.lines()[0]


def step(name: str) -> object:
    from perturb_tutorial.benchmarks import find_benchmark

    return find_benchmark(name).first_step()


def test_data_without_a_readable_image_are_refused(tmp_path: Path) -> None:
    data = write_coco(tmp_path, 2, BOXES)
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="data: none of the first 4 images can be used"):
        estimate("pointing-game", data, tiny_network(), settings(methods=("gradient",)))


def test_an_estimate_is_said_in_words() -> None:
    said = Estimate(6, 12, 24, {"mask": 1.234, "gradient": 0.01}, 15.0, 52_000, True).lines()
    assert said == [
        "12 questions about 6 images, at most 24 records",
        "mask: 1.2 s a record",
        "gradient: 0.01 s a record",
        "expected time on this machine: at most 15 s; disc: at most 52 kB",
    ]


class Parsed(HTMLParser):
    """Tags that are open at the end, attributes that load something, and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [str(value) for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "rect", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def summary(tmp_path: Path) -> dict[str, Any]:
    data = write_coco(tmp_path / "data", 6, BOXES)
    return run_benchmark("pointing-game", data, tiny_network(), tmp_path / "run", settings()).summary


def test_the_report_has_every_figure_of_the_summary(summary: dict[str, Any], tmp_path: Path) -> None:
    path = write_report(tmp_path / "run", summary)
    page = Parsed(path.read_text(encoding="utf-8"))
    assert page.open == []
    assert page.loads == []
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    for figure in summary["figures"] + summary["differences"]:
        shown = "–" if figure["estimate"] is None else f"{figure['estimate']:.4f}"
        assert figure["name"] in page.text
        assert shown in page.text
        assert figure["method"] in page.text
    assert "36 records of 6 images" in page.text


def test_bars_begin_at_zero_and_end_at_the_estimate(summary: dict[str, Any]) -> None:
    row = {"name": "x", "method": "a", "rows": 3, "images": 3}
    rows = [
        {**row, "estimate": 0.5, "low": 0.25, "high": 1.0},
        {**row, "method": "b", "estimate": -1.0, "low": None, "high": None, "reason": "few images"},
        {**row, "method": "c", "estimate": None, "low": None, "high": None, "reason": "no row"},
    ]
    text = report({**summary, "figures": rows, "differences": []})
    bars = [
        tuple(map(float, found)) for found in re.findall(r'<rect x="([\d.]+)" y="3" width="([\d.]+)"', text)
    ]
    np.testing.assert_allclose(bars, [(160, 80), (0, 160)], atol=0.1)  # 320 px from −1 to 1
    (line,) = re.findall(r'<line x1="([\d.]+)" x2="([\d.]+)"', text)
    np.testing.assert_allclose(np.array(line, dtype=float), (200, 320), atol=0.1)
    assert "few images" in text
    assert "no row" in text


def test_names_from_outside_are_text(summary: dict[str, Any]) -> None:
    attack = "<script>alert(1)</script>\x1b[2J\u202e"
    records = {**summary["records"], "problems": [attack]}
    text = report({**summary, "network": attack, "records": records})
    assert "<script" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert html.escape("<script>alert(1)</script>") in text


def test_a_report_of_somebody_else_is_left_alone(summary: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_report(run, summary)
    write_report(run, summary)  # its own is replaced
    (run / NAME).write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match=r"output: .*summary\.html is not of this program and is left alone"):
        write_report(run, summary)
    assert (run / NAME).read_text(encoding="utf-8") == "mine"
    with pytest.raises(BenchmarkError, match=r"summary\.html cannot be written"):
        write_report(tmp_path / "nowhere", summary)
