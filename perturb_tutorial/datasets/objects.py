"""How large the objects of a category are in an image, and how crowded they are (§6.7).

The paper finds masks "worse for small and/or occluded objects". COCO does not annotate occlusion; what its annotations
give is how much crowds an object. Of the instances S_1 … S_n of a category in an image of
H×W px, with B the box of the largest one, S, and T the union of all other annotations' segments:

    share      |S_1 ∪ … ∪ S_n| / (H·W)      how large the objects are
    instances  n                            (a crowd counts as one)
    neighbors  the number of other annotations, of any category, whose box overlaps B
    crowding   |(B ∩ T) \\ S| / |B|          how much of its box belongs to others: what hides it lies there, and
                                            so does what is behind or beside it
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perturb_tutorial.datasets.records import Box, ImageRecord
from perturb_tutorial.metrics.heatmaps import Bool
from perturb_tutorial.metrics.segments import segment_mask, union_mask


@dataclass(frozen=True)
class ObjectFacts:
    """The four numbers of the module's docstring; ``share`` and ``crowding`` in [0, 1]."""

    share: float
    instances: int
    neighbors: int
    crowding: float


def object_facts(record: ImageRecord, category: int) -> ObjectFacts:
    """The facts about the objects of ``category`` in an image, from its segments.

    Errors: ``ValueError`` where the image has no segment of the category.
    """
    own = [instance for instance in record.of(category) if instance.segmentation is not None]
    if not own:
        raise ValueError(f"category: expected one with a segment in {record.path.name}, got {category}")
    masks = [segment_mask(instance.segmentation or [], record.size) for instance in own]
    place = int(np.argmax([mask.sum() for mask in masks]))
    largest = own[place]
    others = [instance for instance in record.instances if instance is not largest]
    box = box_pixels(largest.box, record.size)
    taken = union_mask((o.segmentation for o in others if o.segmentation is not None), record.size)
    foreign = box & taken & ~masks[place]
    return ObjectFacts(
        share=float(np.logical_or.reduce(masks).mean()),
        instances=len(own),
        neighbors=sum(_overlap(largest.box, other.box) for other in others),
        crowding=float(foreign.sum() / max(1, box.sum())),
    )


def box_pixels(box: Box, size: tuple[int, int]) -> Bool:
    """The pixels (H×W, bool) whose centers lie in ``box`` (x, y, width, height), px."""
    x, y, width, height = box
    rows, columns = (np.arange(n) + 0.5 for n in size)
    return np.asarray(
        ((rows >= y) & (rows < y + height))[:, None] & ((columns >= x) & (columns < x + width)),
        dtype=np.bool_,
    )


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
