"""torchvision's RetinaNet with a backbone, weights and size of ours: the peer to stand beside.

It is made of torchvision's own parts: `RetinaNet`, `FeaturePyramidNetwork`, `RetinaNetHead` with
group normalisation and GIoU as in `retinanet_resnet50_fpn_v2`, its anchors halved for small inputs,
nine a cell. Images are mirrored at random, as in its reference training. Under bf16 the levels are
handed over in float32: its anchors follow their dtype and would be pixels off.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from retina.configuration import validate
from retina.datasets.dataset import DetectionDataset
from retina.devices import PrecisionChoice, autocast, pick_precision
from retina.evaluation.evaluator import Evaluator
from retina.experiment import ExperimentConfig
from retina.experiment.parts import build_dataset
from retina.geometry.resizing import max_size_for
from retina.modeling.preprocess import Preprocess
from retina.runtime import Runtime
from retina.structures import Categories, Detections, SampleRequest, Size

_SIZES = (16, 32, 64, 128, 256)
_PIXELS = {"resnet18": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])}
_MAX_DETECTIONS = 100


@dataclass(frozen=True, kw_only=True)
class PeerConfig:
    """What the peer is made of and how it is trained.

    Attributes:
        backbone: ``resnet18`` (torchvision's, from scratch, live norms), or timm's name.
        weights: a file with timm's names; None starts from random weights.
        channels: of pyramid and head.
        min_size: of the input's shorter side.
        max_size: of its longer side.
        steps: of the training.
        batch_size: images of a step.
        lr: the peak of the one-cycle schedule, with AdamW.
        precision: of the convolutions; ``auto`` as ours.
        seed: of weights, order and mirroring.
    """

    backbone: str
    weights: Path | None
    channels: int = 64
    min_size: int
    max_size: int
    steps: int
    batch_size: int = 8
    lr: float
    precision: PrecisionChoice = "auto"
    seed: int = 0


class _Levels(nn.Module):
    """A backbone with a pyramid, in the form that torchvision's RetinaNet takes."""

    def __init__(self, config: PeerConfig) -> None:
        super().__init__()
        self.is_pretrained = config.weights is not None
        if config.backbone == "resnet18":
            network = torchvision.models.resnet18(weights=None)
            names = {"layer2": "0", "layer3": "1", "layer4": "2"}
            self.body: nn.Module = torchvision.models._utils.IntermediateLayerGetter(network, names)
            widths = [128, 256, 512]
        else:
            import timm
            from safetensors.torch import load_file

            self.body = timm.create_model(
                config.backbone, pretrained=False, features_only=True, out_indices=(2, 3, 4)
            )
            if config.weights is not None:
                found = self.body.load_state_dict(load_file(config.weights), strict=False)
                assert not found.missing_keys, found.missing_keys
                self._freeze()
            widths = self.body.feature_info.channels()
        self.out_channels = config.channels
        self.fpn = FeaturePyramidNetwork(
            widths, config.channels, extra_blocks=LastLevelP6P7(widths[-1], config.channels)
        )
        self.fpn.extra_blocks.use_P5 = False

    def _freeze(self) -> None:
        """The norms, and of the network the stem and what gives C2: torchvision's three layers."""
        for module in self.body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)
        for part in (self.body.conv_stem, self.body.bn1, *self.body.blocks[:2]):
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> _Levels:
        super().train(mode)
        if self.is_pretrained:
            for module in self.body.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.body(images)
        if not isinstance(maps, dict):
            maps = OrderedDict((str(level), one) for level, one in enumerate(maps))
        return OrderedDict((name, one.float()) for name, one in self.fpn(maps).items())


def build_peer(config: PeerConfig, num_classes: int) -> RetinaNet:
    """The network; its labels start at 0 as ours do."""
    sizes = tuple((s, int(s * 2 ** (1 / 3)), int(s * 2 ** (2 / 3))) for s in _SIZES)
    levels = _Levels(config)
    head = RetinaNetHead(
        config.channels, 9, num_classes, norm_layer=lambda width: nn.GroupNorm(16, width)
    )
    head.regression_head._loss_type = "giou"
    mean, std = _PIXELS.get(config.backbone, ([127 / 255] * 3, [128 / 255] * 3))
    network = RetinaNet(
        levels,
        num_classes,
        min_size=config.min_size,
        max_size=config.max_size,
        image_mean=mean,
        image_std=std,
        anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        head=head,
        detections_per_img=_MAX_DETECTIONS,
    )
    return network.to(memory_format=torch.channels_last)


Example = tuple[Tensor, dict[str, Tensor]]


class PeerTraining:
    """The peer and its training, a step at a time.

    Args:
        config: of both.
        dataset: the training set, at its original size; its images are kept in memory, resized.
    """

    def __init__(self, config: PeerConfig, dataset: DetectionDataset) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self._precision = pick_precision(config.precision, torch.device("cpu"))
        self.network = build_peer(config, len(dataset.categories))
        self.seconds = 0.0
        learning = [p for p in self.network.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(learning, config.lr, weight_decay=0.05)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, config.lr, total_steps=config.steps, pct_start=0.1
        )
        self._random = np.random.default_rng(config.seed)
        self._examples = _resized(dataset, config)
        self._order = self._indices()

    def _indices(self) -> Iterator[Sequence[int]]:
        """The images of each step: epoch by epoch, the last batch of each may be smaller."""
        count, size = len(self._examples), self.config.batch_size
        while True:
            order = self._random.permutation(count).tolist()
            yield from (order[start : start + size] for start in range(0, count, size))

    def step(self) -> float:
        """One optimizer step; returns its loss."""
        examples = [self._mirrored(self._examples[index]) for index in next(self._order)]
        images, targets = [image for image, _ in examples], [target for _, target in examples]
        began = time.perf_counter()
        self.network.train()
        with autocast(self._precision, torch.device("cpu")):
            loss = sum(self.network([image.float() / 255 for image in images], targets).values())
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step()
        self.seconds += time.perf_counter() - began
        return float(loss.detach())

    def _mirrored(self, example: Example) -> Example:
        image, target = example
        if self._random.random() < 0.5:
            boxes = target["boxes"].clone()
            boxes[:, [0, 2]] = image.shape[2] - boxes[:, [2, 0]]
            return image.flip(2), target | {"boxes": boxes}
        return example


def _resized(dataset: DetectionDataset, config: PeerConfig) -> list[Example]:
    examples = []
    for index in range(len(dataset)):
        height, width = dataset.image_sizes[index].tolist()
        size: Size = max_size_for((height, width), config.min_size, config.max_size)
        sample = dataset[SampleRequest(index=index, seed=0, max_size=size, augment=False)]
        keep = ~sample.targets.is_crowd
        target = {"boxes": sample.targets.boxes[keep], "labels": sample.targets.labels[keep]}
        examples.append((sample.image, target))
    return examples


class PeerRuntime(Runtime):
    """The trained peer, so that it is scored exactly as ours is.

    Args:
        network: the peer.
        categories: of its labels.
        preprocess: of a detector of ours, of which it has no use.
    """

    def __init__(self, network: RetinaNet, categories: Categories, preprocess: Preprocess) -> None:
        self.network = network
        self.categories = categories
        self.preprocess = preprocess
        self.thresholds = torch.full((len(categories),), 0.3, dtype=torch.float64)

    @torch.no_grad()
    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        """See `Runtime`."""
        found = self.network.eval()([image.float() / 255 for image in images])
        return [Detections(one["boxes"], one["scores"], one["labels"]) for one in found]


def main() -> None:
    """Train the peer, score it and write the numbers as a training of ours does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=json.loads, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    asked = dict(arguments.config)
    tree = {"output_dir": str(arguments.folder), "dataset": asked.pop("dataset")}
    experiment = validate(
        tree | {"preprocess": asked.pop("preprocess")}, ExperimentConfig, source="peer"
    )
    train = build_dataset(experiment, "train")
    weights = asked.pop("weights")
    config = PeerConfig(
        min_size=experiment.preprocess.min_size,
        max_size=experiment.preprocess.max_size,
        weights=None if weights is None else Path(weights),
        **asked,
    )
    training = PeerTraining(config, train)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for step in range(1, config.steps + 1):
        loss = training.step()
        if step % 20 == 0:
            print(f"step {step}  loss {loss:.4f}  {training.seconds:.0f} s", flush=True)
    scored = build_dataset(experiment, "validation", categories=train.categories)
    preprocess = experiment.preprocess.build()
    runtime = PeerRuntime(training.network, train.categories, preprocess)
    metrics = Evaluator(scored).run(runtime).metrics
    row = {"kind": "validation", "step": config.steps, "seconds": training.seconds}
    row |= {name: getattr(metrics, name) for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")}
    (arguments.folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
