"""Label errors are found, told apart, written and shown."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from retina.artifact import load_artifact
from retina.datasets import CocoConfig
from retina.datasets.dataset import DetectionDataset, Image
from retina.datasets.exports.coco import common_folder
from retina.errors import UserError
from retina.geometry.boxes import pairwise_iou, xywh_to_xyxy
from retina.instruments.label_errors.corrupted_boxes import SPURIOUS_IOU
from retina.instruments.label_errors.corruption import CorruptionRates, corrupt
from retina.instruments.label_errors.detector import AveragedDetector
from retina.instruments.label_errors.evidence import DenseEvidence
from retina.instruments.label_errors.hypotheses import LabelledObjects, imagine_errors
from retina.instruments.label_errors.ranking import (
    KINDS,
    LabelError,
    Suggestion,
    find_label_errors,
)
from retina.instruments.label_errors.report import html_page, json_records

NUM_IMAGES = 40
CLASSES = ("<b>bold</b>", 'quoted "x"', "plain")


def clean_content() -> dict[str, Any]:
    """Six boxes on a grid in each 240 × 160 image."""
    random = np.random.default_rng(0)
    annotations = []
    for image in range(NUM_IMAGES):
        for cell in range(6):
            x, y = 80 * (cell % 3) + random.uniform(2, 20), 80 * (cell // 3) + random.uniform(2, 20)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image + 100,
                    "category_id": int(random.integers(3)) + 1,
                    "bbox": [float(x), float(y), *random.uniform(30, 50, 2).tolist()],
                    "iscrowd": 0,
                }
            )
    for one in annotations:
        one["area"] = one["bbox"][2] * one["bbox"][3]
    return {
        "images": [
            {"id": n + 100, "file_name": f"<i>{n}.png", "height": 160, "width": 240}
            for n in range(NUM_IMAGES)
        ],
        "annotations": annotations,
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)],
    }


class TruthfulDetector:
    """Sees every true object, imperfectly; it tells the image by the value of its pixels."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._objects: dict[int, list[dict[str, Any]]] = {n: [] for n in range(NUM_IMAGES)}
        for one in content["annotations"]:
            self._objects[one["image_id"] - 100].append(one)

    def __call__(self, image: Image) -> DenseEvidence:
        number = int(image[0, 0, 0])
        random = np.random.default_rng(number)
        boxes, probabilities = [], []
        for one in self._objects[number]:
            for _ in range(5):
                boxes.append(np.array(one["bbox"]) + random.normal(0, 1, 4))
                row = random.uniform(0.01, 0.1, 3)
                row[one["category_id"] - 1] = random.uniform(0.4, 0.9)
                probabilities.append(row)
        for _ in range(40):
            boxes.append(np.array([*random.uniform(0, 110, 2), *random.uniform(30, 50, 2)]))
            probabilities.append(random.uniform(0.0, 0.02, 3))
        there = xywh_to_xyxy(torch.tensor(np.array(boxes), dtype=torch.float32))
        return DenseEvidence(there, torch.tensor(np.array(probabilities)).float(), there)


Build = Callable[[dict[str, Any]], DetectionDataset]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """The data set of a COCO file's content, with images that are all of one value."""

    def made(content: dict[str, Any]) -> DetectionDataset:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for n in range(NUM_IMAGES):
            pixels = np.full((160, 240, 3), n, dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(folder / f"<i>{n}.png")
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(content))
        return CocoConfig(images=folder, annotations=path).build()

    return made


def test_planted_errors_of_every_kind_come_first_in_its_ranking(build: Build):
    content = clean_content()
    planted = corrupt(content, CorruptionRates.evenly(0.2), seed=1)
    dataset = build(planted.content)
    truth = dataset.ground_truth()
    errors = find_label_errors(TruthfulDetector(content), dataset)
    names = {"shifted": "badly_placed"}
    for kind in KINDS:
        wrong = [one for one in planted.corruptions if names.get(one.kind, one.kind) == kind]
        assert len(wrong) == 12  # a twentieth of 240
        first = [one for one in errors if one.kind == kind][: len(wrong)]
        if kind == "missing":
            found = {
                one.annotation_id
                for one in wrong
                for error in first
                if error.suggestion is not None
                and truth.image_ids[error.image_index] == one.image_id
                and float(
                    pairwise_iou(
                        torch.tensor([error.suggestion.box]),
                        xywh_to_xyxy(torch.tensor([one.before["bbox"]])),
                    )
                )
                > 0.6
            }
        else:
            found = {int(truth.annotation_ids[one.annotation]) for one in first}
        expected = {one.annotation_id for one in wrong}
        assert len(found & expected) >= 11, kind
    assert [one.score for one in errors] == sorted((one.score for one in errors), reverse=True)
    assert all(0 <= one.score <= 1 for one in errors)


def test_a_wrong_class_is_suggested_as_what_is_seen(build: Build):
    content = clean_content()
    planted = corrupt(content, CorruptionRates(wrong_class=0.05), seed=0)
    dataset = build(planted.content)
    errors = find_label_errors(TruthfulDetector(content), dataset)
    true_class = {one.annotation_id: one.before["category_id"] for one in planted.corruptions}
    for one in [one for one in errors if one.kind == "wrong_class"][:12]:
        annotation_id = int(dataset.ground_truth().annotation_ids[one.annotation])
        assert dataset.categories.dataset_ids[one.suggestion.label] == true_class[annotation_id]
        assert one.suggestion.score > 0.4


def test_a_clean_set_has_few_errors(build: Build):
    content = clean_content()
    errors = find_label_errors(TruthfulDetector(content), build(content), minimum_score=0.5)
    assert errors == ()


def test_a_set_without_labels_is_all_missing(build: Build):
    content = clean_content()
    errors = find_label_errors(TruthfulDetector(content), build({**content, "annotations": []}))
    assert {one.kind for one in errors} == {"missing"}
    assert sum(one.score >= 0.3 for one in errors) == 240


class OneClassDetector(TruthfulDetector):
    """It knows one class only, so that there is no second best."""

    def __call__(self, image: Image) -> DenseEvidence:
        seen = super().__call__(image)
        return replace(seen, probabilities=seen.probabilities[:, :1])


def test_a_set_of_one_class_has_no_wrong_ones(build: Build, tmp_path: Path):
    content = clean_content()
    for one in content["annotations"]:
        one["category_id"] = 1
    dataset = build({**content, "categories": content["categories"][:1]})
    objects = LabelledObjects.of(dataset.ground_truth())
    imagined = imagine_errors(objects, 0, seed=0)
    assert 1 not in imagined.kinds.tolist()
    assert imagined.kinds.tolist()[:6] == [0] * 6
    errors = find_label_errors(OneClassDetector(content), dataset)
    counts = Counter(one.kind for one in errors)
    assert counts["wrong_class"] == 0
    assert counts["badly_placed"] == counts["spurious"] == 240
    shown = errors[:5]
    assert {one.suggestion.label for one in errors if one.suggestion is not None} == {0}
    assert len(json_records(shown, dataset, images=tmp_path / "images")) == 5
    assert html_page(shown, dataset).count("<article") == 5


def crowded(content: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """In each image, the three objects of the lower row lose their boxes to one crowd region."""
    left_out = [one for one in content["annotations"] if one["bbox"][1] >= 80]
    crowds = [
        {
            "id": 1000 + n,
            "image_id": n + 100,
            "category_id": 1,
            "bbox": [0.0, 80.0, 240.0, 80.0],
            "area": 240.0 * 80,
            "iscrowd": 1,
        }
        for n in range(NUM_IMAGES)
    ]
    kept = [one for one in content["annotations"] if one["bbox"][1] < 80]
    return {**content, "annotations": [*kept, *crowds]}, left_out


def test_what_lies_in_a_crowd_region_is_not_missing(build: Build):
    content = clean_content()
    with_crowds, left_out = crowded(content)
    assert len(left_out) == 120
    errors = find_label_errors(TruthfulDetector(content), build(with_crowds))
    missing = [one for one in errors if one.kind == "missing"]
    assert all(one.suggestion.box[1] < 80 for one in missing)  # most of it outside of the crowd
    assert not any(one.score >= 0.3 for one in missing)
    without = {**with_crowds, "annotations": with_crowds["annotations"][:120]}
    errors = find_label_errors(TruthfulDetector(content), build(without))
    missing = [one for one in errors if one.kind == "missing"]
    assert sum(one.suggestion.box[1] > 75 for one in missing[:120]) >= 115


def test_made_up_spurious_boxes_keep_out_of_crowd_regions(build: Build):
    with_crowds, _ = crowded(clean_content())
    objects = LabelledObjects.of(build(with_crowds).ground_truth())
    assert objects.crowds_in_image(3).tolist() == [123]
    for index in range(10):
        imagined = imagine_errors(objects, index, seed=0)
        spurious = imagined.hypotheses.boxes[imagined.kinds == 3]
        inside = (spurious[:, 3] - 80).clamp(min=0) / (spurious[:, 3] - spurious[:, 1])
        assert (inside < SPURIOUS_IOU).all()


def test_made_up_errors_are_what_they_are_called(build: Build):
    dataset = build(clean_content())
    objects = LabelledObjects.of(dataset.ground_truth())
    for index in range(5):
        imagined = imagine_errors(objects, index, seed=0)
        own = objects.boxes(objects.in_image(index))
        hypotheses, kinds = imagined.hypotheses, imagined.kinds
        labels = objects.labels(objects.in_image(index))
        torch.testing.assert_close(hypotheses.boxes[kinds == 0], own)
        torch.testing.assert_close(hypotheses.boxes[kinds == 1], own)
        assert (hypotheses.labels[kinds == 1] != labels).all()
        moved = hypotheses.boxes[kinds == 2]
        overlap = pairwise_iou(moved, own)[range(len(moved)), hypotheses.stands_for[kinds == 2]]
        assert ((overlap > 0.19) & (overlap < 0.71)).all()
        assert (hypotheses.stands_for[kinds == 3] == -1).all()
        assert float(pairwise_iou(hypotheses.boxes[kinds == 3], own).max()) < SPURIOUS_IOU + 0.01
    again = imagine_errors(objects, 0, seed=0).hypotheses.boxes
    assert torch.equal(again, imagine_errors(objects, 0, seed=0).hypotheses.boxes)


ERRORS = (
    LabelError("wrong_class", 0.9, 3, 18, Suggestion((1.0, 2.0, 31.0, 42.0), 1, 0.75)),
    LabelError("missing", 0.8, 0, None, Suggestion((10.0, 20.0, 40.0, 60.0), 0, 0.5)),
    LabelError("spurious", 0.25, 3, 19, None),
)


def test_the_document_has_original_ids_and_coco_boxes(build: Build, tmp_path: Path):
    dataset = build(clean_content())
    first, second, third = json_records(ERRORS, dataset, images=tmp_path / "images")
    assert first["annotation_id"] == 19
    assert first["image_id"] == 103
    assert first["file_name"] == "<i>3.png"
    assert first["suggestion"] == {
        "bbox": [1.0, 2.0, 30.0, 40.0],
        "category_id": 2,
        "category": 'quoted "x"',
        "score": 0.75,
    }
    assert (second["kind"], second["label"], second["rank_in_kind"]) == ("missing", None, 1)
    assert third["suggestion"] is None
    assert third["label"]["bbox"] == clean_content()["annotations"][19]["bbox"]
    json.dumps([first, second, third])


def test_ids_that_are_texts_are_in_the_document(build: Build, tmp_path: Path):
    content = clean_content()
    for image in content["images"]:
        image["id"] = f"frame {image['id']}"
    for category in content["categories"]:
        category["id"] = f"kind {category['id']}"
    for annotation in content["annotations"]:
        annotation["image_id"] = f"frame {annotation['image_id']}"
        annotation["category_id"] = f"kind {annotation['category_id']}"
    first, *_ = json_records(ERRORS, build(content), images=tmp_path / "images")
    assert first["image_id"] == "frame 103"
    assert first["suggestion"]["category_id"] == "kind 2"


def test_names_are_relative_to_the_folder_however_it_is_written(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    build(clean_content())
    monkeypatch.chdir(tmp_path)
    dataset = CocoConfig(images=Path("images"), annotations=Path("annotations.json")).build()
    for images in (Path("images"), tmp_path / "images", common_folder(dataset)):
        records = json_records(ERRORS, dataset, images=images)
        assert [one["file_name"] for one in records] == ["<i>3.png", "<i>0.png", "<i>3.png"]


class PageReader(HTMLParser):
    """Collects the tags of a page, its cards and its pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cards: list[dict[str, str | None]] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        if tag == "article":
            self.cards.append(named)
        if tag == "img":
            self.sources.append(str(named["src"]))
        self.links += [str(named[key]) for key in ("href", "src") if key in named]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else_and_escapes_every_name(build: Build):
    page = html_page(ERRORS, build(clean_content()), num_found=50)
    reader = PageReader()
    reader.feed(page)
    assert [card["data-kind"] for card in reader.cards] == ["wrong_class", "missing", "spurious"]
    assert [card["data-image"] for card in reader.cards] == ["<i>3.png", "<i>0.png", "<i>3.png"]
    assert "i" not in reader.tags  # the file names are text, not markup
    assert not any(link for link in reader.links if not link.startswith("data:image/jpeg;base64,"))
    assert "http:" not in page
    assert "https:" not in page
    assert "3 possible label errors (the first of 50) in 40 images" in reader.text
    assert 'quoted "x" 0.75' in reader.text
    assert "default-src 'none'" in page
    assert "probab" not in page  # a score that ranks, not a calibrated probability


def test_class_names_cannot_become_markup(build: Build):
    content = clean_content()
    content["categories"][0]["name"] = "<script>alert(1)</script>"
    page = html_page(ERRORS, build(content))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_crop_shows_the_label_dashed_and_what_is_seen_in_yellow(build: Build):
    dataset = build(clean_content())
    placed = LabelError("badly_placed", 0.5, 0, 0, Suggestion((40.0, 40.0, 80.0, 80.0), 0, 0.5))
    reader = PageReader()
    reader.feed(html_page([placed], dataset))
    content = base64.b64decode(reader.sources[0].partition(",")[2])
    pixels = np.asarray(PIL.Image.open(io.BytesIO(content))).astype(int)
    assert 100 < pixels.shape[0] <= 220
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    assert ((red > 180) & (green > 140) & (blue < 100)).sum() > 200
    assert ((red > 200) & (green > 200) & (blue > 200)).sum() > 100


def test_a_box_at_the_border_and_a_tiny_one_can_be_shown(build: Build):
    dataset = build(clean_content())
    boxes = [(0.0, 0.0, 240.0, 160.0), (239.0, 159.0, 240.0, 160.0), (5.0, 5.0, 5.2, 5.1)]
    errors = [LabelError("missing", 0.5, 0, None, Suggestion(box, 0, 0.5)) for box in boxes]
    reader = PageReader()
    reader.feed(html_page(errors, dataset))
    assert len(reader.sources) == 3


@pytest.fixture(scope="module")
def checkpoint(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that has hardly learnt anything."""
    from retina.experiment import build_experiment, load_experiment

    folder = tmp_path_factory.mktemp("run")
    changes = [f"output_dir={folder}", "training.epochs=1"]
    build_experiment(load_experiment(tiny_config, changes), quiet=True).trainer.run()
    return folder / "checkpoints" / "last.safetensors"


def test_several_checkpoints_are_averaged(checkpoint: Path):
    artifact = load_artifact(checkpoint)
    louder = replace(
        artifact,
        state_dict={
            name: tensor + (1.0 if name.endswith("bias") else 0.0)
            for name, tensor in artifact.state_dict.items()
        },
    )
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    first, second, both = (
        AveragedDetector(artifacts, device=torch.device("cpu"), precision="fp32")(image)
        for artifacts in ([artifact], [louder], [artifact, louder])
    )
    assert not torch.equal(first.probabilities, second.probabilities)
    mean = (first.probabilities + second.probabilities) / 2
    torch.testing.assert_close(both.probabilities, mean)
    assert torch.equal(both.anchors, first.anchors)


@pytest.mark.parametrize("part", ["classification", "box_regression"])
def test_a_diverged_detector_is_refused(checkpoint: Path, part: str):
    artifact = load_artifact(checkpoint)
    name = f"head.{part}.output.bias"
    broken = torch.full_like(artifact.state_dict[name], float("nan"))
    diverged = replace(artifact, state_dict={**artifact.state_dict, name: broken})
    detector = AveragedDetector([diverged], device=torch.device("cpu"), precision="fp32")
    with pytest.raises(UserError, match=r"not finite \(in an image of 60 × 90.*diverged"):
        detector(np.zeros((60, 90, 3), dtype=np.uint8))


def test_detectors_of_different_input_are_refused(checkpoint: Path):
    artifact = load_artifact(checkpoint)
    preprocess = artifact.config.preprocess.model_copy(update={"min_size": 32})
    other = replace(artifact, config=artifact.config.model_copy(update={"preprocess": preprocess}))
    with pytest.raises(UserError, match="differ in their preprocess"):
        AveragedDetector([artifact, other], device=torch.device("cpu"), precision="fp32")
