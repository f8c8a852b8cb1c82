"""The networks of the sweep (any_network.py): torchvision's, members of 45 of timm's families, and Hugging Face's.

torchvision  every classifier up to ``MOST_PARAMETERS``, and two VGGs, which are larger but the paper's. As they are, on
             inputs of 128 px where the size is free, else the smallest that leaves the last stage a map.
timm         the smallest member of a family, at its own size, or the one given here.
transformers from small configurations: as many kinds of layers as the large ones have, a few of each.

All have ``CLASSES`` classes, a number that no other layer gives, and random weights: nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

from torch import nn

from perturb_tutorial.networks import torchvision_models

CLASSES = 13
MOST_PARAMETERS = 100e6


class Architecture(NamedTuple):
    """A network that can be built: ``size`` is the side of its input in image px."""

    name: str
    source: str
    size: int
    build: Callable[[], nn.Module]


TORCHVISION_LARGER = (
    "convnext_large", "efficientnet_v2_l", "regnet_x_32gf", "regnet_y_32gf", "regnet_y_128gf", "vgg11", "vgg13",
    "vgg13_bn", "vgg16_bn", "vgg19", "vgg19_bn", "vit_h_14", "vit_l_16", "vit_l_32", "wide_resnet101_2",
)  # fmt: skip
"""Those with more than ``MOST_PARAMETERS``; a test counts them."""
TORCHVISION_SIZES = {"inception": 160, "maxvit": 224, "swin": 112, "vit_b_16": 112, "vit_b_32": 160}
"""By how a name begins: maxvit cuts 7×7 windows out of four stages, swin's windows are 7×7."""
SIZE = 128

TIMM = {
    "eca_botnext26ts_256": 256, "mobileone_s1": 128, "cait_xxs24_224": 224, "coat_tiny": 224, "convit_tiny": 224,
    "convmixer_768_32": 112, "convnext_zepto_rms": 128, "crossvit_tiny_240": 240, "davit_tiny": 224, "dpn68": 128,
    "edgenext_xx_small": 128, "efficientformer_l1": 224, "efficientformerv2_s0": 224, "efficientvit_b0": 128,
    "efficientvit_m0": 224, "vit_tiny_patch16_dinov3_qkvb": 256, "fasternet_t0": 128, "fastvit_t8": 128,
    "focalnet_tiny_srf": 128, "gcvit_xxtiny": 224, "ghostnet_050": 128, "hiera_tiny_224": 224,
    "hrnet_w18_small": 128, "inception_next_atto": 128, "levit_128s": 224, "mambaout_femto": 128,
    "maxvit_pico_rw_256": 256, "poolformerv2_s12": 128, "mixer_s32_224": 224, "mobilevit_xxs": 128,
    "mvitv2_tiny": 224, "nest_tiny": 224, "nf_regnet_b0": 128, "pit_ti_224": 224, "pvt_v2_b0": 128,
    "repvit_m0_9": 128, "res2net50_26w_4s": 128, "resnest26d": 128, "starnet_s050": 128, "swiftformer_xs": 224,
    "tnt_s_legacy_patch16_224": 224, "twins_svt_small": 224, "vit_tiny_patch16_224": 224, "volo_d1_224": 224,
    "xcit_nano_12_p8_224": 224,
}  # fmt: skip
"""timm's networks and the side of their input."""

_VIT = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96, "image_size": 64,
    "patch_size": 8,
}  # fmt: skip
_STAGES = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]}
_WINDOWS = {
    "image_size": 64, "patch_size": 2, "embed_dim": 16, "depths": [2, 2, 2], "num_heads": [2, 2, 4],
    "window_size": 4,
}  # fmt: skip
_PYRAMID = {
    "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4],
    "sequence_reduction_ratios": [8, 4, 2, 1],
}  # fmt: skip

TRANSFORMERS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "ViT": ("ViT", 64, _VIT),
    "ViTMSN": ("ViTMSN", 64, _VIT),
    "DeiT": ("DeiT", 64, _VIT),
    "DeiT distilled": ("DeiT", 64, _VIT),
    "BEiT": ("Beit", 64, _VIT | {"use_relative_position_bias": True, "use_mean_pooling": True}),
    "Data2VecVision": ("Data2VecVision", 64, _VIT | {"use_shared_relative_position_bias": True}),
    "DINOv2": ("Dinov2", 64, _VIT),
    "DINOv2 with registers": ("Dinov2WithRegisters", 64, _VIT),
    "Swin": ("Swin", 64, _WINDOWS),
    "Swin V2": ("Swinv2", 64, _WINDOWS),
    "ConvNeXt": ("ConvNext", 64, _STAGES),
    "ConvNeXt V2": ("ConvNextV2", 64, _STAGES),
    "ResNet": ("ResNet", 64, _STAGES | {"embedding_size": 16}),
    "RegNet": ("RegNet", 64, _STAGES | {"embedding_size": 16, "groups_width": 8}),
    "BiT": (
        "Bit", 64, {
            "hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 1, 1], "embedding_size": 32, "num_groups": 8,
        },
    ),
    "MobileNetV1": ("MobileNetV1", 64, {"depth_multiplier": 0.25, "image_size": 64}),
    "MobileNetV2": ("MobileNetV2", 64, {"depth_multiplier": 0.25, "image_size": 64}),
    "MobileViT": (
        "MobileViT", 128, {
            "image_size": 128, "hidden_sizes": [32, 40, 48], "neck_hidden_sizes": [16, 16, 24, 32, 40, 48, 96],
        },
    ),
    "EfficientNet": (
        "EfficientNet", 64, {
            "image_size": 64, "width_coefficient": 0.5, "depth_coefficient": 0.3, "hidden_dim": 640,
        },
    ),
    "PVT": ("Pvt", 64, _PYRAMID | {"image_size": 64}),
    "CvT": ("Cvt", 64, {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 3], "depth": [1, 2, 3]}),
    "LeViT": (
        "Levit", 128, {
            "image_size": 128, "hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
    ),
    "PoolFormer": ("PoolFormer", 64, _STAGES),
    "SegFormer": ("Segformer", 64, _PYRAMID | {"sr_ratios": [8, 4, 2, 1]}),
    "FocalNet": (
        "FocalNet", 64, {
            "image_size": 64, "embed_dim": 16, "depths": [1, 1, 2], "hidden_sizes": [16, 32, 64],
            "focal_levels": [2, 2, 2], "focal_windows": [3, 3, 3],
        },
    ),
    "SwiftFormer": ("SwiftFormer", 64, {"embed_dims": [16, 24, 32, 48], "depths": [1, 1, 2, 1], "image_size": 64}),
}  # fmt: skip
"""Name → (class of the configuration, side of the input, what is smaller in it)."""


def architectures() -> Iterator[Architecture]:
    """All networks, the small ones first; nothing is built yet."""
    for name, (kind, size, options) in TRANSFORMERS.items():
        yield Architecture(name, "transformers", size, _transformers(name, kind, options))
    for name, size in TIMM.items():
        yield Architecture(name, "timm", size, _timm(name))
    models = torchvision_models()
    for name in models.list_models(module=models):
        if name not in TORCHVISION_LARGER:
            size = next((size for key, size in TORCHVISION_SIZES.items() if name.startswith(key)), SIZE)
            yield Architecture(name, "torchvision", size, _torchvision(name, size))


def _torchvision(name: str, size: int) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        options: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        options |= {"image_size": size} if name.startswith("vit") else {}
        module: nn.Module = torchvision_models().get_model(name, weights=None, num_classes=CLASSES, **options)
        return module

    return build


def _timm(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torchvision_models()  # timm imports torchvision, which has to be mended beside a CPU build of torch
        module: nn.Module = import_module("timm").create_model(name, num_classes=CLASSES)
        return module

    return build


def _transformers(name: str, kind: str, options: dict[str, Any]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torchvision_models()
        library = import_module("transformers")
        configuration = getattr(library, f"{kind}Config")(num_labels=CLASSES, **options)
        teacher = "WithTeacher" if name.endswith("distilled") or kind == "Levit" else ""
        module: nn.Module = getattr(library, f"{kind}ForImageClassification{teacher}")(configuration)
        return module

    return build
