"""Peak memory of a process that learns masks: python bench/memory.py IMAGES ENGINE THREADS prints megabytes.

Of the process itself, less its images and with what the libraries need (Linux only).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

import perturb_tutorial as pt


def peak_megabytes(images: int, engine: str, threads: int) -> float | None:
    """Peak of a new process; None where the system does not report it."""
    if not Path("/proc/self/status").is_file():
        return None
    command = [sys.executable, __file__, str(images), engine, str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(images: int, engine: str, threads: int) -> None:
    torch.set_num_threads(threads)
    network = pt.load_network(device="cpu")
    pictures = torch.rand(images, 3, network.input_size, network.input_size)
    settings = pt.MaskSettings(iterations=2, initialization="half")
    pt.learn_masks(network, pictures, 0, settings, engine=engine)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    print(peak / 1024 - pictures.numel() * 4 / 1024**2)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
