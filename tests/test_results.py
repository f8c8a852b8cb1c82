"""Masks as a value: its file, its rows, its sizes."""

from __future__ import annotations

import dataclasses
import errno
import os
import pickle

import numpy as np
import pytest
import torch
from small_inputs import Payload

import perturb_tutorial as pt
from perturb_tutorial import mask_files
from perturb_tutorial.files import whole_file


@pytest.fixture(params=["deletion", "preservation"])
def masks(request, tiny, noise_images):
    return pt.learn_masks(tiny, noise_images, [0, 1, 2], pt.MaskSettings(game=request.param, iterations=5))


def test_saliency_is_high_where_the_evidence_is(masks):
    expected = 1 - masks.mask if masks.settings.game == "deletion" else masks.mask
    torch.testing.assert_close(masks.saliency, expected)
    assert masks.mask.shape == (3, 1, 32, 32)
    assert masks.grid.shape == (3, 1, 28, 28)
    assert masks.history.tv.shape == (3, 5)
    torch.testing.assert_close(masks.history.area[:, 0].shape, masks.area.shape)


def test_a_mask_that_has_nothing_to_say_is_exactly_zero(masks):
    # 1 − blur(1) is 0 up to rounding, and its maximum would be a point in the pointing game.
    nothing = (
        torch.ones_like(masks.grid) if masks.settings.game == "deletion" else torch.zeros_like(masks.grid)
    )
    assert not dataclasses.replace(masks, grid=nothing).saliency.any()


def test_a_saved_file_comes_back_equal_and_small(masks, tmp_path):
    path = tmp_path / "masks.pt"
    masks.save(path)
    loaded = pt.Masks.load(path)
    assert loaded.settings == masks.settings
    assert loaded.size == masks.size
    for name in (
        "grid",
        "mask",
        "saliency",
        "score_original",
        "score_perturbed",
        "score_masked",
        "converged",
    ):
        assert torch.equal(getattr(loaded, name), getattr(masks, name)), name
    torch.testing.assert_close(loaded.radius, masks.radius, equal_nan=True)
    assert torch.equal(loaded.history.score, masks.history.score)
    assert os.listdir(tmp_path) == ["masks.pt"]
    assert path.stat().st_size < 30_000


def test_files_of_others_are_refused_and_never_run(tmp_path):
    with (tmp_path / "code.pt").open("wb") as file:
        pickle.dump(Payload(), file)
    torch.save(Payload(), tmp_path / "code2.pt")
    torch.save({"grid": torch.zeros(1)}, tmp_path / "other.pt")
    for name in ("code.pt", "code2.pt", "other.pt"):
        with pytest.raises(ValueError, match=f"masks: .*{name} is .*not a file that Masks.save wrote"):
            pt.Masks.load(tmp_path / name)
    with pytest.raises(ValueError, match="cannot be read"):
        pt.Masks.load(tmp_path / "none.pt")


def test_resized_to_each_photograph(masks):
    sizes = [(32, 32), (48, 80), (16, 8)]
    resized = masks.resized(sizes)
    assert [tuple(heat.shape) for heat in resized] == sizes
    torch.testing.assert_close(resized[0], masks.saliency[0, 0])
    for heat, area in zip(resized, masks.area, strict=True):
        assert heat.mean().item() == pytest.approx(area.item(), abs=0.01)
    with pytest.raises(ValueError, match=r"sizes: expected one \(height, width\) for each of 3 masks, got 1"):
        masks.resized(sizes[:1])


def test_rows_and_concatenation(masks):
    parts = [masks[0], masks[1:]]
    assert [len(part) for part in parts] == [1, 2]
    assert torch.equal(masks[-1].grid, masks.grid[2:])
    assert torch.equal(pt.Masks.concatenate(parts).history.score, masks.history.score)
    assert torch.equal(masks[masks.converged].grid, masks.grid[masks.converged])
    with pytest.raises(ValueError, match="parts: expected at least one"):
        pt.Masks.concatenate([])


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "out.bin"

    def write(content, fails):
        with whole_file(path) as file:
            file.write(content)
            if fails:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(b"half", fails=True)
    assert os.listdir(tmp_path) == []
    write(b"whole", fails=False)
    with pytest.raises(KeyboardInterrupt):
        write(b"half", fails=True)
    assert path.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["out.bin"]


def changed(masks, name, at, by):
    """The same masks with one number of their history, or the final scores, moved."""
    if name == "score_masked":
        return dataclasses.replace(masks, score_masked=masks.score_masked + by)
    values = getattr(masks.history, name).clone()
    values[1, at] += by * (1 + values[1, at] if name == "tv" else 1)
    return dataclasses.replace(masks, history=dataclasses.replace(masks.history, **{name: values}))


@pytest.mark.parametrize(
    ("name", "at", "by", "agrees"),
    [
        ("score", 4, 4.9e-3, True),
        ("score", 4, -5.1e-3, False),
        ("area", 0, 4.9e-4, True),
        ("area", 0, 5.1e-4, False),
        ("tv", 2, 9.8e-3, True),
        ("tv", 2, 1.03e-2, False),
        ("score", 5, 0.5, True),  # from here on rounding may have its way
        ("score_masked", None, 0.019, True),
        ("score_masked", None, -0.021, False),
    ],
)
def test_runs_agree_up_to_the_rounding_of_another_processor(tiny, noise_images, name, at, by, agrees):
    masks = pt.learn_masks(tiny, noise_images, [0, 1, 2], pt.MaskSettings(iterations=7))
    assert changed(masks, name, at, by).agrees_with(masks) is agrees


def test_runs_of_other_things_do_not_agree(masks):
    assert masks.agrees_with(masks)
    assert not masks.agrees_with(masks[:2])
    assert not masks.agrees_with(dataclasses.replace(masks, size=(64, 64)))
    shorter = dataclasses.replace(
        masks,
        history=dataclasses.replace(
            masks.history,
            **{name: getattr(masks.history, name)[:, :4] for name in ("score", "area", "tv")},
        ),
    )
    assert not shorter.agrees_with(masks)


def test_the_end_that_counts_is_the_objective(masks):
    """More area at a better score is as good a mask; the same area at a worse one is not."""
    sign = 1 if masks.settings.game == "deletion" else -1
    grown = masks.grid * 0.9 if masks.settings.game == "deletion" else masks.grid * 0.9 + 0.1
    price = [pt.objectives.objective(grid, torch.zeros(3), masks.settings) for grid in (masks.grid, grown)]
    paid = dataclasses.replace(
        masks, grid=grown, score_masked=masks.score_masked - sign * (price[1] - price[0])
    )
    assert paid.agrees_with(masks)
    assert not dataclasses.replace(paid, score_masked=paid.score_masked + 0.03).agrees_with(masks)


def test_masks_are_walked_through_one_by_one(masks):
    alone = list(masks)
    assert [one.grid.shape for one in alone] == [(1, 1, 28, 28)] * 3
    assert [one.area.item() for one in alone] == masks.area.tolist()
    with pytest.raises(IndexError, match="expected a row of 3 masks, got 3"):
        masks[3]


@pytest.mark.parametrize("row", [1, -2, np.int64(1), np.array(1), torch.tensor(1)], ids=repr)
def test_a_row_by_an_index_of_any_kind(masks, row):
    one = masks[row]
    assert len(one) == 1
    torch.testing.assert_close(one.area, masks.area[1:2])


@pytest.mark.parametrize("change", [lambda c: c.pop("radius"), lambda c: c["settings"].update(depth=3)])
def test_a_file_of_another_version_is_told(masks, tmp_path, change):
    path = tmp_path / "masks.pt"
    masks.save(path)
    content = torch.load(path, weights_only=True)
    change(content)
    # As the first format was, which had no checksum to notice it.
    del content["checksum"]
    torch.save({**content, "format": "perturb_tutorial masks 1"}, path)
    with pytest.raises(ValueError, match="which version wrote it"):
        pt.Masks.load(path)


@pytest.mark.parametrize("form", mask_files.OLDER)
def test_files_of_earlier_formats_are_read(masks, tmp_path, form):
    """None has ``draws``. The first two have no ``iterations``, so every image took all, and fewer settings."""
    path = tmp_path / "masks.pt"
    masks.save(path)
    content = torch.load(path, weights_only=True)
    for name in ("checksum", "draws"):
        del content[name]
    if not form.endswith("3"):
        del content["iterations"]
        for name in ("score_scale", "optimizer", "tolerance"):
            del content["settings"][name]
    content["format"] = form
    if form.endswith("1"):
        for name in ("seed", "engine", "precision", "version"):
            del content[name]
        expected = dataclasses.replace(masks, seed=None, engine=None, precision=None, version=None)
    else:
        content["checksum"] = mask_files.checksum(content)
        expected = masks
    torch.save(content, path)
    assert pt.Masks.load(path) == expected
    assert expected.iterations.tolist() == [5, 5, 5]


def test_masks_are_equal_where_all_their_numbers_are(tiny, noise_images, tmp_path):
    masks = pt.learn_masks(tiny, noise_images, 1, pt.MaskSettings(iterations=2, initialization="ones"))
    assert masks.radius.isnan().all()  # which is not equal to itself
    masks.save(tmp_path / "masks")
    again = pt.Masks.load(tmp_path / "masks")
    assert masks == again
    assert hash(masks) == hash(again)
    assert masks.history == again.history
    assert len({masks, again, masks[:2]}) == 2
    assert masks != masks[:2]
    for other in (
        dataclasses.replace(again, grid=again.grid.sin()),
        dataclasses.replace(again, layer="a"),
        dataclasses.replace(again, size=(32, 40)),
    ):
        assert masks != other
    assert masks != dataclasses.replace(
        again, history=dataclasses.replace(again.history, tv=again.history.tv + 1)
    )
    assert masks != masks.grid.tolist()
    assert masks != "masks"


def test_what_it_takes_to_make_masks_again_is_saved_with_them(masks, tmp_path):
    masks.save(tmp_path / "masks.pt")
    loaded = pt.Masks.load(tmp_path / "masks.pt")
    made = (loaded.seed, loaded.engine, loaded.precision, loaded.version)
    assert made == (0, "torch", "float32", pt.__version__)
    other = dataclasses.replace(masks, seed=1)
    together = pt.Masks.concatenate([masks, other])
    assert (together.seed, together.engine) == (None, "torch")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda m: {"grid": m.grid + 1}, "grid: expected values from 0 to 1"),
        (lambda m: {"grid": m.grid * torch.nan}, "grid: expected values from 0 to 1"),
        (lambda m: {"grid": m.grid[0]}, "grid: expected N×1×h×w, got 1×28×28"),
        (lambda m: {"grid": m.grid.double()}, "grid: expected 3×1×28×28 of torch.float32, got"),
        (lambda m: {"score_masked": m.score_masked[:2]}, "score_masked: expected 3 of torch.float32, got 2"),
        (lambda m: {"converged": m.converged.float()}, "converged: expected 3 of torch.bool, got"),
        (
            lambda m: {"history": dataclasses.replace(m.history, tv=m.history.tv[:, :2])},
            "history.tv: expected 3×5",
        ),
        (lambda m: {"size": (0, 32)}, "size: expected"),
        (lambda m: {"iterations": m.iterations + 1}, "iterations: expected 0 to 5"),
        (lambda m: {"iterations": m.iterations.float()}, "iterations: expected 3 of torch.int64, got"),
    ],
)
def test_masks_of_another_form_are_neither_saved_nor_loaded(masks, tmp_path, change, line):
    path = tmp_path / "masks.pt"
    with pytest.raises(ValueError, match=line):
        dataclasses.replace(masks, **change(masks)).save(path)
    assert os.listdir(tmp_path) == []
    # The same in a file whose checksum is that of its content.
    masks.save(path)
    content = torch.load(path, weights_only=True)
    del content["checksum"]
    changed = dataclasses.replace(masks, **change(masks))
    fields = {name: getattr(changed, name) for name in ("grid", "score_masked", "converged", "iterations")}
    fields |= {
        "history.tv": changed.history.tv,
        "size": list(changed.size),
    }
    content |= fields
    torch.save({**content, "checksum": mask_files.checksum(content)}, path)
    with pytest.raises(ValueError, match=f"masks: .*masks.pt: {line}"):
        pt.Masks.load(path)


def test_another_number_in_the_file_is_noticed(masks, tmp_path):
    path = tmp_path / "masks.pt"
    masks.save(path)
    content = torch.load(path, weights_only=True)
    content["settings"]["area_weight"] = 2e-4
    torch.save(content, path)
    with pytest.raises(ValueError, match="its checksum is not that of its content"):
        pt.Masks.load(path)


def test_one_mask_is_saved_without_the_others(masks, tmp_path):
    many = masks[[0] * 300]
    many.save(tmp_path / "many.pt")
    many[0].save(tmp_path / "one.pt")
    masks[0].save(tmp_path / "alone.pt")
    sizes = {path.stem: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes["one"] == sizes["alone"] < sizes["many"] / 10


def test_a_full_disk_is_one_error_that_names_the_file(masks, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*masks.pt'") as caught:
        masks.save(tmp_path / "masks.pt")
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux's full device")
def test_a_write_to_a_full_disk_names_the_file(tmp_path, monkeypatch):
    opened = open
    monkeypatch.setattr("builtins.open", lambda path, mode, *rest: opened("/dev/full", "wb"))
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*out.bin'"),
        whole_file(tmp_path / "out.bin") as file,
    ):
        file.write(b"x" * 100_000)


def test_settings_of_numpy_are_saved_and_loaded_as_plain_values(tiny, noise_images, tmp_path):
    settings = pt.MaskSettings(
        area_weight=np.logspace(-4, -3, 2)[1],
        iterations=np.int64(2),
        game=np.str_("preservation"),
        mask_sigma=np.float32(5),
        learning_rate=torch.tensor(0.5),
    )
    assert {type(value) for value in settings.to_dict().values()} == {str, int, float}
    assert settings == pt.MaskSettings(
        area_weight=1e-3, iterations=2, game="preservation", mask_sigma=5.0, learning_rate=0.5
    )
    pt.learn_masks(tiny, noise_images, [0, 1, 2], settings).save(tmp_path / "masks.pt")
    assert pt.Masks.load(tmp_path / "masks.pt").settings == settings


def test_masks_of_two_games_sizes_or_layers_are_not_one(masks):
    other = "deletion" if masks.settings.game == "preservation" else "preservation"
    for change in (
        {"settings": masks.settings.replace(game=other)},
        {"settings": masks.settings.replace(area_weight=0.5)},
        {"size": (16, 16)},
        {"layer": "features"},
    ):
        with pytest.raises(ValueError, match=f"parts: expected masks of one {next(iter(change))}, got "):
            pt.Masks.concatenate([masks, dataclasses.replace(masks, **change)])


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_file_has_the_permissions_of_the_process_whose_umask_is_never_touched(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patched:
            patched.delattr(os, "umask")
            with whole_file(tmp_path / "out.bin") as file:
                file.write(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "out.bin").stat().st_mode & 0o777 == 0o640
