"""Named recipes: every documented difference between the reference implementations, as values.

A config that says ``preset: NAME`` stands on one of these trees; its own keys are laid over it.
Learning rates are for a batch of 16 images.
"""

from __future__ import annotations

from retina.configuration import Tree, merge
from retina.modeling.presets import MODEL_PRESETS

_FOCAL: Tree = {"kind": "focal", "alpha": 0.25, "gamma": 2.0}


def _max_iou(low_quality: str) -> Tree:
    return {
        "kind": "max_iou",
        "foreground_iou": 0.5,
        "background_iou": 0.4,
        "low_quality": low_quality,
        # On purpose not as the references, who drop crowd regions and teach them as background.
        "crowd_iof": 0.5,
    }


def _sgd() -> Tree:
    return {"kind": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}


def _multi_step(drops: list[float], warm_up: int) -> Tree:
    return {
        "kind": "multi_step",
        "warm_up": {"steps": warm_up, "start_factor": 0.001},
        "drops": drops,
        "drop_factor": 0.1,
    }


def _scales_from(smallest: int) -> list[float]:
    """Shorter sides from ``smallest`` to 800 in steps of 32 pixels, as factors of 800."""
    return [side / 800 for side in range(smallest, 801, 32)]


_OBJECTIVES: dict[str, Tree] = {
    # Lin et al. 2017: smooth L1, sums divided by the number of anchors assigned to an object.
    "paper": {
        "objective": {
            "assigner": _max_iou("anchor_best"),
            "classification": _FOCAL,
            "box": {"kind": "smooth_l1", "weight": 1.0, "beta": 0.11},
            "normalizer": "foreground",
        },
        "augmentation": {"preset": "flip"},
        "sampling": {"scale_factors": [1.0], "empty_images": "keep"},
        "optimizer": {**_sgd(), "norm_weight_decay": 1e-4},
        "schedule": _multi_step([2 / 3, 8 / 9], 500),
        "training": {"epochs": 12, "batch_size": 16},
    },
    "torchvision_v1": {
        "objective": {
            "assigner": _max_iou("anchor_best"),
            "classification": _FOCAL,
            "box": {"kind": "l1", "weight": 1.0},
            "normalizer": "per_image",
        },
        "augmentation": {"preset": "flip"},
        "sampling": {"scale_factors": [1.0], "empty_images": "keep"},
        "optimizer": {**_sgd(), "norm_weight_decay": 1e-4},
        "schedule": _multi_step([16 / 26, 22 / 26], 1000),
        "training": {"epochs": 26, "batch_size": 16},
    },
    "torchvision_v2": {
        "objective": {
            "assigner": _max_iou("anchor_best"),
            "classification": _FOCAL,
            "box": {"kind": "giou", "weight": 1.0},
            "normalizer": "per_image",
        },
        "augmentation": {"preset": "multi_scale"},
        "sampling": {"scale_factors": _scales_from(480), "empty_images": "keep"},
        "optimizer": {
            "kind": "adamw",
            "lr": 1e-4,
            "weight_decay": 0.05,
            "norm_weight_decay": 0.0,
        },
        "schedule": _multi_step([16 / 26, 22 / 26], 1000),
        "training": {"epochs": 26, "batch_size": 16},
    },
    "detectron2": {
        "objective": {
            "assigner": _max_iou("anchor_best"),
            "classification": _FOCAL,
            "box": {"kind": "l1", "weight": 1.0},
            "normalizer": "moving_average",
        },
        "augmentation": {"preset": "multi_scale"},
        "sampling": {"scale_factors": _scales_from(640), "empty_images": "drop"},
        "optimizer": {**_sgd(), "norm_weight_decay": 0.0},
        "schedule": _multi_step([60 / 90, 80 / 90], 1000),
        "training": {"epochs": 12, "batch_size": 16},
    },
}

PRESETS: dict[str, Tree] = {
    name: merge(MODEL_PRESETS[name], tree) for name, tree in _OBJECTIVES.items()
}
"""The trees by name; keys as in a config file."""
