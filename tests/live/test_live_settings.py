"""Settings, links and files of the live page, and that its modules are typed and formatted."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from live_javascript import HERE, PAGE, ROOT, node, run

import perturb_tutorial as pt
from perturb_tutorial.settings import PRESETS

FRONT = ROOT / "book" / "front"
EXTENSIONS = ROOT / "book" / "_ext"
VENDORED = ROOT / "tests" / "browser" / "_vendor"


@pytest.fixture(scope="module")
def tools() -> None:
    """TypeScript and Prettier, pinned as the site's own scripts are."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "vendor.py"), "--tests"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"TypeScript and Prettier could not be fetched: {done.stderr.strip()}")


def test_the_modules_are_typed(tools: None) -> None:
    for folder in (PAGE, FRONT, EXTENSIONS):
        command = [node(), str(VENDORED / "typescript" / "tsc.js"), "-p", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_modules_are_formatted(tools: None) -> None:
    pages = [
        path for folder in (PAGE, FRONT) for ending in ("js", "css") for path in folder.glob(f"*.{ending}")
    ]
    pages += (EXTENSIONS / "static").glob("quiz.*")
    files = sorted([*pages, *HERE.glob("*.mjs")])
    assert not [
        path.name
        for path in pages
        if path.suffix == ".js" and len(path.read_text("utf-8").splitlines()) > 320
    ]
    done = subprocess.run(
        [node(), str(HERE / "formatted.mjs"), *map(str, files)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def site() -> dict[str, Any]:
    presets = {
        name: {"settings": preset.settings.to_dict(), "target_count": preset.target_count}
        for name, preset in PRESETS.items()
    }
    return {"presets": presets, "samples": [{"name": "chelsea"}], "constants": {"input_size": 224}}


def link(site: dict[str, Any], text: str) -> dict[str, Any]:
    (choice,) = run(("settings.js", "readLink", [text, site, 1000]))
    return dict(choice)


def test_a_link_restores_every_choice(site: dict[str, Any]) -> None:
    settings = pt.MaskSettings(
        game="preservation", area_weight=3e-4, tv_weight=0.0, tv_exponent=2.5, jitter=8, iterations=75
    ).to_dict()
    choice = {"sample": "chelsea", "fit": "center", "targets": [285, 7], "seed": 12, "settings": settings}
    choice |= {"mode": "erase", "painting": "AAAA" * 32 + "A_w"}
    (text,) = run(("settings.js", "writeLink", [choice]))
    assert link(site, text) == choice


def test_a_painting_stays_with_its_photograph(site: dict[str, Any]) -> None:
    """A photograph of the reader's is not in the link, so its painting is not either."""
    painting = "AAAA" * 32 + "A_w"
    assert link(site, f"sample=chelsea&painting={painting}")["painting"] == painting
    assert link(site, f"sample=nobody&painting={painting}")["painting"] is None
    assert link(site, f"sample=chelsea&painting={painting}&painting=AAAA")["painting"] is None
    assert link(site, "sample=chelsea&painting=" + "_" * 10_000)["painting"] is None
    own = {**link(site, ""), "sample": None, "painting": painting}
    (text,) = run(("settings.js", "writeLink", [own]))
    assert "painting" not in text


def test_a_link_to_settings_shows_their_run(site: dict[str, Any]) -> None:
    texts = ["", "sample=chelsea", "seed=3", "game=deletion", "jitter=2", "mode=erase&seed=3", "mode=learn"]
    modes = [link(site, text)["mode"] for text in [*texts, "mode=play", "mode=learn&mode=erase"]]
    assert modes == ["erase", "erase", "learn", "learn", "learn", "erase", "learn", "erase", "erase"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sample=nobody&fit=stretch&game=chess&target=1000&seed=-1&iterations=0&jitter=1.5&area_weight=abc",
        "target=1.x&seed=4294967296&tv_exponent=0&tv_weight=1e9&iterations=100000000",
        "area_weight=&tv_weight=%20&target=&seed=&jitter=&iterations=&sample=&fit=&game=",
        "area_weight=1e-3&area_weight=1e-2&seed=1&seed=2&target=1&target=2&game=preservation&game=deletion",
        "sample=chelsea&sample=coffee&fit=center&fit=squash&jitter=0x8&iterations=0b1100100&seed=1_0&target=0x1",
        "target=" + ".".join(map(str, range(1000))),
    ],
)
def test_a_wrong_link_is_a_first_visit(site: dict[str, Any], text: str) -> None:
    default = {**pt.MaskSettings().to_dict(), "iterations": 150}
    first = {
        "sample": None,
        "fit": "squash",
        "targets": None,
        "seed": 0,
        "settings": default,
        "painting": None,
    }
    found = link(site, text)
    assert found.pop("mode") in ("erase", "learn")
    assert found == first


def test_what_a_link_repeats_counts_once(site: dict[str, Any]) -> None:
    choice = link(site, "target=" + ".".join(["285"] * 5000) + ".7.285..&seed=3&seed=3&area_weight=0.001")
    assert (choice["targets"], choice["seed"], choice["settings"]["area_weight"]) == ([285, 7], 3, 1e-3)


def test_settings_are_known_by_their_preset(site: dict[str, Any]) -> None:
    of = [pt.MaskSettings.preset(name).to_dict() for name in PRESETS]
    other = pt.MaskSettings(area_weight=0.5).to_dict()
    played = pt.MaskSettings.preset("localization").replace(game="preservation", iterations=10).to_dict()
    names = run(*(("settings.js", "presetOf", [site, settings]) for settings in (*of, other, played)))
    assert names == [*PRESETS, "", "localization"]


def test_downloaded_settings_are_the_packages(site: dict[str, Any], tmp_path: Any) -> None:
    (settings,) = run(("settings.js", "presetSettings", [site, "localization"]))
    file = tmp_path / "mask-settings.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    assert pt.MaskSettings.from_file(file) == pt.MaskSettings.preset("localization").replace(iterations=150)


def test_numpy_reads_the_array() -> None:
    values = np.random.default_rng(0).random((5, 3), dtype=np.float32)
    (data,) = run(("files.js", "npy", [{"f32": values.flatten().tolist()}, [5, 3]]))
    found = np.load(io.BytesIO(bytes(data)))
    assert found.dtype == np.float32
    assert np.array_equal(found, values)
