"""torchvision's RetinaNet as it is, and the same weights as a detector of this project.

Two of them: its own with ResNet-50, and one of its parts as small as `configs/nano.yaml`.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d
from torchvision_peer import PeerConfig, build_peer

from retina.artifact import Artifact
from retina.configuration import merge, validate
from retina.configuration.composition import read_tree
from retina.devices import autocast
from retina.experiment import ExperimentConfig
from retina.modeling.detector import RetinaNet
from retina.modeling.importers.published import (
    ARCHITECTURES,
    UNUSED,
    fetch_published,
    official_norm_eps,
    published,
)
from retina.modeling.importers.torchvision import own_names
from retina.modeling.loading import without_counters
from retina.prediction.detectors import torchvision_artifact
from retina.runtime import Runtime
from retina.structures import Detections

CPU = torch.device("cpu")
NUM_OBJECTS = 40
"""Anchors whose best class has a score above 0.3, before suppression."""
NANO = Path(__file__).parent.parent / "configs" / "nano.yaml"


class Torchvision(Runtime):
    """torchvision's own model, eager or whatever stands for it.

    Args:
        model: from a list with one image in 0 … 1 to a list with one dictionary.
        ours: the detector with the same weights, whose labels are given.
        device: where the model is.
    """

    def __init__(
        self,
        model: Callable[[list[Tensor]], list[dict[str, Tensor]]],
        ours: Runtime,
        device: torch.device = CPU,
    ) -> None:
        self.device = device
        self.model, self.categories = model, ours.categories
        self.preprocess, self.thresholds = ours.preprocess, ours.thresholds
        self.thresholds_config = ours.thresholds_config

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        """See `Runtime`."""
        with torch.no_grad():
            found = [self.model([image.to(self.device) / 255])[0] for image in images]
        return [
            self._in_our_labels({name: value.cpu() for name, value in one.items()}) for one in found
        ]

    def _in_our_labels(self, found: dict[str, Tensor]) -> Detections:
        ids = torch.tensor(self.categories.dataset_ids)
        is_known = torch.isin(found["labels"], ids)
        labels = torch.searchsorted(ids, found["labels"][is_known])
        return Detections(found["boxes"][is_known], found["scores"][is_known], labels)


def make_torchvision(name: str, min_size: int, max_size: int) -> nn.Module:
    """Its own model, with the published weights or random ones."""
    variant = name.rpartition("_")[2]
    build = getattr(detection, ARCHITECTURES[variant])
    torch.manual_seed(0)
    model = build(
        weights=None,
        weights_backbone=None,
        num_classes=91,
        min_size=min_size,
        max_size=max_size,
    )
    if name.startswith("coco"):
        model.load_state_dict(fetch_published(name))
        eps = official_norm_eps(variant)
        for module in model.modules():
            if isinstance(module, FrozenBatchNorm2d) and eps is not None:
                module.eps = eps
    else:
        spread_outputs(model, min_size)
        unused = [label for label, name in enumerate(published(f"coco_{variant}").categories)
                  if name in UNUSED]  # fmt: skip
        bias = model.head.classification_head.cls_logits.bias.data
        bias.view(-1, 91)[:, unused] = -20.0
    return model.eval()


@torch.no_grad()
def spread_outputs(model: nn.Module, size: int) -> None:
    """Let random weights find about twenty objects in `example_image`, at places that bf16 keeps.

    Residual branches are weak, as they are where a training begins, or rounding would grow from
    block to block as it does in no trained network. Batch norms get the statistics of that image,
    every class logit a deviation of 0.3 over the finest level, every delta one of 0.1.
    """
    for block in model.backbone.body.modules():
        if isinstance(block, BasicBlock | Bottleneck):
            last = block.bn2 if isinstance(block, BasicBlock) else block.bn3
            nn.init.constant_(last.weight, 0.2)
    images, _ = model.eval().transform([example_image(size) / 255])
    norms = [one for one in model.backbone.body.modules() if isinstance(one, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain average over all batches, which is this one
    model.backbone.body.train()
    model.backbone.body(images.tensors)
    for norm in norms:
        norm.momentum = 0.1
    model.eval()
    for name, layer, deviation in (
        ("cls_logits", model.head.classification_head.cls_logits, 0.3),
        ("bbox_regression", model.head.regression_head.bbox_reg, 0.1),
    ):
        levels = list(model.backbone(images.tensors).values())
        found = model.head(levels)[name][0]
        cells = levels[0].shape[2] * levels[0].shape[3]
        anchors = layer.out_channels // found.shape[1]
        finest = found[: anchors * cells].view(cells, -1)
        factor = deviation / finest.std(dim=0)
        layer.weight.mul_(factor[:, None, None, None])
        layer.bias.sub_(finest.mean(dim=0)).mul_(factor)
    logits = model.head(levels)["cls_logits"][0].amax(dim=1)
    model.head.classification_head.cls_logits.bias.sub_(logits.topk(NUM_OBJECTS).values[-1] + 0.85)


def example_image(size: int) -> Tensor:
    """A square uint8 picture ``(3, size, size)`` of smooth blots."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, max(2, size // 16), max(2, size // 16), generator=generator)
    smooth = nn.functional.interpolate(coarse, (size, size), mode="bicubic")[0]
    return (smooth.clamp(0, 1) * 255).to(torch.uint8)


NANO_AS_TORCHVISION = {
    "output_dir": "-",
    "dataset": {"train": {"images": "-", "annotations": "-"}},
    "model": {
        "anchors": {"center_offset": 0.0, "round_sizes": True, "stride_source": "padded_size"},
        "box_coder": {"max_log_scale": 4.135166556742356},
    },
    "objective": {"normalizer": "per_image"},
}
"""What `configs/nano.yaml` does otherwise than torchvision, done as it does."""


def make_resnet50(num_classes: int, size: int) -> tuple[nn.Module, ExperimentConfig, RetinaNet]:
    """Torchvision's v1 with live norms, and ours, with the same random weights."""
    tree = {
        "preset": "torchvision_v1",
        "output_dir": "-",
        "dataset": NANO_AS_TORCHVISION["dataset"],
        "model": {"backbone": {"weights": None, "norm": "batch", "frozen_stages": 0}},
        "preprocess": {"min_size": size, "max_size": size},
    }
    config = validate(tree, ExperimentConfig, source="torchvision_v1")
    torch.manual_seed(0)
    model = detection.retinanet_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=num_classes,
        min_size=size,
        max_size=size,
    )
    spread_outputs(model, size)
    ours = config.model.build(num_classes)
    ours.load_state_dict(own_names(without_counters(model.state_dict())), strict=False)
    return model.eval(), config, ours.eval()


def make_nano(num_classes: int, size: int) -> tuple[nn.Module, ExperimentConfig, RetinaNet]:
    """Torchvision's parts and ours with the same random weights, as `configs/nano.yaml` says."""
    sizes = {"preprocess": {"min_size": size, "max_size": size}}
    tree = merge(merge(read_tree(NANO), NANO_AS_TORCHVISION), sizes)
    config = validate(tree, ExperimentConfig, source=str(NANO))
    peer = PeerConfig(
        backbone="resnet18",
        weights=None,
        min_size=size,
        max_size=size,
        steps=1000,
        lr=1e-4,
        precision="fp32",
    )
    torch.manual_seed(0)
    model = build_peer(peer, num_classes)
    spread_outputs(model, size)
    ours = config.model.build(num_classes)
    ours.load_state_dict(own_names(without_counters(model.state_dict())), strict=False)
    return model.eval(), config, ours.eval()


def make_artifact_of(name: str, model: nn.Module, min_size: int, max_size: int) -> Artifact:
    """The same weights as a detector of this project."""
    variant = name.rpartition("_")[2]
    about = published(f"coco_{variant}")
    return torchvision_artifact(
        model.state_dict(),
        about.variant,
        about.categories,
        unused=UNUSED,
        norm_eps=about.norm_eps if name.startswith("coco") else None,
        min_size=min_size,
        max_size=max_size,
    )


def torchvision_bf16(model: nn.Module) -> Callable[[list[Tensor]], list[dict[str, Tensor]]]:
    """Its model under autocast, channels-last: a copy.

    The levels are handed over in float32: its anchors follow their dtype and would be pixels off.
    """
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    model.backbone.register_forward_hook(
        lambda _, __, levels: OrderedDict((name, one.float()) for name, one in levels.items())
    )

    def run(images: list[Tensor]) -> list[dict[str, Tensor]]:
        with autocast("bf16", images[0].device):
            found: list[dict[str, Tensor]] = model(images)
        return [{name: value.float() if value.is_floating_point() else value
                 for name, value in one.items()} for one in found]  # fmt: skip

    return run


def torchvision_compiled(model: nn.Module) -> Callable[[list[Tensor]], list[dict[str, Tensor]]]:
    """The same with its backbone and its head compiled."""
    model = copy.deepcopy(model)
    model.backbone.body.compile()
    model.backbone.fpn.compile()
    model.head.compile()
    return torchvision_bf16(model)


def torchvision_onnx(
    model: nn.Module, example: Tensor, path: Path
) -> Callable[[list[Tensor]], list[dict[str, Tensor]]]:
    """As its documentation says; a file for images of one size, which is that of the example."""
    import onnxruntime

    torch.onnx.export(
        model,
        ([example / 255],),
        path,
        opset_version=17,
        dynamo=False,
        input_names=["image"],
        output_names=["boxes", "scores", "labels"],
        dynamic_axes={"image": {1: "height", 2: "width"}},
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: list[Tensor]) -> list[dict[str, Tensor]]:
        outputs = session.run(None, {"image": images[0].contiguous().numpy()})
        names = ("boxes", "scores", "labels")
        return [{name: torch.from_numpy(value) for name, value in zip(names, outputs, strict=True)}]

    return run
