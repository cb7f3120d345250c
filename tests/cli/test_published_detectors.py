"""Detectors by name, with weights of random numbers and a server of our own in torchvision's place.

The images are strips: torchvision's 800 to 1333 pixels are then few.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor, nn

import retina
from retina.artifact import load_artifact
from retina.datasets.synthetic import generate_dataset
from retina.errors import UserError
from retina.experiment.parts import _with_advice
from retina.modeling.detector_names import PUBLISHED, PublishedName
from retina.modeling.importers.published import (
    UNUSED,
    fetch_published,
    published,
    published_file,
    published_source,
)
from retina.modeling.loading import LoadReport
from retina.prediction.detectors import taken_for
from retina.structures import Detections
from retina.training.checkpoint import load_state
from tests.conftest import Invoke  # type: ignore[import-not-found]

FILES = {"coco_v1": "retinanet_resnet50_fpn_coco", "coco_v2": "retinanet_resnet50_fpn_v2_coco"}

NOBODY = "http://127.0.0.1:9"
"""An address where nothing listens."""


@dataclass
class Server:
    """Files on 127.0.0.1; of those in ``cut`` so many bytes are sent and no more."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    address: str = ""

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.removeprefix("/")
        self.requests.append(name)
        if name not in self.files:
            handler.send_error(404)
            return
        content = self.files[name]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: self.cut.get(name)])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.respond(self)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server.address = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield server
        listening.shutdown()
        thread.join()


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    # urllib keeps the opener, and with it the proxies, of its first use in a process.
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def named(name: PublishedName, content: bytes) -> str:
    """What torchvision would call a file of that content."""
    return f"{FILES[name]}-{hashlib.sha256(content).hexdigest()[:8]}.pth"


def point_to(monkeypatch: pytest.MonkeyPatch, name: PublishedName, file: str, address: str) -> None:
    """Let torchvision's enum say that a published detector is that file at the address."""
    entry = published(name).weights
    monkeypatch.setattr(entry, "_value_", replace(entry.value, url=f"{address}/{file}"))


@pytest.fixture
def offer(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_proxy: None
) -> Callable[[bytes], str]:
    """Offers coco_v2 with that content, into an empty folder of downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    server.requests.clear()
    server.cut.clear()

    def make(content: bytes) -> str:
        file = named("coco_v2", content)
        point_to(monkeypatch, "coco_v2", file, server.address)
        server.files[file] = content
        return file

    return make


def saved(state_dict: dict[str, Tensor], *, has_checksums: bool = True) -> bytes:
    memory = io.BytesIO()
    torch.save(state_dict, memory, _use_new_zipfile_serialization=has_checksums)
    return memory.getvalue()


SMALL = {"w": torch.arange(3000.0)}


def kept() -> list[str]:
    return sorted(path.name for path in published_file("coco_v2").parent.glob("*"))


def test_a_file_is_fetched_once(offer: Callable[[bytes], str], server: Server) -> None:
    file = offer(saved(SMALL))
    assert torch.equal(fetch_published("coco_v2")["w"], SMALL["w"])
    assert kept() == [file]
    server.files.pop(file)
    assert torch.equal(fetch_published("coco_v2")["w"], SMALL["w"])
    assert server.requests == [file]
    source = published_source("coco_v2")
    assert source.name == "RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1"
    assert source.url == f"{server.address}/{file}"
    assert source.sha256 == hashlib.sha256(saved(SMALL)).hexdigest()


@pytest.mark.parametrize("damage", ["changed", "cut"])
def test_a_damaged_download_is_refused_and_not_kept(
    offer: Callable[[bytes], str], server: Server, invoke: Invoke, damage: str
) -> None:
    content = saved(SMALL)
    file = offer(content)
    if damage == "cut":
        server.cut[file] = 5000
    else:
        server.files[file] = content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
    done = invoke("predict", "coco_v2", "photo.jpg", "--output", "found")
    assert done.code == 2
    (message,) = done.err.splitlines()
    assert message.startswith("error: coco_v2 could not be fetched (what came is damaged or cut")
    assert "try again" in message
    assert f"Fetch {server.address}/{file} elsewhere and put it at {published_file('coco_v2')}" in (
        message
    )
    assert kept() == []
    server.files[file], server.cut = content, {}  # the same command works once it is whole
    fetch_published("coco_v2")


def test_without_the_file_on_the_server_the_address_and_the_place_are_named(
    offer: Callable[[bytes], str], server: Server
) -> None:
    file = offer(saved(SMALL))
    del server.files[file]
    with pytest.raises(UserError, match=r"coco_v2 could not be fetched \(HTTP Error 404") as caught:
        retina.load("coco_v2")
    assert f"{file} elsewhere and put it at {published_file('coco_v2')}" in str(caught.value)
    # What the message says works.
    published_file("coco_v2").write_bytes(saved(SMALL))
    assert torch.equal(fetch_published("coco_v2")["w"], SMALL["w"])


def test_without_a_network_the_message_is_the_same(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_proxy: None
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = named("coco_v1", b"")
    point_to(monkeypatch, "coco_v1", file, NOBODY)
    for command in (
        ("predict", "coco_v1", "photo.jpg", "--output", tmp_path / "found"),
        ("evaluate", "coco_v1", "--data", tmp_path),
        ("loss", "anatomy", "coco_v1", "--data", tmp_path),
        ("data", "suspects", "coco_v1", "--data", tmp_path),
        ("import", "torchvision", "COCO_V1", "--variant", "v1", "--output", "v1.safetensors"),
    ):
        done = invoke(*command)
        assert done.code == 2
        (message,) = done.err.splitlines()
        assert "could not be fetched" in message
        assert f"put it at {tmp_path / 'hub' / 'checkpoints' / file}" in message
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("has_checksums", [True, False], ids=["checksums", "before torch 1.6"])
def test_a_damaged_file_that_lies_there_is_named(
    has_checksums: bool, offer: Callable[[bytes], str], server: Server, invoke: Invoke
) -> None:
    content = saved(SMALL, has_checksums=has_checksums)
    file = offer(content)
    path = published_file("coco_v2")
    path.parent.mkdir(parents=True)
    other = saved({"other": torch.zeros(2)})
    for damaged in (b"", content[:5000], content[:5000] + b"!!" + content[5002:], other):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged, or not the file") as caught:
            fetch_published("coco_v2")
        assert f"coco_v2: {path} is damaged" in str(caught.value)
        found, wanted = hashlib.sha256(damaged).hexdigest()[:8], file[-12:-4]
        assert f"its SHA-256 begins with {found}, not {wanted}. Delete it" in str(caught.value)
    for command in (
        ("predict", "coco_v2", "photo.jpg", "--output", "found"),
        ("import", "torchvision", "COCO_V1", "--variant", "v2", "--output", "v2.safetensors"),
    ):
        done = invoke(*command)
        assert done.code == 2
        (message,) = done.err.splitlines()
        assert f"{path} is damaged, or not the file that was published" in message
    assert server.requests == []
    path.unlink()  # what the message says works
    assert torch.equal(fetch_published("coco_v2")["w"], SMALL["w"])
    assert server.requests == [file]
    assert torch.equal(fetch_published("coco_v2")["w"], SMALL["w"])
    assert server.requests == [file]


def test_a_full_disk_is_no_mistake_of_the_user(
    offer: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(saved(SMALL))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.hub, "download_url_to_file", full)
    with pytest.raises(OSError, match="No space left"):
        fetch_published("coco_v2")


# ---- whole detectors ----


@pytest.fixture(scope="module")
def networks(torchvision_reference: ModuleType) -> dict[str, nn.Module]:
    """torchvision's own networks, with random weights as the published ones are built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision_reference, "NUM_CLASSES", 91)
        networks = {
            name: torchvision_reference.random_torchvision(published(name).variant, seed=1)
            for name in PUBLISHED
        }
    torchvision_reference.with_frozen_norms(networks["coco_v1"], eps=0.0)
    for name, network in networks.items():
        network.transform.min_size, network.transform.max_size = (800,), 1333
        names = published(name).categories
        unused = [label for label, one in enumerate(names) if one in UNUSED]
        logits = network.head.classification_head.cls_logits
        with torch.no_grad():
            logits.bias.sub_(1.0).view(9, 91)[:, unused] = -20.0  # as of what was never seen
    return networks


@pytest.fixture(scope="module")
def files(networks: dict[str, nn.Module], server: Server) -> dict[PublishedName, str]:
    """What the two detectors are called on the server."""
    files = {}
    for name in PUBLISHED:
        content = saved(networks[name].state_dict())
        files[name] = named(name, content)
        server.files[files[name]] = content
    return files


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TORCH_HOME, empty at first."""
    return tmp_path_factory.mktemp("torch")


@pytest.fixture
def can_fetch(
    files: dict[PublishedName, str],
    downloads: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    no_proxy: None,
) -> None:
    """Both detectors are on the server."""
    monkeypatch.setenv("TORCH_HOME", str(downloads))
    for name, file in files.items():
        point_to(monkeypatch, name, file, server.address)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of one picture, a strip, with two boxes; one of the class dog, COCO's id 18."""
    whole = tmp_path_factory.mktemp("whole")
    generate_dataset(whole, num_images=1, num_validation_images=1, seed=2)
    (path,) = (whole / "train" / "images").iterdir()
    folder = tmp_path_factory.mktemp("photos")
    (folder / "images").mkdir()
    PIL.Image.open(path).convert("RGB").resize((400, 260)).crop((0, 100, 400, 109)).save(
        folder / "images" / "strip.png"
    )
    boxes = [
        {"id": 1, "image_id": 7, "category_id": 18, "bbox": [10, 1, 40, 8], "area": 320},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [200, 0, 30, 9], "area": 270},
    ]
    annotations = {
        "images": [{"id": 7, "file_name": "strip.png", "width": 400, "height": 9}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        "annotations": [{**box, "iscrowd": 0} for box in boxes],
    }
    (folder / "annotations.json").write_text(json.dumps(annotations))
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_name_finds_what_torchvision_finds(
    name: PublishedName,
    can_fetch: None,
    networks: dict[str, nn.Module],
    photos: Path,
    torchvision_reference: ModuleType,
) -> None:
    detector = retina.load(name, device="cpu")
    assert len(detector.categories) == 80
    listed = published(name).categories
    ids = detector.categories.dataset_ids
    assert [listed[number] for number in ids] == list(detector.categories.names)
    assert not {*UNUSED} & {*detector.categories.names}
    assert (detector.categories.names[0], ids[0], ids[-1]) == ("person", 1, 90)
    image = torch.from_numpy(np.array(PIL.Image.open(photos / "images" / "strip.png")))
    pixels = image.permute(2, 0, 1).contiguous()
    (expected,) = torchvision_reference.detect_with_torchvision(networks[name], [pixels])
    (found,) = detector.runtime.detect([pixels])
    ours = Detections(found.boxes, found.scores, torch.tensor(ids)[found.labels])
    assert torchvision_reference.differences(ours, expected) == []
    assert len(expected) > 50


def test_predict_and_evaluate_with_nothing_trained(
    invoke: Invoke, can_fetch: None, photos: Path, tmp_path: Path
) -> None:
    picture = photos / "images" / "strip.png"
    done = invoke("predict", "coco_v2", picture, "--output", tmp_path / "found")
    assert done.code == 0, done.err
    told = "coco_v2: torchvision's RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1, COCO's 80 classes"
    assert told in done.out
    rows = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert rows
    listed = published("coco_v2").categories
    assert all(listed[row["category_id"]] == row["category_name"] for row in rows)
    assert (tmp_path / "found" / "strip.jpg").is_file()
    words = ("--data", photos, "--num-workers", "0")
    done = invoke("evaluate", "coco_v2", *words, "--output", tmp_path / "scores")
    assert done.code == 0, done.err
    assert told in done.out
    metrics = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    scored = {row["name"] for row in metrics["per_category"] if row["AP"] is not None}
    assert scored == {"dog", "person"}
    done = invoke("evaluate", "coco_v2")
    assert done.code == 2
    assert "say what to evaluate on" in done.err


def test_a_name_has_a_lab_in_the_working_folder(
    invoke: Invoke,
    can_fetch: None,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("loss", "lab", "coco_v2", "--data", photos, "--num-workers", "0")
    assert done.code == 0, done.err
    assert "coco_v2: torchvision's RetinaNet" in done.out
    assert json.loads((tmp_path / "lab" / "lab.json").read_text())["checkpoint"] == "coco_v2"


def test_the_import_writes_what_the_name_means(
    invoke: Invoke, can_fetch: None, tmp_path: Path
) -> None:
    path = tmp_path / "coco.safetensors"
    done = invoke("import", "torchvision", "COCO_V1", "--variant", "v1", "--output", path)
    assert done.code == 0, done.err
    assert "80 classes" in done.out
    written = load_artifact(path)
    assert len(written.categories) == 80
    assert written.config.model.backbone.norm_eps == 0.0
    raw = fetch_published("coco_v1")["head.classification_head.cls_logits.bias"].view(9, 91)
    kept_bias = written.state_dict["head.classification.output.bias"].view(9, 80)
    assert torch.equal(kept_bias, raw[:, list(written.categories.dataset_ids)])


def test_a_file_of_the_same_name_in_the_working_folder_is_told(
    offer: Callable[[bytes], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(saved(SMALL))
    fetch_published("coco_v2")
    (line,) = taken_for("coco_v2")
    assert line.endswith(f"kept at {published_file('coco_v2')}")
    monkeypatch.chdir(tmp_path)
    Path("coco_v2").touch()
    (line,) = taken_for("coco_v2")
    assert line.endswith("for the file of that name say ./coco_v2")
    assert taken_for(Path("coco_v2")) == []


OF_V2 = (
    "preset=torchvision_v2",
    "model={backbone: {kind: resnet, weights: null}, pyramid: {channels: 256}}",
    "model.head={num_convs: 4, num_groups: 32}",
    "dataset.validation=null",
)


@pytest.mark.slow
def test_a_training_starts_from_a_name_and_resumes_without_it(
    invoke: Invoke,
    can_fetch: None,
    tiny_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    networks: dict[str, nn.Module],
) -> None:
    run = tmp_path / "run"
    done = invoke(
        "train", tiny_config, *OF_V2, "model.initialize_from=coco_v2", f"output_dir={run}",
        "training.max_steps=2", "training.batch_size=2", "training.anatomy_every_steps=null",
        "optimizer={kind: sgd, lr: 1e-6, momentum: 0.0}",  # keeps nothing that would be saved
    )  # fmt: skip
    assert done.code == 0, done.err
    assert re.search(r"coco_v2: \d+ of \d+ weights loaded", done.out)
    left = [line for line in done.out.splitlines() if line.startswith("not ")]
    assert left
    assert all("head.classification.output." in line for line in left)
    assert "is the architecture that fits" not in done.out
    assert "memory_format" not in done.out
    assert "initialize_from: coco_v2" in (run / "config.yaml").read_text()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "elsewhere"))
    point_to(monkeypatch, "coco_v2", named("coco_v2", b""), NOBODY)
    done = invoke("train", run / "config.yaml", "--resume", "training.max_steps=3")
    assert done.code == 0, done.err
    assert load_state(run / "checkpoints" / "last.pt").step == 3
    detector = load_artifact(run / "checkpoints" / "last.safetensors")
    origin = detector.config.pretrained  # found when the run began; the file is elsewhere now
    assert origin is not None
    assert origin.name == "RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1"
    assert origin.sha256 is not None
    assert origin.licence.startswith("BSD-3-Clause")
    trained = detector.state_dict
    theirs = networks["coco_v2"].state_dict()
    for own, name in (
        ("backbone.layer1.0.conv1.weight", "backbone.body.layer1.0.conv1.weight"),
        ("pyramid.fpn.extra_blocks.p6.weight", "backbone.fpn.extra_blocks.p6.weight"),
        ("head.box_regression.output.weight", "head.regression_head.bbox_reg.weight"),
    ):
        assert torch.allclose(trained[own], theirs[name], atol=1e-3), own


def test_a_config_of_another_architecture_hears_which_preset_fits(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    start = (f"output_dir={tmp_path / 'run'}", "model.initialize_from=coco_v2")
    done = invoke("train", tiny_config, *OF_V2, "model.backbone.name=resnet18", *start)
    assert done.code == 2
    (message,) = done.err.splitlines()
    assert "coco_v2 has the backbone resnet50, this config resnet18" in message
    assert "preset: torchvision_v2 has all that fits" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("missing", "advice"),
    [
        (("head.classification.output.weight",), ""),
        (
            ("head.box_regression.convs.0.1.weight",),
            "preset: torchvision_v1 is the architecture that fits all of coco_v1",
        ),
    ],
)
def test_a_start_that_fits_in_part_says_which_preset_fits(
    missing: tuple[str, ...], advice: str
) -> None:
    report = LoadReport(("a",), missing, (), ())
    advised = _with_advice(report, "coco_v1")
    assert advised.advice == advice
    assert advised.describe() == "\n".join([report.describe(), *([advice] if advice else [])])
