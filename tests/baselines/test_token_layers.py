"""Methods that read tokens: the explicit computation, and pytorch-grad-cam's formula for ``reshape_transform``."""

from __future__ import annotations

import warnings

import pytest
import torch
from small_transformers import TinySwin, TinyViT, tensor_in
from torch import nn

import perturb_tutorial as pt
from perturb_tutorial import baselines

TARGETS = [1, 3, 0]


def network_of(module: nn.Module) -> pt.Network:
    return pt.Network(module, input_size=32, device="cpu", name=type(module).__name__)


def patches(module: TinyViT, tokens: torch.Tensor) -> torch.Tensor:
    """The 8×8 tokens of the patches as N×C×8×8, by their numbers."""
    rows = [number for number in range(tokens.shape[1]) if not module.at <= number < module.at + module.extra]
    return tokens[:, rows].mT.reshape(len(tokens), -1, 8, 8)


@pytest.mark.parametrize("output", ["tensor", "tuple", "named", "list", "dict"])
@pytest.mark.parametrize(
    ("extra", "where"), [(0, "first"), (1, "first"), (5, "first"), (2, "last"), (1, "middle")]
)
def test_grad_cam_of_tokens_by_hand(extra, where, output, noise_images):
    module = TinyViT(extra, where, head="class" if extra else "mean", output=output)
    network = network_of(module)
    with torch.no_grad():
        read = tensor_in(module.blocks[0](module.embedded(noise_images)))
    leaf = read.clone().requires_grad_()
    logits = module.classified(tensor_in(module.blocks[1](leaf)))
    (gradient,) = torch.autograd.grad(logits[range(3), TARGETS].sum(), leaf)
    alpha = patches(module, gradient).mean((2, 3), keepdim=True)
    expected = (alpha * patches(module, read)).sum(1, keepdim=True).clamp(min=0)
    assert expected.amax((1, 2, 3)).min() > 0
    maps = baselines.grad_cam(network, noise_images, TARGETS, layer="blocks.0")
    # The same operations, some of them on a batch of another layout in memory.
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)
    slope = baselines.gradient(network, noise_images, TARGETS, layer="blocks.0")
    torch.testing.assert_close(
        slope, patches(module, gradient).abs().amax(1, keepdim=True), rtol=1e-4, atol=1e-6
    )


def grad_cam_with_reshape_transform(module, layer, images, targets, reshape_transform):
    """pytorch-grad-cam's GradCAM, before its scaling: hooks on the layer, ``reshape_transform`` of the activation and
    of the gradient, the gradient's mean over the positions as weights, ReLU.
    """
    kept = {}

    def keep(_, inputs, output):
        kept["activation"] = reshape_transform(output).detach()
        output.register_hook(lambda gradient: kept.update(gradient=reshape_transform(gradient)))

    handle = layer.register_forward_hook(keep)
    module(images.clone().requires_grad_())[range(len(images)), targets].sum().backward()
    handle.remove()
    weights = kept["gradient"].mean((2, 3))
    return (weights[:, :, None, None] * kept["activation"]).sum(1, keepdim=True).clamp(min=0)


def without_class_token(tensor, height=8, width=8):
    """The function in pytorch-grad-cam's documentation for vision transformers."""
    result = tensor[:, 1:, :].reshape(tensor.size(0), height, width, tensor.size(2))
    return result.transpose(2, 3).transpose(1, 2)


@pytest.mark.parametrize("layer", ["blocks.0", "blocks.1.norm1"])
def test_reshape_is_pytorch_grad_cams_reshape_transform(layer, noise_images):
    module = TinyViT(1)
    network = network_of(module)
    expected = grad_cam_with_reshape_transform(
        module, module.get_submodule(layer), noise_images, TARGETS, without_class_token
    )
    assert expected.amax((1, 2, 3)).min() > 0
    given = baselines.grad_cam(network, noise_images, TARGETS, layer=layer, reshape=without_class_token)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(baselines.grad_cam(network, noise_images, TARGETS, layer=layer), given)
    named = pt.saliency(
        network,
        noise_images,
        TARGETS,
        method="grad_cam",
        layer=layer,
        reshape=without_class_token,
        batch_size=2,
    )
    torch.testing.assert_close(named, given, rtol=1e-4, atol=1e-6)


def test_reshape_reads_a_layer_that_is_no_map(noise_images):
    # Two heads of q, k and v: no form that the package knows, and the function sums what it likes.
    module = TinyViT(1)

    def reshape(x: torch.Tensor) -> torch.Tensor:
        return x[:, 1:].unflatten(2, (3, 16)).sum(2).mT.unflatten(2, (8, 8))

    expected = grad_cam_with_reshape_transform(
        module, module.blocks[1].attn.qkv, noise_images, TARGETS, reshape
    )
    given = baselines.grad_cam(
        network_of(module), noise_images, TARGETS, layer="blocks.1.attn.qkv", reshape=reshape
    )
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("reshape", "message"),
    [
        (lambda x: [x], r"expected a callable from the layer's output to N×C×h×w, got list from 3×65×16$"),
        (lambda x: x[:, 1:], r"with N = 3, got torch.float32 of 3×64×16 from 3×65×16$"),
        (lambda x: x[:1, 1:].mT.unflatten(2, (8, 8)), r"with N = 3, got torch.float32 of 1×16×8×8"),
        (lambda x: x[:, :0].mT[..., None], r"with N = 3, got torch.float32 of 3×16×0×1"),
        (lambda x: x[:, 1:].mT.unflatten(2, (8, 8)).int(), r"with N = 3, got torch.int32 of 3×16×8×8"),
        (lambda x: torch.ones(3, 16, 8, 8), r"that depends on it, got a map without a gradient"),
    ],
)
def test_what_reshape_returns_is_checked(reshape, message, noise_images):
    with pytest.raises(ValueError, match=rf"^reshape: .*{message}"):
        baselines.grad_cam(network_of(TinyViT(1)), noise_images, 0, layer="blocks.0", reshape=reshape)


def test_reshape_belongs_to_a_layer_and_to_methods_that_take_it(noise_images):
    network = network_of(TinyViT(1))
    with pytest.raises(
        ValueError, match=r"^layer: expected the layer whose output reshape is for, got None$"
    ):
        baselines.grad_cam(network, noise_images, 0, reshape=without_class_token)
    with pytest.raises(ValueError, match=r"^layer: TinyViT has no layer 'block'"):
        baselines.grad_cam(network, noise_images, 0, layer="block", reshape=without_class_token)
    with pytest.raises(ValueError, match=r"^gradient: expected options out of .*; got reshape"):
        pt.saliency(
            network, noise_images, 0, method="gradient", layer="blocks.0", reshape=without_class_token
        )
    with pytest.raises(ValueError, match=r"^mask: expected options out of .*; got reshape"):
        pt.saliency(network, noise_images, 0, method="mask", reshape=without_class_token)


@pytest.mark.parametrize("method", ["grad_cam", "gradient"])
@pytest.mark.parametrize("layer", ["blocks.1", "norm"])
def test_tokens_that_nobody_reads_are_refused_in_one_sentence(method, layer, noise_images):
    message = (
        rf"^layer: the logits do not depend on its output at the positions of '{layer}', .*; "
        "name another, such as 'blocks.1.norm1'$"
    )
    with pytest.raises(ValueError, match=message):
        getattr(baselines, method)(network_of(TinyViT(1)), noise_images, 0, layer=layer)


class Unused(nn.Module):
    """The first tensor of the block's output is a map that the network does not use."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.pair, self.head = nn.Conv2d(3, 8, 4, stride=4), Two(), nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.pair(self.stem(x))[1].mean((2, 3)))


class Two(nn.Module):
    """The second tensor is computed from the first before they are returned, as pooled tokens are."""

    def forward(self, x):
        first = 2 * x
        return first, 3 * first


def test_a_first_tensor_that_is_not_used_is_no_default_and_refused(noise_images):
    network = network_of(Unused())
    with pytest.warns(UserWarning, match="it reads 'stem'"):
        baselines.grad_cam(network, noise_images, 0)
    with pytest.raises(ValueError, match=r"^layer: the logits do not depend on its output"):
        baselines.grad_cam(network, noise_images, 0, layer="pair")


class ShortAndLong(nn.Module):
    """One norm runs on 8×8 tokens, then on 4×4: its last run is read."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.swin = TinySwin()
        self.norm, self.wide = nn.LayerNorm(16), nn.Linear(32, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        tokens = self.norm(self.swin.stem(x).flatten(2).mT)
        return self.head(self.norm(self.wide(self.swin.merging(tokens))).relu().mean(1))


def test_the_last_run_of_a_layer_is_read(noise_images):
    module = ShortAndLong()
    network = network_of(module)
    given = baselines.grad_cam(network, noise_images, TARGETS, layer="norm")
    with torch.no_grad():
        read = module.norm(
            module.wide(module.swin.merging(module.norm(module.swin.stem(noise_images).flatten(2).mT)))
        )
    weights = module.head.weight[TARGETS][:, None] * (read > 0) / 16
    expected = (weights.mean(1, keepdim=True) * read).sum(2).clamp(min=0).view(3, 1, 4, 4)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-6)


def test_a_named_layer_gives_no_warning(noise_images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        baselines.grad_cam(network_of(TinyViT(1)), noise_images, 0, layer="blocks.0")
