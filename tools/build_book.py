"""Build the published book from the stored notebooks: `make book`.

Fetches the browser scripts if they are missing (tools/vendor.py), makes the files of the live page (tools/live.py) and
of the first screen (tools/front.py), then runs Jupyter Book from scratch with every warning an error. The site is in
`book/_build/html`; any file server can serve it, from any folder.

    python tools/build_book.py [--source book] [--toc _toc.yml] [--output book]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build the book; the site is left in OUTPUT/_build/html.")
    parser.add_argument("--source", type=Path, default=ROOT / "book", help="folder of the pages")
    parser.add_argument("--toc", type=Path, default=ROOT / "_toc.yml", help="table of contents")
    parser.add_argument("--output", type=Path, default=ROOT / "book", help="folder that gets _build")
    options = parser.parse_args(argv)
    for path in (options.source, options.toc):
        if not path.exists():
            print(
                f"build_book: {path} does not exist: name the book's folder and its table of contents",
                file=sys.stderr,
            )
            return 2
    return build(options.source, options.toc, options.output)


def build(source: Path, toc: Path, output: Path) -> int:
    """Build the pages of `source` that `toc` names into `output/_build/html`; 0 if no page warned."""
    vendored = subprocess.run([sys.executable, str(ROOT / "tools" / "vendor.py")], check=False)
    if vendored.returncode != 0:
        return vendored.returncode
    for tool in ("live", "front"):
        if not (source / tool).is_dir():
            continue
        made = subprocess.run([sys.executable, str(ROOT / "tools" / f"{tool}.py")], check=False)
        if made.returncode != 0:
            return made.returncode
    # With the environment of an earlier build, pages that have not changed since would not warn.
    shutil.rmtree(output / "_build", ignore_errors=True)
    jupyter_book = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command = [*jupyter_book, "build", str(source.resolve())]
    # An absolute path: Jupyter Book would look for a relative one below the pages.
    command += ["--config", str(ROOT / "_config.yml"), "--toc", str(toc.resolve())]
    command += ["--path-output", str(output.resolve()), "-n", "-W", "--keep-going", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, check=False)
    return 1 if done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
