import math

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from retina.objective.assignment import AssignerConfig, ATSSConfig, MaxIoUConfig, max_iou
from retina.objective.assignment.max_iou import LowQualityRule, MaxIoUAssigner
from retina.structures import Anchors, BatchedTargets, Targets


@pytest.fixture(params=["object by object", "in blocks"], autouse=True)
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU takes the first way; on it both are tried, and give the same."""
    if request.param == "in blocks":
        use_blocks(monkeypatch)


def use_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MaxIoUAssigner, "_object_by_object", MaxIoUAssigner._in_blocks)


def make_anchors(boxes: list[list[float]]) -> Anchors:
    return Anchors(torch.tensor(boxes, dtype=torch.float32), (len(boxes),), (1,))


def grid_anchors(size: int = 128) -> Anchors:
    levels = []
    for stride in (8, 16, 32):
        centers = torch.arange(0, size, stride, dtype=torch.float32)
        y, x = torch.meshgrid(centers, centers, indexing="ij")
        for_cell = [
            torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)
            for w, h in ((4 * stride, 4 * stride), (5.7 * stride, 2.8 * stride))
        ]
        levels.append(torch.stack(for_cell, 2).reshape(-1, 4))
    return Anchors(torch.cat(levels), tuple(len(level) for level in levels), (2, 2, 2))


def targets_of(*boxes: list[float], crowd: tuple[int, ...] = ()) -> Targets:
    return Targets(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(len(boxes)),
        is_crowd=torch.tensor([i in crowd for i in range(len(boxes))], dtype=torch.bool),
    )


def random_targets(count: int, seed: int, size: int = 128) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * (size - 8)
    side = torch.rand(count, 2, generator=generator) * size / 2 + 4
    boxes = torch.cat([corner, (corner + side).clamp(max=size)], dim=1)
    return Targets(boxes, torch.arange(count), torch.zeros(count, dtype=torch.bool))


def test_thresholds_on_a_hand_made_case() -> None:
    # IoUs with the one object (0, 0, 10, 10): 1.0, 0.5, 0.45, 0.25.
    anchors = make_anchors([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4.5], [0, 0, 5, 5]])
    found = MaxIoUConfig().build()(
        anchors, BatchedTargets.from_targets([targets_of([0, 0, 10, 10])])
    )
    assert found.is_foreground.tolist() == [[True, True, False, False]]
    assert found.is_ignored.tolist() == [[False, False, True, False]]


@pytest.mark.parametrize(
    ("rule", "foreground", "index"),
    [
        ("none", [False, False], [0, 0]),
        ("anchor_best", [True, False], [0, 0]),
        ("object", [True, False], [1, 0]),
    ],
)
def test_low_quality_rules_on_a_hand_made_case(
    rule: max_iou.LowQualityRule, foreground: list[bool], index: list[int]
) -> None:
    # Anchor 0 overlaps object 0 by 0.3 and object 1 by 0.2, and is the best anchor of both.
    anchors = make_anchors([[0, 0, 10, 10], [50, 50, 60, 60]])
    objects = targets_of([0, 0, 10, 3], [0, 8, 10, 10])
    assigner = MaxIoUConfig(low_quality=rule).build()
    found = assigner(anchors, BatchedTargets.from_targets([objects]))
    assert found.is_foreground.tolist() == [foreground]
    assert found.target_index.tolist() == [index]


def test_every_anchor_that_ties_for_an_object_is_its_low_quality_match() -> None:
    anchors = make_anchors([[0, 0, 10, 10], [10, 0, 20, 10], [0, 50, 10, 60]])
    found = MaxIoUConfig().build()(
        anchors, BatchedTargets.from_targets([targets_of([8, 0, 12, 2])])
    )
    assert found.is_foreground.tolist() == [[True, True, False]]


def test_an_object_that_no_anchor_overlaps_claims_none() -> None:
    anchors = make_anchors([[0, 0, 10, 10], [20, 20, 30, 30]])
    found = MaxIoUConfig().build()(
        anchors, BatchedTargets.from_targets([targets_of([80, 80, 90, 90])])
    )
    assert not found.is_foreground.any()


def test_equal_to_torchvisions_matcher_image_by_image() -> None:
    anchors = grid_anchors()
    images = [random_targets(count, seed) for seed, count in enumerate((1, 5, 17, 40))]
    found = MaxIoUConfig().build()(anchors, BatchedTargets.from_targets(images))
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    for row, image in enumerate(images):
        matches = matcher(box_iou(image.boxes, anchors.boxes))
        assert torch.equal(found.is_foreground[row], matches >= 0)
        assert torch.equal(found.is_ignored[row], matches == Matcher.BETWEEN_THRESHOLDS)
        assert torch.equal(found.target_index[row][matches >= 0], matches[matches >= 0])


@pytest.mark.parametrize("rule", ["none", "anchor_best", "object"])
@pytest.mark.parametrize("background_iou", [0.0, 0.4])
def test_blocks_of_objects_change_nothing(
    rule: LowQualityRule, background_iou: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchors = grid_anchors()
    hard = targets_of(
        *([0, 0, 64, 64], [0, 0, 64, 64], [10, 10, 10, 40], [-50, -50, -20, -20]),  # equal, empty
        *([0, 0, 9, 9], [5, 5, 200, 200], [64, 64, 128, 128]),
        crowd=(5,),
    )
    images = [random_targets(40, 1), hard, Targets.empty(), random_targets(23, 2)]
    targets = BatchedTargets.from_targets(images)
    targets.boxes[1, 4, 2] = math.inf
    assigner = MaxIoUConfig(low_quality=rule, background_iou=background_iou).build()
    found = [assigner(anchors, targets)]
    use_blocks(monkeypatch)
    for block in (max_iou.BLOCK_ELEMENTS, len(images) * len(anchors) * 3):
        monkeypatch.setattr(max_iou, "BLOCK_ELEMENTS", block)
        found.append(assigner(anchors, targets))
    assert found[0].is_foreground[1].any()
    for other in found[1:]:
        for name in ("target_index", "is_foreground", "is_ignored"):
            assert torch.equal(getattr(found[0], name), getattr(other, name))


def test_an_image_without_objects_is_all_background() -> None:
    targets = BatchedTargets.from_targets([Targets.empty(), targets_of([0, 0, 32, 32])])
    for assigner in (MaxIoUConfig().build(), ATSSConfig().build()):
        found = assigner(grid_anchors(), targets)
        assert not found.is_foreground[0].any()
        assert not found.is_ignored[0].any()
        assert found.is_foreground[1].any()


def test_anchors_inside_a_crowd_region_are_ignored_not_background() -> None:
    anchors = make_anchors([[0, 0, 10, 10], [35, 0, 45, 10], [60, 0, 70, 10], [20, 0, 30, 10]])
    objects = targets_of([0, 0, 40, 40], [20, 0, 30, 10], crowd=(0,))
    for assigner in (MaxIoUConfig().build(), ATSSConfig().build()):
        found = assigner(anchors, BatchedTargets.from_targets([objects]))
        # Wholly inside; half inside (not more than half); outside; inside, but an object's own.
        assert found.is_ignored.tolist() == [[True, False, False, False]]
        assert found.is_foreground.tolist() == [[False, False, False, True]]
    off = MaxIoUConfig(crowd_iof=1.0).build()
    assert not off(anchors, BatchedTargets.from_targets([objects])).is_ignored.any()


def test_atss_follows_its_algorithm_step_by_step() -> None:
    anchors, image = grid_anchors(), random_targets(12, 3)
    found = ATSSConfig(candidates_per_level=4).build()(
        anchors, BatchedTargets.from_targets([image])
    )
    iou = box_iou(image.boxes, anchors.boxes)
    anchor_centers = (anchors.boxes[:, :2] + anchors.boxes[:, 2:]) / 2
    best = torch.full((len(anchors),), -1.0)
    index = torch.full((len(anchors),), -1)
    for number, box in enumerate(image.boxes):
        distance = (anchor_centers - (box[:2] + box[2:]) / 2).norm(dim=1)
        candidates, start = [], 0
        for count in anchors.num_per_level:
            nearest = distance[start : start + count].topk(4 * 2, largest=False).indices
            candidates.append(nearest + start)
            start += count
        rows = torch.cat(candidates)
        threshold = iou[number, rows].mean() + iou[number, rows].std()
        for anchor in rows.tolist():
            center = anchor_centers[anchor]
            inside = min(*(center - box[:2]).tolist(), *(box[2:] - center).tolist()) > 0.01
            if inside and iou[number, anchor] >= threshold and iou[number, anchor] > best[anchor]:
                best[anchor], index[anchor] = iou[number, anchor], number
    assert found.is_foreground[0].sum() > 12
    assert torch.equal(found.is_foreground[0], index >= 0)
    assert torch.equal(found.target_index[0][index >= 0], index[index >= 0])


def test_two_thousand_objects_stay_within_the_block_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    use_blocks(monkeypatch)
    anchors = grid_anchors(512)
    targets = BatchedTargets.from_targets([random_targets(2000, 0, 512)])
    full_matrix = 2000 * len(anchors) * 4
    with (
        pytest.MonkeyPatch.context() as patch,
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        patch.setattr(max_iou, "BLOCK_ELEMENTS", 2**18)
        found = MaxIoUConfig().build()(anchors, targets)
    assert found.is_foreground.sum() > 1000
    largest = max(event.cpu_memory_usage for event in profiler.events())
    assert largest < full_matrix / 10


def test_thresholds_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="must not exceed foreground_iou"):
        MaxIoUConfig(foreground_iou=0.3, background_iou=0.4)


EVERY_RULE = [
    MaxIoUConfig(low_quality="none"),
    MaxIoUConfig(low_quality="anchor_best"),
    MaxIoUConfig(low_quality="object"),
    ATSSConfig(),
]


@pytest.mark.parametrize("config", EVERY_RULE)
@pytest.mark.parametrize("num_anchors", [0, 1, 7])
@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("num_objects", [0, 1, 4])
def test_any_number_of_anchors_images_and_objects(
    config: AssignerConfig, num_anchors: int, batch: int, num_objects: int
) -> None:
    anchors = Anchors(grid_anchors().boxes[:num_anchors], (num_anchors,), (1,))
    rows = torch.zeros(batch, num_objects)
    boxes = torch.tensor([0.0, 0.0, 32.0, 32.0]).expand(batch, num_objects, 4)
    found = config.build()(
        anchors, BatchedTargets(boxes, rows.long(), rows.bool(), ~rows.bool(), ())
    )
    for values in (found.target_index, found.is_foreground, found.is_ignored):
        assert values.shape == (batch, num_anchors)
    if num_objects == 0:
        assert not found.is_foreground.any()


@pytest.mark.parametrize("config", EVERY_RULE)
def test_the_only_anchor_of_an_object_matches_it(config: AssignerConfig) -> None:
    found = config.build()(
        make_anchors([[0, 0, 10, 10]]), BatchedTargets.from_targets([targets_of([0, 0, 10, 8])])
    )
    assert found.is_foreground.tolist() == [[True]]


@pytest.mark.parametrize("config", EVERY_RULE)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_object_without_a_finite_box_changes_no_other(
    config: AssignerConfig, value: float
) -> None:
    """`Targets` refuses it; on a device, where looking would wait, nothing matches it."""
    anchors, image = grid_anchors(), random_targets(5, 6)
    without = BatchedTargets.from_targets([image, image])
    expected = config.build()(anchors, without)
    for place in range(4):
        broken = torch.tensor([10.0, 10.0, 60.0, 60.0])
        broken[place] = value
        boxes = torch.cat([without.boxes, broken.expand(2, 1, 4)], dim=1)
        labels = torch.arange(6).expand(2, 6)
        none, is_object = torch.zeros(2, 6).bool(), torch.ones(2, 6).bool()
        found = config.build()(anchors, BatchedTargets(boxes, labels, none, is_object, ()))
        for name in ("target_index", "is_foreground", "is_ignored"):
            assert torch.equal(getattr(found, name), getattr(expected, name))
