"""Data sets as plain records: COCO, ImageNet, animal parts, and which ImageNet classes a COCO category holds.

Records name files, sizes, boxes, segments and key points; images are loaded from their paths elsewhere.
"""

from perturb_tutorial.datasets.animal_parts import (
    animal_categories,
    read_animal_parts,
    shows,
    with_both_parts,
)
from perturb_tutorial.datasets.categories import CategoryMatch, category_matches, imagenet_classes_of
from perturb_tutorial.datasets.coco import read_coco, read_coco_json
from perturb_tutorial.datasets.imagenet import imagenet_indices, imagenet_names, read_imagenet
from perturb_tutorial.datasets.records import (
    Dataset,
    ImageRecord,
    Instance,
    Pair,
    check_image,
    first_images,
    pairs,
)
from perturb_tutorial.datasets.stored_runs import stored, stored_maps, stored_names

__all__ = [
    "CategoryMatch",
    "Dataset",
    "ImageRecord",
    "Instance",
    "Pair",
    "animal_categories",
    "category_matches",
    "check_image",
    "first_images",
    "imagenet_classes_of",
    "imagenet_indices",
    "imagenet_names",
    "pairs",
    "read_animal_parts",
    "read_coco",
    "read_coco_json",
    "read_imagenet",
    "shows",
    "stored",
    "stored_maps",
    "stored_names",
    "with_both_parts",
]
