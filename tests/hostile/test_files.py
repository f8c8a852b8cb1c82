"""Files that people really have, damaged in every way that a seed finds: each is read, or refused in one line.

A few valid files of each kind are mutated by their bytes, their length, their headers and their values; beside them
stand files made to hang a reader or to fill its memory. Whatever comes: no other error than the documented one, no line
break or control character in a message, nothing on the terminal, no warning without the file's name, no hang.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import perturb_tutorial as pt
from perturb_tutorial.benchmarks.claims import LOCK, claim
from perturb_tutorial.datasets import animal_parts, coco, imagenet
from perturb_tutorial.datasets.records import Dataset, ImageRecord, check_image

pytestmark = pytest.mark.skipif(os.name == "nt", reason="named pipes and sockets are files here")

SEED = 28
LONGEST = 10.0
"""Seconds after which a reader counts as hung."""
LONGEST_REFUSAL = 5.0
MOST_MEMORY = 1e9
"""Bytes above the idle process."""
TENCH = "n01440764"


@contextmanager
def no_hang(name: str, seconds: float = LONGEST) -> Iterator[None]:
    """Fails instead of waiting, also inside of a system call."""

    def stop(*_: object) -> None:
        raise TimeoutError(name)  # an OSError: a reader that swallowed it would be caught by the clock below

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    started = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < seconds, f"{name}: a hang"


def is_line(text: str) -> bool:
    """Whether it can be printed as one line: no control characters, C0 or C1, no line or paragraph break."""
    return bool(text) and not re.search(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", text)


# --- images


def jpeg_of_scans(scans: int, side: int = 3000) -> bytes:
    """A progressive JPEG whose last scan, of a few bytes, comes again and again."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (90, 120, 30)).save(buffer, "JPEG", progressive=True)
    whole = buffer.getvalue()
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * (scans - whole.count(b"\xff\xda")) + whole[-2:]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *others: bytes, color: int = 2) -> bytes:
    """A PNG of one color, or of too little data where it is large."""
    rows = (b"\0" + bytes(width * {0: 1, 2: 3, 6: 4}[color])) * (height if width * height < 10**6 else 1)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(others)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def tiff(pixels: np.ndarray, bits: int, form: int = 1, white_is_zero: bool = False) -> bytes:
    """An uncompressed gray TIFF whose tags say what ``pixels`` are."""
    height, width = pixels.shape
    data = pixels.tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 0 if white_is_zero else 1), (273, 300)]
    tags += [(277, 1), (278, height), (279, len(data)), (339, form)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(300, b"\0") + data


def valid_images() -> dict[str, bytes]:
    """Small pictures of many kinds by name."""
    generator = np.random.default_rng(SEED)
    noise = generator.integers(0, 256, (40, 56, 4), dtype=np.uint8)
    rgb, rgba = Image.fromarray(noise[..., :3].copy()), Image.fromarray(noise)
    gray = Image.fromarray(noise[..., 0].copy())
    deep = Image.fromarray(generator.integers(0, 65536, (40, 56), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a camera"
    text = PngInfo()
    text.add_text("Title", "a photograph " * 10, zip=True)
    text.add_itxt("Author", "somebody")
    made: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "baseline.jpg": (rgb, "JPEG", {}),
        "progressive.jpg": (rgb, "JPEG", {"progressive": True}),
        "turned.jpg": (rgb, "JPEG", {"exif": exif}),
        "gray.jpg": (gray, "JPEG", {}),
        "cmyk.jpg": (rgb.convert("CMYK"), "JPEG", {}),
        "rgb.png": (rgb, "PNG", {"pnginfo": text, "exif": exif}),
        "rgba.png": (rgba, "PNG", {}),
        "palette.png": (rgb.quantize(32), "PNG", {"transparency": 3}),
        "gray16.png": (deep, "PNG", {}),
        "la.png": (rgba.convert("LA"), "PNG", {}),
        "lossy.webp": (rgba, "WEBP", {"exif": exif}),
        "lossless.webp": (rgb, "WEBP", {"lossless": True}),
        "raw.tif": (rgb, "TIFF", {"tiffinfo": {274: 6}}),
        "lzw.tif": (rgba, "TIFF", {"compression": "tiff_lzw"}),
        "jpeg.tif": (rgb, "TIFF", {"compression": "jpeg"}),
        "gray16.tif": (deep, "TIFF", {}),
        "frames.gif": (rgb.quantize(16), "GIF", {"comment": b"hello"}),
        "rgb.bmp": (rgb, "BMP", {}),
    }
    files = {}
    for name, (image, form, options) in made.items():
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        files[name] = buffer.getvalue()
    return files


def mutations(data: bytes, random_: random.Random, count: int) -> Iterator[bytes]:
    """Copies of ``data``, each damaged in one way: bytes, bits, length, blocks moved, the header's numbers."""
    for number in range(count):
        changed = bytearray(data)
        place = random_.randrange(len(data))
        if number % 7 == 0:
            for _ in range(random_.choice([1, 3, 30])):
                changed[random_.randrange(len(data))] = random_.randrange(256)
        elif number % 7 == 1:
            changed[random_.randrange(min(200, len(data)))] ^= 1 << random_.randrange(8)
        elif number % 7 == 2:
            del changed[place:]
        elif number % 7 == 3:
            del changed[place : place + random_.randrange(1, 40)]
        elif number % 7 == 4:
            changed[place:place] = data[: random_.randrange(1, 60)]
        elif number % 7 == 5:
            at = random_.randrange(min(120, len(data) - 4))
            changed[at : at + 4] = random_.choice(
                [b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\x00\x01\x00\x00"]
            )
        else:
            changed[place:] = bytes(random_.randrange(256) for _ in range(len(data) - place))
        yield bytes(changed)


def hostile_images() -> dict[str, bytes]:
    """Files that are small or nearly, and whose readers would be slow or large."""
    sides = struct.pack("<II", 13_400, 13_400)
    small = valid_images()
    gif = bytearray(small["frames.gif"])
    gif[6:10] = struct.pack("<HH", 13_400, 13_400)
    bmp = bytearray(small["rgb.bmp"])
    bmp[18:26] = sides
    jpeg = bytearray(small["baseline.jpg"])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 13_400, 13_400)
    comments = b"".join(b"!\xfe" + (b"\xff" + b"x" * 255) * 200 + b"\0" for _ in range(200))
    place = gif.index(b"!\xfe")
    tags = b"".join(struct.pack("<HHII", 60_000 + n % 5000, 7, 2_000_000, 8) for n in range(5000))
    overlapping = b"II*\0" + struct.pack("<IH", 8, 5000) + tags + bytes(2_000_000)
    # One pixel row a million times, each from its own strip.
    numbers = [(256, 56), (257, 40), (258, 8), (259, 1), (262, 1), (277, 1), (278, 1), (279, 56)]
    ifd = [*((tag, 4, 1, value) for tag, value in numbers), (273, 4, 10**6, 400)]
    places = struct.pack("<I", 400) * 10**6
    strips = b"II*\0" + struct.pack("<IH", 8, 9) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(ifd))
    strips_64 = b"MM\0+" + struct.pack(">HHQQ", 8, 0, 16, 9)
    strips_64 += b"".join(
        struct.pack(">HHQ", *tag[:3]) + struct.pack(">II", tag[3], 0) for tag in sorted(ifd)[:-1]
    )
    strips_64 += struct.pack(">HHQQ", 324, 4, 10**6, 400)
    return {
        "strips.tif": strips.ljust(400, b"\0") + places,
        "strips of 64 bits.tif": strips_64.ljust(400, b"\0") + places,
        "179 megapixels.png": png(13_400, 13_400),
        "179 megapixels.gif": bytes(gif),
        "179 megapixels.bmp": bytes(bmp),
        "179 megapixels.jpg": bytes(jpeg),
        "99 megapixels of nothing.png": png(9_900, 10_000),
        "1000 scans.jpg": jpeg_of_scans(1000),
        "comments.gif": small["frames.gif"][:place] + comments + small["frames.gif"][place:],
        "many chunks.png": png(20, 20, chunk(b"prIv", b"") * 300_000),
        "one tag many times.tif": overlapping,
        "text that unpacks to 200 MB.png": png(
            20, 20, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000), 9))
        ),
        "segments.jpg": b"\xff\xd8" + b"\xff\xe1\0\2" * 1_000_000 + small["baseline.jpg"][2:],
    }


def specials(folder: Path) -> dict[str, Path]:
    """What is no file, by what it is."""
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(folder)  # a socket's path may have 107 characters
    listener.bind("socket")
    os.chdir(here)
    listener.close()
    links = {
        "to a pipe": folder / "pipe",
        "to a device": Path("/dev/zero"),
        "to itself": folder / "to itself",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    paths = {name: folder / name for name in ("pipe", "socket", *links)}
    return paths | {"device": Path("/dev/zero"), "folder": folder, "nothing": folder / "nothing"}


def sparse(path: Path, head: bytes, size: int) -> Path:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """300 damaged pictures, and those made to do harm."""
    folder = tmp_path_factory.mktemp("pictures")
    random_ = random.Random(SEED)
    files = {
        f"{number:02} {name}": changed
        for name, data in valid_images().items()
        for number, changed in enumerate(mutations(data, random_, 17))
    }
    assert len(files) >= 300
    for name, data in (files | hostile_images()).items():
        (folder / name).write_bytes(data)
    paths = [folder / name for name in files | hostile_images()]
    paths += specials(folder / "specials").values()
    paths.append(sparse(folder / "sparse.webp", b"RIFF\xff\xff\xff\xffWEBPVP8 ", 4 * 10**9))
    paths.append(sparse(folder / "sparse.png", png(20, 20)[:60], 4 * 10**9))
    return [*paths, folder / "zero\0byte.png", folder / ("n" * 255 + ".png")]


def test_a_damaged_picture_is_read_or_refused_in_one_line(
    pictures: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    faults = []
    for path in pictures:
        with warnings.catch_warnings(record=True) as caught, no_hang(path.name):
            warnings.simplefilter("always")
            started = time.monotonic()
            images, errors = pt.load_images(path, 16, on_error="skip")
            seconds = time.monotonic() - started
            record = check_image(ImageRecord(1, path))
        if len(images) + len(errors) != 1 or not images.isfinite().all():
            faults.append(f"{path.name}: {len(images)} images, {len(errors)} errors")
        lines = [error.reason for error in errors] + [record.problem] * (record.problem is not None)
        faults.extend(
            f"{path.name}: {line!r}"
            for line in lines
            if not is_line(line.replace(path.name, "")) or len(line) > 600
        )
        if errors and seconds > LONGEST_REFUSAL:
            faults.append(f"{path.name}: refused after {seconds:.1f} s")
        if not errors and record.problem:
            faults.append(f"{path.name}: loaded, and refused by check_image: {record.problem}")
        for warning in caught:
            line = str(warning.message)
            if not line.startswith(f"{path}: ") or not is_line(line):
                faults.append(f"{path.name}: warns {line!r}")
    assert faults == []
    assert capfd.readouterr() == ("", "")


MEASURE = """
import resource, sys, time, warnings
import perturb_tutorial as pt
from pathlib import Path
from perturb_tutorial.datasets.records import ImageRecord, check_image
warnings.simplefilter("ignore")
peak = lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pt.load_images(sys.argv[1], 16)
idle = peak()
for path in sys.argv[2:]:
    pt.load_images(path, 16, channels=4, on_error="skip")
    check_image(ImageRecord(1, Path(path)))
    print(peak() - idle, path)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit")
def test_no_picture_takes_more_than_a_gigabyte(pictures: list[Path], tmp_path: Path) -> None:
    """The largest that are accepted of the kinds that take most, and all the others."""
    large = Image.new("RGBA", (10_000, 10_000), (9, 90, 200, 130))
    exif = Image.Exif()
    exif[0x0112] = 6
    large.save(tmp_path / "rgba.png", compress_level=1)
    large.convert("RGB").save(tmp_path / "turned.jpg", exif=exif)
    large.crop((0, 0, 7200, 7200)).save(tmp_path / "rgba.webp", lossless=True, method=0, quality=0)
    large.crop((0, 0, 7200, 7200)).convert("RGB").save(
        tmp_path / "scans.jpg", progressive=True, subsampling=0
    )
    del large
    (tmp_path / "small.png").write_bytes(png(20, 20))
    largest = [tmp_path / name for name in ("rgba.png", "turned.jpg", "rgba.webp", "scans.jpg")]
    others = [path for path in pictures if "\0" not in path.name]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "small.png", *largest, *others],
        capture_output=True, text=True, check=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    peaks = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert len(peaks) == len(largest) + len(others)
    assert int(peaks[-1][0]) < MOST_MEMORY, next(path for peak, path in peaks if int(peak) >= MOST_MEMORY)


# --- annotations, settings and weights


def coco_content() -> dict[str, Any]:
    """Three images and four objects, with segments, a crowd and key points."""
    segment = [[2.0, 2.0, 20.0, 2.0, 20.0, 20.0]]
    points = [5, 5, 2, 9, 9, 1]
    common = {"category_id": 1, "bbox": [2, 2, 18, 18], "area": 162.0, "iscrowd": 0, "keypoints": points}
    return {
        "images": [
            {"id": n, "file_name": f"{n}.png", "height": 40, "width": 56, "imagenet_index": 7} for n in (1, 2, 3)
        ],
        "annotations": [
            *({**common, "id": n, "image_id": n, "segmentation": segment} for n in (1, 2, 3)),
            {**common, "id": 4, "image_id": 1, "iscrowd": 1,
             "segmentation": {"size": [40, 56], "counts": [100, 300, 40 * 56 - 400]}},
        ],
        "categories": [{"id": 1, "name": "bird", "keypoints": ["left_eye", "left_foot"], "supercategory": "animal"}],
    }  # fmt: skip


XML = (
    "<annotation><object><name>{wnid}</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax>"
    "</bndbox><point><class>{part}</class><x>4</x><y>5.5</y></point></object></annotation>"
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "0", "false", "1", -1, 0, 2, 1.5, 1e39, -0.0, float("nan"), float("inf")),
    *(
        10**310,
        2**64,
        [],
        {},
        [[[[[]]]]],
        ["a"],
        {"size": 1},
        "../../x.png",
        "/etc/passwd",
        "\u202e",
        [1, 2, 3],
    ),
)


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*way, key)
        yield from places(item, (*way, key))


def with_other_values(content: Any, random_: random.Random, count: int) -> Iterator[str]:
    """JSON of ``content`` with one value, or two, replaced by what it should not be."""
    ways = list(places(content))
    for number in range(count):
        changed = json.loads(json.dumps(content))
        for way in random_.sample(ways, 1 + number % 2):
            inner = changed
            try:
                for key in way[:-1]:
                    inner = inner[key]
                inner[way[-1]] = VALUES[(number // 2) % len(VALUES)] if number % 2 else random_.choice(VALUES)
            except (TypeError, KeyError, IndexError):
                continue  # the other change took the place away
        yield json.dumps(changed)


def text_mutations(text: str, random_: random.Random, count: int) -> Iterator[bytes]:
    """Copies of ``text`` with other printable characters, cut, doubled, or in another encoding."""
    for number in range(count):
        place = random_.randrange(len(text))
        if number % 4 == 0:
            yield (text[:place] + chr(random_.randrange(32, 127)) + text[place + 1 :]).encode()
        elif number % 4 == 1:
            yield text[:place].encode()
        elif number % 4 == 2:
            yield (text[:place] + text[max(0, place - 20) :]).encode()
        else:
            yield text.encode(random_.choice(["utf-16", "utf-8-sig", "utf-16-le", "utf-32"]))


BOMB = (
    '<!DOCTYPE a [<!ENTITY b "'
    + "b" * 1000
    + '"><!ENTITY c "'
    + "&b;" * 1000
    + '">]><a>'
    + "&c;" * 500
    + "</a>"
)


def hostile_texts(kind: str) -> dict[str, bytes]:
    if kind == "xml":
        declared = '<?xml version="1.0" encoding="{}"?>'
        return {
            "bomb": BOMB.encode(),
            "bomb in UTF-16": BOMB.encode("utf-16"),
            "bomb in UTF-16 without a mark": (declared.format("UTF-16") + BOMB).encode("utf-16-le"),
            "deep": b"<a>" * 100_000 + b"</a>" * 100_000,
            "large": b"<a>" + b"<b/>" * 2_000_000 + b"</a>",
            "nowhere": (declared.format("nonsense") + "<annotation/>").encode(),
            "an external file": b'<!DOCTYPE a SYSTEM "file:///dev/zero"><a/>',
        }
    return {
        "deep": b"[" * 100_000 + b"]" * 100_000,
        "deep value": b'{"images": ' + b"[" * 900 + b"]" * 900 + b"}",
        "digits": b'{"iterations": ' + b"1" * 310 + b"}",
        "more digits": b'{"area_weight": ' + b"1" * 5000 + b"}",
        "self": b'{"self": 1}',
        "large value": b'{"learning_rate": 1e39}',
        "list": b"[1]",
        "zeros": bytes(1000),
        "no text": b"\xff\xfe\xfd",
    }


def read_or_refused(
    name: str, read: Callable[[Path], object], path: Path, faults: list[str], names: str | None = None
) -> object:
    """What ``read`` returns for ``path``; a line in ``faults`` for whatever else it does than refuse in one line."""
    with warnings.catch_warnings(record=True) as caught, no_hang(name):
        warnings.simplefilter("always")
        try:
            result = read(path)
        except (ValueError, RuntimeError) as error:
            result = None
            if not is_line(str(error)) or (names or path.name) not in str(error):
                faults.append(f"{name}: {error!r}")
            if isinstance(error, RecursionError | NotImplementedError) or len(str(error)) > 1000:
                faults.append(f"{name}: {error!r}"[:300])
        except Exception as error:
            result = None
            faults.append(f"{name}: {error!r}"[:300])
    faults.extend(f"{name}: warns {warning.message}" for warning in caught)
    return result


def check_dataset(name: str, dataset: object, faults: list[str]) -> None:
    """Every line about what was left out is one line; every value that was taken is what it should be."""
    if not isinstance(dataset, Dataset):
        return
    lines = [*dataset.problems, *(record.problem for record in dataset.images if record.problem is not None)]
    # Characters of the names in a file: another test's matter.
    faults.extend(f"{name}: {line!r}" for line in lines if not is_line(line.replace("\u202e", "")))
    for record in dataset.images:
        numbers = [number for box in record.truth for number in box]
        for instance in record.instances:
            numbers += [*instance.box, instance.area]
            numbers += [number for points in instance.parts.values() for point in points for number in point]
        if not all(isinstance(number, float) and abs(number) < 1e9 for number in numbers):
            faults.append(f"{name}: numbers {numbers}")
        if record.label is not None and not (type(record.label) is int and 0 <= record.label < 1000):
            faults.append(f"{name}: label {record.label!r}")


def test_damaged_coco_files_are_read_or_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    random_ = random.Random(SEED)
    for number in (1, 2, 3):
        Image.new("RGB", (56, 40)).save(tmp_path / f"{number}.png")
    text = json.dumps(coco_content())
    files = [*(changed.encode() for changed in with_other_values(coco_content(), random_, 60))]
    files += [*text_mutations(text, random_, 24), *hostile_texts("json").values()]
    faults: list[str] = []
    for number, content in enumerate(files):
        path = tmp_path / f"annotations{number}.json"
        path.write_bytes(content)
        for segments in (True, False):

            def read(file: Path, segments: bool = segments) -> Dataset:
                return coco.read_coco_json(file, tmp_path, segments=segments)

            dataset = read_or_refused(f"{number} {content[:60]!r}", read, path, faults)
            check_dataset(f"{number}", dataset, faults)
    assert faults == []
    assert capfd.readouterr() == ("", "")


def test_damaged_xml_files_and_lists_are_their_images_problem_or_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    random_ = random.Random(SEED)
    stem = "ILSVRC2012_val_00000001"
    image = tmp_path / "val" / TENCH / f"{stem}.JPEG"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (56, 40)).save(image)
    boxes, eyes = tmp_path / "boxes", tmp_path / "parts" / "xml" / "eye"
    for folder in (boxes, eyes, eyes.with_name("foot")):
        folder.mkdir(parents=True)
    whole = XML.format(wnid=TENCH, part="eye")
    numbers = re.sub(r">[\d.]+<", ">{}<", whole)
    swapped = [numbers.format(*(random_.choice(["1", "nan", "-inf", "1e400", "", "0x1", "9" * 400]) for _ in range(6)))
               for _ in range(16)]  # fmt: skip
    files = [*text_mutations(whole, random_, 24), *map(str.encode, swapped), *hostile_texts("xml").values()]
    faults: list[str] = []
    for number, content in enumerate(files):
        name = f"{number} {content[:60]!r}"
        for path in (boxes / f"{stem}.xml", eyes / f"{stem}.xml"):
            path.write_bytes(content)
        dataset = read_or_refused(
            name, lambda path: imagenet.read_imagenet(tmp_path, boxes=path), boxes, faults
        )
        parts = read_or_refused(
            name, lambda path: animal_parts.read_vgg_parts(path, tmp_path), tmp_path / "parts", faults
        )
        for one in (dataset, parts):
            assert isinstance(one, Dataset), name
            check_dataset(name, one, faults)
            if number >= len(files) - len(hostile_texts("xml")):
                assert one.images[0].problem is not None, name
    solution = f"ImageId,PredictionString\n{stem},{TENCH} 1 2 30 40\n"
    lists: list[tuple[str, Callable[[Path], object]]] = [
        (solution, imagenet.read_solution),
        ("12\n999\n", imagenet.read_black_list),
        (f"{stem}.JPEG 0\n", lambda path: imagenet.validation_labels(path.parent)),
    ]
    for (text, read), file in zip(lists, ("LOC.csv", "black.txt", "val.txt"), strict=True):
        for number, content in enumerate([*text_mutations(text, random_, 12), b'"' * 300_000, bytes(1000)]):
            (tmp_path / file).write_bytes(content)
            read_or_refused(f"{file} {number}", read, tmp_path / file, faults)
    assert faults == []
    assert capfd.readouterr() == ("", "")


def test_damaged_settings_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    random_ = random.Random(SEED)
    content = pt.MaskSettings().to_dict()
    files = [*(changed.encode() for changed in with_other_values(content, random_, 60))]
    files += [*text_mutations(json.dumps(content), random_, 24), *hostile_texts("json").values()]
    faults: list[str] = []
    for number, data in enumerate(files):
        path = tmp_path / "settings.json"
        path.write_bytes(data)
        settings = read_or_refused(f"{number} {data[-200:]!r}", pt.MaskSettings.from_file, path, faults)
        if isinstance(settings, pt.MaskSettings):
            torch.tensor([value for value in settings.to_dict().values() if isinstance(value, float)])
    assert faults == []
    for name, data in hostile_texts("json").items():
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"settings\.json"):
            pt.MaskSettings.from_file(path)
        assert name


def readers(folder: Path) -> dict[str, Callable[[Path], object]]:
    """Everything that opens a file that somebody names."""
    return {
        "settings": pt.MaskSettings.from_file,
        "masks": pt.Masks.load,
        "weights": lambda path: pt.load_network("alexnet", weights=path, device="cpu"),
        "coco": lambda path: coco.read_coco_json(path, folder),
        "xml": imagenet.parse_xml,
        "solution": imagenet.read_solution,
        "black list": imagenet.read_black_list,
    }


def test_what_is_no_file_is_refused_by_every_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    faults: list[str] = []
    others = specials(tmp_path / "specials")
    others["4 GB"] = sparse(tmp_path / "sparse", b"{", 20 * 10**9)
    for name, read in readers(tmp_path).items():
        for kind, path in others.items():
            assert read_or_refused(f"{name}: {kind}", read, path, faults) is None, f"{name}: {kind}"
    # What a run leaves in its folder, and what torch keeps of its downloads, are looked for by name.
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    for name, place, read in (
        ("lock", LOCK, claim),
        ("cache", "checkpoints/alexnet-owt-7be5be79.pth", lambda _: pt.load_network("alexnet", device="cpu")),
    ):
        os.mkfifo(tmp_path / place)
        result = read_or_refused(name, read, tmp_path, faults, names=str(tmp_path))
        assert result is None
    assert faults == []
    assert capfd.readouterr() == ("", "")
