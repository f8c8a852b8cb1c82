"""The troubleshooting page is found by the words on the reader's screen: each title is a text of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book" / "troubleshooting.md").read_text(encoding="utf-8")
TITLES = re.findall(r"^### (`+) ?(.+?) ?\1$", PAGE, re.MULTILINE)


def texts_of_the_package() -> set[str]:
    """Every text in the code, with … for what is filled in; constants that a text inserts are read through."""
    found = set()
    for path in (ROOT / "perturb_tutorial").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (
                    part.value if isinstance(part, ast.Constant) else "…"  # a {value}
                    for part in node.values
                )
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


TEXTS = texts_of_the_package()


def is_a_message(title: str) -> bool:
    """A title may leave a message's end out, and … may stand for several insertions in a row."""
    pattern = re.compile(re.escape(re.sub("…+", "…", title)).replace("…", ".*?"))
    return any(pattern.match(re.sub("…+", "…", text)) for text in TEXTS)


def test_titles_occur_in_the_code() -> None:
    made_up = [title for _, title in TITLES if not is_a_message(title)]
    assert not made_up, "\n".join(made_up)


def test_every_entry_has_a_title_and_a_mend() -> None:
    assert len(TITLES) >= 25
    for entry in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        title, _, body = entry.partition("\n")
        assert len(body.split("\n## ")[0].split()) >= 8, f"{title}: says too little"


def test_a_made_up_title_is_noticed() -> None:
    assert not is_a_message("targets: expected a hat, got …")
