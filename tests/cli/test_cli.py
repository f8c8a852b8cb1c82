"""The command line as its users call it: files written, exit status, one line for each mistake."""

from __future__ import annotations

import ast
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_inputs import bad_files
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial import cli, fastest
from perturb_tutorial.datasets.samples import sample_path
from perturb_tutorial.explain import Request, explain_files, unique_stems

KEYS = {
    "image", "target", "method", "network", "game", "settings", "seed", "score_original", "score_perturbed",
    "score_masked", "area", "converged", "iterations", "seconds", "layer", "engine", "precision", "draws",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_measurement(monkeypatch):
    """Within this process the fastest engine is PyTorch's; the first test has it measured."""
    monkeypatch.setattr(fastest, "known_engine", lambda *_, **__: fastest.TORCH)


@pytest.fixture
def quick(tmp_path):
    """A settings file of few iterations."""
    path = tmp_path / "quick.json"
    path.write_text(json.dumps({"iterations": 3}))
    return str(path)


def command(*arguments, **options):
    line = [sys.executable, "-m", "perturb_tutorial", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, **options)


def results(folder):
    return json.loads((folder / "results.json").read_text())["entries"]


def processor_seconds() -> float:
    """What the processes that this one has waited for took."""
    times = os.times()
    return times.children_user + times.children_system


def test_explain_a_sample_within_a_minute(tmp_path):
    # The whole run a newcomer makes, on this machine's CPU, in a process of its own.
    before = processor_seconds()
    home = {**os.environ, **dict.fromkeys(("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"), str(tmp_path))}
    done = command("explain", "--sample", "chelsea", "--output", tmp_path / "out", env=home)
    # Not by the clock, which also counts what else the machine does.
    assert processor_seconds() - before <= 60
    assert done.returncode == 0, done.stderr
    said, *rest = done.stderr.splitlines()
    assert said.startswith("finding the fastest engine for efficientnet_lite0 on this machine, once")
    assert rest == []  # no progress bar in a pipe
    assert "Egyptian cat" in done.stdout
    (entry,) = results(tmp_path / "out")
    assert set(entry) == KEYS
    assert entry["image"] == "chelsea"
    assert entry["target"] == {"index": [285], "name": ["Egyptian cat"]}
    assert entry["settings"] == pt.MaskSettings().fast().to_dict()
    assert 20 <= entry["iterations"] < 150  # of at most 300: it ended when it was done
    assert entry["score_masked"] <= 0.02 * entry["score_original"]
    assert entry["converged"] is True
    saliency = np.load(tmp_path / "out" / "chelsea.npy")
    assert saliency.shape == (224, 224)
    assert saliency.dtype == np.float32
    assert float(saliency.mean()) == pytest.approx(entry["area"], abs=1e-5)
    with Image.open(tmp_path / "out" / "chelsea.png") as picture:
        assert picture.width > 600
    assert sorted(os.listdir(tmp_path / "out")) == [
        "chelsea.npy",
        "chelsea.png",
        "results.csv",
        "results.json",
    ]


def test_explain_photographs_of_the_user(tmp_path, quick, capsys):
    (tmp_path / "b").mkdir()
    first, second = tmp_path / "cat.JPG", tmp_path / "b" / "Cat.png"
    with Image.open(sample_path("chelsea")) as photograph:
        photograph.save(first, format="JPEG")
        photograph.convert("L").save(second)
    out = tmp_path / "out"
    arguments = [
        "explain",
        str(first),
        str(second),
        "--sample",
        "coffee",
        "--settings",
        quick,
        "--output",
        str(out),
    ]
    assert cli.run([*arguments, "--target", "Egyptian cat", "--game", "preservation", "--seed", "3"]) == 0
    assert sorted(os.listdir(out)) == [
        "Cat_2.npy", "Cat_2.png", "cat.npy", "cat.png", "coffee.npy", "coffee.png", "results.csv",
        "results.json",
    ]  # fmt: skip
    entries = results(out)
    assert [entry["image"] for entry in entries] == [str(first), str(second), "coffee"]
    assert all(entry["target"]["index"] == [285] and entry["game"] == "preservation" for entry in entries)
    assert all(entry["settings"]["iterations"] == 3 and entry["seed"] == 3 for entry in entries)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_localization_preset_takes_the_five_best_classes(tmp_path, quick, lite0):
    out = tmp_path / "out"
    assert (
        cli.run(
            [
                "explain",
                "--sample",
                "chelsea",
                "--preset",
                "localization",
                "--settings",
                quick,
                "--output",
                str(out),
            ]
        )
        == 0
    )
    (entry,) = results(out)
    assert (
        entry["target"]["index"] == pt.top_classes(lite0, pt.load_samples(names=["chelsea"]).images, k=5)[0]
    )
    expected = pt.MaskSettings.preset("localization").fast().replace(iterations=3)
    assert entry["settings"] == expected.to_dict()
    assert entry["iterations"] == 3
    arguments = ["explain", "--sample", "chelsea", "--preset", "localization", "--settings", quick]
    assert cli.run([*arguments, "--target", "285", "--output", str(out)]) == 0
    assert results(out)[0]["target"]["index"] == [285]  # an explicit option beats the preset


def test_a_comparison_method_leaves_what_does_not_apply_null(tmp_path):
    assert cli.run(["explain", "--sample", "chelsea", "--method", "grad_cam", "--output", str(tmp_path)]) == 0
    (entry,) = results(tmp_path)
    assert set(entry) == KEYS
    assert entry["method"] == "grad_cam"
    assert entry["score_original"] > 0.5
    for key in (
        "game",
        "settings",
        "seed",
        "score_perturbed",
        "score_masked",
        "area",
        "converged",
        "iterations",
    ):
        assert entry[key] is None
    assert np.load(tmp_path / "chelsea.npy").shape == (224, 224)


def test_paper_optimizes_as_the_paper_did(tmp_path, quick, capsys):
    line = ["explain", "--sample", "chelsea", "--settings", quick, "--output", str(tmp_path)]
    assert cli.run([*line, "--paper"]) == 0
    (entry,) = results(tmp_path)
    assert entry["settings"] == pt.MaskSettings(iterations=3).to_dict()
    capsys.readouterr()
    assert cli.run([*line, "--paper", "--method", "grad_cam"]) == 2
    assert "--paper is for the method mask" in capsys.readouterr().err


def test_draws_are_averaged_and_their_agreement_is_drawn(tmp_path, quick, capsys):
    line = [
        "explain",
        "--sample",
        "chelsea",
        "--sample",
        "coffee",
        "--settings",
        quick,
        "--mask-engine",
        "torch",
    ]
    widths = {}
    for count in (1, 3):
        folder = tmp_path / str(count)
        assert cli.run([*line, "--draws", str(count), "--output", str(folder)]) == 0
        assert [entry["draws"] for entry in results(folder)] == [count, count]
        assert all(set(entry) == KEYS for entry in results(folder))
        widths[count] = Image.open(folder / "chelsea.png").width
    assert widths[3] == pytest.approx(widths[1] * 4 / 3, abs=3), "one panel more"
    assert results(tmp_path / "3")[0]["score_masked"] != results(tmp_path / "1")[0]["score_masked"]
    network = pt.load_network("efficientnet_lite0", device="cpu")
    images = pt.load_samples(names=["chelsea", "coffee"]).images
    settings = pt.MaskSettings().fast().replace(iterations=3)
    masks = pt.learn_masks(network, images, pt.top_classes(network, images, k=1), settings, draws=3)
    np.testing.assert_allclose(
        np.load(tmp_path / "3" / "coffee.npy"), masks.saliency[1, 0].numpy(), atol=1e-4
    )
    capsys.readouterr()
    for more in (["--method", "grad_cam"], ["--layer", "_blocks.10"]):
        assert cli.run([*line, *more, "--draws", "2", "--output", str(tmp_path / "no")]) == 2
        assert "--draws 2 is for masks on the photograph; leave it out here" in capsys.readouterr().err
    for count in ("0", "65", "x"):
        assert cli.run([*line, "--draws", count, "--output", str(tmp_path / "no")]) == 2
        assert "--draws" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    with pytest.raises(ValueError, match="draws: expected 1 but for masks on the image, got 2"):
        Request(network, settings, method="grad_cam", draws=2)


def test_the_onnx_engine_is_used_where_it_is_asked_for(tmp_path, quick, monkeypatch, capsys):
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "cache"))
    line = ["explain", "--sample", "chelsea", "--settings", quick, "--device", "cpu", "--mask-engine", "onnx"]
    assert cli.run([*line, "--output", str(tmp_path / "out")]) == 0
    assert any((tmp_path / "cache").rglob("*.onnx"))  # only this engine writes its graph
    (entry,) = results(tmp_path / "out")
    assert set(entry) == KEYS
    assert entry["converged"]
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert cli.run([*line, "--output", str(tmp_path / "none")]) == 2
    assert "pip install 'perturb_tutorial[onnx]'" in capsys.readouterr().err


def test_a_mask_on_a_layer(tmp_path, quick):
    arguments = ["explain", "--sample", "chelsea", "--layer", "_blocks.10", "--settings", quick]
    assert cli.run([*arguments, "--output", str(tmp_path / "out")]) == 0
    (entry,) = results(tmp_path / "out")
    assert entry["method"] == "mask"
    # The stage of 14×14: VGG-16's pool4 (§6.4).
    assert (entry["settings"]["area_weight"], entry["settings"]["tv_weight"]) == (5e-3, 1e-2)
    saliency = np.load(tmp_path / "out" / "chelsea.npy")
    assert saliency.shape == (224, 224)
    # Cells of 16×16 px, each of one value.
    cells = saliency.reshape(14, 16, 14, 16)
    assert (cells == cells[:, :1, :, :1]).all()
    assert float(saliency.mean()) == pytest.approx(entry["area"], abs=1e-5)
    assert (tmp_path / "out" / "chelsea.png").stat().st_size > 10_000


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No weights downloaded before, and nothing to download them from."""
    import urllib.request

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def one_line(capsys):
    """The only line on stderr, without its ``error: ``; torch may say on stdout what it tries to download."""
    captured = capsys.readouterr()
    assert all(line.startswith("Downloading: ") for line in captured.out.splitlines())
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def test_a_network_or_layer_that_cannot_be_had_is_one_sentence(tmp_path, capsys, offline):
    with Image.open(sample_path("chelsea")) as photograph:
        photograph.save(tmp_path / "cat.png")
    explain = ["explain", str(tmp_path / "cat.png"), "--output", str(tmp_path / "out")]
    sheet = ["gallery", str(tmp_path), "--target", "285", "--output", str(tmp_path / "out" / "sheet.png")]
    for command_line in (explain, sheet):
        assert cli.run([*command_line, "--network", "vgg16"]) == 2
        assert one_line(capsys).startswith(
            "vgg16: its weights (528 MB) could not be downloaded (no network);"
        )
        assert cli.run([*command_line, "--network", "resnet50"]) == 2
        assert one_line(capsys).startswith("--network: expected one of efficientnet_lite0")
    # Layers that are not there, that have no places, that are never run.
    for layer, message in (
        ("pool5", "--layer: efficientnet_lite0 has no layer 'pool5'"),
        (
            "_fc",
            "--layer: '_fc' has no spatial features (expected N×C×h×w, N×h×w×C or tokens N×T×C with h, w ≥ 2, "
            "got 1×1000",
        ),
    ):
        assert cli.run([*explain, "--layer", layer]) == 2
        assert one_line(capsys).startswith(message)
    assert cli.run([*sheet[:2], "--target", "crane", *sheet[4:]]) == 2
    assert one_line(capsys).startswith("--target: 'crane' is the name of 2 classes")
    assert not list((tmp_path / "out").iterdir())


def test_gallery_of_a_folder(tmp_path, capsys, monkeypatch):
    from perturb_tutorial.study import gallery

    def quickly(network, images, targets, settings, **options):
        return pt.learn_masks(network, images, targets, settings.replace(iterations=3), **options)

    monkeypatch.setattr(gallery, "learn_masks", quickly)  # the 300 iterations are explain's test
    folder = tmp_path / "cats"
    folder.mkdir()
    with Image.open(sample_path("chelsea")) as photograph:
        photograph.save(folder / "chelsea.png")
    (folder / "broken.jpg").write_bytes(b"not an image")
    sheet = tmp_path / "sheet.png"
    arguments = ["gallery", str(folder), "--target", "Egyptian cat", "--preset", "default"]
    assert cli.run([*arguments, "--output", str(sheet)]) == 2
    captured = capsys.readouterr()
    assert "1 photograph, 1 correct" in captured.out
    assert captured.err.count("\n") == 1
    assert "broken.jpg: is not an image" in captured.err
    assert sheet.stat().st_size > 10_000
    for extra, message in ((["--output", str(tmp_path / "x.pdf")], "--output: expected a file FILE.png"),):
        assert cli.run([*arguments, *extra]) == 2
        assert message in capsys.readouterr().err
    assert cli.run(["gallery", str(tmp_path / "none"), "--target", "0", "--output", str(sheet)]) == 2
    assert capsys.readouterr().err.startswith("error: FOLDER: ")


def test_the_best_classes_of_a_small_network_leave_one_out(tiny, tmp_path):
    path = tmp_path / "gray.png"
    Image.new("RGB", (40, 40), "gray").save(path)
    (tmp_path / "out").mkdir()
    request = Request(tiny, pt.MaskSettings(iterations=1), target_count=5)
    (entry,) = explain_files([path], request, tmp_path / "out").entries
    ranked = tiny.scores(pt.load_images([path], 32))[0].argsort(descending=True).tolist()
    assert entry["target"]["index"] == ranked[:4]


def test_bad_images_are_named_and_the_others_explained(tmp_path, quick, capsys):
    good = tmp_path / "good.png"
    with Image.open(sample_path("coffee")) as photograph:
        photograph.save(good)
    bad = bad_files(tmp_path, good)
    out = tmp_path / "out"
    paths = [*list(bad)[:5], good, *list(bad)[5:]]
    assert cli.run(["explain", *map(str, paths), "--settings", quick, "--output", str(out)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) == len(bad)
    for path in bad:
        assert sum(line.startswith(f"error: {path}: ") for line in lines) == 1
    assert [entry["image"] for entry in results(out)] == [str(good)]
    assert (out / "good.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected at least one IMAGE or --sample"),
        (["--sample", "cat"], "--sample: expected one of bull_mastiff"),
        (["--sample", "chelsea", "--network", "resnet50"], "--network: expected one of efficientnet_lite0"),
        (["--sample", "chelsea", "--target", "crane"], "--target: 'crane' is the name of 2 classes, give"),
        (["--sample", "chelsea", "--target", "zebr"], "exact class name, got 'zebr'"),
        (["--sample", "chelsea", "--target", "1000"], "--target: expected a class index from 0 to 999, got 1000"),
        (["--sample", "chelsea", "--preset", "top5"], "'top5' is not one of 'default', 'localization'"),
        (["--sample", "chelsea", "--game", "delete"], "'delete' is not one of 'deletion', 'preservation'"),
        (["--sample", "chelsea", "--method", "lime"], "--method: expected one of mask"),
        (["--sample", "chelsea", "--layer", "conv99"], "--layer: efficientnet_lite0 has no layer 'conv99'"),
        (["--sample", "chelsea", "--device", "tpu"], "--device: 'tpu' cannot be used here"),
        (["--sample", "chelsea", "--settings", "none.json"], "--settings: none.json cannot be read"),
        (["--sample", "chelsea", "--seed", "-1"], "--seed"),
        (["--sample", "chelsea", "--mask-engine", "gpu"], "'gpu' is not one of 'torch', 'onnx'"),
        (["--sample", "chelsea", "--method=grad_cam", "--mask-engine=onnx"], "onnx is for masks on the photograph"),
        (["--sample", "chelsea", "--layer=_swish", "--mask-engine=onnx"], "onnx is for masks on the photograph"),
        (["--sample", "chelsea", "--weights", "none.pth"], "--weights: none.pth cannot be read"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_exit_2(arguments, message, tmp_path, capsys):
    assert cli.run(["explain", *arguments, "--output", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert len(captured.err.splitlines()) == 1
    assert message in captured.err


def test_output_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert cli.run(["explain", "--sample", "chelsea", "--output", str(tmp_path / "file")]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
    assert cli.run(["explain", "--sample", "chelsea", "--output", str(tmp_path / "file" / "deeper")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert cli.run(["explain", "--sample", "chelsea"]) == 2
    assert "Missing option '--output'" in capsys.readouterr().err


def test_output_without_permission(tmp_path, capsys, monkeypatch):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.access(locked, os.W_OK):  # root may write anywhere: let the file system refuse by other means

        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(cli.options.tempfile, "TemporaryFile", refuse)
    assert cli.run(["explain", "--sample", "chelsea", "--output", str(locked)]) == 2
    assert f"--output: {locked} cannot be written (Permission denied)" in capsys.readouterr().err


class NaNs(nn.Module):
    def forward(self, inputs):
        return inputs.mean((2, 3)) * torch.nan


def test_a_network_that_returns_nan(tmp_path, quick, capsys, monkeypatch):
    network = pt.Network(NaNs(), input_size=32, device="cpu")
    monkeypatch.setattr(cli.explain, "load", lambda *_: network)
    assert (
        cli.run(["explain", "--sample", "chelsea", "--settings", quick, "--output", str(tmp_path / "out")])
        == 2
    )
    assert (
        capsys.readouterr().err
        == "error: chelsea: the network's score of it is not finite; check its weights\n"
    )
    assert sorted(os.listdir(tmp_path / "out")) == ["results.csv", "results.json"]
    assert results(tmp_path / "out") == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_exits_130_and_leaves_whole_files(tmp_path):
    (tmp_path / "long.json").write_text(json.dumps({"iterations": 100_000}))
    line = [
        sys.executable,
        "-m",
        "perturb_tutorial",
        "explain",
        "--sample",
        "chelsea",
        "--mask-engine",
        "torch",
    ]
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*line, "--settings", str(tmp_path / "long.json"), "--output", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell without job control starts its background commands deaf to Ctrl-C, and they hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for _ in range(300):
            if out.is_dir():
                break
            time.sleep(0.1)
        time.sleep(3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.strip() == "interrupted; what is written is whole"
    assert os.listdir(out) == []


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_progress_bar(tmp_path, quick):
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    line = [
        sys.executable,
        "-m",
        "perturb_tutorial",
        "explain",
        "--sample",
        "chelsea",
        "--settings",
        quick,
    ]
    process = subprocess.Popen([*line, "--output", str(tmp_path / "out")], stdout=follower, stderr=follower)
    os.close(follower)
    seen = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(leader)
    assert process.wait(timeout=60) == 0
    assert "1.0/1 images" in seen.decode()


def test_lists(capsys):
    assert cli.run(["networks"]) == 0
    networks = capsys.readouterr().out
    assert [line.split()[0] for line in networks.splitlines()] == list(pt.networks.ZOO)
    assert "here" in networks
    assert cli.run(["samples"]) == 0
    assert "chelsea" in capsys.readouterr().out
    assert cli.run(["methods"]) == 0
    assert capsys.readouterr().out.startswith("mask ")
    assert cli.run(["--version"]) == 0
    assert cli.run(["--help"]) == 0
    assert cli.run(["explian"]) == 2
    assert "No such command 'explian'" in capsys.readouterr().err


def test_stems_are_unique_whatever_the_case():
    assert unique_stems(["a/x.jpg", "b/x.png", "X.gif", "x_2.jpg", "y"]) == ["x", "x_2", "X_3", "x_2_2", "y"]


@pytest.mark.parametrize("kind", ["png", "npy"])
def test_no_photograph_is_overwritten(tmp_path, quick, capsys, kind):
    photograph = tmp_path / f"cat.{kind}"
    if kind == "png":
        Image.new("RGB", (40, 40), "red").save(photograph)
    else:
        photograph.write_bytes(b"an image, by its content")
    before = photograph.read_bytes()
    assert cli.run(["explain", str(photograph), "--settings", quick, "--output", str(tmp_path)]) == 2
    assert "would be overwritten; give another folder" in capsys.readouterr().err
    assert photograph.read_bytes() == before
    assert not (tmp_path / "results.json").exists()


def test_a_gallery_does_not_overwrite_its_photographs(tmp_path, capsys):
    photograph = tmp_path / "cat.png"
    Image.new("RGB", (40, 40), "red").save(photograph)
    before = photograph.read_bytes()
    assert cli.run(["gallery", str(tmp_path), "--target", "285", "--output", str(photograph)]) == 2
    assert "is one of the photographs" in capsys.readouterr().err
    assert photograph.read_bytes() == before


def test_a_pipe_that_knows_few_letters_gets_its_lines(tmp_path, quick):
    # What a redirected stream on Windows uses has no →, and Greek letters neither.
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    arguments = ("explain", "--sample", "chelsea", "--settings", quick, "--output", tmp_path / "out")
    ran = command(*arguments, env=environment, encoding="cp1252")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "score 0." in ran.stdout
    assert len(results(tmp_path / "out")) == 1
    assert command("benchmark", "localization", "--help", env=environment, encoding="cp1252").returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
def test_a_file_name_that_is_no_utf8(tmp_path, quick):
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Image.new("RGB", (40, 40), "red").save(tmp_path / "plain.png")
    os.rename(tmp_path / "plain.png", name)
    out = tmp_path / "out"
    assert cli.run(["explain", os.fsdecode(name), "--settings", quick, "--output", str(out)]) == 0
    assert os.fsencode(results(out)[0]["image"]) == name


def test_a_picture_that_cannot_be_written_leaves_the_others(tmp_path, quick, capsys):
    out = tmp_path / "out"
    assert cli.run(["explain", "--sample", "chelsea", "--settings", quick, "--output", str(out)]) == 0
    (out / "chelsea.png").unlink()
    (out / "chelsea.png").mkdir()
    samples = ("--sample", "chelsea", "--sample", "coffee")
    assert cli.run(["explain", *samples, "--settings", quick, "--output", str(out)]) == 2
    assert "chelsea.png and what goes with it cannot be written" in capsys.readouterr().err
    assert [entry["image"] for entry in results(out)] == ["coffee"]
    assert (out / "coffee.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seed", str(10**20)], "--seed"),
        (["--target", "²"], "expected a class index, wnid or exact class name"),
        (["--device", "meta"], "--device: 'meta' cannot be used here"),
        (["--output", "o" * 300], "--output"),
    ],
)
def test_more_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    given = ["explain", "--sample", "chelsea", "--output", "out", *arguments]
    assert cli.run(given) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_no_other_picture_of_the_folder_is_overwritten(tmp_path, quick, capsys):
    for name, color in (("cat.jpg", "red"), ("cat.png", "blue")):
        Image.new("RGB", (40, 40), color).save(tmp_path / name)
    before = (tmp_path / "cat.png").read_bytes()
    arguments = ["explain", str(tmp_path / "cat.jpg"), "--settings", quick, "--output"]
    assert cli.run([*arguments, str(tmp_path)]) == 2
    assert "holds cat.png, which would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "cat.png").read_bytes() == before
    # What a run wrote itself is replaced by the next one.
    for _ in range(2):
        assert cli.run([*arguments, str(tmp_path / "out")]) == 0


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_a_link_to_itself_is_one_bad_image(tmp_path, quick, capsys):
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "cat.jpg")
    out = tmp_path / "out"
    arguments = [str(tmp_path / name) for name in ("loop.jpg", "cat.jpg")]
    assert cli.run(["explain", *arguments, "--settings", quick, "--output", str(out)]) == 2
    assert "loop.jpg: cannot be read" in capsys.readouterr().err
    assert len(results(out)) == 1


def test_settings_as_a_windows_editor_saves_them(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"iterations": 3}', encoding="utf-8-sig")
    assert pt.MaskSettings.from_file(path).iterations == 3


def test_a_warning_is_one_line():
    code = (
        "import warnings; from perturb_tutorial import cli\n"
        "@cli.app.command('warn')\ndef warn(): warnings.warn('photograph.png: its metadata\\nis damaged')\n"
        "cli.run(['warn'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "warning: photograph.png: its metadata is damaged\n"


def test_a_fault_of_ours_is_printable(monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("\x1b]0;title\x07")

    monkeypatch.setattr(cli, "run", fail)
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1] == r"RuntimeError: \x1b]0;title\x07"
    assert "\x1b" not in error


def test_the_commands_have_one_way_to_the_terminal():
    for path in Path(cli.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        calls = [
            ast.unparse(node)
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.echo", "print", "click.secho")
        ]
        # What has nothing from outside in it: the help of a command without arguments.
        allowed = {"click.echo(printable(line), err=err)", "click.echo(error.format_message(), err=True)"}
        assert set(calls) <= allowed, path.name
