"""torchvision's own RetinaNets, made comparable, and the comparison of two lists of detections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.ops import FrozenBatchNorm2d, boxes, remove_small_boxes

from retina.configuration import merge, read_preset, validate
from retina.modeling.importers.torchvision import Variant, convert_state_dict, model_config
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.runtime import TorchRuntime
from retina.structures import Categories, Detections

BOX_TOLERANCE = 1e-2
SCORE_TOLERANCE = 1e-5
ORDER_TOLERANCE = 1e-4

MIN_SIZE, MAX_SIZE, NUM_CLASSES = 128, 208, 5
IMAGE_SIZES = ((97, 141), (211, 130), (64, 333))
"""(height, width): odd, wide, tall, and one that max_size limits."""


def random_images(sizes: Sequence[tuple[int, int]], seed: int) -> list[Tensor]:
    """Smooth uint8 images with edges, so that features differ from place to place."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for height, width in sizes:
        coarse = torch.rand(1, 3, 6, 6, generator=generator)
        smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
        noise = 0.1 * torch.randn(3, height, width, generator=generator)
        images.append(((smooth + noise).clamp(0, 1) * 255).to(torch.uint8))
    return images


def random_torchvision(variant: Variant, seed: int) -> nn.Module:
    """A torchvision RetinaNet whose random weights give unsaturated scores and moving boxes."""
    build = {"v1": retinanet_resnet50_fpn, "v2": retinanet_resnet50_fpn_v2}[variant]
    torch.manual_seed(seed)
    model = build(
        weights=None,
        weights_backbone=None,
        num_classes=NUM_CLASSES,
        min_size=MIN_SIZE,
        max_size=MAX_SIZE,
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    images, _ = model.transform([i / 255 for i in random_images([(128, 160), (160, 128)], seed)])
    _randomise_statistics(model.backbone.body, images.tensors)
    _scale_outputs(model.eval(), images.tensors)
    return model


def with_frozen_norms(model: nn.Module, eps: float) -> nn.Module:
    """The network with its backbone's batch norms frozen, as torchvision builds pretrained ones."""
    for name, child in list(model.backbone.body.named_modules()):
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, eps=eps)
            frozen.load_state_dict(child.state_dict())
            parent = model.backbone.body.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], frozen)
    return model


@torch.no_grad()
def _randomise_statistics(body: nn.Module, images: Tensor) -> None:
    """Statistics near those of images, lest the features be the same everywhere, but not theirs."""
    norms = [module for module in body.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain average over all batches, which is this one
    body.train()
    body(images)
    for norm in norms:
        norm.momentum = 0.1
        norm.running_mean.add_(0.2 * torch.randn_like(norm.running_mean) * norm.running_var.sqrt())
        norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.5, 1.5))


@torch.no_grad()
def _scale_outputs(model: nn.Module, images: Tensor) -> None:
    """Give the logits a spread of 1 around -2 and the deltas one of 0.5 around 0."""
    for name, layer, spread, mean in (
        ("cls_logits", model.head.classification_head.cls_logits, 1.0, -2.0),
        ("bbox_regression", model.head.regression_head.bbox_reg, 0.5, 0.0),
    ):
        for _ in range(2):  # first the spread, then the mean
            levels = list(model.backbone(images).values())
            cells = levels[0].shape[2] * levels[0].shape[3]
            output = model.head(levels)[name][0, : 9 * cells].view(cells, -1)  # of P3
            layer.weight.mul_(spread / output.std(dim=0).mean())
            layer.bias.add_(mean - output.mean(dim=0))


def train_torchvision(model: nn.Module, *, steps: int, optimizer: str, lr: float) -> nn.Module:
    """Train a few steps on random boxes, with small images."""
    model.transform.min_size = (96,)
    make = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer]
    optim = make(model.parameters(), lr=lr)
    model.train()
    for step in range(steps):
        images = random_images([(120, 150), (150, 110)], 100 + step)
        targets = [
            {
                "boxes": torch.tensor([[10.0, 12.0, 70.0, 80.0], [40.0, 50.0, 100.0, 105.0]]),
                "labels": torch.tensor([1, 3]),
            }
            for _ in images
        ]
        loss = sum(model([image / 255 for image in images], targets).values())
        optim.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
    model.transform.min_size = (MIN_SIZE,)
    return model.eval()


@contextmanager
def exact_suppression(smallest_side: float) -> Iterator[None]:
    """torchvision with its own loop over the classes, whatever the number of boxes.

    Else up to 1000 boxes meet in one call, kept apart by float32 offsets, which round. Boxes that
    are too small are removed before, by torchvision's own function too, which its RetinaNet never
    calls.
    """

    def batched_nms(candidates: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
        rows = remove_small_boxes(candidates, smallest_side)
        kept = boxes._batched_nms_vanilla(candidates[rows], scores[rows], labels[rows], threshold)
        return rows[kept]

    with patch.object(boxes, "batched_nms", batched_nms):
        yield


@torch.no_grad()
def detect_with_torchvision(model: nn.Module, images: Sequence[Tensor]) -> list[Detections]:
    """torchvision's detections for uint8 images."""
    with exact_suppression(PostprocessConfig().smallest_side):
        outputs = model([image / 255 for image in images])
    return [Detections(out["boxes"], out["scores"], out["labels"]) for out in outputs]


def detect_with_ours(
    model: nn.Module,
    images: Sequence[Tensor],
    variant: Variant,
    *,
    norm_eps: float = 1e-5,
) -> list[Detections]:
    """Our detections, from torchvision's converted state dict."""
    preset = read_preset(f"torchvision_{variant}")
    state_dict = model.state_dict()
    config = model_config(variant, norm_eps=norm_eps, state_dict=state_dict)
    detector = config.build(NUM_CLASSES)
    converted = convert_state_dict(state_dict, variant)
    incompatible = detector.load_state_dict(converted, strict=False)
    assert not incompatible.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in incompatible.missing_keys)
    sizes = {"min_size": MIN_SIZE, "max_size": MAX_SIZE}
    preprocess = validate(merge(preset["preprocess"], sizes), PreprocessConfig, source=variant)
    postprocess = validate(preset["postprocess"], PostprocessConfig, source=variant)
    runtime = TorchRuntime(
        detector,
        categories=Categories.from_names([str(label) for label in range(detector.num_classes)]),
        preprocess=preprocess.build(),
        postprocess=postprocess.build(detector.box_coder),
        device=torch.device("cpu"),
        precision="fp32",
        memory_fix="",
    )
    return runtime.detect(images)


def differences(
    ours: Detections,
    reference: Detections,
    *,
    box_tolerance: float = BOX_TOLERANCE,
    score_tolerance: float = SCORE_TOLERANCE,
    order_tolerance: float = ORDER_TOLERANCE,
) -> list[str]:
    """Why the detections of an image are not the same set in the same order; empty if they are.

    Labels must be equal, boxes and scores to their tolerance; two detections whose scores differ
    by no more than ``order_tolerance`` may stand in either order.
    """
    if len(ours) != len(reference):
        return [f"{len(ours)} detections instead of {len(reference)}"]
    problems = []
    free = torch.ones(len(ours), dtype=torch.bool)
    for row in range(len(reference)):
        box_gap = (ours.boxes - reference.boxes[row]).abs().amax(dim=1)
        score_gap = (ours.scores - reference.scores[row]).abs()
        fits = free & (ours.labels == reference.labels[row])
        fits &= (box_gap <= box_tolerance) & (score_gap <= score_tolerance)
        if not fits.any():
            problems.append(f"no partner for {reference.boxes[row]}, {reference.scores[row]:.6f}")
            continue
        partners = torch.where(fits)[0]
        partner = int(partners[(partners - row).abs().argmin()])
        free[partner] = False
        if (reference.scores[partner] - reference.scores[row]).abs() > order_tolerance:
            problems.append(f"detection {row} stands at {partner}")
    return problems


def largest_gaps(ours: Detections, reference: Detections) -> tuple[float, float]:
    """The largest distance of boxes (pixels) and of scores, for lists in the same order."""
    boxes = (ours.boxes - reference.boxes).abs().max()
    return float(boxes), float((ours.scores - reference.scores).abs().max())
