"""Draw the package as a house, each floor standing on those below it: `python tools/house.py`.

The floors are ORDER of tests/test_house.py, which a test compares with every import, so the picture in
book/_static/house.svg cannot drift from the code; another test compares the picture with this drawing.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "book" / "_static" / "house.svg"
PACKAGE = ROOT / "perturb_tutorial"
WIDTH, FLOOR, ROOM, GAP, MARGIN, ROOF = 800, 46, 32, 10, 20, 40  # px
LETTER = 8.4  # px, the width of a letter at 14 px in a typewriter's face
FACE = "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace"
FOLDER, MODULE, INK = "#cfdcf5", "#fdf1c7", "#1b2540"


def floors() -> list[list[str]]:
    """The names on each floor, from the ground up; those that begin with an underscore are left out."""
    tree = ast.parse((ROOT / "tests" / "test_house.py").read_text(encoding="utf-8"))
    (table,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ORDER"
    )
    rows = [sorted(name for name in row if not name.startswith("_")) for row in ast.literal_eval(table)]
    return [row for row in rows if row]


def drawn(rows: list[list[str]]) -> str:
    """The SVG: a light card of its own, so that it reads the same on a light and on a dark page."""
    height = 2 * MARGIN + FLOOR * len(rows) + ROOF
    eaves = MARGIN + ROOF
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="{FACE}" font-size="14" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" rx="10" fill="#ffffff" stroke="#8a94ad"/>',
        f'<path d="M{MARGIN} {eaves}L{WIDTH / 2:g} {MARGIN}L{WIDTH - MARGIN} {eaves}Z" fill="#f0d9d2" stroke="{INK}"/>',
    ]
    for number, row in enumerate(rows):
        top = height - MARGIN - FLOOR * (number + 1)
        ground = top + FLOOR - (FLOOR - ROOM) / 2
        parts.append(f'<path d="M{MARGIN} {ground:g}H{WIDTH - MARGIN}" stroke="#8a94ad"/>')
        widths = [LETTER * len(shown(name)) + 20 for name in row]
        left = (WIDTH - sum(widths) - GAP * (len(row) - 1)) / 2
        for name, width in zip(row, widths, strict=True):
            color = FOLDER if (PACKAGE / name).is_dir() else MODULE
            parts += [
                f'<rect x="{left:g}" y="{ground - ROOM:g}" width="{width:g}" height="{ROOM}" rx="4" '
                f'fill="{color}" stroke="{INK}"/>',
                f'<text x="{left + width / 2:g}" y="{ground - ROOM / 2 + 5:g}" text-anchor="middle">'
                f"{shown(name)}</text>",
            ]
            left += width + GAP
    return "\n".join([*parts, "</svg>", ""])


def shown(name: str) -> str:
    """A folder ends in a slash."""
    return f"{name}/" if (PACKAGE / name).is_dir() else name


if __name__ == "__main__":
    PICTURE.write_text(drawn(floors()), encoding="utf-8")
