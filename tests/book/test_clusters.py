"""The files of the page "A cluster": they are well formed, and every option in them is one that its program has."""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from perturb_tutorial.cli import app

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cluster"
PAGE = ROOT / "book" / "clusters.md"
COMMAND = ["perturb-tutorial", "benchmark", "pointing-game"]
REFUSED = {"--head", "--node-ip-address", "--port", "--block"}
"""Options of ``ray start`` that ``ray symmetric-run`` sets itself."""


def commands() -> list[list[str]]:
    """The words of each command of ours and of Ray in the page's code and in the files."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    job = yaml.safe_load((FOLDER / "rayjob.yaml").read_text("utf-8"))
    blocks += [(FOLDER / "slurm.sbatch").read_text("utf-8"), job["spec"]["entrypoint"]]
    found = []
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        if not line.lstrip().startswith("#") and re.search(r"\b(ray|perturb-tutorial) ", line):
            words = shlex.split(line, comments=True)
            starts = [k for k, word in enumerate(words) if word in ("ray", "perturb-tutorial")]
            found += [words[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    return [words for words in found if len(words) > 1 and not words[1].startswith("-")]


def options(words: list[str]) -> set[str]:
    """Ours end before the ``--`` that parts two commands."""
    return {word.partition("=")[0] for word in words if word.startswith("--") and word != "--"}


@functools.cache
def ray_help(command: str) -> str:
    pytest.importorskip("ray", reason="the extra ray")
    line = [sys.executable, "-m", "ray.scripts.scripts", command, "--help"]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=True).stdout


def test_every_option_is_one_of_its_program() -> None:
    ours = CliRunner().invoke(app, [*COMMAND[1:], "--help"]).output
    seen = set()
    for words in commands():
        seen.add(" ".join(words[:2]))
        if words[0] == "perturb-tutorial":
            assert words[:3] == COMMAND
            assert {name for name in options(words) if f"{name} " not in ours} == set()
        elif words[1] == "symmetric-run":
            own = {"--address", "--min-nodes"}
            assert all(name in ray_help("symmetric-run") for name in own)
            assert {name for name in options(words) - own if f"{name} " not in ray_help("start")} == set()
            assert not options(words) & REFUSED
        else:
            assert {name for name in options(words) if f"{name} " not in ray_help(words[1])} == set()
    assert seen == {"perturb-tutorial benchmark", "ray symmetric-run", "ray start", "ray stop"}


def test_the_script_for_slurm_is_bash(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    path = FOLDER / "slurm.sbatch"
    assert subprocess.run([bash, "-n", path], capture_output=True, timeout=30).stderr == b""
    # As Slurm runs it, with stand-ins for Slurm's commands: the command that comes out of it.
    for name, text in {
        "scontrol": "printf 'node7\\nnode8\\n'",
        "srun": 'printf "%s\\n" "$@"',
        "activate": "",
    }.items():
        stand_in = tmp_path / ("perturb/bin/" if name == "activate" else "") / name
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.write_text(f"#!{bash}\n{text}\n")
        stand_in.chmod(0o755)
    slurm = {
        "SLURM_NNODES": "2",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_JOB_NODELIST": "x",
    }
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin", "DATA": "s3://b/c d", **slurm}
    done = subprocess.run(
        [bash, path], capture_output=True, text=True, timeout=30, check=True, env=environment
    )
    words = done.stdout.splitlines()
    assert words[3:12] == [
        "ray", "symmetric-run", "--address", "node7:6379", "--min-nodes", "2", "--num-cpus", "16", "--num-gpus",
    ]  # fmt: skip
    assert words[words.index("--") + 1 :][:3] == COMMAND
    assert words[words.index("--data") + 1] == "s3://b/c d"
    for line in path.read_text("utf-8").splitlines():
        assert re.fullmatch(r"#+SBATCH --[a-z-]+(=\S+)?", line) or "SBATCH" not in line


def test_the_job_for_kuberay_is_one() -> None:
    job = yaml.safe_load((FOLDER / "rayjob.yaml").read_text("utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert shlex.split(spec["entrypoint"])[:3] == COMMAND
    cluster = spec["rayClusterSpec"]
    (pinned,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.M)
    assert cluster["rayVersion"] == pinned
    groups: list[dict[str, Any]] = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert all(f"--{name} " in ray_help("start") for name in group["rayStartParams"])
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["securityContext"]["runAsNonRoot"]
        gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        assert container["image"].endswith(":cuda" if gpu else ":cpu")
    for group in groups[1:]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_image_is_made_of_files_and_extras_that_are_there() -> None:
    text = (FOLDER / "Dockerfile").read_text("utf-8")
    let_in = {
        line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"
    }
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.M) for word in line.split()[:-1]]
    assert set(copied) == let_in
    assert all((ROOT / name).exists() for name in copied)
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (extras,) = re.findall(r'"\.\[(.*?)\]"', text)
    assert all(re.search(rf"^{extra} = \[", project, re.M) for extra in extras.split(","))
    # What the build of the wheel reads is in the image.
    for folder in re.findall(r'^"(.*?)" = "perturb_tutorial/data', project, re.M):
        assert folder in copied
    assert re.findall(r"^USER (.*)$", text, re.M) == ["1000"]
    if (bash := shutil.which("bash")) is not None:
        for lines in re.findall(r"^RUN ((?:.*\\\n)*.*)$", text, re.M):
            assert subprocess.run([bash, "-n", "-c", lines], capture_output=True, timeout=30).stderr == b""
