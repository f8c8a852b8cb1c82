"""What the site derives from pyproject.toml, and what its extension does to a page."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from chapter_form import chapter
from notebook_form import write_whole

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("offline_site", ROOT / "book" / "_ext" / "offline_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["offline_site"] = module
    spec.loader.exec_module(module)
    return module


pytest.importorskip("sphinx", reason="needs the extra book")
offline_site = load()


def project(folder: Path, urls: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(f'[project]\nname = "x"\n{urls}', encoding="utf-8")
    return path


def test_without_an_address_there_is_no_button(tmp_path: Path) -> None:
    address = offline_site.repository(project(tmp_path, ""))
    assert address is None
    options = offline_site.repository_options(address, "v1.2.3")
    assert options.pop("repository_url") == ""
    assert options.pop("launch_buttons") == {}
    assert set(options.values()) == {False}
    assert offline_site.site_prefix(None) is None


def test_one_address_gives_every_button(tmp_path: Path) -> None:
    urls = '[project.urls]\nRepository = "https://github.com/someone/some-book/"\n'
    address = offline_site.repository(project(tmp_path, urls))
    options = offline_site.repository_options(address, "v1.2.3")
    assert options["repository_url"] == "https://github.com/someone/some-book"
    assert options["use_repository_button"] is True
    assert {"colab_url", "binderhub_url"} < set(options["launch_buttons"])
    assert options["repository_branch"] == "v1.2.3"
    assert offline_site.site_prefix(address) == "/some-book/"


def test_a_chapter_is_launched_as_it_was_built(tmp_path: Path) -> None:
    path = project(tmp_path, 'version = "1.2.3"\n')
    assert offline_site.built_from(tmp_path) == "v1.2.3"

    def git(*words: str) -> str:
        named = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        command = ["git", "-C", str(tmp_path), *named, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    git("add", path.name)
    git("commit", "-qm", "one")
    first = git("rev-parse", "HEAD")
    git("commit", "-qm", "two", "--allow-empty")
    assert offline_site.built_from(tmp_path) == git("rev-parse", "HEAD") != first


def test_another_host_gets_no_colab_button() -> None:
    options = offline_site.repository_options("https://git.example.org/someone/some-book", "v1.2.3")
    assert options["use_repository_button"] is True
    assert options["launch_buttons"] == {}
    assert offline_site.site_prefix("https://git.example.org/someone/some-book") is None


def test_the_address_stands_nowhere_else() -> None:
    text = (ROOT / "_config.yml").read_text(encoding="utf-8")
    assert "://" not in text


def test_the_citation_names_the_packages_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]


def test_a_changed_theme_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    tag = '<script defer src="_static/scripts/fontawesome.js?digest=1"></script>'
    assert offline_site.without_icon_script(f"<a>{tag}<b>") == "<a><b>"
    warnings: list[str] = []
    monkeypatch.setattr(
        offline_site.LOGGER, "warning", lambda message, *args: warnings.append(message % args)
    )
    assert offline_site.without_icon_script("<a>") == "<a>"
    assert warnings == ["offline_site: expected 1 FontAwesome script in the theme's head, found 0"]


def test_the_archive_is_stable_and_complete(tmp_path: Path) -> None:
    for name in ("02_b.ipynb", "01_a.ipynb", "draft.ipynb"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    first, second = tmp_path / "1" / "notebooks.zip", tmp_path / "2" / "notebooks.zip"
    for archive in (first, second):
        archive.parent.mkdir()
    offline_site.write_archive(tmp_path, first)
    (tmp_path / "01_a.ipynb").touch()
    offline_site.write_archive(tmp_path, second)
    with zipfile.ZipFile(first) as one, zipfile.ZipFile(second) as two:
        assert one.namelist() == [
            "perturb_tutorial_notebooks/01_a.ipynb",
            "perturb_tutorial_notebooks/02_b.ipynb",
        ]
        assert [one.read(name) for name in one.namelist()] == [two.read(name) for name in two.namelist()]
    assert first.read_bytes() == second.read_bytes()


def test_the_students_copy_has_no_solution(tmp_path: Path) -> None:
    small = tmp_path / "01_small.ipynb"
    write_whole(chapter(), small)
    copy = offline_site.student_copy(small).decode()
    assert "{exercise-start}" in copy
    assert "{solution-start}" not in copy
