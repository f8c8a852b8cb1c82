"""Class names: from what a person writes to an index, and back."""

from __future__ import annotations

import csv
import difflib
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from perturb_tutorial._outside import printable_errors, short, whole_number
from perturb_tutorial.files import resource

MOST_DIGITS = 18
"""Of a class index; Python refuses to read thousands of digits."""


class ClassTable:
    """The names of a network's K classes: for each a tuple of names, the first one shown, and maybe a wnid.

    Examples:
        >>> table = ClassTable([("crane",), ("tabby", "tabby cat")])
        >>> table.find("tabby cat"), table.name(1), len(table)
        (1, 'tabby', 2)
    """

    def __init__(self, names: Sequence[Sequence[str]], wnids: Sequence[str] | None = None) -> None:
        self.names = [tuple(group) for group in names]
        self.wnids = list(wnids) if wnids is not None else None

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """The first name of class ``index``."""
        return self.names[index][0]

    @printable_errors
    def find(self, text: str | int) -> int:
        """The class index that ``text`` denotes: the exact name of one class, or else an index or a wnid.

        Names come first: of categories called 0, 1, 10 and 2 the text "2" is the last one, the number 2 that called
        10. A first name takes precedence over a synonym, and equal case over folded case.

        Raises:
            ValueError: for an unknown name (lists similar ones), for a name of several classes (lists them), and for an
                index out of range.
        """
        number = whole_number(text)
        if number is None and not isinstance(text, str):
            raise ValueError(f"expected a class index, wnid or exact class name, got {short(text)}")
        text = str(text if number is None else number).strip()
        if number is None and (named := self._named(text)) is not None:
            return named
        if self.wnids is not None and text in self.wnids:
            return self.wnids.index(text)
        if re.fullmatch(r"-?[0-9]+", text):
            if len(text) > MOST_DIGITS or not 0 <= int(text) < len(self):
                raise ValueError(
                    f"expected a class index from 0 to {len(self) - 1}, got {short(int(text[:99]))}"
                )
            return int(text)
        known = {_folded(name): name for group in self.names for name in group}
        near = [known[match] for match in difflib.get_close_matches(_folded(text)[:99], known, n=3)]
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise ValueError(f"expected a class index, wnid or exact class name, got {text!r}{hint}")

    def _named(self, text: str) -> int | None:
        """The class called ``text``, None for an unknown name; ``ValueError`` for a name of several classes."""
        folded = _folded(text)
        readings = (
            lambda group: group[0].strip() == text,
            lambda group: _folded(group[0]) == folded,
            lambda group: text in map(str.strip, group),
            lambda group: folded in map(_folded, group),
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
        return None


def _folded(name: str) -> str:
    """Equal for names that differ in case, in the composition of accents or in the spaces around them."""
    return unicodedata.normalize("NFC", name).casefold().strip()


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
