"""A network that turns the output of a BatchNorm into tokens: PyTorch's gradient for one image may be wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import perturb_tutorial as pt
from perturb_tutorial.baselines import saliency


class Tokens(nn.Module):
    """A convolution, a BatchNorm, and a linear layer on tokens, as in CvT's projections."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.norm = nn.Conv2d(3, 8, 8, 8, groups=1), nn.BatchNorm2d(8)
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.running_var.uniform_(0.5, 2)
        self.mix, self.head = nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.convolution(x) * 1.0).flatten(2).permute(0, 2, 1)
        return self.head(self.mix(tokens).tanh().mean(1))


def test_the_gradient_of_one_image_is_that_of_finite_differences() -> None:
    network = pt.Network(Tokens().double(), input_size=32, device="cpu")
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pixels = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network.unfolded_logits(pixels)[0, 2], pixels)
    step = 1e-5
    for place in ((0, 0, 3, 5), (0, 1, 20, 11), (0, 2, 31, 31)):
        change = torch.zeros_like(image)
        change[place] = step
        with torch.no_grad():
            upper, lower = (network.unfolded_logits(image + sign * change)[0, 2] for sign in (1, -1))
        # Central differences of a smooth function in float64 are right to some step².
        torch.testing.assert_close(gradient[place], (upper - lower) / (2 * step), rtol=1e-5, atol=1e-9)


def test_one_image_alone_has_the_map_that_it_has_in_a_batch() -> None:
    network = pt.Network(Tokens(), input_size=32, device="cpu")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for method in ("gradient", "grad_cam"):
        layer = "convolution" if method == "grad_cam" else None
        together = saliency(network, images, 2, method, layer=layer)
        alone = torch.cat([saliency(network, image[None], 2, method, layer=layer) for image in images])
        torch.testing.assert_close(alone, together)
