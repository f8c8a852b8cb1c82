"""What the paper measured, and two measures beyond it, as pure functions of arrays.

Arrays are [y, x], points (x, y), sizes (height, width). These modules do not depend on networks, files or torch.
"""

from perturb_tutorial.metrics.animal_parts import (
    ClassParts,
    GroupParts,
    class_parts,
    group_parts,
    mean_and_error,
    window_means,
)
from perturb_tutorial.metrics.faithfulness import (
    curve_area,
    deletion_masks,
    insertion_masks,
    normalized_curve,
    pixel_order,
)
from perturb_tutorial.metrics.grid_pointing import cell_shares, grid_pointing_score, mosaic, plan_mosaics
from perturb_tutorial.metrics.heatmaps import is_usable, maximum_point, resize_map
from perturb_tutorial.metrics.intervals import (
    Interval,
    bootstrap,
    bootstrap_difference,
    class_mean_of,
    interval,
    mean_of,
    ratio_of_means,
)
from perturb_tutorial.metrics.localization import (
    ALPHAS,
    AlphaSearch,
    choose_alpha,
    held_out,
    iou,
    is_right,
    kept_pixels,
    right_by_alpha,
    scale_boxes,
    search_alpha,
    threshold_boxes,
)
from perturb_tutorial.metrics.pointing import (
    TOLERANCE,
    center_point,
    is_difficult,
    is_hit,
    point_on_image,
    precision,
    precision_by_class,
)
from perturb_tutorial.metrics.segments import distance_to_mask, segment_mask, union_mask

__all__ = [
    "ALPHAS",
    "TOLERANCE",
    "AlphaSearch",
    "ClassParts",
    "GroupParts",
    "Interval",
    "bootstrap",
    "bootstrap_difference",
    "cell_shares",
    "center_point",
    "choose_alpha",
    "class_mean_of",
    "class_parts",
    "curve_area",
    "deletion_masks",
    "distance_to_mask",
    "grid_pointing_score",
    "group_parts",
    "held_out",
    "insertion_masks",
    "interval",
    "iou",
    "is_difficult",
    "is_hit",
    "is_right",
    "is_usable",
    "kept_pixels",
    "maximum_point",
    "mean_and_error",
    "mean_of",
    "mosaic",
    "normalized_curve",
    "pixel_order",
    "plan_mosaics",
    "point_on_image",
    "precision",
    "precision_by_class",
    "ratio_of_means",
    "resize_map",
    "right_by_alpha",
    "scale_boxes",
    "search_alpha",
    "segment_mask",
    "threshold_boxes",
    "union_mask",
    "window_means",
]
