import pytest
import torch

from retina.geometry.box_coder import BoxCoderConfig
from retina.objective.label_noise import LabelNoiseConfig, Suspects
from retina.structures import Anchors, Assignment, BatchedTargets, DensePredictions, Targets

# One level of 1 x 6 cells with one anchor each, three classes. Anchors 0 and 1 belong to object 0
# (class 0), anchor 2 to object 1 (class 1), anchor 3 is ignored, anchors 4 and 5 are background.
BOXES = torch.tensor(
    [
        [0.0, 0.0, 10.0, 10.0],
        [2.0, 0.0, 12.0, 10.0],
        [40.0, 0.0, 50.0, 10.0],
        [44.0, 0.0, 54.0, 10.0],
        [80.0, 0.0, 90.0, 10.0],
        [0.0, 5.0, 10.0, 15.0],
    ]
)
ANCHORS = Anchors(BOXES, (6,), (1,))
TARGETS = Targets(
    torch.tensor([[0.0, 0.0, 10.0, 10.0], [40.0, 0.0, 50.0, 10.0]]),
    torch.tensor([0, 1]),
    torch.zeros(2, dtype=torch.bool),
)
ASSIGNMENT = Assignment(
    target_index=torch.tensor([[0, 0, 1, 0, 0, 0]]),
    is_foreground=torch.tensor([[True, True, True, False, False, False]]),
    is_ignored=torch.tensor([[False, False, False, True, False, False]]),
)
AGREEING = torch.tensor(
    [
        [2.0, -4.0, -4.0],
        [-1.0, -4.0, -4.0],
        [-4.0, 2.0, -4.0],
        [-4.0, 3.0, -4.0],
        [-4.0, -4.0, -4.0],
        [-4.0, -4.0, -4.0],
    ]
)


def find(
    logits: torch.Tensor,
    deltas: torch.Tensor | None = None,
    targets: Targets = TARGETS,
    **rules: float,
) -> Suspects:
    deltas = torch.zeros(6, 4) if deltas is None else deltas
    predictions = DensePredictions(
        (logits.reshape(1, 1, 6, 1, 3),), (deltas.reshape(1, 1, 6, 1, 4),)
    )
    finder = LabelNoiseConfig(**rules).build(BoxCoderConfig().build())
    return finder(predictions, ANCHORS, BatchedTargets.from_targets([targets]), ASSIGNMENT)


def rows(suspects: Suspects) -> list[int]:
    return suspects.anchors[0].nonzero().flatten().tolist()


def test_labels_that_the_detector_agrees_with_are_believed() -> None:
    suspects = find(AGREEING)
    assert rows(suspects) == []
    assert (int(suspects.num_objects), int(suspects.num_background)) == (0, 0)


def test_an_object_that_is_confidently_another_class_is_suspect_with_all_its_anchors() -> None:
    logits = AGREEING.clone()
    logits[0] = torch.tensor([-3.0, -4.0, 1.0])
    suspects = find(logits)
    assert rows(suspects) == [0, 1]
    assert int(suspects.num_objects) == 1


def test_another_class_must_be_more_probable_than_the_label() -> None:
    logits = AGREEING.clone()
    logits[0, 2] = 1.5  # sure, yet less so than of the label
    assert rows(find(logits)) == []


def test_an_object_that_no_anchor_sees_is_suspect() -> None:
    logits = AGREEING.clone()
    logits[2] = torch.tensor([-6.0, -5.0, -6.0])
    alike = Targets(TARGETS.boxes, torch.tensor([0, 0]), TARGETS.is_crowd)
    assert rows(find(logits, targets=alike)) == [2]
    assert rows(find(logits, targets=alike, unseen=0.001)) == []  # the sigmoid of -5 is 0.0067


def test_a_class_that_is_not_learned_yet_is_not_suspect() -> None:
    logits = AGREEING.clone()
    logits[2] = torch.tensor([-6.0, -5.0, -6.0])  # the only object of class 1
    assert rows(find(logits)) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_finds_the_same(dtype: torch.dtype) -> None:
    logits = AGREEING.clone()
    logits[0], logits[4, 2] = torch.tensor([-3.0, -4.0, 1.0]), 2.0
    assert rows(find(logits.to(dtype))) == rows(find(logits)) == [0, 1, 4]


def test_an_object_that_is_seen_elsewhere_is_suspect() -> None:
    deltas = torch.zeros(6, 4)
    deltas[0, 0] = 0.6  # six pixels to the right: IoU 4 / 16
    assert rows(find(AGREEING, deltas)) == [0, 1]
    assert rows(find(AGREEING, deltas, elsewhere_iou=0.2)) == []
    deltas[0, 0], deltas[1, 0] = 0.0, 0.6  # the less sure anchor may be anywhere
    assert rows(find(AGREEING, deltas)) == []


def test_a_confident_prediction_far_from_every_label_is_a_suspect_background() -> None:
    logits = AGREEING.clone()
    logits[4, 2] = 2.0
    suspects = find(logits)
    assert rows(suspects) == [4]
    assert (int(suspects.num_objects), int(suspects.num_background)) == (0, 1)
    logits[4, 2] = 0.8  # a probability of 0.69
    assert rows(find(logits)) == []


def test_a_confident_prediction_beside_a_label_goes_on_being_taught() -> None:
    logits = AGREEING.clone()
    logits[5, 0] = 2.0  # IoU 1 / 3 with object 0
    assert rows(find(logits)) == []
    assert rows(find(logits, background_iou=0.4)) == [5]


def test_ignored_anchors_and_padding_are_never_suspects() -> None:
    assert 3 not in rows(find(torch.full((6, 3), 5.0), background_iou=1.0))
    empty = BatchedTargets.from_targets([Targets.empty()])
    nothing = Assignment(
        target_index=torch.zeros(1, 6, dtype=torch.int64),
        is_foreground=torch.zeros(1, 6, dtype=torch.bool),
        is_ignored=torch.zeros(1, 6, dtype=torch.bool),
    )
    predictions = DensePredictions(
        (torch.full((1, 1, 6, 1, 3), -9.0),), (torch.zeros(1, 1, 6, 1, 4),)
    )
    finder = LabelNoiseConfig().build(BoxCoderConfig().build())
    suspects = finder(predictions, ANCHORS, empty, nothing)
    assert rows(suspects) == []
    assert int(suspects.num_objects) == 0


@pytest.mark.parametrize(("candidates", "expected"), [(1, [5]), (2, [4, 5]), (999, [4, 5])])
def test_only_the_most_confident_background_is_looked_at(
    candidates: int, expected: list[int]
) -> None:
    logits = AGREEING.clone()
    logits[4, 2], logits[5, 0] = 1.0, 2.0
    assert rows(find(logits, candidates=candidates, background_iou=0.5)) == expected
