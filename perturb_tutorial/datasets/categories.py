"""Which ImageNet classes a COCO category holds.

The paper's network was fine-tuned on COCO's 80 labels. With an ImageNet network a COCO category becomes the set C of
the ImageNet classes under it, and its score the sum over C, as eq. 2 defines it.

``data/coco_to_imagenet.csv`` has one row for each category and kind of match:

- ``exact``: each of these classes is a kind of the category (every bird is a bird), and the classes together
  are what ImageNet has of it;
- ``near``: classes that look alike, hold more than it, or are a part of it (wild canines for dogs, all
  rackets for tennis rackets, the seat for the toilet); off by default;
- ``none``: ImageNet has no such class.

Each row states its reason. Names mislead: ImageNet's "kite" (21) is a bird of prey, "crane" is a bird
(134) and a machine (517), "mouse" (673) the computer's, "hotdog" (934) the food. The rows therefore name
wnids.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Literal, NamedTuple

from perturb_tutorial.datasets.imagenet import imagenet_indices
from perturb_tutorial.files import read_table

Match = Literal["exact", "near", "none"]


class CategoryMatch(NamedTuple):
    """One row of the table: a COCO category, the ImageNet classes (wnids and indices), the kind of match and
    its reason.
    """

    category_id: int
    category: str
    match: Match
    wnids: tuple[str, ...]
    indices: tuple[int, ...]
    reason: str


_MATCHES: Mapping[str, Match] = {"exact": "exact", "near": "near", "none": "none"}


@cache
def category_matches() -> tuple[CategoryMatch, ...]:
    """All rows of the table, by ascending category id, exact before near."""
    known = imagenet_indices()
    rows = []
    for row in read_table("coco_to_imagenet.csv"):
        wnids = tuple(row["wnids"].split())
        rows.append(
            CategoryMatch(
                category_id=int(row["category_id"]),
                category=row["category"],
                match=_MATCHES[row["match"]],
                wnids=wnids,
                indices=tuple(sorted(known[wnid] for wnid in wnids)),
                reason=row["reason"],
            )
        )
    return tuple(rows)


def imagenet_classes_of(*, near: bool = False) -> dict[int, tuple[int, ...]]:
    """ImageNet class indices of each COCO category id that has any: the set C of eq. 2.

    ``near=True`` adds the near matches to the exact ones.
    """
    classes: dict[int, tuple[int, ...]] = {}
    for row in category_matches():
        if row.match == "exact" or (near and row.match == "near"):
            classes[row.category_id] = tuple(sorted(classes.get(row.category_id, ()) + row.indices))
    return classes
