"""Grad-CAM beside pytorch-grad-cam on transformers and their relatives: the same network, layer, images and classes.

The weights are drawn anew, all of them, because a fresh network hides faults: its head may be all zeros and its class
tokens all alike. pytorch-grad-cam gets the layer's ``reshape_transform`` as its documentation gives it, adapted to the
number of extra tokens; this package finds the form by itself. The maps are compared at the layer's size, before any
scaling.

Run: python bench/peers_grad_cam.py [NAME ...], with timm, transformers and grad-cam installed
Prints a table and writes bench/results/grad_cam_peers.json.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import perturb_tutorial as pt
from perturb_tutorial import baselines
from perturb_tutorial.networks.layers import layer_map

RESULTS = Path(__file__).parent / "results" / "grad_cam_peers.json"
Transform = Callable[[Tensor], Tensor]
SMALL = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3, "num_labels": 10}


def tokens(side: int, extra: int) -> Transform:
    """pytorch-grad-cam's example for vision transformers, with ``extra`` tokens before side×side others."""

    def transform(tensor: Tensor) -> Tensor:
        result = tensor[:, extra:, :].reshape(tensor.size(0), side, side, tensor.size(2))
        return result.transpose(2, 3).transpose(1, 2)

    return transform


def channels_last(tensor: Tensor) -> Tensor:
    """Its example for Swin, of which timm and torchvision keep the two sides apart by now."""
    return tensor.transpose(2, 3).transpose(1, 2)


class Case(NamedTuple):
    """A network, its side in px, and the layers to compare: name → ``reshape_transform``; the first one is the default
    layer of this package (where that returns an object: the module that makes its tensor).
    """

    build: Callable[[], nn.Module]
    size: int
    layers: dict[str, Transform | None]


def timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A network of timm, without its weights."""

    def build() -> nn.Module:
        from timm import create_model

        return create_model(name, num_classes=10, **options)

    return build


def torchvision(name: str) -> Callable[[], nn.Module]:
    """A network of torchvision, without its weights."""
    return lambda: getattr(pt.networks.torchvision_models(), name)(weights=None, num_classes=10)


class Logits(nn.Module):
    """The logits of a network of transformers."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        return self.module(inputs).logits


def hugging_face(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A small network of transformers."""

    def build() -> nn.Module:
        import transformers

        configuration = getattr(transformers, f"{name}Config")(**options)
        return Logits(getattr(transformers, f"{name}ForImageClassification")(configuration))

    return build


CASES = {
    "timm vit_tiny_patch16_224": Case(
        timm("vit_tiny_patch16_224"), 224, {"blocks.11.norm1": tokens(14, 1), "blocks.5": tokens(14, 1)}
    ),
    "timm deit_tiny_distilled_patch16_224": Case(
        timm("deit_tiny_distilled_patch16_224"), 224, {"blocks.11.norm1": tokens(14, 2), "blocks.5": tokens(14, 2)}
    ),
    "timm vit_small_patch14_reg4_dinov2": Case(
        timm("vit_small_patch14_reg4_dinov2", img_size=224), 224, {"blocks.11.norm1": tokens(16, 5)}
    ),
    "timm swin_tiny_patch4_window7_224": Case(
        timm("swin_tiny_patch4_window7_224"), 224, {"norm": channels_last, "layers.2": channels_last}
    ),
    "timm swinv2_tiny_window8_256": Case(
        timm("swinv2_tiny_window8_256"), 256, {"norm": channels_last, "layers.2": channels_last}
    ),
    "timm convnext_tiny": Case(timm("convnext_tiny"), 224, {"norm_pre": None, "stages.2": None}),
    "timm mixer_s16_224": Case(timm("mixer_s16_224"), 224, {"norm": tokens(14, 0), "blocks.3": tokens(14, 0)}),
    "torchvision vit_b_16": Case(
        torchvision("vit_b_16"),
        224,
        {"encoder.layers.encoder_layer_11.ln_1": tokens(14, 1), "encoder.layers.encoder_layer_5": tokens(14, 1)},
    ),
    "torchvision swin_t": Case(torchvision("swin_t"), 224, {"permute": None, "features.5": channels_last}),
    "torchvision swin_v2_t": Case(torchvision("swin_v2_t"), 256, {"permute": None, "features.5": channels_last}),
    "torchvision convnext_tiny": Case(torchvision("convnext_tiny"), 224, {"features": None, "features.5": None}),
    "transformers ViT": Case(
        hugging_face("ViT", **SMALL, intermediate_size=192),
        224,
        {"module.vit.layers.3.layernorm_before": tokens(14, 1), "module.vit.layers.1": tokens(14, 1)},
    ),
    "transformers DeiT": Case(
        hugging_face("DeiT", **SMALL, intermediate_size=192),
        224,
        {"module.deit.layers.3.layernorm_before": tokens(14, 2), "module.deit.layers.1": tokens(14, 2)},
    ),
    "transformers Dinov2": Case(
        hugging_face("Dinov2", **SMALL, image_size=224),
        224,
        {"module.dinov2.layernorm": tokens(16, 1), "module.dinov2.encoder.layer.1": tokens(16, 1)},
    ),
    "transformers Dinov2WithRegisters": Case(
        hugging_face("Dinov2WithRegisters", **SMALL, image_size=224),
        224,
        {"module.dinov2_with_registers.layernorm": tokens(14, 5)},
    ),
    "transformers Swin": Case(
        hugging_face("Swin", embed_dim=24, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8], num_labels=10),
        224,
        {"module.swin.layernorm": tokens(7, 0), "module.swin.embeddings.norm": tokens(56, 0)},
    ),
    "transformers Swinv2": Case(
        hugging_face(
            "Swinv2", image_size=256, window_size=8, embed_dim=24, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8],
            num_labels=10,
        ),
        256,
        {"module.swinv2.layernorm": tokens(8, 0)},
    ),
    "transformers ConvNext": Case(
        hugging_face("ConvNext", hidden_sizes=[24, 48, 96, 192], depths=[2, 2, 2, 2], num_labels=10),
        224,
        {"module.convnext.encoder.stages.3": None, "module.convnext.encoder.stages.1": None},
    ),
}  # fmt: skip


def redraw(module: nn.Module, seed: int = 0) -> nn.Module:
    """``module`` in evaluation mode with all parameters drawn anew: matrices as for unit variance, scales near 1, the
    rest near 0.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.dim() > 1:
                value.copy_(noise / value[0].numel() ** 0.5)
            else:
                scale = any(word in name for word in ("weight", "gamma", "scale", "lambda"))
                value.copy_(1 + 0.2 * noise if scale else 0.1 * noise)
    return module.eval()


def example_images(size: int, count: int = 2) -> Tensor:
    """Smooth random images."""
    coarse = torch.rand(count, 3, 7, 7, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)


def peer(
    module: nn.Module, layer: str, images: Tensor, targets: list[int], transform: Transform | None
) -> Tensor:
    """pytorch-grad-cam's maps N×1×h×w at the layer's size: its own functions up to the scaling to [0, 1]."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    target_layer, categories = (
        module.get_submodule(layer),
        [ClassifierOutputTarget(target) for target in targets],
    )
    with GradCAM(model=module, target_layers=[target_layer], reshape_transform=transform) as cam:
        cam(input_tensor=images, targets=categories)
        activations, gradients = (
            kept[0].cpu().data.numpy()
            for kept in (cam.activations_and_grads.activations, cam.activations_and_grads.gradients)
        )
        maps = cam.get_cam_image(images, target_layer, categories, activations, gradients)
    return torch.from_numpy(np.maximum(maps, 0))[:, None]


def compared(
    module: nn.Module, network: pt.Network, layer: str, size: int, transform: Transform | None
) -> dict[str, Any]:
    """The smallest correlation and the largest difference over the maps of a few images and classes."""
    images, targets = example_images(size).repeat(3, 1, 1, 1), [0, 0, 1, 1, 2, 2]
    ours = baselines.grad_cam(network, images, targets, layer=layer)
    other = peer(module, layer, images, targets, transform)
    pairs = [(a.flatten(), b.flatten()) for a, b in zip(ours, other, strict=True) if bool(a.any() or b.any())]
    difference = max(float((a - b).abs().max() / b.max()) for a, b in pairs)
    correlation = min(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs)
    return {
        "layer": layer,
        "form": str(layer_map(network, layer)),
        "maps": len(pairs),
        "correlation": round(correlation, 6),
        "difference": float(f"{difference:.1e}"),
    }


def default_layer(network: pt.Network, size: int) -> str:
    """The layer that Grad-CAM reads unasked, out of its warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        baselines.grad_cam(network, example_images(size, 1), 0)
    (message,) = (str(warning.message) for warning in caught if "no layer is known" in str(warning.message))
    return message.split("it reads '")[1].split("'")[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks, all by default")
    names = parser.parse_args().names
    pt.networks.torchvision_models()
    rows: list[dict[str, Any]] = []
    for name, case in CASES.items():
        if names and name not in names:
            continue
        module = redraw(case.build())
        network = pt.Network(module, input_size=case.size, device="cpu", name=name)
        default = default_layer(network, case.size)
        for layer, transform in case.layers.items():
            row = {
                "network": name,
                "default": default,
                **compared(module, network, layer, case.size, transform),
            }
            rows.append(row)
            print("  ".join(f"{value}" for value in row.values()), flush=True)
    versions = {
        package: version(package) for package in ("torch", "torchvision", "timm", "transformers", "grad-cam")
    }
    if not names:
        RESULTS.write_text(
            json.dumps({"versions": versions, "rows": rows}, indent=2, ensure_ascii=False) + "\n", "utf-8"
        )


if __name__ == "__main__":
    main()
