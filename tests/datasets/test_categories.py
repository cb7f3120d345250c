"""Which categories a split is read with: its own, those asked for, those of the training set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retina.datasets.categories import UnknownCategoriesError
from retina.errors import UserError
from retina.structures import Categories
from tests.reading import read_coco  # type: ignore[import-not-found]

CocoWriter = Callable[..., tuple[Path, Path]]


def categories(*pairs: tuple[int, str]) -> Callable[[dict[str, Any]], None]:
    """Replaces the listed categories; the set uses the ids 9 (once) and 2 (twice)."""

    def change(tree: dict[str, Any]) -> None:
        tree["categories"] = [{"id": number, "name": name} for number, name in pairs]

    return change


GAPS = categories((90, "unused high"), (9, "dog"), (2, "cat"), (0, "unused low"))


def test_labels_follow_ascending_ids_and_unused_categories_are_kept(
    write_coco: CocoWriter,
) -> None:
    dataset = read_coco(*write_coco(GAPS))
    assert dataset.categories.names == ("unused low", "cat", "dog", "unused high")
    assert dataset.categories.dataset_ids == (0, 2, 9, 90)
    assert dataset.targets(0).labels.tolist() == [2, 1]
    assert dataset.report.findings == (
        "2 of 4 categories kept although no annotation uses them (in a config, unused_categories: "
        "drop leaves them out): unused low, unused high",
    )


def test_unused_categories_can_be_dropped(write_coco: CocoWriter) -> None:
    dataset = read_coco(*write_coco(GAPS), unused_categories="drop")
    assert dataset.categories == Categories(("cat", "dog"), (2, 9))
    assert dataset.targets(0).labels.tolist() == [1, 0]
    assert dataset.report.findings == (
        "2 of 4 categories left out, with 0 annotations: unused high, unused low",
    )


def test_dropping_every_category_is_an_error(write_coco: CocoWriter) -> None:
    with pytest.raises(UserError, match="there is no category to learn"):
        read_coco(*write_coco(lambda tree: tree.update(annotations=[])), unused_categories="drop")


def test_classes_choose_and_order_the_labels(write_coco: CocoWriter) -> None:
    dataset = read_coco(*write_coco(GAPS), classes=("dog", "unused low"))
    assert dataset.categories == Categories(("dog", "unused low"), (9, 0))
    assert dataset.targets(0).labels.tolist() == [0]
    assert len(dataset.targets(1)) == 0
    assert dataset.ground_truth().annotation_ids.tolist() == [11]
    assert "2 of 4 categories left out, with 2 annotations" in dataset.report.findings[0]


def test_an_unknown_or_ambiguous_class_is_an_error(write_coco: CocoWriter) -> None:
    folder, path = write_coco()
    with pytest.raises(UserError, match="classes: there is no category 'dgo'; there are dog, cat"):
        read_coco(folder, path, classes=("dgo",))
    folder, path = write_coco(categories((9, "cat"), (2, "cat")), "twice")
    with pytest.raises(UserError, match=r"'cat' is the name of several categories \(ids 9, 2\)"):
        read_coco(folder, path, classes=("cat",))
    assert read_coco(folder, path).report.findings == ("several categories share a name: cat",)


def test_a_validation_set_takes_the_labels_of_the_training_set(write_coco: CocoWriter) -> None:
    train = Categories(("dog", "bird", "cat"), (9, 4, 2))
    dataset = read_coco(*write_coco(), categories=train)
    assert dataset.categories == train
    assert dataset.targets(0).labels.tolist() == [0, 2]
    assert dataset.report.findings == ()


def test_categories_match_by_name_where_ids_differ_and_keep_their_own_ids(
    write_coco: CocoWriter,
) -> None:
    train = Categories(("cat", "dog", "bird", "fish"), (1, 2, 9, 5))
    dataset = read_coco(*write_coco(), categories=train)
    assert dataset.categories.names == train.names
    assert dataset.categories.dataset_ids[:2] == (2, 9)
    assert dataset.categories.dataset_ids[3] == 5
    assert len(set(dataset.categories.dataset_ids)) == 4
    assert dataset.targets(0).labels.tolist() == [1, 0]


def test_categories_of_one_name_match_by_id(write_coco: CocoWriter) -> None:
    train = Categories(("cat", "cat"), (2, 9))
    dataset = read_coco(*write_coco(categories((9, "cat"), (2, "cat"))), categories=train)
    assert dataset.targets(0).labels.tolist() == [1, 0]


def test_an_annotation_of_a_category_that_was_never_trained_is_an_error(
    write_coco: CocoWriter,
) -> None:
    folder, path = write_coco()
    train = Categories(("dog",), (9,))
    message = r"does not have: cat \(id 2, 2 annotations\); it has dog"
    with pytest.raises(UserError, match=message):
        read_coco(folder, path, categories=train)
    dataset = read_coco(folder, path, categories=train, classes=("dog",))
    assert dataset.ground_truth().annotation_ids.tolist() == [11]
    assert len(dataset) == 2


def test_an_id_that_is_a_text_is_told_as_its_file_has_it(write_coco: CocoWriter) -> None:
    def spell(tree: dict[str, Any]) -> None:
        for key, part in (("id", "categories"), ("category_id", "annotations")):
            for one in tree[part]:
                one[key] = {9: "nine", 2: "two"}[one[key]]

    with pytest.raises(UserError, match=r"does not have: cat \(id two, "):
        read_coco(*write_coco(spell), categories=Categories(("dog",), (9,)))


def test_annotations_of_a_category_that_was_never_trained_can_be_left_out(
    write_coco: CocoWriter,
) -> None:
    folder, path = write_coco()
    detector = Categories(("bird", "dog"), (2, 1))
    dataset = read_coco(folder, path, categories=detector, unknown_categories="leave_out")
    assert dataset.categories.names == ("bird", "dog")
    assert dataset.categories.dataset_ids[1] == 9  # the file's own, for its scores
    assert dataset.ground_truth().annotation_ids.tolist() == [11]
    assert len(dataset) == 2
    assert dataset.report.findings == ("1 of 2 categories left out, with 2 annotations: cat",)
    chosen = read_coco(folder, path, classes=("cat",))
    assert chosen.report.findings[0] == "1 of 2 categories left out, with 1 annotation: dog"


def test_nothing_but_annotations_of_unknown_categories_is_an_error(write_coco: CocoWriter) -> None:
    folder, path = write_coco()
    with pytest.raises(UnknownCategoriesError, match=r"does not have: dog .*, cat .*; it has bird"):
        read_coco(
            folder, path, categories=Categories(("bird",), (2,)), unknown_categories="leave_out"
        )


def test_a_listed_but_unused_unknown_category_does_not_matter(write_coco: CocoWriter) -> None:
    train = Categories(("cat", "dog"), (2, 9))
    dataset = read_coco(*write_coco(GAPS), categories=train)
    assert dataset.categories == train
    assert dataset.targets(0).labels.tolist() == [1, 0]


def test_the_classes_do_not_depend_on_the_part_of_the_images(write_coco: CocoWriter) -> None:
    for seed in range(4):
        part = read_coco(
            *write_coco(GAPS), max_images=1, subset_seed=seed, unused_categories="drop"
        )
        assert part.categories.names == ("cat", "dog")
