"""The how-to pages: their code runs as it stands, but for trained weights, sizes and the number of iterations."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from page_code import BOOK, run_page
from PIL import Image

from perturb_tutorial import cli

QUICK = "pt.MaskSettings(iterations=2, initialization='random')"


def small_transformer() -> torch.nn.Module:
    """Two blocks; torchvision's own head begins with zeros, and nothing could be seen through it."""
    from torchvision.models import VisionTransformer

    module = VisionTransformer(
        image_size=224, patch_size=56, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    )
    torch.nn.init.normal_(module.heads[0].weight)
    return module


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def test_my_own_network() -> None:
    names = run_page(
        "own_network.md",
        {
            'models.resnet18(weights="DEFAULT")': "models.resnet18(weights=None)",
            'models.vit_b_16(weights="DEFAULT")': "small_transformer()",
            "pt.MaskSettings()": QUICK,
        },
        given={"small_transformer": small_transformer},
        ignored="grad_cam: no layer is known for",
    )
    assert names["masks"].saliency.shape == (1, 1, 224, 224)
    assert names["heat"].isfinite().all()
    assert names["edges"].shape == (1, 1, 224, 224)


def test_a_gpu() -> None:
    """As far as a machine without one can tell."""
    names = run_page("gpu.md", {"pt.MaskSettings()": QUICK})
    assert names["masks"].saliency.shape == (2, 1, 224, 224)
    assert names["network"].device.type in ("cpu", "cuda", "mps")


def test_my_own_pictures() -> None:
    Path("photos").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a", (60, 40)), ("b", (32, 64))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(f"photos/{name}.jpg")
    Image.fromarray(rng.integers(0, 65535, (50, 50)).astype(np.uint16)).save("scan.png")
    names = run_page("own_pictures.md", {"pt.MaskSettings()": QUICK})
    assert [tuple(mask.shape[-2:]) for mask in names["own_size"]] == [(60, 40), (32, 64)]
    assert names["scans"].shape == (1, 1, 128, 128)
    assert names["masks"].mask.shape == (1, 1, 128, 128)


def test_masks_as_files() -> None:
    pytest.importorskip("pycocotools", reason="needs the extra coco")
    Path("quick.json").write_text(json.dumps({"iterations": 2, "initialization": "random"}), encoding="utf-8")
    command = commands("mask_files.md")[0]
    assert cli.run([*command, "--settings", "quick.json"]) == 0
    names = run_page("mask_files.md", {"pt.MaskSettings()": QUICK}, ignored="__array__ implementation")
    listed = set(re.findall(r"`(out/[\w./]+)`", (BOOK / "mask_files.md").read_text(encoding="utf-8")))
    assert {path.as_posix() for path in Path("out").rglob("*.*")} == listed
    assert names["inside"].shape == (300, 451)
    with Image.open("mask.png") as picture:
        assert picture.size == (451, 300)


def test_beside_captum_and_quantus() -> None:
    pytest.importorskip("captum", reason="needs the extra tests")
    names = run_page(
        "beside_captum.md",
        {'models.resnet18(weights="DEFAULT")': "models.resnet18(weights=None)", "pt.MaskSettings()": QUICK},
        ignored="Input Tensor 0 did not already require gradients",
    )
    assert names["ours"].isfinite().all()


def test_coco_from_zero_to_a_summary() -> None:
    pytest.importorskip("pycocotools", reason="needs the extra coco")
    pytest.importorskip("pyarrow", reason="needs the extra benchmarks")
    # A page that a reader follows: the folder first, then the commands as they are on it, then the summary.
    names = run_page("coco_summary.md", {}, ignored="__array__ implementation")
    assert names["dataset"].problems == ()
    assert names["outcome"].summary["records"]["finished"] == 2  # the center of the image is asked as well
    dry, small, whole = commands("coco_summary.md")
    assert cli.run([*dry, "--methods", "gradient"]) == 0
    assert cli.run(small) == 0
    assert Path("try/summary.html").is_file()
    assert whole[:2] == small[:2]


def commands(page: str) -> list[list[str]]:
    """The arguments of each ``perturb-tutorial`` command on the page."""
    text = (BOOK / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [
        line.split()[1:] for block in blocks for line in block.splitlines() if line.startswith("perturb-")
    ]
