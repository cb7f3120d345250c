"""The published variants of RetinaNet, with every field that they differ in written out.

Each preset is a plain tree with the keys ``model``, ``preprocess`` and ``postprocess``, to stand
under a config. How they differ in the loss and in training is no matter of the model and is
decided where those are configured.
"""

from __future__ import annotations

from retina.configuration import Tree

_SIZES = [32.0, 64.0, 128.0, 256.0, 512.0]
_SCALES = [1.0, 2 ** (1 / 3), 2 ** (2 / 3)]
_RATIOS = [0.5, 1.0, 2.0]
_MAX_LOG_SCALE = 4.135166556742356  # log(1000 / 16)
_IMAGENET_MEAN = [0.485, 0.456, 0.406]
_IMAGENET_STD = [0.229, 0.224, 0.225]


def _model(
    *,
    weights: str | None,
    norm: str,
    p6_from: str,
    head_norm: str,
    center_offset: float,
    round_sizes: bool,
    stride_source: str,
) -> Tree:
    return {
        "backbone": {
            "kind": "resnet",
            "name": "resnet50",
            "weights": weights,
            "frozen_stages": 2,
            "norm": norm,
            "norm_eps": 1e-5,
            "finest_map": "c3",
        },
        "pyramid": {"channels": 256, "p6_from": p6_from},
        "head": {
            "num_convs": 4,
            "channels": None,
            "norm": head_norm,
            "num_groups": 32,
            "prior_probability": 0.01,
        },
        "anchors": {
            "sizes": _SIZES,
            "scales": _SCALES,
            "ratios": _RATIOS,
            "scales_per_level": None,
            "ratios_per_level": None,
            "center_offset": center_offset,
            "round_sizes": round_sizes,
            "stride_source": stride_source,
        },
        "box_coder": {"weights": [1.0, 1.0, 1.0, 1.0], "max_log_scale": _MAX_LOG_SCALE},
        "memory_format": "channels_last",
    }


def _preprocess(*, channel_order: str, mean: list[float], std: list[float]) -> Tree:
    return {
        "min_size": 800,
        "max_size": 1333,
        "stretch": False,
        "antialias": False,
        "channel_order": channel_order,
        "mean": mean,
        "std": std,
        "size_divisor": 32,
        "pad_to": None,
    }


def _postprocess(*, max_detections: int, clip_before_nms: bool) -> Tree:
    return {
        "score_threshold": 0.05,
        "candidates_per_level": 1000,
        "nms_iou_threshold": 0.5,
        "max_detections": max_detections,
        "clip_before_nms": clip_before_nms,
    }


MODEL_PRESETS: dict[str, Tree] = {
    # Lin et al. 2017, with torchvision's trunk and pixels. Anchors sit in the middle of their cell,
    # as in the authors' own Detectron.
    "paper": {
        "model": _model(
            weights="IMAGENET1K_V1",
            norm="frozen",
            p6_from="c5",
            head_norm="none",
            center_offset=0.5,
            round_sizes=False,
            stride_source="fixed",
        ),
        "preprocess": _preprocess(channel_order="rgb", mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
        "postprocess": _postprocess(max_detections=100, clip_before_nms=True),
    },
    # torchvision's retinanet_resnet50_fpn; its published COCO weights need norm_eps 0.
    "torchvision_v1": {
        "model": _model(
            weights="IMAGENET1K_V1",
            norm="frozen",
            p6_from="p5",
            head_norm="none",
            center_offset=0.0,
            round_sizes=True,
            stride_source="padded_size",
        ),
        "preprocess": _preprocess(channel_order="rgb", mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
        "postprocess": _postprocess(max_detections=300, clip_before_nms=True),
    },
    # torchvision's retinanet_resnet50_fpn_v2. Its live normalisation also goes on counting in the
    # frozen stages; here a frozen stage is frozen in whole.
    "torchvision_v2": {
        "model": _model(
            weights="IMAGENET1K_V2",
            norm="batch",
            p6_from="c5",
            head_norm="group",
            center_offset=0.0,
            round_sizes=True,
            stride_source="padded_size",
        ),
        "preprocess": _preprocess(channel_order="rgb", mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
        "postprocess": _postprocess(max_detections=300, clip_before_nms=True),
    },
    # detectron2's retinanet_R_50_FPN. Its trunk is MSRA's R-50, which sees BGR in 0..255 less the
    # mean and which torchvision does not have: name a file in backbone.weights, or change the
    # pixels to torchvision's along with the weights.
    "detectron2": {
        "model": _model(
            weights=None,
            norm="frozen",
            p6_from="c5",
            head_norm="none",
            center_offset=0.0,
            round_sizes=False,
            stride_source="fixed",
        ),
        "preprocess": _preprocess(
            channel_order="bgr",
            mean=[123.675 / 255, 116.28 / 255, 103.53 / 255],
            std=[1 / 255, 1 / 255, 1 / 255],
        ),
        "postprocess": _postprocess(max_detections=100, clip_before_nms=False),
    },
}
