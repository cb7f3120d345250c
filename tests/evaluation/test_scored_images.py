"""Several annotation files, and some of their images: the same as files made by hand."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retina.errors import UserError
from retina.evaluation.scored_images import read_scored
from retina.evaluation.scoring import Scores, ScoringOptions, score

Tree = dict[str, Any]


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def with_names(tree: Tree) -> Tree:
    images = [{**image, "file_name": f"{image['id']:04}.jpg"} for image in tree["images"]]
    return {**tree, "images": images}


def rows_of(tree: Tree, found: Any) -> list[Tree]:
    ids = [category["id"] for category in tree["categories"]]
    return [
        {
            "image_id": int(found.image_ids[row]),
            "category_id": ids[found.labels[row]],
            "bbox": found.boxes_xywh[row].tolist(),
            "score": float(found.scores[row]),
        }
        for row in range(len(found.scores))
    ]


def cut(tree: Tree, rows: list[Tree], ids: set[int]) -> tuple[Tree, list[Tree]]:
    part = {
        **tree,
        "images": [one for one in tree["images"] if one["id"] in ids],
        "annotations": [one for one in tree["annotations"] if one["image_id"] in ids],
    }
    return part, [row for row in rows if row["image_id"] in ids]


@pytest.fixture
def made(
    random_tree: Callable[..., Any], random_detections: Callable[..., Any]
) -> tuple[Tree, list[Tree]]:
    tree = random_tree(2, num_images=24, num_categories=4, num_objects=120)
    found = random_detections(2, tree, per_image=20)
    # No ties: how equal scores of two images are ranked depends on the ids of the images.
    scores = np.random.default_rng(0).permutation(len(found.scores)) / len(found.scores)
    rows = rows_of(tree, found)
    for row, value in zip(rows, scores.tolist(), strict=True):
        row["score"] = value
    return with_names(tree), rows


def numbers(
    annotations: Sequence[Path],
    results: Sequence[Path],
    *,
    image_list: Path | None = None,
    metrics: Any = "coco",
) -> Scores:
    scored, found = read_scored(annotations, results)
    if image_list is not None:
        scored = scored.listed_in(image_list)
    return score(scored, found, ScoringOptions(metrics=metrics))


def same(one: Scores, other: Scores) -> None:
    assert one.coco.numbers() == pytest.approx(other.coco.numbers(), abs=1e-12)
    theirs = {category.name: category for category in other.coco.per_category}
    for category in one.coco.per_category:
        assert pytest.approx(theirs[category.name].AP, abs=1e-12) == category.AP
        assert category.num_ground_truth == theirs[category.name].num_ground_truth
    if one.voc is not None and other.voc is not None:
        assert pytest.approx(other.voc.AP, abs=1e-12) == one.voc.AP


def halves(tree: Tree) -> tuple[set[int], set[int]]:
    ids = [image["id"] for image in tree["images"]]
    return set(ids[::2]), set(ids[1::2])


@pytest.mark.parametrize("metrics", ["coco", "voc"])
def test_a_list_of_images_is_a_file_cut_by_hand(
    metrics: str, made: tuple[Tree, list[Tree]], tmp_path: Path
) -> None:
    tree, rows = made
    ids, _ = halves(tree)
    part, some = cut(tree, rows, ids)
    by_hand = numbers(
        [write(tmp_path / "part.json", part)],
        [write(tmp_path / "some.json", some)],
        metrics=metrics,
    )
    named = tmp_path / "list.txt"
    named.write_text("".join(f"{one:04}.jpg\n" if one % 2 else f"{one}\n" for one in sorted(ids)))
    listed = numbers(
        [write(tmp_path / "whole.json", tree)],
        [write(tmp_path / "all.json", rows)],
        image_list=named,
        metrics=metrics,
    )
    same(listed, by_hand)
    assert listed.num_images == len(ids)
    assert by_hand.coco.AP > 0


@pytest.mark.parametrize("metrics", ["coco", "voc"])
def test_two_files_are_their_merged_file(
    metrics: str, made: tuple[Tree, list[Tree]], tmp_path: Path
) -> None:
    tree, rows = made
    merged = numbers(
        [write(tmp_path / "whole.json", tree)],
        [write(tmp_path / "all.json", rows)],
        metrics=metrics,
    )
    parts = [cut(tree, rows, ids) for ids in halves(tree)]
    files = [write(tmp_path / f"{at}.json", part) for at, (part, _) in enumerate(parts)]
    results = [write(tmp_path / f"{at}r.json", some) for at, (_, some) in enumerate(parts)]
    at_once = numbers(files, [tmp_path / "all.json"], metrics=metrics)
    same(at_once, merged)
    same(numbers(files, results, metrics=metrics), merged)
    assert [name for name, _ in at_once.per_file] == list(map(str, files))
    for (_, ours), file, result in zip(at_once.per_file, files, results, strict=True):
        same(ours, numbers([file], [result], metrics=metrics))
    per_file = at_once.to_json()["per_file"]
    assert [entry["num_images"] for entry in per_file] == [12, 12]
    assert per_file[0]["AP"] == at_once.per_file[0][1].coco.AP


def test_two_files_with_text_ids_and_one_results_file(
    made: tuple[Tree, list[Tree]], tmp_path: Path
) -> None:
    tree, rows = made
    merged = numbers([write(tmp_path / "whole.json", tree)], [write(tmp_path / "all.json", rows)])

    def as_text(records: list[Tree], key: str) -> list[Tree]:
        return [record | {key: f"frame_{record[key]}"} for record in records]

    files = []
    for number, ids in enumerate(halves(tree)):
        part, _ = cut(tree, rows, ids)
        part["images"] = as_text(part["images"], "id")
        part["annotations"] = as_text(part["annotations"], "image_id")
        files.append(write(tmp_path / f"{number}.json", part))
    same(numbers(files, [write(tmp_path / "text.json", as_text(rows, "image_id"))]), merged)


def test_files_whose_ids_coincide(made: tuple[Tree, list[Tree]], tmp_path: Path) -> None:
    """Both number their images from 1, and one has its classes in another order."""
    tree, rows = made
    merged = numbers([write(tmp_path / "whole.json", tree)], [write(tmp_path / "all.json", rows)])
    files, results = [], []
    for at, ids in enumerate(halves(tree)):
        part, some = copy.deepcopy(cut(tree, rows, ids))
        new_id = {old: number for number, old in enumerate(sorted(ids), start=1)}
        classes = [one["id"] for one in tree["categories"]]
        new_class = dict(zip(classes, classes if at == 0 else classes[::-1], strict=True))
        for image in part["images"]:
            image["id"] = new_id[image["id"]]
        for one in [*part["annotations"], *some]:
            one["image_id"] = new_id[one["image_id"]]
            one["category_id"] = new_class[one["category_id"]]
        part["categories"] = [{**one, "id": new_class[one["id"]]} for one in tree["categories"]]
        files.append(write(tmp_path / f"{at}.json", part))
        results.append(write(tmp_path / f"{at}r.json", some))
    same(numbers(files, results), merged)
    with pytest.raises(UserError, match=r"the image id \d+ is in .*0.json and, .* in .*1.json"):
        numbers(files, results[:1])


def test_one_results_file_cannot_mean_two_classes(
    made: tuple[Tree, list[Tree]], tmp_path: Path
) -> None:
    tree, rows = made
    first, second = (cut(tree, rows, ids)[0] for ids in halves(tree))
    second = {
        **second,
        "categories": [{**one, "name": f"{one['name']}s"} for one in tree["categories"]],
    }
    files = [write(tmp_path / "0.json", first), write(tmp_path / "1.json", second)]
    with pytest.raises(UserError, match=r"the category id .* give a results file for each"):
        numbers(files, [write(tmp_path / "all.json", rows)])


def test_numbers_of_files_that_do_not_fit(made: tuple[Tree, list[Tree]], tmp_path: Path) -> None:
    tree, rows = made
    file, result = write(tmp_path / "t.json", tree), write(tmp_path / "r.json", rows)
    with pytest.raises(UserError, match="2 results files for 1 annotation file"):
        read_scored([file], [result, result])
    with pytest.raises(UserError, match="3 folders for 2 annotation files"):
        read_scored([file, file], [result], [tmp_path] * 3)
    with pytest.raises(UserError, match=r"t\.json is named twice; name each file once"):
        read_scored([file, file], [result])
    with pytest.raises(UserError, match="needs --annotations"):
        read_scored([], [result])


def test_a_file_of_which_the_list_names_nothing(
    made: tuple[Tree, list[Tree]], tmp_path: Path
) -> None:
    tree, rows = made
    ids, others = halves(tree)
    files = [
        write(tmp_path / f"{at}.json", cut(tree, rows, part)[0])
        for at, part in enumerate((ids, others))
    ]
    named = tmp_path / "list.txt"
    named.write_text("\n".join(map(str, sorted(ids))))
    result = write(tmp_path / "all.json", rows)
    scores = numbers(files, [result], image_list=named)
    assert [name for name, _ in scores.per_file] == [str(files[0])]
    same(scores, scores.per_file[0][1])
