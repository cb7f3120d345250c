"""Malformed files by the thousand: each is read, or refused with one message; none hangs.

The usual run takes a share of the cases; `scripts/test.sh --all` takes all of them. The cases are
the same in every run.
"""

from __future__ import annotations

import copy
import faulthandler
import io
import json
import signal
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from retina.artifact import Artifact, load_artifact, make_artifact
from retina.datasets import CsvConfig, YoloConfig
from retina.datasets.coco_results import read_results
from retina.datasets.formats import format_called
from retina.datasets.formats.coco import read_coco_ground_truth
from retina.datasets.images import decode_image, read_header
from retina.datasets.sources import find_source
from retina.errors import RunError, UserError
from retina.experiment import load_experiment
from retina.modeling.config import ModelConfig
from retina.modeling.loading import read_state_dict
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.structures import Categories
from retina.training.checkpoint import TrainingState, load_state
from tests.conftest import Invoke  # type: ignore[import-not-found]
from tests.reading import read_coco, read_voc  # type: ignore[import-not-found]

CASES = {
    "coco structure": 5500,
    "coco bytes": 2500,
    "results": 2000,
    "voc": 1500,
    "yolo": 1500,
    "csv": 1500,
    "labelme": 1500,
    "cvat": 1500,
    "via": 1500,
    "via csv": 1000,
    "yaml": 2500,
    "overrides": 2000,
    "images": 4000,
    "detectors": 2000,
    "training states": 1500,
    "state dicts": 1000,
}
"""How many cases of each kind the whole run takes."""

SHARE = 0.1
"""Of them that the usual run takes."""

SECONDS = 30
"""What a single case may take; the slowest took under 2 s when this was written."""

shares = pytest.mark.parametrize(
    "share", [pytest.param(SHARE, id="share"), pytest.param(1.0, id="all", marks=pytest.mark.slow)]
)
counted: dict[float, Counter[str]] = {SHARE: Counter(), 1.0: Counter()}


class Hung(BaseException):
    """A case took too long; not an Exception, so that nothing takes it for its own."""


@contextmanager
def watchdog() -> Iterator[None]:
    def bite(_: int, frame: FrameType | None) -> None:
        raise Hung(f"took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, bite)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    faulthandler.dump_traceback_later(4 * SECONDS, exit=True)  # for what hangs outside Python
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def hold(case: Callable[[], object]) -> str:
    """Run a case; "read", or "refused". Any other end is an error of the test."""
    with watchdog():
        try:
            case()
        except (UserError, RunError) as error:
            message = str(error)
        else:
            return "read"
    assert message.strip()
    return "refused"


def fuzz(kind: str, share: float, strategy: st.SearchStrategy[Any], case: Any) -> None:
    """Run a case with as many values as its kind takes."""
    wanted, outcomes = round(CASES[kind] * share), Counter[str]()

    @settings(
        max_examples=wanted,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(value: Any) -> None:
        outcomes[hold(lambda: case(value))] += 1

    run()
    counted[share][kind] = outcomes.total()
    print(f"{kind}: {outcomes['refused']} refused, {outcomes['read']} read")
    assert outcomes.total() >= 0.98 * wanted
    assert outcomes["refused"] > 0.1 * wanted


# -- what is put in the place of what ----------------------------------------------------------

ODD_NUMBERS = st.sampled_from(
    (
        *(0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**400, 1e308, -1e308, 1e-320, float("nan")),
        *(float("inf"), float("-inf"), 0.5, True, False),
    )
)
ODD_TEXT = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["", "\0", "\ud800", "../x", "/etc/passwd", "C:\\x", "x" * 5000, "[red]", "$x$", "..", "~"]
    ),
)
ODD = st.one_of(
    st.sampled_from([1, 2, 3, 7, 9, 4.0, -0.0, 59.5, "a.png", "b.png", "cat"]),
    ODD_NUMBERS,
    ODD_TEXT,
    st.none(),
    st.sampled_from([[], {}, [[]], [None], {"": 0}, [0, 0, 0, 0], [1, 2, 3], {"id": 1}]),
)
Change = tuple[list[int], str, Any]
CHANGES = st.lists(
    st.tuples(
        st.lists(st.integers(0, 7), min_size=1, max_size=4),
        st.sampled_from(["put", "put", "put", "remove", "double", "rename", "nest"]),
        ODD,
    ),
    min_size=1,
    max_size=3,
)


def changed(tree: Any, changes: list[Change]) -> Any:
    tree = copy.deepcopy(tree)
    for path, action, value in changes:
        node, parent, key = tree, None, None
        for step in path:
            if isinstance(node, dict) and node:
                parent, key = node, list(node)[step % len(node)]
            elif isinstance(node, list) and node:
                parent, key = node, step % len(node)
            else:
                break
            node = parent[key]
        if parent is None:
            continue
        if action == "put":
            parent[key] = copy.deepcopy(value)
        elif action == "remove":
            del parent[key]
        elif action == "nest":
            parent[key] = [node]
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(node))
        else:
            parent[f"{key}_" if action == "double" else str(value)] = parent.pop(key)
    return tree


ByteChange = tuple[float, str, bytes]
BYTE_CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from(["flip", "flip", "put", "insert", "cut", "truncate", "double"]),
        st.binary(min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=4,
)


def bytes_changed(content: bytes, changes: list[ByteChange], *, within: int | None = None) -> bytes:
    """The content with some bytes changed, in its first ``within`` bytes."""
    data = bytearray(content)
    for place, action, value in changes:
        size = len(data) if within is None else min(within, len(data))
        at = min(int(place * size), max(0, size - 1))
        if action == "flip" and data:
            data[at] ^= 1 << (value[0] % 8)
        elif action == "put":
            data[at : at + len(value)] = value
        elif action == "insert":
            data[at:at] = value
        elif action == "cut":
            del data[at : at + 1 + value[0]]
        elif action == "truncate":
            del data[int(place * len(data)) :]
        else:
            data[at:at] = data[at : at + 1 + value[0]]
    return bytes(data)


# -- annotations -------------------------------------------------------------------------------

COCO: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "a.png", "height": 40, "width": 60},
        {"id": 3, "file_name": "b.png", "height": 40, "width": 60},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 9, "bbox": [10, 5, 20, 10], "area": 200},
        {"id": 2, "image_id": 3, "category_id": 2, "bbox": [0, 0.5, 9, 9], "iscrowd": 1},
        {"id": 3, "image_id": 3, "category_id": 9, "bbox": [1, 2, 3, 4], "occluded_fraction": 0.5},
    ],
    "categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}],
}
RESULTS = [
    {"image_id": 7, "category_id": 9, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5},
    {"image_id": 3, "category_id": 2, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.25},
]
VOC = (
    "<annotation><filename>a.png</filename><size><width>60</width><height>40</height><depth>3"
    "</depth></size><object><name>dog</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2"
    "</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"
)


@dataclass(frozen=True)
class Folder:
    """Two images, and a place for a file."""

    images: Path
    path: Path

    def read_coco(self, content: bytes) -> None:
        self.path.write_bytes(content)
        dataset = read_coco(self.images, self.path, cache_images=True, cache_limit_gb=1e-5)
        assert dataset.report.num_images == len(dataset)
        dataset.ground_truth()
        dataset.class_counts()
        for index in range(len(dataset)):
            dataset.load(index)
        read_coco_ground_truth(self.path)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(images / name), np.full((40, 60, 3), 90, np.uint8))
    return Folder(images, tmp_path / "file")


@shares
def test_coco_files_of_another_structure(folder: Folder, share: float) -> None:
    def case(changes: list[Change]) -> None:
        folder.read_coco(json.dumps(changed(COCO, changes)).encode())

    fuzz("coco structure", share, CHANGES, case)


@shares
def test_coco_files_with_other_bytes(folder: Folder, share: float) -> None:
    text = json.dumps(COCO).encode()
    fuzz("coco bytes", share, BYTE_CHANGES, lambda c: folder.read_coco(bytes_changed(text, c)))


@shares
def test_results_files(folder: Folder, share: float) -> None:
    folder.path.write_text(json.dumps(COCO))
    truth = read_coco_ground_truth(folder.path)

    def case(change: list[Change] | list[ByteChange]) -> None:
        if isinstance(change[0][0], float):
            content = bytes_changed(json.dumps(RESULTS).encode(), change)  # type: ignore[arg-type]
        else:
            content = json.dumps(changed(RESULTS, change)).encode()  # type: ignore[arg-type]
        folder.path.write_bytes(content)
        read_results(folder.path, truth)

    fuzz("results", share, st.one_of(CHANGES, BYTE_CHANGES), case)


VOC_VALUES = ["60", "40", "dog", "30", ">1<", ">2<", "a.png", "<bndbox>", "</object>"]


@shares
def test_voc_files(folder: Folder, tmp_path: Path, share: float) -> None:
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    values = st.tuples(st.sampled_from(VOC_VALUES), ODD.map(str))

    def case(change: Any) -> None:
        text = VOC.replace(*change) if isinstance(change, tuple) else VOC
        content = text.encode(errors="surrogatepass")
        if isinstance(change, list):
            content = bytes_changed(content, change)
        (annotations / "a.xml").write_bytes(content)
        dataset = read_voc(folder.images, annotations)
        dataset.ground_truth()
        dataset.load(0)

    fuzz("voc", share, st.one_of(BYTE_CHANGES, values), case)


YOLO_FILES = {
    "data.yaml": "path: .\ntrain: images\nval: [list.txt]\nnc: 2\nnames: {0: cat, 1: dog}\n",
    "list.txt": "./images/a.png\nimages/b.png\n",
    "labels/a.txt": "0 0.5 0.5 0.2 0.4\n1 0.1 0.1 0.5 0.1 0.5 0.9\n",
}
YOLO_VALUES = [
    "path: .",
    "images",
    "[list.txt]",
    "2",
    "0: cat",
    "dog",
    "0.5",
    "a.png",
    "0 0.5",
    "\n",
]


@shares
def test_yolo_files(folder: Folder, tmp_path: Path, share: float) -> None:
    (tmp_path / "labels").mkdir()
    values = st.tuples(st.sampled_from(YOLO_VALUES), ODD.map(str))

    def case(change: tuple[str, Any]) -> None:
        name, how = change
        for file, text in YOLO_FILES.items():
            (tmp_path / file).write_text(text)
        text = YOLO_FILES[name]
        content = (text.replace(*how) if isinstance(how, tuple) else text).encode(
            errors="surrogatepass"
        )
        changed_to = bytes_changed(content, how) if isinstance(how, list) else content
        (tmp_path / name).write_bytes(changed_to)
        for split in YoloConfig.splits_of(tmp_path / "data.yaml").values():
            dataset = split.build()
            dataset.ground_truth()
            dataset.load(0)
        YoloConfig(images=folder.images, annotations=tmp_path / "labels").build()

    changes = st.one_of(BYTE_CHANGES, values)
    fuzz("yolo", share, st.tuples(st.sampled_from(list(YOLO_FILES)), changes), case)


CSV = (
    "filename,width,height,class,xmin,ymin,xmax,ymax,split\na.png,60,40,cat,1,2,30,40,train\n"
    'b,60,40,"dog, big",5,6,20,30,val\n'
)
CSV_VALUES = ["filename", "60", "class", "xmin", ",", "\n", '"', "cat", "30", "a.png", "train", "b"]


@shares
def test_csv_files(folder: Folder, tmp_path: Path, share: float) -> None:
    path = tmp_path / "boxes.csv"
    values = st.tuples(st.sampled_from(CSV_VALUES), ODD.map(str))

    def case(how: Any) -> None:
        text = CSV.replace(*how) if isinstance(how, tuple) else CSV
        content = text.encode(errors="surrogatepass")
        path.write_bytes(bytes_changed(content, how) if isinstance(how, list) else content)
        CsvConfig.splits_of(path)
        dataset = CsvConfig(images=folder.images, annotations=path).build()
        dataset.ground_truth()
        dataset.load(0)

    fuzz("csv", share, st.one_of(BYTE_CHANGES, values), case)


LABELME: dict[str, Any] = {
    "version": "5.5.0",
    "shapes": [
        {"label": "dog", "points": [[1, 2], [30, 40]], "shape_type": "rectangle", "group_id": None},
        {"label": "dog", "points": [[1, 2], [3, 4]], "shape_type": "circle", "flags": {}},
        {"label": "cat", "points": [[1, 2], [3, 4], [3, 9]], "shape_type": None, "group_id": 1},
    ],
    "imagePath": "a.png",
    "imageHeight": 40,
    "imageWidth": 60,
}
CVAT = (
    "<annotations><meta><task><labels><label><name>dog</name></label></labels></task></meta>"
    '<image name="a.png" width="60" height="40"><box label="dog" xtl="1" ytl="2" xbr="30" ybr="40" '
    'rotation="30" outside="0"/><ellipse label="dog" cx="9" cy="9" rx="4" ry="2"/><polygon '
    'label="cat" points="1,2;3,4;5,9"/><mask label="cat" left="1" top="1" width="4" height="4"/>'
    "</image></annotations>"
)
VIA: dict[str, Any] = {
    "_via_img_metadata": {
        "a.png1": {
            "filename": "a.png",
            "regions": [
                {
                    "shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 9, "height": 9},
                    "region_attributes": {"kind": "dog", "pose": {"left": True}},
                },
                {
                    "shape_attributes": {"name": "polygon", "all_points_x": [1, 9, 4],
                                         "all_points_y": [1, 9, 9]},
                    "region_attributes": {"kind": "cat", "pose": {}},
                },
            ],
        },
    },
    "_via_attributes": {
        "region": {"kind": {"type": "radio", "options": {"dog": "", "cat": ""}}}, "file": {}
    },
}  # fmt: skip
VIA_CSV = (
    "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,"
    'region_attributes\na.png,1,"{}",1,0,"{""name"":""circle"",""cx"":9,""cy"":9,""r"":3}",'
    '"{""kind"":""dog""}"\nb.png,1,"{}",0,0,"{}","{}"\n'
)
OTHERS: dict[str, tuple[str, Any]] = {
    "labelme": ("a.json", LABELME),
    "cvat": ("a.xml", CVAT),
    "via": ("a.json", VIA),
    "via csv": ("a.csv", VIA_CSV),
}
OTHER_VALUES = [*VOC_VALUES, "cat", "rect", "kind", "a.png", "1,2;3,4", "circle", '""cx""', "9"]


@pytest.mark.parametrize("kind", OTHERS)
@shares
def test_files_of_other_formats(folder: Folder, tmp_path: Path, share: float, kind: str) -> None:
    name, content = OTHERS[kind]
    path = tmp_path / name
    values = st.tuples(st.sampled_from(OTHER_VALUES), ODD.map(str))

    def case(change: Any) -> None:
        if isinstance(content, str) and isinstance(change, tuple):
            written = content.replace(*change).encode(errors="surrogatepass")
        elif isinstance(change, list) and isinstance(change[0][0], float):
            text = content if isinstance(content, str) else json.dumps(content)
            written = bytes_changed(text.encode(), change)
        else:
            written = json.dumps(changed(content, change)).encode()
        path.write_bytes(written)
        find_source(path, images=folder.images)
        find_source(tmp_path)
        dataset = format_called(kind.split()[0])(images=folder.images, annotations=path).build()
        dataset.ground_truth()
        dataset.load(0)

    strategies = (BYTE_CHANGES, values if isinstance(content, str) else CHANGES)
    fuzz(kind, share, st.one_of(*strategies), case)


# -- configs -----------------------------------------------------------------------------------

CONFIG = """
seed: 3
device: cpu
output_dir: runs/x
dataset:
  train: {images: a, annotations: b.json, classes: [cat, dog]}
  validation: {kind: concatenated, parts: [{images: a, annotations: b}, {kind: voc, images: a, annotations: b}]}
augmentation: {preset: flip, transforms: [{name: HorizontalFlip, p: 0.5}]}
loader: {timeout: 10, unreadable_images: skip}
model:
  backbone: {kind: resnet, name: resnet18, norm: frozen}
  pyramid: {channels: 16}
  head: {num_convs: 1}
  anchors: {sizes: [16, 32, 64, 128, 256]}
objective: {classification: {kind: focal, alpha: 0.25, gamma: 2.0}}
optimizer: {kind: adamw, lr: 1e-4}
schedule: {kind: cosine}
training: {epochs: 2, batch_size: 8, precision: fp32}
"""  # noqa: E501 - as a user may write it
YAML_PARTS = st.sampled_from(
    (
        *(
            "&a ",
            "*a",
            "!!python/object:os.system ",
            "!!binary ",
            "<<: *a",
            "? ",
            "- ",
            "[",
            "]",
            "{",
        ),
        *("}", "'", '"', "|\n", ">\n", "%", "@", "`", "\t", ": ", "#", "\0", "~", "1e999", ".nan"),
        *(
            "!!set ",
            "!!int ",
            "!!float ",
            "!!bool ",
            "---\n",
            "...\n",
            "\u2028",
            "\ufeff",
            "\ud800",
        ),
        *("extends: ", "preset: paper\n", "kind: ", "0x1F", "9" * 5000, "\\", '"\\0"', '"\\ud800"'),
    )
)


@shares
def test_yaml_files(tmp_path: Path, share: float) -> None:
    path, tree = tmp_path / "config.yaml", yaml.safe_load(CONFIG)
    inserts = st.lists(st.tuples(st.floats(0, 1), YAML_PARTS), min_size=1, max_size=4)

    def case(change: tuple[str, Any]) -> None:
        how, changes = change
        if how == "structure":
            text = yaml.safe_dump(changed(tree, changes))
            path.write_bytes(text.encode(errors="surrogatepass"))
        elif how == "bytes":
            path.write_bytes(bytes_changed(CONFIG.encode(), changes))
        else:
            text = CONFIG
            for place, part in changes:
                at = int(place * len(text))
                text = text[:at] + part + text[at:]
            path.write_bytes(text.encode(errors="surrogatepass"))
        load_experiment(path, [])

    either = st.one_of(
        st.tuples(st.just("structure"), CHANGES),
        st.tuples(st.just("bytes"), BYTE_CHANGES),
        st.tuples(st.just("inserts"), inserts),
    )
    fuzz("yaml", share, either, case)


KEYS = st.sampled_from(
    (
        *(
            "seed",
            "device",
            "output_dir",
            "dataset",
            "dataset.train",
            "dataset.train.images",
            "kind",
        ),
        *("dataset.validation.parts.0.images", "dataset.validation.parts.9", "preset", "extends"),
        *("augmentation.transforms.0.p", "augmentation.transforms.0", "augmentation.multi_scale"),
        *("model", "model.backbone.kind", "model.backbone.name", "model.anchors.sizes", "model.x"),
        *("objective.classification.kind", "objective.classification.alpha", "optimizer.kind"),
        *("optimizer", "optimizer.lr", "schedule.kind", "training.epochs", "sampling", "", "."),
        *("loader.timeout", "loader.unreadable_images", "a.b.c", ".".join("a" * 400), "0", "\0"),
    )
)


@shares
def test_overrides(tmp_path: Path, share: float) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    values = st.one_of(
        ODD_NUMBERS.map(str),
        ODD_TEXT,
        YAML_PARTS,
        ODD.map(lambda value: yaml.safe_dump(value, default_flow_style=True)),
        st.sampled_from(["{kind: x}", "{kind: [1]}", "[" * 99, "{a: " * 99, "&a [*a]", "null"]),
    )

    def case(overrides: list[tuple[str, str, str]]) -> None:
        load_experiment(path, [f"{key}{equals}{value}" for key, equals, value in overrides])

    one = st.tuples(KEYS, st.sampled_from(["=", "=", "=", "=", "", "=="]), values)
    fuzz("overrides", share, st.lists(one, min_size=1, max_size=3), case)


# -- images ------------------------------------------------------------------------------------


def encoded_images() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    pixels = cv2.blur(pixels, (7, 7))
    contents = []
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, options in [
        ("JPEG", {"exif": exif}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {}),
        ("WEBP", {}),
        ("PPM", {}),
        ("JPEG2000", {}),
    ]:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        contents.append(buffer.getvalue())
    for suffix, samples in [
        (".png", pixels.astype(np.uint16) * 257),
        (".tiff", pixels.astype(np.float32)),
        (".tiff", pixels.astype(np.uint16)),
    ]:
        contents.append(cv2.imencode(suffix, samples)[1].tobytes())
    for mode in ("P", "LA", "CMYK", "1", "I;16"):
        buffer = io.BytesIO()
        other = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)
        other.save(buffer, "TIFF" if mode == "CMYK" else "PNG")
        contents.append(buffer.getvalue())
    return contents


@shares
def test_image_files(tmp_path: Path, share: float) -> None:
    path, contents = tmp_path / "image", encoded_images()
    for content in contents:
        path.write_bytes(content)
        assert decode_image(path).shape in [(24, 36, 3), (36, 24, 3)]

    def case(change: tuple[int, int | None, list[ByteChange]]) -> None:
        which, within, changes = change
        path.write_bytes(bytes_changed(contents[which], changes, within=within))
        refusal = None
        try:
            image = decode_image(path)
            assert image.dtype == np.uint8
            assert image.shape[2] == 3
        except UserError as error:
            refusal = error
        read_header(path)
        if refusal is not None:
            raise refusal

    which = st.integers(0, len(contents) - 1)
    fuzz("images", share, st.tuples(which, st.sampled_from([40, 200, None]), BYTE_CHANGES), case)


# -- checkpoints -------------------------------------------------------------------------------


def small_detector(path: Path) -> bytes:
    """A detector file whose weights are left out but for two: all that is read before they fit."""
    model = ModelConfig.model_validate_json(
        '{"backbone": {"kind": "resnet", "name": "resnet18"}, "pyramid": {"channels": 16},'
        '"head": {"num_convs": 0}}'
    )
    whole = make_artifact(
        model.build(2),
        model=model,
        preprocess=PreprocessConfig(),
        postprocess=PostprocessConfig(),
        categories=Categories.from_names(["cat", "dog"]),
        training={"step": 3},
    )
    some = dict(list(whole.state_dict.items())[-2:])
    Artifact(whole.config, some, whole.training).save(path)
    return path.read_bytes()


@shares
def test_detector_files(tmp_path: Path, share: float) -> None:
    path = tmp_path / "detector.safetensors"
    content = small_detector(path)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    about = json.loads(header["__metadata__"]["retina"])

    def case(change: tuple[str, Any]) -> None:
        how, changes = change
        if how == "bytes":
            path.write_bytes(bytes_changed(content, changes, within=length + 8))
        else:
            tree = copy.deepcopy(header)
            if how == "header":
                tree = changed(tree, changes)
            else:
                tree["__metadata__"]["retina"] = json.dumps(changed(about, changes))
            text = json.dumps(tree).encode()
            path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
        artifact = load_artifact(path)
        with pytest.raises(UserError, match="do not fit"):
            artifact.build_detector()

    either = st.one_of(
        st.tuples(st.just("bytes"), BYTE_CHANGES),
        st.tuples(st.just("header"), CHANGES),
        st.tuples(st.just("description"), CHANGES),
    )
    fuzz("detectors", share, either, case)


def repacked(archive: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """An archive of ``torch.save`` with other records, whose checksums are right again."""
    content = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as source,
        zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as file,
    ):
        for name in source.namelist():
            file.writestr(name, change(name, source.read(name)))
    return content.getvalue()


def pickle_changed(archive: bytes, changes: list[ByteChange]) -> bytes:
    return repacked(
        archive, lambda name, data: bytes_changed(data, changes) if name.endswith(".pkl") else data
    )


ODD_FIELDS = st.one_of(ODD_NUMBERS.filter(lambda n: abs(n) < 2**63 or n != n), ODD_TEXT, ODD)


@shares
def test_training_states(tmp_path: Path, share: float) -> None:
    path = tmp_path / "last.pt"
    kinds: dict[str, Any] = {"step": 3, "steps_per_epoch": 5, "is_evaluated": True}
    fields = {name: kinds.get(name, {}) for name in TrainingState.__slots__}
    fields |= {"config": "seed: 3", "dataset": "0", "best_metric": 0.5}
    fields |= {"detector": {"weight": torch.zeros(3)}, "generators": [{}]}
    fields |= {"format_version": TrainingState.__dataclass_fields__["format_version"].default}
    content = io.BytesIO()
    torch.save(fields, content)
    path.write_bytes(content.getvalue())
    assert load_state(path).step == 3

    def case(change: tuple[str, Any]) -> None:
        how, changes = change
        if how == "bytes":
            path.write_bytes(bytes_changed(content.getvalue(), changes))
        elif how == "pickle":
            path.write_bytes(pickle_changed(content.getvalue(), changes))
        else:
            other = io.BytesIO()
            torch.save({**fields, **dict(changes)}, other)
            path.write_bytes(other.getvalue())
        state = load_state(path)
        assert isinstance(state.step, int)
        assert isinstance(state.detector, dict)
        assert isinstance(state.config, str)

    names = st.sampled_from(TrainingState.__slots__)
    either = st.one_of(
        st.tuples(st.just("bytes"), BYTE_CHANGES),
        st.tuples(st.just("pickle"), BYTE_CHANGES),
        st.tuples(st.just("fields"), st.lists(st.tuples(names, ODD_FIELDS), min_size=1)),
    )
    fuzz("training states", share, either, case)


@shares
def test_state_dicts(tmp_path: Path, share: float) -> None:
    path = tmp_path / "weights.pt"
    modern, legacy = io.BytesIO(), io.BytesIO()
    weights = {"model": {"a.weight": torch.zeros(3, 4), "a.bias": torch.zeros(3).half()}}
    torch.save(weights, modern)
    torch.save(weights, legacy, _use_new_zipfile_serialization=False)

    def case(change: tuple[str, list[ByteChange]]) -> None:
        how, changes = change
        if how == "legacy":
            path.write_bytes(bytes_changed(legacy.getvalue(), changes))
        elif how == "bytes":
            path.write_bytes(bytes_changed(modern.getvalue(), changes))
        else:
            path.write_bytes(pickle_changed(modern.getvalue(), changes))
        assert read_state_dict(path)

    either = st.tuples(st.sampled_from(["legacy", "bytes", "pickle"]), BYTE_CHANGES)
    fuzz("state dicts", share, either, case)


# -- over all ----------------------------------------------------------------------------------


@shares
def test_the_count(share: float) -> None:
    """Comes last: says and checks how many cases there were, where all the tests above ran."""
    total = counted[share].total()
    print(f"{total} malformed files and overrides: {dict(counted[share])}")
    if counted[share].keys() == CASES.keys():
        assert total >= round(0.98 * share * sum(CASES.values()))
    if share == 1.0:
        assert sum(CASES.values()) >= 0.98 * 20_000


def test_a_sample_through_the_command_line(
    invoke: Invoke, folder: Folder, tmp_path: Path, synthetic_data: Path
) -> None:
    """The exit code is one of those that are documented, and no traceback is shown."""
    generator = np.random.default_rng(0)
    annotations = json.dumps(COCO).encode()
    detector = small_detector(tmp_path / "whole.safetensors")
    image = encoded_images()[0]
    config = tmp_path / "config.yaml"
    (tmp_path / "truth.json").write_text(json.dumps(COCO))
    for number in range(12):
        changes = [
            (float(generator.random()), ("flip", "cut", "truncate")[number % 3], bytes([number]))
            for _ in range(3)
        ]
        folder.path.write_bytes(bytes_changed(annotations, changes))
        (tmp_path / "d.safetensors").write_bytes(bytes_changed(detector, changes, within=2000))
        (tmp_path / "i.jpg").write_bytes(bytes_changed(image, changes))
        (tmp_path / "r.json").write_bytes(bytes_changed(json.dumps(RESULTS).encode(), changes))
        config.write_bytes(bytes_changed(CONFIG.encode(), changes))
        commands: list[list[str | Path]] = [
            ["data", "check", "--images", folder.images, "--annotations", folder.path],
            ["data", "stats", "--images", folder.images, "--annotations", folder.path],
            ["predict", tmp_path / "d.safetensors", tmp_path / "i.jpg", "--output", tmp_path / "o"],
            ["evaluate", "--detections", tmp_path / "r.json", "--annotations", "truth.json"],
            ["train", config, f"output_dir={tmp_path / 'run'}"],
        ]
        for command in commands:
            done = invoke(*command)
            assert done.code in (0, 1, 2), (command, done.err)
            assert "Traceback" not in done.err
            assert done.code != 2 or done.err.startswith("error: ")
