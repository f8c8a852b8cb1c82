"""A batch's images from a bucket, fetched at once: one after the other they would take longer than a GPU's work."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from perturb_tutorial.benchmarks.plan import Mosaic
from perturb_tutorial.datasets.records import ImageRecord
from perturb_tutorial.image_files import MAX_MEGABYTES
from perturb_tutorial.places.buckets import BucketPath, ahead
from perturb_tutorial.reading import read_bytes


@contextmanager
def local_copies(images: Mapping[str, ImageRecord | Mosaic]) -> Iterator[dict[str, ImageRecord | Mosaic]]:
    """The same images with the files of a bucket copied to this machine until the block ends.

    What cannot be fetched stays where it is, so that reading it there says why. Errors: ``BucketError`` where the
    bucket does not answer.
    """
    records = [part for image in images.values() for part in _records(image)]
    far = [
        record.path for record in records if isinstance(record.path, BucketPath) and record.problem is None
    ]
    if not far:
        yield dict(images)
        return
    with tempfile.TemporaryDirectory(prefix="perturb_tutorial_") as folder:
        copies: dict[object, Path] = {}
        for number, (path, content) in enumerate(zip(far, ahead(_content, far), strict=True)):
            place = Path(folder, str(number), path.name)
            try:
                place.parent.mkdir()
                if place.name == path.name:  # which a name with a colon is not on Windows
                    place.write_bytes(content())
                    copies[path] = place
            except OSError:
                continue

        def near(record: ImageRecord) -> ImageRecord:
            return dataclasses.replace(record, path=copies.get(record.path, record.path))

        yield {
            key: near(image)
            if isinstance(image, ImageRecord)
            else dataclasses.replace(image, parts=tuple(map(near, image.parts)))
            for key, image in images.items()
        }


def _content(path: BucketPath) -> bytes:
    return read_bytes(path, MAX_MEGABYTES)


def _records(image: ImageRecord | Mosaic) -> tuple[ImageRecord, ...]:
    return (image,) if isinstance(image, ImageRecord) else image.parts
