"""Class names: from what a person writes to an index, and back."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Sequence
from functools import lru_cache

from perturb_tutorial.files import resource


class ClassTable:
    """The names of a network's K classes: for each a tuple of names, the first one shown, and maybe a wnid."""

    def __init__(self, names: Sequence[Sequence[str]], wnids: Sequence[str] | None = None) -> None:
        self.names = [tuple(group) for group in names]
        self.wnids = list(wnids) if wnids is not None else None

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """The first name of class ``index``."""
        return self.names[index][0]

    def find(self, text: str) -> int:
        """The class index that ``text`` denotes: an index, a wnid, or the exact name of one class.

        A first name takes precedence over a synonym, and equal case over folded case.

        Raises:
            ValueError: for an unknown name (lists similar ones), for a name of several classes (lists them), and for an
                index out of range.
        """
        text = text.strip()
        if re.fullmatch(r"-?[0-9]+", text):
            if not 0 <= int(text) < len(self):
                raise ValueError(f"expected a class index from 0 to {len(self) - 1}, got {text}")
            return int(text)
        if self.wnids is not None and text in self.wnids:
            return self.wnids.index(text)
        folded = text.casefold()
        readings = (
            lambda group: group[0] == text,
            lambda group: group[0].casefold() == folded,
            lambda group: text in group,
            lambda group: folded in (name.casefold() for name in group),
        )
        for reading in readings:
            matches = [index for index, group in enumerate(self.names) if reading(group)]
            if len(matches) == 1:
                return matches[0]
            if matches:
                meant = "; ".join(f"{index} ({', '.join(self.names[index])})" for index in matches)
                raise ValueError(
                    f"{text!r} is the name of {len(matches)} classes, give the index of one: {meant}"
                )
        known = {name.casefold(): name for group in self.names for name in group}
        near = [known[match] for match in difflib.get_close_matches(folded, known, n=3)]
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise ValueError(f"expected a class index, wnid or exact class name, got {text!r}{hint}")


@lru_cache(maxsize=1)
def imagenet_classes() -> ClassTable:
    """The 1,000 classes of ILSVRC 2012 in their usual order (sorted wnid)."""
    with resource("imagenet_classes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return ClassTable([row["names"].split("; ") for row in rows], [row["wnid"] for row in rows])


def class_labels(categories: Sequence[str] | ClassTable | None, count: int) -> ClassTable:
    """The names of ``count`` classes: those given, or "class 0" and so on; ``ValueError`` for another number."""
    if categories is None:
        return ClassTable([(f"class {index}",) for index in range(count)])
    table = (
        categories
        if isinstance(categories, ClassTable)
        else ClassTable([(str(name),) for name in categories])
    )
    if len(table) != count:
        raise ValueError(f"categories: expected {count} names, one for each logit, got {len(table)}")
    return table
