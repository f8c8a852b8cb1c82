"""Write what archives, registries and the front page say of the project: `python tools/metadata.py`.

One place for each fact: pyproject.toml has name, version, description, keywords, license, Python versions and the
address (`[project.urls] Repository`), CITATION.cff the title, the abstract, the authors and the paper that is
reproduced. From them come `.zenodo.json` (the archive), `codemeta.json` (search engines for software) and the badges
of README.md, which are left out while there is no address. A test compares the files with what this writes.

    python tools/metadata.py [--check]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).resolve().parent.parent
BADGES = re.compile(r"(<!-- badges: tools/metadata.py -->\n).*?(<!-- end -->\n)", re.DOTALL)
SPDX = "https://spdx.org/licenses/"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write .zenodo.json, codemeta.json and README.md's badges.")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if a file differs")
    options = parser.parse_args(argv)
    status = 0
    for name, text in contents(ROOT).items():
        path = ROOT / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if options.check:
            print(f"metadata: {name} differs; run: python tools/metadata.py", file=sys.stderr)
            status = 1
        else:
            path.write_text(text, encoding="utf-8")
    return status


def contents(root: Path) -> dict[str, str]:
    """File name → text of every file that follows from pyproject.toml and CITATION.cff in ``root``."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    readme = (root / "README.md").read_text(encoding="utf-8")
    shown = badges(project)
    return {
        ".zenodo.json": written(zenodo(project, citation)),
        "codemeta.json": written(codemeta(project, citation)),
        "README.md": BADGES.sub(lambda found: f"{found[1]}{shown}{found[2]}", readme),
    }


def written(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def address(project: dict[str, Any]) -> str | None:
    """The repository's address without a closing slash; None while it is unset."""
    stated = project.get("urls", {}).get("Repository")
    return stated.rstrip("/") if stated else None


def zenodo(project: dict[str, Any], citation: dict[str, Any]) -> dict[str, Any]:
    """The archive's record. It replaces what the archive would read from CITATION.cff."""
    related = [
        {"identifier": reference["doi"], "relation": "isDerivedFrom", "scheme": "doi"}
        for reference in citation["references"]
    ]
    if home := address(project):
        related.append({"identifier": home, "relation": "isSupplementTo", "scheme": "url"})
    return {
        "title": citation["title"],
        "description": citation["abstract"].strip(),
        "upload_type": "software",
        "access_right": "open",
        "license": project["license"],
        "version": project["version"],
        "creators": [{"name": name(person)} for person in citation["authors"]],
        "keywords": project["keywords"],
        "related_identifiers": related,
    }


def codemeta(project: dict[str, Any], citation: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "@context": "https://doi.org/10.5063/schema/codemeta-2.0",
        "@type": "SoftwareSourceCode",
        "name": project["name"],
        "description": project["description"],
        "version": project["version"],
        "license": f"{SPDX}{project['license']}",
        "author": [author(person) for person in citation["authors"]],
        "keywords": project["keywords"],
        "programmingLanguage": "Python",
        "runtimePlatform": f"Python {project['requires-python']}",
        "softwareRequirements": list(project["dependencies"]),
        "referencePublication": [f"https://doi.org/{item['doi']}" for item in citation["references"]],
        "developmentStatus": "active",
    }
    if home := address(project):
        content |= {
            "codeRepository": home,
            "issueTracker": f"{home}/issues",
            "readme": f"{home}/blob/main/README.md",
        }
    return content


def name(person: dict[str, str]) -> str:
    """A person as archives sort them; a group under its own name."""
    return person.get("name") or f"{person['family-names']}, {person['given-names']}"


def author(person: dict[str, str]) -> dict[str, str]:
    if "name" in person:
        return {"@type": "Organization", "name": person["name"]}
    found = {"@type": "Person", "givenName": person["given-names"], "familyName": person["family-names"]}
    return found | ({"@id": person["orcid"]} if "orcid" in person else {})


def badges(project: dict[str, Any]) -> str:
    """One line of badges for a repository on GitHub; nothing for another host or without an address."""
    home = address(project)
    if home is None or urlsplit(home).hostname != "github.com":
        return ""
    owner_and_name = urlsplit(home).path.strip("/")
    package = f"https://pypi.org/project/{project['name']}"
    rows = [
        ("Tests", f"{home}/actions/workflows/tests.yml/badge.svg", f"{home}/actions/workflows/tests.yml"),
        ("Book", f"{home}/actions/workflows/book.yml/badge.svg", f"{home}/actions/workflows/book.yml"),
        ("Version", f"https://img.shields.io/pypi/v/{project['name']}", package),
        ("Python versions", f"https://img.shields.io/pypi/pyversions/{project['name']}", package),
        (
            "Project status: active",
            "https://www.repostatus.org/badges/latest/active.svg",
            "https://www.repostatus.org/#active",
        ),
        (
            "Binder",
            "https://mybinder.org/badge_logo.svg",
            f"https://mybinder.org/v2/gh/{owner_and_name}/v{project['version']}?urlpath=lab/tree/book/01_method.ipynb",
        ),
    ]
    return " ".join(f"[![{label}]({image})]({target})" for label, image, target in rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
