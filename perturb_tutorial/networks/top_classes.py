"""The classes that a network finds in images: targets where no label is known."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from perturb_tutorial._outside import check_whole
from perturb_tutorial.networks.network import Network


def top_classes(network: Network, images: Tensor, k: int = 5) -> list[list[int]]:
    """The ``k`` classes of the highest scores for each of N images, best first: targets for :func:`learn_masks`.

    Examples:
        >>> import perturb_tutorial as pt
        >>> network = pt.load_network(device="cpu")
        >>> images = pt.load_samples(network.input_size, names=["chelsea"]).images
        >>> pt.top_classes(network, images, k=1)
        [[285]]
    """
    network.check_images(images)
    k = check_whole("k", k, 1, network.class_count)
    with torch.inference_mode():
        rows = [network.logits(part).topk(k, 1).indices for part in images.split(16)]
    return cast("list[list[int]]", torch.cat(rows).tolist()) if rows else []


def best_targets(network: Network, images: Tensor, count: int) -> list[list[int]]:
    """The ``count`` best classes of each of N images, whose scores are summed (eq. 2), best first.

    For a network with no more classes than that, all but the worst: the scores of all classes sum to 1 on any image,
    so no mask would change the sum.
    """
    return top_classes(network, images, min(check_whole("count", count, 1), network.class_count - 1))
