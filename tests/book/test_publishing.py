"""What strangers and machines read of the project agrees with what it is: metadata, forms, workflows, the paper."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import metadata
import pytest
import yaml

import perturb_tutorial as pt

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADDRESS = "https://github.com/someone/some-book"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def copy_of_the_sources(folder: Path, urls: str) -> Path:
    for name in ("CITATION.cff", "README.md"):
        (folder / name).write_text(read(name), encoding="utf-8")
    text = re.sub(r"\[project\.urls\]\n(.+\n)*", "", read("pyproject.toml"))
    (folder / "pyproject.toml").write_text(text + urls, encoding="utf-8")
    return folder


def test_archive_metadata_are_those_of_the_package() -> None:
    for name, text in metadata.contents(ROOT).items():
        assert read(name) == text, f"{name}: run python tools/metadata.py"
    archive, code = json.loads(read(".zenodo.json")), json.loads(read("codemeta.json"))
    citation = yaml.safe_load(read("CITATION.cff"))
    assert (
        archive["version"] == code["version"] == citation["version"] == PROJECT["version"] == pt.__version__
    )
    assert archive["license"] == citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert archive["title"] == citation["title"]
    assert [person["name"] for person in archive["creators"]] == [p["name"] for p in PROJECT["authors"]]


def test_without_an_address_nothing_names_one(tmp_path: Path) -> None:
    found = metadata.contents(copy_of_the_sources(tmp_path, ""))
    assert "badge" not in found["README.md"].replace("<!-- badges:", "")
    assert "codeRepository" not in found["codemeta.json"]
    assert [r["scheme"] for r in json.loads(found[".zenodo.json"])["related_identifiers"]] == ["doi"]


def test_one_address_gives_badges_archive_and_code(tmp_path: Path) -> None:
    folder = copy_of_the_sources(tmp_path, f'\n[project.urls]\nRepository = "{ADDRESS}/"\n')
    assert metadata.contents(folder)["README.md"] != (folder / "README.md").read_text(encoding="utf-8")
    for name, text in metadata.contents(folder).items():
        (folder / name).write_text(text, encoding="utf-8")
    assert metadata.contents(folder)["README.md"] == (folder / "README.md").read_text(encoding="utf-8")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert f"[![Tests]({ADDRESS}/actions/workflows/tests.yml/badge.svg)]" in readme
    assert f"/v2/gh/someone/some-book/v{PROJECT['version']}?" in readme
    assert json.loads((folder / "codemeta.json").read_text(encoding="utf-8"))["codeRepository"] == ADDRESS
    for workflow in re.findall(r"workflows/(\w+\.yml)\)", readme):
        assert (ROOT / ".github" / "workflows" / workflow).is_file()


def test_another_host_has_no_badges_of_githubs(tmp_path: Path) -> None:
    folder = copy_of_the_sources(tmp_path, '\n[project.urls]\nRepository = "https://git.example.org/a/b"\n')
    assert "](" not in metadata.contents(folder)["README.md"].partition("<!-- end -->")[0]


@pytest.mark.parametrize(
    ("person", "sorted_name", "kind"),
    [
        ({"name": "The contributors"}, "The contributors", "Organization"),
        (
            {"family-names": "Curie", "given-names": "Marie", "orcid": "https://orcid.org/0"},
            "Curie, Marie",
            "Person",
        ),
    ],
)
def test_authors_are_persons_or_groups(person: dict[str, str], sorted_name: str, kind: str) -> None:
    assert metadata.name(person) == sorted_name
    assert metadata.author(person)["@type"] == kind
    assert ("@id" in metadata.author(person)) == ("orcid" in person)


def test_the_front_page_opens_with_two_commands() -> None:
    """One sets up and explains, one sets up and tests; the picture comes after them, and headings after that."""
    readme = read("README.md")
    commands = re.search(r"```sh\n(.*?)```", readme, re.DOTALL)
    assert commands is not None
    explain, test = commands[1].splitlines()
    assert explain.split()[1] == "tools/environment.py"
    assert "&& .venv/bin/perturb-tutorial explain --sample chelsea" in explain
    assert test == "make test"
    assert commands.start() < readme.index("![") < readme.index("\n## ")


def quoted_files(text: str) -> set[str]:
    return set(re.findall(r"`((?:[\w.-]+/)*[\w.-]+\.(?:md|txt|py|cff|toml|yml|conf))`", text))


@pytest.mark.parametrize(
    "page", ["CONTRIBUTING.md", "SUPPORT.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "README.md"]
)
def test_pages_for_strangers_name_files_that_are_there(page: str) -> None:
    made = {"results.json", "summary.json"}
    missing = [name for name in quoted_files(read(page)) - made if not (ROOT / name).exists()]
    assert missing == []


def test_forms_and_settings_of_the_repository_can_be_read() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert [path.stem for path in forms] == ["config", "idea", "question", "wrong"]
    for path in forms:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.stem == "config":
            continue
        assert {"name", "description", "body"} <= set(content)
        ids = [field["id"] for field in content["body"] if field["type"] != "markdown"]
        assert len(set(ids)) == len(ids)
    (hook,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    assert hook["entry"] == "make lint"
    assert re.search(r"^lint:", read("Makefile"), re.MULTILINE)
    assert json.loads(read(".devcontainer/devcontainer.json"))["postCreateCommand"] == "make setup"
    installed = re.search(r'"\.\[([\w,]+)\]"', read("binder/postBuild"))
    assert installed is not None
    assert set(installed[1].split(",")) <= set(PROJECT["optional-dependencies"])
