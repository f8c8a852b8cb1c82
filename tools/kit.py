"""Make a folder for a class without internet: wheels, the site, all notebooks, students' copies, instructions.

    python tools/kit.py FOLDER [--extras book,samples,coco,lite,onnx] [--pip-option=--extra-index-url=ADDRESS]

The wheels are those of the machine that this runs on (its system, processor and Python), at the versions of
constraints.txt; run it on a machine like the students'. On Linux pip takes a PyTorch for NVIDIA cards, some
gigabytes: to get the small build give PyTorch's own index by --pip-option, as its install page names it. The site is
book/_build/html, which `make book` builds. An existing folder is completed: wheels in it are not downloaded again.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
from chapters import find, without_solutions
from notebook_form import write_whole

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "book" / "_build" / "html"
EXTRAS = "book,samples,coco,lite,onnx"  # what the chapters use
LAB = "jupyterlab"  # the front end; the chapters need only its kernel
README = """\
# {name} {version} without internet

Made for {machine}, Python {python}.

| folder | what |
|---|---|
| `wheels/` | everything that has to be installed |
| `site/` | the book, with working controls |
| `notebooks/` | the chapters with solutions |
| `students/` | the chapters without solutions |

## Install

In this folder, with Python {python}:

    python -m venv env
    env/bin/python -m pip install --no-index --find-links wheels "{name}[{extras}]" {lab}

On Windows it is `env\\Scripts\\python`. It takes a few minutes and some {size} MB.

## Run a chapter

    env/bin/python -m jupyterlab students

The default network's weights are among the wheels: nothing is downloaded, also not later.

## Read the book

    python -m http.server --directory site

and open http://localhost:8000. Opening a page as a file works too, but its controls and its search may not.
"""


class KitError(Exception):
    """A part of the kit could not be made; the message says which and how to go on."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make a folder for a class without internet.")
    parser.add_argument("folder", type=Path, help="folder that gets the kit")
    parser.add_argument("--extras", default=EXTRAS, help=f"extras of pyproject.toml (default: {EXTRAS})")
    parser.add_argument("--site", type=Path, default=SITE, help="the built site")
    parser.add_argument(
        "--pip-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="handed on to pip, such as an index",
    )
    options = parser.parse_args(argv)
    try:
        make(options.folder, options.extras, options.site, options.pip_option)
    except KitError as error:
        print(f"kit: {error}", file=sys.stderr)
        return 2
    return 0


def make(folder: Path, extras: str, site: Path, pip_options: list[str]) -> None:
    """Fill ``folder``; the steps that need no network come first."""
    if not (site / "index.html").is_file():
        raise KitError(f"{site} has no site: run `make book` first")
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    own_wheel(wheels)
    download(wheels, extras, pip_options)
    shutil.copytree(site, folder / "site", dirs_exist_ok=True)
    copy_chapters(folder)
    size = round(sum(path.stat().st_size for path in wheels.iterdir()) / 1e6)
    (folder / "README.md").write_text(readme(extras, size), encoding="utf-8")
    count, chapters = len(list(wheels.iterdir())), len(find([], ROOT / "book"))
    print(f"{folder}: {count} wheels, {size} MB, the site and {chapters} chapters")


def own_wheel(wheels: Path) -> None:
    """Build the package's own wheel; an older one is removed, since pip might install that."""
    for old in wheels.glob(f"{project()['name']}-*.whl"):
        old.unlink()
    pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))


def download(wheels: Path, extras: str, pip_options: list[str]) -> None:
    """What the package and its extras need, as wheels, at the pinned versions."""
    pip(
        *("download", "--dest", str(wheels), "--find-links", str(wheels), "--prefer-binary"),
        *("--constraint", str(ROOT / "constraints.txt"), *pip_options),
        *(f"{project()['name']}[{extras}]", LAB, "pip", "setuptools", "wheel"),
    )


def pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"], check=False
    )
    if done.returncode != 0:
        raise KitError(
            f"pip {arguments[0]} failed (its message is above); check the connection and start again"
        )


def copy_chapters(folder: Path) -> None:
    """The chapters as they are stored, and their copies without solutions."""
    for name in ("notebooks", "students"):
        (folder / name).mkdir(exist_ok=True)
    for chapter in find([], ROOT / "book"):
        shutil.copy(chapter, folder / "notebooks" / chapter.name)
        write_whole(
            without_solutions(nbformat.read(chapter, as_version=4)), folder / "students" / chapter.name
        )


def readme(extras: str, size: int) -> str:
    about = project()
    return README.format(
        name=about["name"],
        version=about["version"],
        machine=f"{platform.system()} on {platform.machine()}",
        python=".".join(platform.python_version_tuple()[:2]),
        extras=extras,
        lab=LAB,
        size=size,
    )


def project() -> dict[str, str]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        content: dict[str, str] = tomllib.load(file)["project"]
    return content


if __name__ == "__main__":
    sys.exit(main())
