"""Sphinx extension that makes the published book a site that asks nothing of any other host.

It serves the scripts of `book/_vendor` (filled by tools/vendor.py) and the early script of this folder, and
mends what the theme and its parts get wrong for a site without a content network:

- widgets: require.js and the widget manager each once and in this order. They are added to `html_static_path`
  after Jupyter Book has scanned it, since Jupyter Book adds every script it finds to every page.
- icons: the theme's style sheet already holds them as a font; the 1.5 MB script that would replace each `<i>`
  by an `<svg>` (and stop a Play control while doing so) is left out.
- sphinx-thebe's scripts, which need a remote kernel and throw on every page, are left out.
- repository and launch buttons follow from `[project.urls] Repository` in pyproject.toml, and are absent
  without it.
- 404.html finds its style sheets from whatever address the reader mistyped.

Three names for authors: the directive `vendored-licenses` lists the scripts the site serves with their
licenses, and the roles `notebooks` and `student-notebooks` link to archives of all chapters, with and without
solutions, which are written when the build ends.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
from docutils import nodes
from docutils.parsers.rst.states import Inliner
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from chapters import without_solutions

LOGGER = logging.getLogger(__name__)
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ARCHIVE = "notebooks.zip"
STUDENTS_ARCHIVE = "students.zip"
WIDGET_SCRIPTS: dict[str, dict[str, str]] = {"widgets/require.js": {}, "widgets/embed-amd.js": {}}
MATHJAX = {
    # Components rather than a combined file: without menu and speech engine they are a fifth smaller.
    "loader": {"load": ["core", "input/tex-full", "output/svg", "a11y/assistive-mml"]},
    "options": {"enableAssistiveMml": True},
}
LAUNCH_BUTTONS = {
    "colab_url": "https://colab.research.google.com",
    "binderhub_url": "https://mybinder.org",
    "notebook_interface": "jupyterlab",
}
FONTAWESOME_TAG = re.compile(r"<script[^>]*scripts/fontawesome\.js[^>]*></script>")
# GitHub Pages serves a project below /NAME/; a copy of the site elsewhere has its 404 page at the top.
BASE_404 = """<script>(function () {{
  var prefix = {prefix};
  if (prefix && location.pathname.indexOf(prefix) === 0) {{
    var base = document.createElement("base");
    base.href = prefix;
    document.head.prepend(base);
  }}
}})();</script>"""


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("front_page")
    app.setup_extension("live_page")
    app.setup_extension("content_policy")
    app.connect("config-inited", configure, priority=900)
    app.connect("builder-inited", add_early_script)
    app.connect("html-page-context", trim_page, priority=900)
    app.connect("build-finished", finish)
    app.add_directive("vendored-licenses", VendoredLicenses)
    app.add_role("notebooks", archive_role(ARCHIVE))
    app.add_role("student-notebooks", archive_role(STUDENTS_ARCHIVE))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def configure(app: Sphinx, config: Config) -> None:
    """Point Sphinx at the vendored scripts and derive every address from pyproject.toml."""
    vendor = Path(app.srcdir) / "_vendor"
    if not vendor.is_dir():
        vendor = ROOT / "book" / "_vendor"
    if not (vendor / "widgets" / "embed-amd.js").is_file():
        raise FileNotFoundError(
            "book/_vendor is missing: run `python tools/vendor.py`, then build the book again"
        )
    config.html_static_path += [str(vendor), str(HERE / "static")]
    config.templates_path += [str(HERE / "templates")]
    config.nb_ipywidgets_js = WIDGET_SCRIPTS
    config.mathjax_path = "mathjax/startup.js"
    config.mathjax3_config = {**(config.mathjax3_config or {}), **MATHJAX}
    address = repository(ROOT / "pyproject.toml")
    config.html_theme_options.update(repository_options(address, built_from(ROOT)))


def repository(pyproject: Path) -> str | None:
    """The repository's address as pyproject.toml states it, no closing slash; None while it is unset."""
    try:
        project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
    except FileNotFoundError:
        return None
    address = project.get("urls", {}).get("Repository")
    return address.rstrip("/") if address else None


def built_from(root: Path) -> str:
    """What a chapter is launched from, so that it is the one on the page: the commit of the project in ``root``, or
    where that is no repository the tag of its version.
    """
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return f"v{project['version']}"


def repository_options(address: str | None, version: str) -> dict[str, Any]:
    """Theme options of the repository and launch buttons, at the commit or tag `version`; all off without address."""
    if address is None:
        off = {"use_repository_button": False, "use_issues_button": False, "use_edit_page_button": False}
        return {"repository_url": "", "launch_buttons": {}, **off}
    on_github = urlsplit(address).hostname == "github.com"
    return {
        "repository_url": address,
        "repository_branch": version,
        "path_to_docs": "book",
        "use_repository_button": True,
        "use_issues_button": True,
        # Colab opens notebooks of GitHub only; Binder gets the environment of binder/ with the chapter.
        "launch_buttons": LAUNCH_BUTTONS if on_github else {},
    }


def site_prefix(address: str | None) -> str | None:
    """`/NAME/`, the path below which GitHub Pages serves a project's site."""
    if address is None or urlsplit(address).hostname != "github.com":
        return None
    return f"/{urlsplit(address).path.rsplit('/', 1)[-1]}/"


def add_early_script(app: Sphinx) -> None:
    # Ahead of require.js, which reads the global `require` once, and of every MathJax script.
    app.add_js_file("early.js", priority=10)
    app.add_js_file("accessibility.js", priority=950)
    app.add_css_file("offline_site.css", priority=950)


def trim_page(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Leave out the scripts that the site must not load, and give the templates what they ask for."""
    # Sphinx loads MathJax on every page as soon as one page has an equation.
    has_math = app.env.get_domain("math").data["has_equations"].get(pagename, False)
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if not mentions(script, "sphinx-thebe.js", "THEBE_JS_URL")
        and (has_math or not mentions(script, "mathjax/", "window.MathJax"))
    ]
    # docutils puts entries of one ARIA role into a list of another, which screen readers then take for empty.
    context["body"] = context.get("body", "").replace('role="doc-biblioentry"', 'role="listitem"')
    context["without_icon_script"] = without_icon_script
    context["base_404"] = None
    if pagename == "404":
        context["base_404"] = BASE_404.format(
            prefix=json.dumps(site_prefix(repository(ROOT / "pyproject.toml")))
        )


def mentions(script: Any, *names: str) -> bool:
    """Whether a script of a page, given by file or by text, has one of `names` in it."""
    text = f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', {}).get('body') or ''}"
    return any(name in text for name in names)


def without_icon_script(html: str) -> str:
    """The theme's head without the script that draws icons; a theme that has changed is reported."""
    trimmed, count = FONTAWESOME_TAG.subn("", html)
    if count != 1:
        LOGGER.warning("offline_site: expected 1 FontAwesome script in the theme's head, found %d", count)
    return trimmed


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Drop the files that no page loads, and write the archive of chapters."""
    if exception is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    unused = ["scripts/fontawesome.js", "scripts/fontawesome.js.map", "sphinx-thebe.js", "vendored.json"]
    for name in unused:
        (static / name).unlink(missing_ok=True)
    write_archive(Path(app.srcdir), Path(app.outdir) / ARCHIVE)
    write_archive(Path(app.srcdir), Path(app.outdir) / STUDENTS_ARCHIVE, student_copy)


def write_archive(book: Path, target: Path, copy: Callable[[Path], bytes] = Path.read_bytes) -> None:
    """All chapters in one archive, each as `copy` has it, the same bytes for the same chapters."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for notebook in sorted(book.glob("[0-9][0-9]_*.ipynb")):
            entry = zipfile.ZipInfo(f"perturb_tutorial_{target.stem}/{notebook.name}")
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, copy(notebook))


def student_copy(notebook: Path) -> bytes:
    """The chapter without its solutions, as tools/chapters.py writes it."""
    content = without_solutions(nbformat.read(notebook, as_version=4))
    return (nbformat.writes(content).rstrip("\n") + "\n").encode()


class VendoredLicenses(SphinxDirective):
    """A list of the third-party scripts this site serves: name, version, license."""

    def run(self) -> list[nodes.Node]:
        declared = json.loads((ROOT / "book" / "vendor" / "package.json").read_text(encoding="utf-8"))
        lock = json.loads((ROOT / "book" / "vendor" / "lock.json").read_text(encoding="utf-8"))
        items = nodes.bullet_list()
        for name in sorted(declared["dependencies"]):
            item, text = nodes.list_item(), nodes.paragraph()
            text += nodes.literal(text=name)
            text += nodes.Text(f" {lock[name]['version']}, {lock[name]['license']}")
            targets = declared["vendor"][name].values()
            texts = [path for path in targets if isinstance(path, str) and path.startswith("licenses/")]
            for path in texts:
                text += nodes.Text(" (")
                text += nodes.reference("", "license and notices", refuri=f"{self.to_top()}_static/{path}")
                text += nodes.Text(")")
            items += item
            item += text
        return [items]

    def to_top(self) -> str:
        return "../" * self.env.docname.count("/")


def archive_role(archive: str) -> Callable[..., tuple[list[nodes.Node], list[nodes.system_message]]]:
    """A role that links its text to an archive at the site's top."""

    def role(
        name: str,
        rawtext: str,
        text: str,
        lineno: int,
        inliner: Inliner,
        options: Any = None,
        content: Any = None,
    ) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        depth = inliner.document.settings.env.docname.count("/")
        return [nodes.reference(rawtext, text, refuri="../" * depth + archive)], []

    return role
