"""tools/chapters.py: the same results give the same bytes, and a chapter that fails is left as it was."""

from __future__ import annotations

import base64
import copy
import io
import json
import uuid
from pathlib import Path

import chapters
import nbformat
import pytest
from chapter_form import chapter
from notebook_form import WIDGET_STATE, normalize, stable_png, write_whole
from PIL import Image, PngImagePlugin


@pytest.fixture
def book(tmp_path: Path) -> Path:
    write_whole(chapter(), tmp_path / "01_small.ipynb")
    return tmp_path


def test_a_second_run_changes_no_byte(book: Path) -> None:
    path = book / "01_small.ipynb"
    assert chapters.main(["run", "--book", str(book)]) == 0
    first = path.read_bytes()
    assert b"image/png" in first
    assert WIDGET_STATE.encode() in first
    assert chapters.main(["run", "01", "--book", str(book)]) == 0
    assert path.read_bytes() == first
    assert chapters.main(["check", "01_small.ipynb", "--book", str(book)]) == 0


def test_a_kernel_has_one_thread_whatever_the_caller_has(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    path = book / "01_small.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(
        nbformat.v4.new_code_cell("import torch; print(torch.get_num_threads(), 'threads')")
    )
    nbformat.write(notebook, path)
    assert chapters.main(["run", "--book", str(book)]) == 0
    assert "1 threads" in path.read_text(encoding="utf-8")


def test_widget_state_keeps_its_links_after_renumbering(book: Path) -> None:
    chapters.main(["run", "--book", str(book)])
    notebook = nbformat.read(book / "01_small.ipynb", as_version=4)
    state = notebook.metadata.widgets[WIDGET_STATE].state
    assert list(state) == [f"{number:032x}" for number in range(1, len(state) + 1)]
    view = next(
        output.data["application/vnd.jupyter.widget-view+json"].model_id
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    )
    slider, stack = (state[child.removeprefix("IPY_MODEL_")] for child in state[view].state.children)
    assert (slider.model_name, stack.model_name) == ("IntSliderModel", "StackModel")
    (link,) = (model for model in state.values() if model.model_name == "LinkModel")
    assert state[link.state.source[0].removeprefix("IPY_MODEL_")] == slider
    assert state[link.state.target[0].removeprefix("IPY_MODEL_")] == stack


def random_ids(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same notebook as another kernel would have named its models."""
    text = json.dumps(notebook)
    for model in notebook.metadata.widgets[WIDGET_STATE].state:
        text = text.replace(model, uuid.uuid4().hex)
    return nbformat.from_dict(json.loads(text))


def test_normalizing_forgets_ids_times_and_versions(book: Path) -> None:
    path = book / "01_small.ipynb"
    chapters.main(["run", "--book", str(book)])
    stored = nbformat.read(path, as_version=4)
    other = random_ids(stored)
    other.metadata["language_info"]["version"] = "3.99"
    other.metadata["kernelspec"]["name"] = "my-env"
    for number, cell in enumerate(cell for cell in other.cells if cell.cell_type == "code"):
        cell.metadata["execution"] = {"iopub.execute_input": "2020-01-01T00:00:00Z"}
        cell.execution_count = 10 + number
        cell["id"] = f"random-{number}"
    assert nbformat.writes(normalize(other)) == nbformat.writes(stored)


def test_normalizing_changes_nothing_that_nbval_compares(book: Path) -> None:
    executed = chapters.execute(book / "01_small.ipynb")
    before = [
        (output.get("text"), output.get("data", {}).get("text/plain"))
        for cell in executed.cells
        for output in cell.get("outputs", [])
    ]
    after = [
        (output.get("text"), output.get("data", {}).get("text/plain"))
        for cell in normalize(copy.deepcopy(executed)).cells
        for output in cell.get("outputs", [])
    ]
    assert before == after
    assert before[0] == ("first\nsecond\n", None)


def test_png_keeps_its_pixels_and_loses_its_text() -> None:
    pixels = Image.effect_noise((20, 10), 50).convert("RGB")
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "Matplotlib version 0.0")
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG", pnginfo=info)
    result = base64.b64decode(stable_png(base64.b64encode(buffer.getvalue()).decode()))
    assert b"Matplotlib" not in result
    with Image.open(io.BytesIO(result)) as image:
        assert image.tobytes() == pixels.tobytes()


def test_a_figure_is_stored_once_as_png_at_100_dpi(book: Path) -> None:
    notebook = normalize(chapters.execute(book / "01_small.ipynb"))
    (picture,) = (o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {}))
    assert set(picture.data) == {"image/png", "text/plain"}
    with Image.open(io.BytesIO(base64.b64decode(picture.data["image/png"]))) as image:
        # 3 x 2 inches less the margins that the notebook trims.
        assert 250 <= image.width <= 320
        assert 150 <= image.height <= 220


def test_svg_twins_are_dropped() -> None:
    cell = nbformat.v4.new_code_cell("x", execution_count=1)
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    data = {
        "image/png": base64.b64encode(buffer.getvalue()).decode(),
        "image/svg+xml": "<svg/>",
        "application/pdf": "JV",
    }
    cell.outputs = [nbformat.v4.new_output("display_data", data=data)]
    (output,) = normalize(nbformat.v4.new_notebook(cells=[cell])).cells[0].outputs
    assert set(output.data) == {"image/png"}


def test_glued_values_keep_their_names(book: Path) -> None:
    """The text of a page takes them from the stored chapter."""
    notebook = chapter()
    notebook.cells[1].source = 'from myst_nb import glue\n\nglue("ratio", 3, display=False)'
    write_whole(notebook, book / "01_small.ipynb")
    (output,) = normalize(chapters.execute(book / "01_small.ipynb")).cells[1].outputs
    assert output.metadata.scrapbook.name == "ratio"
    assert output.data["application/papermill.record/text/plain"] == "3"


def test_a_failing_cell_is_named_and_the_file_left_alone(
    book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = book / "01_small.ipynb"
    notebook = chapter()
    notebook.cells[2].source = "\nvalue = 1 / 0\nprint(value)"
    write_whole(notebook, path)
    before = path.read_bytes()
    assert chapters.main(["run", "--book", str(book)]) == 1
    message = capsys.readouterr().err
    assert (
        "01_small.ipynb, code cell 2 (cell 3 of 8, `value = 1 / 0`): ZeroDivisionError: division by zero"
        in message
    )
    assert path.read_bytes() == before
    assert list(book.iterdir()) == [path], "no half-written file stays behind"


def test_edited_prose_takes_the_stable_form_and_keeps_the_outputs(book: Path) -> None:
    path = book / "01_small.ipynb"
    assert chapters.main(["run", "--book", str(book)]) == 0
    notebook = nbformat.read(path, as_version=4)
    outputs = [cell.get("outputs") for cell in notebook.cells]
    notebook.cells[0].source = notebook.cells[0].source.replace("Prose.", "Better prose.")
    nbformat.write(notebook, path)
    assert chapters.main(["check", "--book", str(book)]) == 1
    assert chapters.main(["form", "--book", str(book)]) == 0
    assert chapters.main(["check", "--book", str(book)]) == 0
    assert [cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells] == outputs


def test_an_unknown_chapter_is_the_users_mistake(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chapters.main(["run", "99_none", "--book", str(book)]) == 2
    assert "no chapter is called 99_none" in capsys.readouterr().err


def test_a_stripped_chapter_fails_the_check(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chapters.main(["check", "--book", str(book)]) == 1
    assert "code cell 1 has execution count None" in capsys.readouterr().err


def test_the_students_copy_has_no_solution(book: Path, tmp_path: Path) -> None:
    out = tmp_path / "handed" / "out"
    assert chapters.main(["student", str(out), "--book", str(book)]) == 0
    copied = nbformat.read(out / "01_small.ipynb", as_version=4)
    nbformat.validate(copied)
    assert len(copied.cells) == len(chapter().cells) - 3
    text = "\n".join(cell.source for cell in copied.cells)
    assert "solution" not in text
    assert "**Expected** 2." in text
