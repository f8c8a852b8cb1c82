"""Other implementations, each as a function that records the time of every iteration."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import perturb_tutorial as pt
from perturb_tutorial.masks import blur


def synchronize(device: torch.device) -> None:
    """Waits until a GPU has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class Clock:
    """Times of a run: at its start, after each of its iterations, at its end."""

    device: torch.device
    start: float = 0.0
    ticks: list[float] = field(default_factory=list)
    end: float = 0.0

    def __enter__(self) -> Clock:
        synchronize(self.device)
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        synchronize(self.device)
        self.end = time.perf_counter()

    def tick(self, *_: object) -> None:
        synchronize(self.device)
        self.ticks.append(time.perf_counter())

    @property
    def iteration(self) -> float:
        """Seconds of an iteration, the median of all but the first, which warms up."""
        steps = sorted(b - a for a, b in zip(self.ticks, self.ticks[1:], strict=False))
        return (steps[(len(steps) - 1) // 2] + steps[len(steps) // 2]) / 2

    @property
    def around(self) -> float:
        """Seconds of everything but the iterations."""
        return max(0.0, (self.end - self.start) - self.iteration * len(self.ticks))


def ours(
    network: pt.Network, images: Tensor, targets: list[int], settings: pt.MaskSettings, **options: object
) -> Clock:
    """``learn_masks`` with all images in one batch and the same arguments."""
    clock = Clock(network.device)
    with clock:
        pt.learn_masks(
            network,
            images,
            targets,
            settings,
            batch_size=len(images),
            progress=clock.tick,
            **options,  # type: ignore[arg-type]
        )
    return clock


def eager_loop(
    module: nn.Module, normalized: Tensor, target: int, iterations: int, settings: pt.MaskSettings
) -> Clock:
    """The loop of the public ports for one image, with their known mistakes corrected.

    The parameters are frozen, the image is blurred once and only the mask has a gradient; the network is not changed
    (BatchNorms, N×C×H×W in memory), and the mask is enlarged by bilinear interpolation.

    Args:
        module: the network, which takes normalized images.
        normalized: the image, 1×3×S×S.
        target: its class.
        iterations: of the mask.
        settings: of the mask.
    """
    clock = Clock(normalized.device)
    size = normalized.shape[-1]
    with clock:
        blurred = blur(normalized, settings.blur_sigma * size / 224)
        mask = torch.full((1, 1, settings.grid_size, settings.grid_size), 0.5, device=normalized.device)
        mask.requires_grad_(True)
        adam = torch.optim.Adam([mask], lr=settings.learning_rate)
        for _ in range(iterations):
            large = nn.functional.interpolate(mask, size=(size, size), mode="bilinear", align_corners=False)
            shift = torch.randint(0, settings.jitter, (2,)).tolist()
            x, y = torch.roll(normalized, shift, (2, 3)), torch.roll(blurred, shift, (2, 3))
            score = module(x * large + y * (1 - large)).softmax(1)[0, target]
            tv = (mask[..., 1:, :] - mask[..., :-1, :]).abs().pow(settings.tv_exponent).sum()
            tv = tv + (mask[..., :, 1:] - mask[..., :, :-1]).abs().pow(settings.tv_exponent).sum()
            loss = settings.area_weight * (1 - mask).abs().sum() + settings.tv_weight * tv + score
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
            clock.tick()
    return clock


def extremal_perturbation(module: nn.Module, normalized: Tensor, target: int, iterations: int) -> Clock:
    """TorchRay's method with its defaults except for the number of iterations, whose default is 800.

    Args:
        module: the network, which takes normalized images.
        normalized: the image, 1×3×S×S.
        target: its class.
        iterations: of the mask.
    """
    from torchray.attribution.extremal_perturbation import extremal_perturbation, simple_reward

    clock = Clock(normalized.device)

    def reward(*arguments: object, **options: object) -> Tensor:
        clock.tick()  # once an iteration
        result: Tensor = simple_reward(*arguments, **options)
        return result

    with warnings.catch_warnings(), clock:
        warnings.simplefilter("ignore")  # torch warns of outdated calls in this package of 2019
        extremal_perturbation(module, normalized, target, max_iter=iterations, reward_func=reward)
    return clock


def occlusion_window(network: pt.Network, image: Tensor, target: int) -> float:
    """Seconds of one of the windows of Captum's occlusion (35 px, one at a time, its default)."""
    from captum.attr import Occlusion

    stride = 32
    across = -(-(network.input_size - 35) // stride) + 1
    synchronize(network.device)
    start = time.perf_counter()
    with torch.inference_mode():
        Occlusion(network.logits).attribute(image, (3, 35, 35), (3, stride, stride), target=target)
    synchronize(network.device)
    return (time.perf_counter() - start) / across**2
