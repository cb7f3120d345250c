from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from retina.datasets.synthetic import CATEGORIES, generate_dataset
from retina.datasets.synthetic.painter import LEAST_SIDE, LEAST_VISIBLE, Painter
from retina.datasets.synthetic.planning import BLOCK, image_generator, plan_block
from retina.datasets.synthetic.scene import paint_scene
from retina.datasets.synthetic.shapes import OBJECTS, rasterise
from retina.errors import RunError, UserError


def digest_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def read(folder: Path, split: str) -> dict:
    return json.loads((folder / split / "annotations.json").read_text())


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "set"
    generate_dataset(folder, num_images=40, num_validation_images=20, seed=3)
    return folder


# ---- the same bytes ----------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    generate_dataset(tmp_path / "here", num_images=12, num_validation_images=3, seed=3)
    program = (
        "import sys, cv2; from retina.datasets.synthetic import generate_dataset; "
        "cv2.setNumThreads(1); generate_dataset("
        "sys.argv[1], num_images=12, num_validation_images=3, seed=3)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    command = [sys.executable, "-c", program, str(tmp_path / "there")]
    subprocess.run(command, check=True, env=environment)
    assert digest_of(tmp_path / "there") == digest_of(tmp_path / "here")


def test_another_seed_gives_other_pictures(generated: Path, tmp_path: Path) -> None:
    generate_dataset(tmp_path / "other", num_images=4, num_validation_images=4, seed=4)
    for split in ("train", "validation"):
        for index in range(4):
            name = f"{split}/images/{index:06d}.jpg"
            assert (tmp_path / "other" / name).read_bytes() != (generated / name).read_bytes()


def test_a_smaller_set_is_the_beginning_of_a_larger_one(generated: Path, tmp_path: Path) -> None:
    generate_dataset(tmp_path / "small", num_images=7, num_validation_images=3, seed=3)
    for split, count in (("train", 7), ("validation", 3)):
        for index in range(count):
            name = f"{split}/images/{index:06d}.jpg"
            assert (tmp_path / "small" / name).read_bytes() == (generated / name).read_bytes()
        few, many = read(tmp_path / "small", split), read(generated, split)
        assert few["annotations"] == many["annotations"][: len(few["annotations"])]


def test_train_and_validation_share_no_picture(generated: Path) -> None:
    digests = [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in generated.rglob("images/*.jpg")
    ]
    assert len(digests) == 60
    assert len(set(digests)) == 60


# ---- the make-up, computed from the written files ----------------------------------------------


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_shares_that_make_it_an_exercise(generated: Path, split: str) -> None:
    content = read(generated, split)
    boxes = [entry for entry in content["annotations"] if entry["iscrowd"] == 0]
    per_class = np.bincount([entry["category_id"] for entry in boxes], minlength=18)
    per_class = per_class[list(CATEGORIES.dataset_ids)]
    assert per_class.min() >= 3 * len(content["images"]) // BLOCK
    assert per_class.max() >= 20 * per_class.min()
    small = np.mean([entry["bbox"][2] * entry["bbox"][3] < 32**2 for entry in boxes])
    assert 0.3 <= small <= 0.6
    hidden = np.mean([entry["occluded_fraction"] >= 0.1 for entry in boxes])
    assert 0.2 <= hidden <= 0.5
    assert max(max(entry["bbox"][2:]) for entry in boxes) >= 110
    crowds = [entry for entry in content["annotations"] if entry["iscrowd"] == 1]
    assert len(crowds) == 2 * len(content["images"]) // BLOCK
    used = {entry["image_id"] for entry in content["annotations"]}
    empty = [image for image in content["images"] if image["id"] not in used]
    assert len(empty) >= len(content["images"]) // BLOCK


def test_every_planned_object_finds_a_place() -> None:
    for place, plan in enumerate(plan_block(11, "train", block=2)):
        scene = paint_scene(image_generator(11, "train", 2 * BLOCK + place), plan)
        labels = sorted(thing.label for thing in scene.objects if not thing.is_crowd)
        assert labels == sorted(plan.labels)
        assert scene.image.shape == (*plan.size, 3)


# ---- the files ---------------------------------------------------------------------------------


def test_category_ids_have_gaps_and_names_are_unique(generated: Path) -> None:
    categories = read(generated, "train")["categories"]
    ids = [category["id"] for category in categories]
    assert len(ids) == len(set(ids)) == 10
    assert ids != list(range(min(ids), min(ids) + 10))
    assert [category["name"] for category in categories] == list(CATEGORIES.names)
    assert read(generated, "validation")["categories"] == categories


@pytest.mark.parametrize("split", ["train", "validation"])
def test_pictures_and_boxes_agree_with_the_file(generated: Path, split: str) -> None:
    content = read(generated, split)
    sizes = {}
    for image in content["images"]:
        picture = cv2.imread(str(generated / split / "images" / image["file_name"]))
        assert picture.shape == (image["height"], image["width"], 3)
        sizes[image["id"]] = (image["width"], image["height"])
    assert len(set(sizes.values())) == 3
    for entry in content["annotations"]:
        x, y, width, height = entry["bbox"]
        assert x >= 0
        assert y >= 0
        assert min(width, height) >= LEAST_SIDE
        assert x + width <= sizes[entry["image_id"]][0]
        assert y + height <= sizes[entry["image_id"]][1]
        assert 0 < entry["area"] <= width * height
        assert 0 <= entry["occluded_fraction"] <= 1 - LEAST_VISIBLE
    ids = [entry["id"] for entry in content["annotations"]]
    assert ids == list(range(1, len(ids) + 1))


def test_pycocotools_reads_it(generated: Path) -> None:
    coco = COCO(str(generated / "train" / "annotations.json"))
    assert len(coco.getImgIds()) == 40
    assert coco.getCatIds() == list(CATEGORIES.dataset_ids)
    assert len(coco.getAnnIds(iscrowd=True)) == 4


# ---- boxes are what was drawn ------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("size", [15.0, 31.5, 120.0])
def test_the_box_of_a_lone_object_bounds_its_pixels(
    monkeypatch: pytest.MonkeyPatch, name: str, size: float
) -> None:
    # One plain colour: how far a pixel has changed then says how much of it is covered.
    monkeypatch.setattr(
        "retina.datasets.synthetic.painter.filling",
        lambda rng, extent, color: np.broadcast_to(color, (*extent, 3)).astype(np.float32),
    )
    monkeypatch.setattr(Painter, "_rim", lambda self, coverage: np.ones(coverage.shape))
    rng = np.random.default_rng([len(name), int(size)])
    coverage = rasterise(OBJECTS[name](rng), size=size, angle=0.7, aspect=1.2)
    painter = Painter(rng, np.full((200, 220, 3), 128, np.float32))
    before = painter.pixels.copy()
    painter._cast_shadow = lambda *_: None  # its shadow is no part of an object
    assert painter.paint_object(coverage, (40, 50), label=2)
    changed = np.abs(painter.pixels - before).sum(axis=2)
    rows, columns = np.nonzero(changed >= changed.max() * 0.5)
    (thing,) = painter.annotate()
    assert thing.box[0] == pytest.approx(columns.min(), abs=1)
    assert thing.box[1] == pytest.approx(rows.min(), abs=1)
    assert thing.box[0] + thing.box[2] == pytest.approx(columns.max() + 1, abs=1)
    assert thing.box[1] + thing.box[3] == pytest.approx(rows.max() + 1, abs=1)
    assert thing.area == np.count_nonzero(coverage >= 128)
    assert (thing.occluded_fraction, thing.truncated_fraction) == (0, 0)
    assert max(coverage.shape) <= size + 2


def blank_painter(size: tuple[int, int] = (100, 120)) -> Painter:
    return Painter(np.random.default_rng(0), np.full((*size, 3), 90, np.float32))


def test_an_object_that_would_lie_mostly_outside_is_not_painted() -> None:
    painter = blank_painter()
    block = np.full((40, 30), 255, np.uint8)
    assert not painter.paint_object(block, (70, 100), label=1)  # 30 × 20 of 40 × 30 inside
    assert painter.annotate() == ()


def test_an_object_hidden_by_a_third() -> None:
    painter = blank_painter()
    block = np.full((40, 30), 255, np.uint8)
    assert painter.paint_object(block, (20, 30), label=0)
    assert painter.paint_object(block, (20, 50), label=1)
    hidden, front = painter.annotate()
    assert hidden.box == (30, 20, 20, 40)
    assert hidden.area == 20 * 40
    assert hidden.occluded_fraction == pytest.approx(1 / 3, abs=1e-12)
    assert front.box == (50, 20, 30, 40)
    assert front.occluded_fraction == 0


def test_an_object_cut_off_by_the_border() -> None:
    painter = blank_painter()
    assert painter.paint_object(np.full((40, 30), 255, np.uint8), (-5, 95), label=0)
    (thing,) = painter.annotate()
    assert thing.box == (95, 0, 25, 35)
    assert thing.truncated_fraction == pytest.approx(1 - 25 * 35 / 1200, abs=1e-12)


def test_nothing_is_painted_that_hides_too_much() -> None:
    painter = blank_painter()
    block = np.full((40, 30), 255, np.uint8)
    assert painter.paint_object(block, (20, 30), label=0)
    before = painter.pixels.copy()
    assert not painter.paint(block, (20, 40), 100)  # 2/3 hidden
    assert not painter.paint_object(block, (20, 22), label=1)  # 22 of 30 columns hidden
    np.testing.assert_array_equal(painter.pixels, before)
    assert painter.paint(block, (20, 48), 100)  # 12 of 30 columns hidden
    assert painter.annotate()[0].occluded_fraction == pytest.approx(0.4, abs=1e-12)


def test_a_crowd_is_one_annotation_around_its_members() -> None:
    painter = blank_painter()
    member = np.full((9, 9), 255, np.uint8)
    painter.paint_crowd([(member, (10, 10)), (member, (14, 15)), (member, (30, 40))], label=5)
    (crowd,) = painter.annotate()
    assert crowd.is_crowd
    assert crowd.label == 5
    assert crowd.box == (10, 10, 39, 29)
    assert crowd.area == 3 * 81 - 5 * 4


def test_rasterised_areas_match_geometry() -> None:
    rng = np.random.default_rng(0)
    disc = rasterise(OBJECTS["disc"](rng), size=60, angle=0, aspect=1)
    assert (disc / 255).sum() == pytest.approx(math.pi * 30**2, rel=0.02)
    triangle = rasterise(OBJECTS["triangle"](rng), size=100, angle=0, aspect=1)
    assert (triangle / 255).sum() == pytest.approx(100 * 87.5 / 2, rel=0.02)
    turned = rasterise(OBJECTS["triangle"](rng), size=100, angle=2.0, aspect=0.8)
    assert max(turned.shape) == pytest.approx(100, abs=2)


# ---- folders -----------------------------------------------------------------------------------


def test_the_same_parameters_again_change_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    first = generate_dataset(folder, num_images=2, num_validation_images=1)
    assert first.outcome == "created"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    second = generate_dataset(folder, num_images=2, num_validation_images=1)
    assert second.outcome == "kept"
    assert second.statistics == first.statistics
    assert first.statistics["train"].num_images == 2
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_other_parameters_replace_our_own_data_set(tmp_path: Path) -> None:
    generate_dataset(tmp_path / "set", num_images=3, num_validation_images=1)
    report = generate_dataset(tmp_path / "set", num_images=2, num_validation_images=1, seed=1)
    generate_dataset(tmp_path / "fresh", num_images=2, num_validation_images=1, seed=1)
    assert report.outcome == "replaced"
    assert digest_of(tmp_path / "set") == digest_of(tmp_path / "fresh")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "train/images/000001.jpg").unlink(),
        lambda folder: (folder / "train/images/000001.jpg").write_bytes(b""),
        lambda folder: shutil.rmtree(folder / "validation"),
        lambda folder: (folder / ".retina-synth-killed/train").mkdir(parents=True),
    ],
    ids=["missing image", "empty image", "missing split", "leftover of a killed run"],
)
def test_an_incomplete_data_set_is_made_whole(tmp_path: Path, damage) -> None:
    folder = tmp_path / "set"
    generate_dataset(folder, num_images=2, num_validation_images=1)
    whole = digest_of(folder)
    damage(folder)
    generate_dataset(folder, num_images=2, num_validation_images=1)
    shutil.rmtree(folder / ".retina-synth-killed", ignore_errors=True)
    assert digest_of(folder) == whole


@pytest.mark.parametrize(
    "foreign", ["notes.txt", "train/annotations.json", "train/images/holiday.jpg"]
)
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, foreign: str) -> None:
    path = tmp_path / foreign
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"info": {"description": "mine"}, "images": []}')
    before = digest_of(tmp_path)
    name = foreign.partition("/")[0]
    with pytest.raises(UserError, match=rf"already holds something else \({name}\).*empty folder"):
        generate_dataset(tmp_path, num_images=2, num_validation_images=1)
    assert digest_of(tmp_path) == before


def test_foreign_files_beside_ours_are_never_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    generate_dataset(folder, num_images=2, num_validation_images=1)
    (folder / "train" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"something else \(train\)"):
        generate_dataset(folder, num_images=3, num_validation_images=1)
    assert (folder / "train" / "notes.txt").read_text() == "mine"


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; give a folder"):
        generate_dataset(tmp_path / "file", num_images=1, num_validation_images=1)
    with pytest.raises(UserError, match=r"cannot write to .*Not a directory"):
        generate_dataset(tmp_path / "file" / "set", num_images=1, num_validation_images=1)


@contextlib.contextmanager
def someone_without_rights() -> Iterator[None]:
    """Root may write everywhere: root's tests become somebody else for a moment."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_no_permission_to_write() -> None:
    # Not in tmp_path, which lies in a folder that only the user who runs the tests may enter.
    with tempfile.TemporaryDirectory() as name:
        closed = Path(name)
        closed.chmod(0o555)
        with (
            someone_without_rights(),
            pytest.raises(UserError, match=r"cannot write to .*/set: Permission denied"),
        ):
            generate_dataset(closed / "set", num_images=1, num_validation_images=1)
        assert list(closed.iterdir()) == []
        closed.chmod(0o755)


def test_a_write_that_fails_midway_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(RunError, match="File too large; nothing was left"):
            generate_dataset(tmp_path / "deep" / "set", num_images=2, num_validation_images=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_midway_leaves_the_old_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    generate_dataset(folder, num_images=2, num_validation_images=1)
    before = digest_of(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(RunError, match="failed"):
            generate_dataset(folder, num_images=2, num_validation_images=1, seed=5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert digest_of(folder) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_images": 0}, "the train split needs at least 1 image, not 0"),
        ({"num_validation_images": -2}, "the validation split needs at least 1 image, not -2"),
        ({"seed": -1}, "the seed must be 0 or more, not -1"),
        ({"sizes": ()}, "no image size was given"),
        ({"sizes": ((256, 256), (64, 256))}, "image size 64 × 256: each side must be 128 to 4096"),
    ],
)
def test_senseless_parameters_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate_dataset(tmp_path / "set", **changes)
    assert not (tmp_path / "set").exists()


def test_progress_is_told_image_by_image(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    generate_dataset(
        tmp_path / "set",
        num_images=2,
        num_validation_images=1,
        on_image=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_image_sizes_are_free(tmp_path: Path) -> None:
    generate_dataset(tmp_path, num_images=2, num_validation_images=1, sizes=((160, 480),))
    sizes = {(image["height"], image["width"]) for image in read(tmp_path, "train")["images"]}
    assert sizes == {(160, 480)}
