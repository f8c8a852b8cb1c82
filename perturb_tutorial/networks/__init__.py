"""Networks: a frozen classifier that takes pixels, and the ones that load by name."""

from perturb_tutorial.networks.class_table import ClassTable, imagenet_classes
from perturb_tutorial.networks.devices import pick_device
from perturb_tutorial.networks.network import Network
from perturb_tutorial.networks.top_classes import best_targets, top_classes
from perturb_tutorial.networks.zoo import (
    ZOO,
    WeightsUnavailable,
    load_network,
    seeded_network,
    torchvision_models,
    weights_file,
)

__all__ = [
    "ZOO",
    "ClassTable",
    "Network",
    "WeightsUnavailable",
    "best_targets",
    "imagenet_classes",
    "load_network",
    "pick_device",
    "seeded_network",
    "top_classes",
    "torchvision_models",
    "weights_file",
]
