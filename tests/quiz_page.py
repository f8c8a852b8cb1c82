"""A page with questions, built by the book's extension in a second or two, and the questions of all chapters."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
QUIZZES = ROOT / "book" / "quizzes"
CONF = f"""\
import sys
sys.path.insert(0, {str(ROOT / "book" / "_ext")!r})
extensions = ["myst_parser", "quiz", "content_policy"]
myst_enable_extensions = ["dollarmath"]
html_theme = "sphinx_book_theme"
html_title = "Questions"
html_context = {{"default_mode": "auto"}}
html_static_path = ["static"]
mathjax_path = "formulas.js"  # an empty file: formulas stay as TeX
exclude_patterns = ["quizzes", "static"]
"""


def extension() -> ModuleType:
    """The book's extension `quiz`."""
    if "quiz" not in sys.modules:
        spec = importlib.util.spec_from_file_location("quiz", ROOT / "book" / "_ext" / "quiz.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules["quiz"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["quiz"])
    return sys.modules["quiz"]


def build_page(
    folder: Path, pages: dict[str, str], quizzes: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Build MyST pages, one of them `index`, with files of questions by the page's name, into ``folder / "site"``."""
    source = folder / "source"
    for name in ("quizzes", "static"):
        (source / name).mkdir(parents=True)
    (source / "static" / "formulas.js").write_text("", encoding="utf-8")
    (source / "conf.py").write_text(CONF, encoding="utf-8")
    for name, text in pages.items():
        (source / f"{name}.md").write_text(text, encoding="utf-8")
    for name, text in quizzes.items():
        (source / "quizzes" / f"{name}.yml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", str(source)]
    return subprocess.run(
        [*command, str(folder / "site")], capture_output=True, text=True, check=False, cwd=folder
    )


def shown(text: str) -> str:
    """A text of a file of questions as a page without MathJax shows it."""
    return re.sub(r"[`*]", "", re.sub(r"\$([^$]+)\$", r"\\(\1\\)", text))
