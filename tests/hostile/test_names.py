"""Names that people and their enemies give: of files, categories, keys and options, drawn by seed.

Nothing that a terminal would obey or nobody sees may reach it, every refusal is one line that names its thing, and what
is good among the bad is done.
"""

from __future__ import annotations

import json
import os
import random
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial import cli, networks
from perturb_tutorial._outside import printable
from perturb_tutorial.datasets import read_animal_parts
from perturb_tutorial.files import unique_stems

NAMES, OPTION_SETS = 210, 130

CONTROL = [chr(code) for code in (*range(1, 32), *range(127, 160))]
BIDI = list("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
UNSEEN = list(
    "\u00ad\u034f\u115f\u180e\u200b\u200d\u2028\u2029\u2060\u2800\u3164\ufe0f\ufeff\uffa0\U000e0001"
)
BYTES = [chr(0xDC00 + byte) for byte in range(0x80, 0x100)]  # of a file's name that is no UTF-8
RESERVED = [
    "CON", "nul", "Aux", "com1", "LPT9", "CON.tar", "prn ", "NUL.", "a.", "b ", " ", ". .", "-", "--help", "~", "$HOME",
]  # fmt: skip
PATTERNS = [
    "**", "*", "[a-z]", "[!", "{a,b}", "?", "ILSVRC2012_val_**", "n*[", "%s%n", "{0}", "\\", "'", '"', "`id`", "$(id)",
]  # fmt: skip
ATTACKS = [
    "\x1b]0;title\x07", "\x1b[2J\x1b[H", "\x9b31m", "a\nerror: forged", "a\r\x1b[Kdone", "photo\u202egpj.exe", "\x1bc",
]  # fmt: skip


def names(seed: int, count: int) -> list[str]:
    """Different names of at most 255 bytes, each a file's on Linux."""
    rng = random.Random(seed)
    letters = "abcXYZ019 ._-é漢😀ß"
    found: dict[str, None] = dict.fromkeys([*RESERVED, *PATTERNS, *ATTACKS])
    while len(found) < count:
        parts = rng.choices(letters, k=rng.randint(0, 8))
        for _ in range(rng.randint(1, 3)):
            kind = rng.choice([CONTROL, BIDI, UNSEEN, BYTES, ATTACKS, PATTERNS])
            parts.insert(rng.randint(0, len(parts)), rng.choice(kind))
        name = "".join(parts)
        if rng.random() < 0.15:  # as long as a file system takes
            name += rng.choice("aé漢") * 255
        found[cut(name, 255)] = None
    return list(found)


def cut(name: str, most: int) -> str:
    """The name in at most that many bytes, as Linux gives it back."""
    while len(name.encode("utf-8", "surrogateescape")) > most:
        name = name[:-1]
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def raw(text: str) -> set[str]:
    """What must not reach a terminal, by the characters' categories in Unicode; the lines' own ends may."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") or c in UNSEEN} - {
        "\n"
    }


class Colors(nn.Module):
    """Logits of as many classes from the mean color."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, classes)
        with torch.no_grad():
            self.head.weight.copy_(torch.linspace(-1, 1, classes * 3).view(classes, 3).sin())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.relu().mean((2, 3)))


def network(categories: list[str] | None = None) -> pt.Network:
    return pt.Network(
        Colors(len(categories or range(1000))), input_size=32, categories=categories, device="cpu"
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The commands with a small network in place of the default one, and without the drawing of pictures."""
    real, small = networks.load_network, network()

    def load(name: str, **options: Any) -> pt.Network:
        default = name == "efficientnet_lite0" and options.get("weights") is None
        return small if default else real(name, **options)

    monkeypatch.setattr(networks, "load_network", load)
    monkeypatch.setattr("perturb_tutorial.explain.explanation", lambda *_, **__: Figure(figsize=(0.2, 0.2)))
    return


Run = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], quick: None) -> Run:
    """Exit status and the lines on stdout and stderr of a command, in which nothing is raw."""

    def call(*arguments: object) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        status = cli.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert raw(captured.out + captured.err) == set(), arguments
        assert status in (0, 2), arguments
        return status, captured.out.splitlines(), captured.err.splitlines()

    return call


def picture(path: Path) -> None:
    content = Image.new("RGB", (12, 12), "red")
    with open(os.fsencode(path), "wb") as file:
        content.save(file, format="PNG")


linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")


@linux
def test_files_of_any_name_are_explained_or_refused_in_a_line(tmp_path: Path, run: Run) -> None:
    given = [name for name in names(0, NAMES) if name.strip("./")]
    good = [name for place, name in enumerate(given) if place % 3]
    (tmp_path / "in").mkdir()
    for name in given:
        if name in good:
            picture(tmp_path / "in" / name)
        else:
            (tmp_path / "in" / name).write_bytes(b"no picture")
    paths = [str(tmp_path / "in" / name) for name in given]
    out = tmp_path / "out"
    status, done, refused = run("explain", "--method", "gradient", "--output", out, "--", *paths)
    assert (status, len(done)) == (2, len(good))
    bad = [path for path in paths if Path(path).name not in good]
    assert len(refused) == len(bad)
    for path in bad:
        assert f"error: {printable(path)}: is not an image" in "\n".join(refused)
    entries = json.loads((out / "results.json").read_text(encoding="utf-8"))["entries"]
    assert [entry["image"] for entry in entries] == [path for path in paths if path not in bad]
    written = sorted(os.listdir(out))
    assert len({name.casefold() for name in written}) == 2 * len(good) + 2
    for name in written:
        assert not [c for c in name if unicodedata.category(c) == "Cc"]
        assert name.split(".")[0].rstrip().upper() not in ("CON", "NUL", "AUX", "PRN", "COM1", "LPT9")


def test_stems_fit_every_file_system() -> None:
    composed, apart = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
    assert unique_stems([f"{composed}.png", f"{apart}.png"]) == [composed, f"{apart}_2"]  # one file on macOS
    assert unique_stems(["a/CON.png", "con.jpg", "COM5.x.png", "console.png"]) == [
        "_CON",
        "_con_2",
        "_COM5.x",
        "console",
    ]
    long = unique_stems(["漢" * 90 + ".png"] * 3)
    assert len(set(long)) == 3
    assert all(len(f"{stem}.npy".encode()) <= 255 for stem in long)
    assert unique_stems(["a\x1b\n.png", "a__.png"]) == ["a__", "a___2"]


def test_keys_of_settings_are_refused_in_a_line(tmp_path: Path) -> None:
    for place, name in enumerate(names(1, NAMES)):
        file = tmp_path / "settings.json"
        file.write_text(json.dumps({name: 1} if place % 2 else {"game": name}), encoding="utf-8")
        with pytest.raises(ValueError, match=r"settings|game") as refusal:
            pt.MaskSettings.from_file(file)
        assert raw(str(refusal.value)) == set()
        assert len(str(refusal.value).splitlines()) == 1


def test_categories_of_any_name_are_found_and_listed(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = names(2, NAMES)
    small = network(given)
    monkeypatch.setattr(networks, "load_network", lambda *_, **__: small)
    assert [small.class_index(name) for name in given if given.count(name.strip()) < 2 and name.strip()]
    picture(tmp_path / "a.png")
    for place in range(0, NAMES, 15):
        monkeypatch.setattr(small.labels, "names", [(given[place],), *small.labels.names[1:]])
        line = [
            "explain",
            tmp_path / "a.png",
            "--method",
            "gradient",
            "--target",
            "0",
            "--output",
            tmp_path / "out",
        ]
        status, done, refused = run(*line)
        assert (status, len(done), refused) == (0, 1, [])
    for text in given[::3]:
        with pytest.raises(ValueError, match="class") as refusal:
            small.class_index(f"none such {text}")
        assert raw(str(refusal.value)) == set()


def coco(folder: Path, files: list[str]) -> None:
    """COCO's layout: an image of a cat for each file's name."""
    box = {"bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0, "segmentation": [[1, 1, 10, 1, 10, 10, 1, 10]]}
    content: dict[str, Any] = {"categories": [{"id": 17, "name": "cat"}, {"id": 999, "name": "\x1b[31mred"}]}
    content["images"] = [
        {"id": key, "file_name": name, "height": 12, "width": 12} for key, name in enumerate(files)
    ]
    content["annotations"] = [
        {"id": key, "image_id": key, "category_id": 17, **box} for key in range(len(files))
    ]
    (folder / "annotations").mkdir(parents=True)
    (folder / "val").mkdir()
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(content), encoding="utf-8")


@linux
def test_annotations_of_any_file_name_leave_the_others(tmp_path: Path, run: Run) -> None:
    pytest.importorskip("pycocotools", reason="COCO needs the extra coco")
    files = [*names(3, NAMES), "x" * 300, "../out.png", "/etc/passwd", ""]
    coco(tmp_path, files)
    kept = {0, 5, NAMES - 1}
    for key in kept:
        picture(tmp_path / "val" / files[key])
    line = [
        "benchmark",
        "pointing-game",
        "--data",
        tmp_path,
        "--methods",
        "center",
        "--output",
        tmp_path / "out",
    ]
    status, _, told = run(*line)
    assert status == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["figures"][0]["images"] == len(kept)
    assert summary["records"]["bad_images"] >= NAMES - len(kept)
    for key in kept:
        (tmp_path / "val" / files[key]).write_bytes(b"no picture")
    status, _, told = run(*line[:-1], tmp_path / "all bad")
    assert status == 2  # nothing could be measured
    assert f"{len(files) - 2} bad images" in "\n".join(told)


def test_an_index_that_no_class_has_leaves_out_its_image(tmp_path: Path) -> None:
    from perturb_tutorial.datasets import read_coco_json

    indices = [-1, 1000, 10**400, True, "5", 1.5, [], 7]
    coco(tmp_path, [f"{place}.png" for place in range(len(indices))])
    file = tmp_path / "annotations" / "instances_val.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    for image, index in zip(content["images"], indices, strict=True):
        image["imagenet_index"] = index
    file.write_text(json.dumps(content), encoding="utf-8")
    data = read_coco_json(file, tmp_path / "val")
    assert [image.label for image in data.images] == [7]
    assert sum("expected imagenet_index from 0 to 999" in line for line in data.problems) == len(indices) - 1


@linux
def test_xml_files_of_any_name_leave_the_others(tmp_path: Path, run: Run) -> None:
    given = [name for name in names(4, NAMES) if name.strip("./")]
    given = [cut(f"ILSVRC2012_val_{name}" if place % 2 else name, 251) for place, name in enumerate(given)]
    for part in ("eye", "foot"):
        (tmp_path / "xml" / part).mkdir(parents=True)
        for name in given:
            (tmp_path / "xml" / part / f"{name}.xml").write_bytes(b"<broken")
        point = f"<point><class>{part}</class><x>5</x><y>5</y></point>"
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        text = f"<a><object><name>n02123045</name>{box}{point}</object></a>"
        (tmp_path / "xml" / part / "n02123045_1.xml").write_text(text)
    (tmp_path / "val" / "n02123045").mkdir(parents=True)
    picture(tmp_path / "n02123045_1.png")
    data = read_animal_parts(tmp_path)
    assert len(data.images) == len(set(given)) + 1
    assert [image.id for image in data.images if image.problem is None] == ["n02123045_1"]
    assert not any(raw(image.problem or "") for image in data.images)
    for part in ("eye", "foot"):
        (tmp_path / "xml" / part / "n02123045_1.xml").write_bytes(b"<broken")
    status, _, refused = run("benchmark", "animal-parts", "--data", tmp_path, "--output", tmp_path / "out")
    assert (status, len(refused)) == (2, 1)
    assert "the XML file cannot be read" in refused[0].partition(";")[0]


def test_broken_boxes_are_blamed_for_what_they_are(tmp_path: Path, run: Run) -> None:
    (tmp_path / "val" / "n02123045").mkdir(parents=True)
    (tmp_path / "bbox" / "val").mkdir(parents=True)
    for number in range(3):
        picture(tmp_path / "val" / "n02123045" / f"ILSVRC2012_val_{number}.png")
        (tmp_path / "bbox" / "val" / f"ILSVRC2012_val_{number}.xml").write_bytes(b"<broken")
    line = [
        "benchmark",
        "localization",
        "--data",
        tmp_path,
        "--methods",
        "gradient",
        "--output",
        tmp_path / "out",
    ]
    status, _, refused = run(*line)
    assert (status, len(refused)) == (2, 1)
    assert "the XML file cannot be read" in refused[0].partition(";")[0]
    assert "(and 2 more)" in refused[0]


VALUES = [
    "", " ", "0", "-1", "1.5", "nan", "1e999", "True", str(2**70), "9" * 5000, "٣", "a" * 300, "a,,b", ",", "..", "/",
    "/dev/null", "CON", "NUL.", "\udcff\udcfe", *ATTACKS, *PATTERNS[:6], "--", "-x", "photo.png",
]  # fmt: skip
OPTIONS = {
    "explain": ["--sample", "--network", "--weights", "--target", "--game", "--method", "--layer", "--preset",
                "--settings", "--seed", "--device", "--mask-engine", "--output", ""],
    "gallery": ["--target", "--preset", "--network", "--weights", "--seed", "--device", "--output", ""],
    "pointing-game": ["--data", "--split", "--methods", "--network", "--weights", "--preset", "--settings", "--game",
                      "--mask-engine", "--seed", "--device", "--limit", "--batch-size", "--engine", "--output",
                      "--cores-per-worker", "--per-class", ""],
    "localization": ["--held-out-share", "--limit", "--seed", "--methods"],
    "grid-pointing-game": ["--cells", "--mosaics", "--limit"],
    "animal-parts": ["--images", "--minimum-images", "--data"],
    "faithfulness": ["--steps", "--batch-size"],
}  # fmt: skip
WHOLE = {
    "explain": ["photo.png", "--method", "gradient", "--output", "out"],
    "gallery": ["photos", "--target", "7", "--preset", "default", "--output", "sheet.png"],
    "pointing-game": ["--data", "data", "--methods", "center", "--output", "out"],
    "localization": ["--data", "data", "--methods", "whole_image", "--output", "out"],
    "grid-pointing-game": ["--data", "data", "--methods", "gradient", "--output", "out"],
    "animal-parts": ["--data", "data", "--methods", "gradient", "--output", "out"],
    "faithfulness": ["--data", "data", "--methods", "gradient", "--steps", "1", "--output", "out"],
}


def option_sets(seed: int, count: int) -> Iterator[tuple[str, list[str]]]:
    """A command's name and its arguments, of which one option has a strange value."""
    rng = random.Random(seed)
    pairs = [(command, option) for command, options in OPTIONS.items() for option in options]
    for number in range(count):
        command, option = pairs[number % len(pairs)]
        value = rng.choice(VALUES)
        extra = [f"{option}={value}"] if option and rng.random() < 0.5 else [option, value][not option :]
        yield command, [*WHOLE[command], *extra]


@linux
def test_options_of_any_value_are_used_or_refused_in_a_line(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pycocotools", reason="COCO needs the extra coco")
    monkeypatch.setattr("perturb_tutorial.study.gallery.learn_masks", _one_step)
    tried = {0: 0, 2: 0}
    for number, (command, arguments) in enumerate(option_sets(5, OPTION_SETS)):
        folder = tmp_path / str(number)
        (folder / "photos").mkdir(parents=True)
        monkeypatch.chdir(folder)
        picture(folder / "photo.png")
        picture(folder / "photos" / "a.png")
        coco(folder / "data", ["a.png", "b.png"])
        for name in ("a.png", "b.png"):
            picture(folder / "data" / "val" / name)
        line = (
            [command, *arguments] if command in ("explain", "gallery") else ["benchmark", command, *arguments]
        )
        status, _, refused = run(*line)
        tried[status] += 1
        if status == 2:
            assert [text[:7] for text in refused] == ["error: "], (line, refused)
        with Image.open(folder / "photo.png") as photograph:  # whatever --output was
            assert photograph.getpixel((0, 0)) == (255, 0, 0)
    assert tried[2] > OPTION_SETS // 2
    assert tried[0] > 0


def _one_step(
    small: pt.Network, images: Any, targets: Any, settings: pt.MaskSettings, **options: Any
) -> pt.Masks:
    return pt.learn_masks(small, images, targets, settings.replace(iterations=1), **options)


@pytest.mark.parametrize(
    "option", ["--limit=0", f"--seed={2**70}", "--methods=", "--methods=,", "--data=", "--output="]
)
def test_a_benchmark_names_the_option(tmp_path: Path, run: Run, option: str) -> None:
    status, _, refused = run("benchmark", "pointing-game", "--output", tmp_path / "out", option)
    assert (status, len(refused)) == (2, 1)
    assert option.partition("=")[0] in refused[0]


def test_a_warning_of_a_library_is_one_printable_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, recwarn: Any
) -> None:
    import warnings

    shown: list[str] = []

    def warn(*_: object, **__: object) -> str:
        shown.append(warnings.formatwarning("a\x1b[2J\nb", UserWarning, "file", 1))
        return ""

    monkeypatch.setattr("perturb_tutorial.cli.listings.say", warn)
    run("samples")
    assert set(shown) == {"warning: a\\x1b[2J b\n"}
