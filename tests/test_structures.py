import numpy as np
import pytest
import torch

from retina.structures import (
    Anchors,
    BatchedTargets,
    Categories,
    Detections,
    GroundTruth,
    Sample,
    Targets,
)


def test_categories_map_ids_with_gaps_to_labels() -> None:
    categories = Categories(("cat", "dog", "bird"), (90, 3, 17))
    assert [categories.label_of(i) for i in (90, 3, 17)] == [0, 1, 2]
    assert len(categories) == 3
    with pytest.raises(KeyError):
        categories.label_of(4)
    with pytest.raises(ValueError, match="not unique"):
        Categories(("a", "b"), (1, 1))


def test_names_that_repeat_are_told_apart_by_their_ids() -> None:
    categories = Categories(("cat", "dog", "cat"), (90, 3, 17), {17: "c17"})
    assert categories.distinct_names == ("cat (id 90)", "dog", "cat (id c17)")
    assert categories.names == ("cat", "dog", "cat")


def test_targets_are_padded_to_the_fullest_image() -> None:
    one = Targets(torch.ones(1, 4), torch.tensor([5]), torch.tensor([True]))
    three = Targets(torch.full((3, 4), 2.0), torch.arange(3), torch.zeros(3, dtype=torch.bool))
    batched = BatchedTargets.from_targets([one, three, Targets.empty()])
    assert batched.is_object.tolist() == [[True, False, False], [True] * 3, [False] * 3]
    assert batched.labels[0].tolist() == [5, 0, 0]
    assert batched.is_crowd[0].tolist() == [True, False, False]
    assert batched.boxes[1].sum() == 24
    assert BatchedTargets.from_targets([Targets.empty()]).boxes.shape == (1, 1, 4)


def test_objects_are_counted_by_class_without_crowd_regions() -> None:
    truth = GroundTruth(
        Categories(("cat", "dog", "bird"), (1, 2, 3)),
        image_ids=np.array([7]),
        image_sizes=np.zeros((1, 2), int),
        annotation_ids=np.arange(4),
        annotation_image_ids=np.full(4, 7),
        category_labels=np.array([1, 0, 1, 0]),
        boxes_xywh=np.zeros((4, 4)),
        areas=np.zeros(4),
        is_crowd=np.array([False, True, False, False]),
    )
    assert truth.class_counts() == (1, 2, 0)


def test_detections_are_rescaled_by_float32_quotients() -> None:
    found = Detections(torch.tensor([[10.0, 20.0, 30.0, 40.0]]), torch.ones(1), torch.zeros(1))
    bigger = found.rescaled((100, 200), (300, 100))
    assert bigger.boxes.tolist() == [[5.0, 60.0, 15.0, 120.0]]
    assert found.rescaled((100, 200), (100, 200)) is found


def test_only_scores_of_at_least_the_threshold_stay() -> None:
    found = Detections(torch.zeros(3, 4), torch.tensor([0.9, 0.5, 0.1]), torch.arange(3))
    assert found.at_least(0.5).labels.tolist() == [0, 1]
    of_classes = torch.tensor([0.95, 0.5, 0.05], dtype=torch.float64)
    assert found.at_least(of_classes).labels.tolist() == [1, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Targets(torch.zeros(2, 4), torch.zeros(3), torch.zeros(2)),
        lambda: Detections(torch.zeros(2, 4), torch.zeros(3), torch.zeros(2)),
        lambda: Sample(torch.zeros(3, 4, 4), Targets.empty(), 0),
        lambda: Anchors(torch.zeros(3, 4), (2,), (1,)),
        lambda: Anchors(torch.zeros(2, 4, dtype=torch.bfloat16), (2,), (1,)),
        lambda: GroundTruth(
            Categories(("a",), (1,)),
            np.array([1]),
            np.zeros((1, 2), int),
            np.array([1]),
            np.array([1]),
            np.array([0]),
            np.zeros((1, 4)),
            np.zeros(2),
            np.array([False]),
        ),
    ],
)
def test_shapes_that_disagree_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_objects_without_a_finite_box_are_refused(value: float) -> None:
    boxes = torch.ones(3, 4)
    boxes[1, 2] = value
    with pytest.raises(ValueError, match=r"object 1 \(from 0\) has the box \[1.0, 1.0, .*finite"):
        Targets(boxes, torch.zeros(3).long(), torch.zeros(3).bool())


def test_a_score_that_is_no_number_reaches_no_threshold() -> None:
    found = Detections(torch.zeros(2, 4), torch.tensor([float("nan"), 0.5]), torch.zeros(2).long())
    assert found.at_least(-1.0).scores.tolist() == [0.5]
