"""Text and whole numbers from outside."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pytest
import torch

import perturb_tutorial as pt
from perturb_tutorial._outside import check_whole, printable, printable_errors, whole_number


def test_what_nobody_sees_is_written_out() -> None:
    assert printable("a\x1b]0;t\x07\r\nb\x9b\x7f") == r"a\x1b]0;t\x07\r\nb\x9b\x7f"
    assert (
        printable("photo\u202egpj.exe\u200b\ufeff\u2028\u3164")
        == r"photo\u202egpj.exe\u200b\ufeff\u2028\u3164"
    )
    assert printable("caf\udce9.png") == r"caf\udce9.png"
    assert printable("\U000e0041\ufe0f") == r"\U000e0041\ufe0f"


def test_what_people_write_stays() -> None:
    # Spaces of other scripts and of a Mac's screenshots, accents in both forms, right to left, emoji, back slashes.
    for text in ("a b", "10.00\u202fPM", "全角\u3000空白", "e\u0301é", "תמונה", "😀", r"C:\x1b", "#%&'\"$"):
        assert printable(text) == text


@pytest.mark.parametrize("block", range(0, 0x110000, 0x11000))
def test_every_character_is_as_its_category_says(block: int) -> None:
    for character in map(chr, range(block, block + 0x11000)):
        shown = printable(character)
        assert printable(shown) == shown
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            assert shown.startswith("\\")
        elif shown != character:  # unassigned, private, or blank
            assert unicodedata.category(character) in ("Cn", "Co", "Mn", "Lo", "So")


def test_errors_of_what_reads_names_are_printable_and_keep_their_kind() -> None:
    @printable_errors
    def read(error: Exception) -> None:
        raise error

    for kind in (ValueError, ImportError, pt.WeightsUnavailable):
        with pytest.raises(kind) as refusal:
            read(kind("a\x1b\n"))
        assert str(refusal.value) == r"a\x1b\n"
    fault = RuntimeError("a\x1b\n")  # of another program, whose text is left alone
    with pytest.raises(RuntimeError, match="a\x1b\n"):
        read(fault)


def test_a_list_of_bad_images_is_one_printable_line_each() -> None:
    with pytest.raises(pt.ImageErrors) as refusal:
        pt.load_images(["no\x1b[2J.png", "nor\nthis.png"])
    assert str(refusal.value).splitlines() == [
        r"no\x1b[2J.png: no such file; check the path", r"nor\nthis.png: no such file; check the path"
    ]  # fmt: skip


WHOLE = [3, np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)]
NOT_WHOLE = [
    3.0,
    np.float64(3),
    True,
    np.bool_(True),
    torch.tensor(True),
    "3",
    None,
    [3],
    torch.tensor(3.0),
    0,
    -3,
]


@pytest.mark.parametrize("value", WHOLE, ids=lambda value: type(value).__name__)
def test_a_whole_number_of_any_program_is_an_int(value: Any) -> None:
    assert type(whole_number(value)) is int
    assert check_whole("k", value, 1, 3) == 3


@pytest.mark.parametrize("value", NOT_WHOLE, ids=repr)
def test_what_is_no_whole_number_is_refused_wherever_one_is_taken(
    value: Any, tiny: pt.Network, tmp_path: Any
) -> None:
    from perturb_tutorial import metrics
    from perturb_tutorial.benchmarks.settings import BenchmarkSettings
    from perturb_tutorial.datasets.records import first_images
    from perturb_tutorial.plotting import panels

    images, quick = torch.rand(1, 3, 32, 32), pt.MaskSettings(iterations=1)
    calls: dict[str, list[Any]] = {
        "k": [lambda: pt.top_classes(tiny, images, k=value)],
        "limit": [lambda: first_images([], value)],
        "steps": [lambda: metrics.deletion_masks(np.ones((4, 4)), value)],
        "cells": [lambda: metrics.cell_shares(np.ones((4, 4)), value)],
        "count": [lambda: metrics.held_out(value)],
        "window": [lambda: metrics.window_means(np.ones((4, 4)), [(1, 1)], value)],
        "resamples": [lambda: metrics.bootstrap([1.0], [1], resamples=value)],
    }
    if value is not None:  # which is the usual number
        calls["columns"] = [lambda: panels([np.ones((2, 2), np.float32)], columns=value)]
        calls["batch_size"] = [
            lambda: pt.learn_masks(tiny, images, 0, quick, batch_size=value),
            lambda: pt.saliency(tiny, images, 0, method="gradient", batch_size=value),
            lambda: BenchmarkSettings(batch_size=value),
        ]
    for name, functions in calls.items():
        for function in functions:
            with pytest.raises(ValueError, match=f"^{name}: expected a whole number") as refusal:
                function()
            assert "\n" not in str(refusal.value)


def test_a_batch_size_of_numpy_is_one(tiny: pt.Network) -> None:
    images, quick = torch.rand(3, 3, 32, 32), pt.MaskSettings(iterations=1)
    assert len(pt.learn_masks(tiny, images, 0, quick, batch_size=np.int64(2))) == 3  # type: ignore[arg-type]
