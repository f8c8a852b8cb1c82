"""What strangers and machines read of the project agrees with what it is: metadata, forms, workflows, the paper."""

from __future__ import annotations

import json
import re
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import links
import metadata
import oldest
import pytest
import release
import suite
import try_wheel
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


def paper() -> str:
    return read("paper/paper.md").split("---\n", 2)[2]


def test_the_paper_has_less_than_1000_words() -> None:
    words = re.sub(r"\[@[^\]]+\]|^#+ ", " ", paper(), flags=re.MULTILINE).split()
    assert 600 < len(words) < 1000, len(words)


def test_the_paper_has_what_the_journal_asks_for() -> None:
    sections = re.findall(r"^# (.+)$", paper(), re.MULTILINE)
    for wanted in (
        "Summary",
        "Statement of need",
        "learning objectives",
        "Content",
        "adopt",
        "Experience of use",
    ):
        assert any(wanted in section for section in sections), wanted
    head = yaml.safe_load(read("paper/paper.md").split("---\n", 2)[1])
    assert {"title", "tags", "authors", "affiliations", "date", "bibliography"} <= set(head)
    known = {place["index"] for place in head["affiliations"]}
    assert all(person["affiliation"] in known for person in head["authors"])


def test_the_papers_references_are_cited_and_are_the_books() -> None:
    entry = re.compile(r"^@\w+\{(\w+),\n.*?^\}\n", re.DOTALL | re.MULTILINE)
    in_paper = {found[1]: found[0] for found in entry.finditer(read("paper/paper.bib"))}
    in_book = {found[1]: found[0] for found in entry.finditer(read("book/references.bib"))}
    assert set(re.findall(r"@(\w+)", paper())) == set(in_paper)
    for key in in_paper.keys() & in_book.keys():
        assert in_paper[key] == in_book[key], key
    # What is not in the book has an identifier or a place where it was published.
    for key in in_paper.keys() - in_book.keys():
        assert re.search(r"^  (doi|journal) = ", in_paper[key], re.MULTILINE), key


def test_the_paper_counts_the_chapters_right() -> None:
    chapters = len(list((ROOT / "book").glob("[0-9][0-9]_*.ipynb")))
    assert {17: "Seventeen"}[chapters] in paper(), chapters
    plans = re.findall(r"```\{lesson-plan\} (\d+)", read("book/teachers.md"))
    assert sorted(plans) == ["45", "90", "90"]


def test_oldest_requirements_are_the_bounds_of_the_package() -> None:
    assert oldest.FILE.read_text(encoding="utf-8") == oldest.oldest(ROOT / "pyproject.toml")
    pins = dict(line.split("==") for line in read("constraints-oldest.txt").splitlines()[1:])
    assert pins["torch"] == "2.4"
    assert "timm" not in pins


def test_a_requirement_without_a_lower_bound_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["numpy"]\n', encoding="utf-8")
    with pytest.raises(ValueError, match="expected name>=version, got 'numpy'"):
        oldest.oldest(tmp_path / "pyproject.toml")


def test_workflows_pin_what_they_use_and_keep_no_address_of_an_index() -> None:
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert [path.stem for path in workflows] == ["book", "links", "release", "tests"]
    for path in workflows:
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"uses: (?!\S+@[0-9a-f]{40} # v\d)", text) == [], path.name
        assert "://" not in text, path.name
        scripts = re.findall(r"python3? (tools/\w+\.py)", text)
        assert scripts or path.stem == "book"
        assert [name for name in scripts if not (ROOT / name).is_file()] == []
        assert yaml.safe_load(text)["permissions"] == {"contents": "read"}


def test_workflows_try_every_python_that_the_package_names() -> None:
    matrix = yaml.safe_load(read(".github/workflows/tests.yml"))["jobs"]["tests"]["strategy"]["matrix"]
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert matrix["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert {system.partition("-")[0] for system in matrix["system"]} == {"ubuntu", "macos", "windows"}


def test_a_release_is_refused_where_tag_version_and_changelog_differ(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n', encoding="utf-8")
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text("## 1.2.3 (unreleased)\n", encoding="utf-8")
    assert len(release.not_released(tmp_path, "v1.2.4")) == 2
    changelog.write_text("## 1.2.3 (2027-01-31)\n", encoding="utf-8")
    assert release.not_released(tmp_path, "v1.2.3") == []


def test_two_builds_that_differ_are_named() -> None:
    assert release.differences({"a.whl": b"1", "b.tar.gz": b"2"}, {"a.whl": b"1", "b.tar.gz": b"3"}) == [
        "b.tar.gz is not the same in two builds"
    ]
    assert release.differences({"a.whl": b"1"}, {}) == ["a.whl is not the same in two builds"]


def test_a_wheel_with_notebooks_or_caches_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("x/__init__.py", "x/__pycache__/y.pyc", "x/01.ipynb"):
            archive.writestr(name, "")
    assert len(release.unsuitable(wheel)) == 2


def test_the_wheel_is_tried_by_the_front_pages_command() -> None:
    words = try_wheel.first_command(read("README.md"))
    assert words == ["explain", "--sample", "chelsea", "--output", "out"]
    from perturb_tutorial.baselines import METHODS

    listed = "".join(f"{name}  §1  about\n" for name in ("mask", *METHODS))
    assert try_wheel.methods(listed) == [name for name in METHODS if name != "mask"]


def test_addresses_on_pages_are_found_without_the_full_stop() -> None:
    text = "See [a](https://a.org/b), https://c.org/d. And `http://localhost:8000`.\n  doi = {10.1/xyz},\n"
    assert list(links.named(text)) == ["https://a.org/b", "https://c.org/d", "https://doi.org/10.1/xyz"]


def test_every_package_of_the_fast_part_is_there() -> None:
    assert [name for name in (*suite.LEFT_OUT, *suite.SLOW) if not (ROOT / name).exists()] == []
