"""The perturbation operator Φ: what an image looks like where the mask is 0.

    Φ(x; M) = x · M + x′ · (1 − M)

x is an image, M its mask on the image (1 = keep) and x′ the fully perturbed image: the image blurred by
σ₀ = 10 image px (of 224), a constant color, or noise around that color.
"""

from __future__ import annotations

import torch
from torch import Tensor

from perturb_tutorial.masks import blur
from perturb_tutorial.settings import PERTURBATIONS, MaskSettings, check_seed
from perturb_tutorial.sizes import scaled

NOISE_SIGMA = 0.2
"""Standard deviation of the noise perturbation, in units of the [0, 1] color range."""


def fully_perturbed(
    images: Tensor, kind: str, *, color: Tensor, blur_sigma: float = 10.0, seed: int = 0
) -> Tensor:
    """The image x′ that stands where the mask is 0, of the shape of ``images`` (N×C×H×W in [0, 1]).

    ``kind``: blur, constant or noise. ``color``: C values in [0, 1], the network's mean color. ``blur_sigma``:
    σ₀ in image px of a 224 px input, of all channels alike. ``seed`` draws the noise, one draw for all images, so
    that an image has the same one alone and in a batch.
    """
    seed = check_seed(seed)
    if kind == "blur":
        return blur(images, scaled(blur_sigma, (images.shape[-2], images.shape[-1])))
    if kind not in PERTURBATIONS:
        raise ValueError(f"perturbation: expected one of {', '.join(PERTURBATIONS)}, got {kind!r}")
    constant = color.to(images).view(1, -1, 1, 1).expand_as(images)
    if kind == "constant":
        return constant.clone()
    generator = torch.Generator(device="cpu").manual_seed(seed)
    noise = torch.randn(images.shape[1:], generator=generator, dtype=torch.float32, device="cpu")
    return constant + NOISE_SIGMA * noise.to(images)


def background_for(settings: MaskSettings, images: Tensor, *, color: Tensor, seed: int = 0) -> Tensor:
    """:func:`fully_perturbed` as ``settings`` say: the x′ that their masks blend ``images`` with."""
    return fully_perturbed(
        images, settings.perturbation, color=color, blur_sigma=settings.blur_sigma, seed=seed
    )


def perturb(images: Tensor, perturbed: Tensor, mask: Tensor) -> Tensor:
    """Φ(x; M): ``images`` where ``mask`` is 1, ``perturbed`` where it is 0. Shapes broadcast as N×C×H×W."""
    return images * mask + perturbed * (1 - mask)
