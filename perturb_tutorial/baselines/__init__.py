"""The methods that learned masks are compared with (§3, §4.1): each a function with one signature.

Each explains logits and returns N×1×h×w maps of raw scale on the images' device. ``saliency`` calls a method by its
name; ``METHODS`` lists them.
"""

from perturb_tutorial.baselines.blur_occlusion import blur_occlusion
from perturb_tutorial.baselines.contrastive_excitation_backprop import contrastive_excitation_backprop
from perturb_tutorial.baselines.excitation_backprop import excitation_backprop
from perturb_tutorial.baselines.grad_cam import grad_cam
from perturb_tutorial.baselines.gradient import gradient
from perturb_tutorial.baselines.guided_backprop import guided_backprop
from perturb_tutorial.baselines.layers import ROLES
from perturb_tutorial.baselines.occlusion import occlusion
from perturb_tutorial.baselines.registry import METHODS, Method, find_method, saliency
from perturb_tutorial.baselines.variable_occlusion import variable_occlusion, variable_occlusion_points

__all__ = [
    "METHODS",
    "ROLES",
    "Method",
    "blur_occlusion",
    "contrastive_excitation_backprop",
    "excitation_backprop",
    "find_method",
    "grad_cam",
    "gradient",
    "guided_backprop",
    "occlusion",
    "saliency",
    "variable_occlusion",
    "variable_occlusion_points",
]
