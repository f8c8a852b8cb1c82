"""Where objects are and how large, in a COCO folder: data/measured/object_statistics.json, for fig. 1 and 2 (§4.1).

    python studies/object_statistics.py COCO SPLIT…

The file has the result of :func:`perturb_tutorial.datasets.statistics.object_statistics` for the first 100 images of
each class: a mean area for each pair of an image and a class, and the centers of all boxes, in px of the image squashed
to 224×224. Values are rounded to 0.1 px or px²; no annotation and no name of an image is stored.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from harness import Study, parser_of, run_study
from numpy import unique

from perturb_tutorial.datasets import read_coco
from perturb_tutorial.datasets.statistics import IMAGES_PER_CLASS, object_statistics, sample_pairs


def object_areas(options: argparse.Namespace) -> Study:
    """The study of the module's docstring."""
    sets = [read_coco(options.data, split) for split in options.splits]
    images = tuple(image for dataset in sets for image in dataset.images)
    pairs = sample_pairs(replace(sets[0], images=images))
    found = object_statistics(pairs)
    summary = {
        "data": {"name": " + ".join(dataset.name for dataset in sets), "images": found.images},
        "per_class": IMAGES_PER_CLASS,
        "classes": len(unique([pair.category for pair in pairs])),
        "side": found.side,
        **{
            key: [round(float(value), 1) for value in values]
            for key, values in (("areas", found.areas), ("x", found.x), ("y", found.y))
        },
    }
    return Study(
        "object_statistics",
        f"python studies/object_statistics.py COCO {' '.join(options.splits)}",
        "areas: px², one a pair of an image and a class; x, y: px, one a box; image squashed to side × side",
        summary,
    )


def main(argv: list[str] | None = None) -> int:
    parser = parser_of("Areas and centers of COCO's objects, for fig. 1 and 2.", splits="train2017")
    return run_study(parser, object_areas, argv)


if __name__ == "__main__":
    sys.exit(main())
