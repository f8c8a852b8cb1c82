"""The book around its chapters: what is said of them is read from them, and nothing is left out."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from pathlib import Path

import house
import nbformat
import pytest
import yaml
from chapter_facts import ChapterFactsError, chapter_facts, minutes, reading_minutes, spoken
from chapter_form import chapter
from data_rows import check_rows
from notebook_form import write_whole

import perturb_tutorial as pt
from perturb_tutorial.datasets.paper import paper_numbers

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
STORED = sorted(BOOK.glob("[0-9][0-9]_*.ipynb"))
INTERNAL = {
    # What a reader calls is reached through the packages above them.
    "__main__", "_forks", "_outside", "_words", "benchmarks.claims", "benchmarks.errors", "benchmarks.fetched",
    "benchmarks.parts", "places", "places.buckets", "places.requests", "reading", "result_file", "sealed",
    "baselines.batches", "baselines.excitation_rules", "baselines.graphs",
    "baselines.layers", "baselines.leaf_pass", "baselines.occluders", "baselines.readable_pass",
    "baselines.rectifiers", "batches", "benchmarks.ray_dispatch", "benchmarks.ray_engine",
    "benchmarks.ray_nodes", "benchmarks.ray_workers", "benchmarks.mask_engine",
    "benchmarks.store", "benchmarks.summary", "benchmarks.tally",
    "canvas", "cli", "cli.benchmark", "cli.explain", "cli.gallery", "cli.listings", "cli.options",
    "datasets.json_values", "engines.backward", "engines.compiled", "engines.gradient_check",
    "engines.graph_files", "engines.module_key", "engines.openvino", "engines.recording", "files", "image_files",
    "mask_files", "networks.arithmetic", "networks.batch_invariance",
    "networks.batchnorm_gradients",
    "networks.checkpoints", "networks.checks",
    "networks.folding", "networks.formats", "networks.gradients", "networks.hooks", "networks.influence",
    "networks.logits",
    "networks.outputs", "networks.places", "study.frames", "study.our_rows", "study.speed",
}  # fmt: skip


def files_of_the_toc() -> list[str]:
    content = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [content["root"], *(entry["file"] for part in content["parts"] for entry in part["chapters"])]


def test_every_page_is_in_the_table_of_contents_once() -> None:
    files = files_of_the_toc()
    assert len(set(files)) == len(files)
    # 404.md is no page that one turns to.
    pages = {path.stem for path in BOOK.glob("*.md")} - {"404"}
    assert set(files) == {path.stem for path in STORED} | pages
    chapters = [name for name in files if re.match(r"\d\d_", name)]
    assert chapters == sorted(chapters), "in the order of their numbers"


def test_stated_times_are_possible() -> None:
    def check(path: Path) -> None:
        facts = chapter_facts(path)
        estimate = reading_minutes(nbformat.read(path, as_version=4))
        assert 0.8 * estimate <= facts.read <= 2.5 * estimate, (
            f"{facts.read:.0f} min to read, by its length {estimate:.0f}"
        )
        assert facts.quick <= facts.run <= 3

    check_rows({path.stem: path for path in STORED}, check)


def test_a_chapter_without_its_time_is_named(tmp_path: Path) -> None:
    notebook = chapter()
    path = tmp_path / "01_small.ipynb"
    write_whole(notebook, path)
    facts = chapter_facts(path)
    assert (facts.title, facts.promise) == ("A small chapter", "It shows what every chapter has.")
    assert (facts.read, facts.run, facts.quick) == (1, 1, pytest.approx(1 / 60))
    notebook.cells[0].source = notebook.cells[0].source.replace("1 min to read", "a while to read")
    write_whole(notebook, path)
    with pytest.raises(ChapterFactsError, match=r"01_small.ipynb: expected its time in the form"):
        chapter_facts(path)


def test_times_are_said_as_readers_say_them() -> None:
    assert [spoken(value) for value in (0.5, 1, 12, 95)] == ["30 s", "1 min", "12 min", "1 h 35 min"]
    assert [minutes(text) for text in ("20 s", "2 min")] == [pytest.approx(1 / 3), 2]


def test_the_reference_has_every_module_and_public_name() -> None:
    listed = set(re.findall(r"automodule:: perturb_tutorial\.([\w.]+)", (BOOK / "api.md").read_text("utf-8")))
    modules = {
        info.name.removeprefix("perturb_tutorial.")
        for info in pkgutil.walk_packages(pt.__path__, "perturb_tutorial.")
    }
    assert listed <= modules
    assert modules - listed - INTERNAL == set(), "say in api.md what they do, or that they are internal"
    for name in pt.__all__:
        home = getattr(pt, name).__module__.removeprefix("perturb_tutorial.")
        assert home in listed, f"{name} lives in {home}"


def test_every_public_name_has_a_docstring() -> None:
    without = [name for name in pt.__all__ if not (getattr(pt, name).__doc__ or "").strip()]
    assert not without, ", ".join(without)


def test_the_picture_of_the_house_is_that_of_the_imports() -> None:
    """Drawn from the table that the imports are compared with; who cannot see it is told the same floors."""
    floors = house.floors()
    assert [name for row in floors for name in row if not name.isidentifier()] == []
    assert {"settings", "canvas", "benchmarks", "cli"} <= {name for row in floors for name in row}
    drawn = house.drawn(floors)
    assert house.PICTURE.read_text(encoding="utf-8") == drawn, "run: python tools/house.py"
    (alt,) = re.findall(
        r"^:alt: .*ground up, they hold (.*)\.$", (BOOK / "contributing.md").read_text("utf-8"), re.M
    )
    assert [sorted(re.split(r", | and ", row)) for row in alt.split("; ")] == floors


def parts_that_are_missing(page: str) -> list[str]:
    """Files, folders and names of code that ``page`` has in backquotes and the project has not."""
    tops = ("perturb_tutorial", "tests", "tools", "book", "data", "paper")
    paths = [*ROOT.glob("*.*"), *(path for top in tops for path in (ROOT / top).rglob("*"))]
    there = {f"/{path.relative_to(ROOT).as_posix()}" for path in paths}
    code = "\n".join(
        Path(f"{ROOT}{path}").read_text(encoding="utf-8")
        for path in there
        if path.endswith(".py") and path != "/tests/book/test_book_pages.py"
    )
    quoted = {text for text in re.findall(r"`([^`\n]+)`", page) if "NAME" not in text and "NN" not in text}
    files = {text for text in quoted if re.fullmatch(r"[\w/]+(\.(py|md|csv|toml|yml)|/\w+)", text)}
    names = {text for text in quoted if re.fullmatch(r"\w+_\w+|[A-Z]\w*[A-Z]\w*", text)}
    return [
        *sorted(text for text in files if not any(path.endswith(f"/{text}") for path in there)),
        *sorted(text for text in names if not re.search(rf"^ *(def |class )?{text}\b *[(=:]", code, re.M)),
    ]


def test_contributors_are_led_to_what_there_is() -> None:
    page = (BOOK / "contributing.md").read_text(encoding="utf-8").replace("`perturb_tutorial`", "")
    page = re.sub(r"\{doc\}`[^`]+`", "", page)  # the build checks links between pages
    missing = parts_that_are_missing(page)
    assert not missing, ", ".join(missing)
    assert parts_that_are_missing(
        "`tests/attic`, `canvas.py`, `attic.py`, `METHODS` and `test_the_attics_door`"
    ) == [
        "attic.py",
        "tests/attic",
        "test_the_attics_door",
    ]


def test_slips_page_names_every_slip_of_the_numbers() -> None:
    text = (BOOK / "slips.md").read_text(encoding="utf-8")
    noted = [n for n in paper_numbers().values() if "slip" in n.note or "it is an error" in n.note]
    assert len(noted) >= 4
    for number in noted:
        section = number.source.partition(",")[0].replace("§", "§ ")
        assert section in text
        assert re.search(rf"\b{re.escape(f'{number.value:g}')}\b", text), number.key
    for phrase in ("32×32", "figure 7", "[12]", "g_{\\sigma_m = 10}", "unit of the mask's σ"):
        assert phrase.lower() in text.lower()


def test_terms_and_symbols_are_defined_once() -> None:
    text = "".join((BOOK / f"{page}.md").read_text(encoding="utf-8") for page in ("glossary", "symbols"))
    terms = re.findall(r"^(\S[^\n]*)\n  \S", text, re.MULTILINE)
    assert len(terms) > 50
    assert len({term.lower() if len(term) > 1 else term for term in terms}) == len(terms)


@pytest.fixture(scope="module")
def book_pages() -> object:
    pytest.importorskip("sphinx", reason="needs the extra book")
    sys.path.insert(0, str(BOOK / "_ext"))
    return importlib.import_module("book_pages")


def test_first_use_of_a_term_becomes_a_link(book_pages: object) -> None:
    from docutils import nodes

    entries = {"mask": "g#mask", "pointing game": "g#pg", "λ₁": "s#l1"}
    pattern = book_pages.pattern_of({name.lower(): name for name in entries})  # type: ignore[attr-defined]
    paragraph = nodes.paragraph()
    paragraph += nodes.Text("Masks, unmasked: in the Pointing game a mask with λ₁.")
    linked: set[str] = set()
    words = {name.lower(): name for name in entries}
    book_pages.replace_words(paragraph[0], pattern, words, entries, linked)  # type: ignore[attr-defined]
    links = [(node.astext(), node["refuri"]) for node in paragraph.findall(nodes.reference)]
    assert links == [("Masks", "g#mask"), ("Pointing game", "g#pg"), ("λ₁", "s#l1")]
    assert paragraph.astext() == "Masks, unmasked: in the Pointing game a mask with λ₁."


def test_subscripts_are_lowered_in_prose_and_left_in_code(book_pages: object) -> None:
    from docutils import nodes

    subscripts = importlib.import_module("subscripts")  # beside book_pages
    page = nodes.paragraph()
    for kind, text in (
        (nodes.inline, "σ_m = 5 and f_c, from s_0 to s_K"),
        (nodes.literal, "f_c"),
        (nodes.inline, "top_k, a_bc, tv_weight, v_{12}"),
    ):
        inner = kind()
        inner += nodes.Text(text)
        page += inner
    before = page.astext().replace("_m", "m").replace("f_c,", "fc,").replace("_0", "0").replace("_K", "K")
    subscripts.lower_subscripts(None, page, "page")
    assert [node.astext() for node in page.findall(nodes.subscript)] == ["m", "c", "0", "K"]
    assert page.astext() == before


def test_lesson_plans_add_up() -> None:
    """The build refuses a plan that does not; this says so without a build."""
    text = (BOOK / "teachers.md").read_text(encoding="utf-8")
    plans = re.findall(r"```\{lesson-plan\} (\d+)\n(.*?)```", text, re.DOTALL)
    assert sorted(int(promised) for promised, _ in plans) == [45, 90, 90]
    for promised, rows in plans:
        assert sum(int(row.split("|")[0]) for row in rows.strip().splitlines()) == int(promised)


def test_labels_are_used_once_in_the_whole_book() -> None:
    """Exercises and figures are numbered and referred to across chapters."""
    seen: dict[str, str] = {}
    for path in STORED:
        cells = nbformat.read(path, as_version=4).cells
        labels = [label for cell in cells for label in re.findall(r"^:label:[ \t]*(\S+)", cell.source, re.M)]
        labels += [cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in cells]
        for label in filter(None, labels):
            assert label not in seen, f"{path.stem} and {seen[label]} both have {label}"
            seen[label] = path.stem
