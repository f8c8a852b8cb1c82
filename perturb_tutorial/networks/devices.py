"""Where networks run."""

from __future__ import annotations

import torch


def pick_device(device: str | torch.device | None = "auto") -> torch.device:
    """The device by its name; "auto" is cuda, else mps, else cpu. ``ValueError`` for one that torch cannot use here."""
    if device is None or device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except Exception as error:  # a missing backend may raise anything
        raise ValueError(
            f"device: {device!r} cannot be used here; expected auto, cpu, cuda or mps"
        ) from error
    return chosen
