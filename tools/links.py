"""Ask every address on the pages whether it is still there: `python tools/links.py`, which needs the network.

A workflow runs it once a week. Links inside of the site are checked by the build, and those between files by the
tests. A page that answers with 403 or 429 exists and does not want to be asked by a program.

    python tools/links.py [--list]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("*.md", "book/*.md", "book/*.ipynb", "book/references.bib", "paper/*", "data/samples/README.md")
ADDRESS = re.compile(r"https?://[^\s<>\"'`\\)\]}]+")
DOI = re.compile(r"^\s*doi\s*=\s*[{\"](10\.[^}\"]+)", re.MULTILINE | re.IGNORECASE)
THERE = {403, 405, 418, 429}
SECONDS = 20


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Ask every address on the pages whether it is still there.")
    parser.add_argument("--list", action="store_true", help="print the addresses and ask nobody")
    options = parser.parse_args(argv)
    found = addresses(ROOT)
    if options.list:
        print("\n".join(found))
        return 0
    with ThreadPoolExecutor(8) as pool:
        problems = [line for line in pool.map(problem, found) if line]
    for line in problems:
        places = ", ".join(found[line.partition(": ")[0]])
        print(f"links: {line} ({places})", file=sys.stderr)
    return 1 if problems else 0


def addresses(root: Path) -> dict[str, list[str]]:
    """Address → the pages that have it."""
    found: dict[str, list[str]] = {}
    for pattern in PAGES:
        for path in sorted(root.glob(pattern)):
            for address in sorted(set(named(text_of(path)))):
                found.setdefault(address, []).append(path.relative_to(root).as_posix())
    return found


def text_of(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    # The prose: outputs carry licenses and scripts, whose addresses are not ours.
    cells = json.loads(text)["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def named(text: str) -> Iterator[str]:
    """The addresses in ``text``, without the full stop of a sentence; a DOI as the address that resolves it."""
    for found in ADDRESS.findall(text):
        address = found.rstrip(".,;:!*")
        if "localhost" not in address and "127.0.0.1" not in address:
            yield address
    for doi in DOI.findall(text):
        yield f"https://doi.org/{doi.strip()}"


def problem(address: str) -> str | None:
    """One line where nothing is at ``address`` any more."""
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (link check)"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):
            return None
    except urllib.error.HTTPError as error:
        return None if error.code in THERE else f"{address}: status {error.code}"
    except OSError as error:
        return f"{address}: {error}"


if __name__ == "__main__":
    sys.exit(main())
