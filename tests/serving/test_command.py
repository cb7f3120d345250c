"""``retina serve`` as a user starts it: its answers, what it leaves behind, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from retina.artifact import make_artifact
from retina.modeling.config import ModelConfig
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.prediction.predictor import load
from retina.serving.service import Service
from retina.structures import Categories
from tests.conftest import Invoke, RunRetina  # type: ignore[import-not-found]
from tests.processes import Launched, small_retina  # type: ignore[import-not-found]
from tests.serving.running import (  # type: ignore[import-not-found]
    PATIENCE,
    Answer,
    encoded,
    form,
    running,
    scene,
)
from tests.serving.stuck import serve_stuck  # type: ignore[import-not-found]
from tests.small_detector import small_backbone_listed  # type: ignore[import-not-found]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a detector that has learned nothing, and so finds something everywhere."""
    path: Path = tmp_path_factory.mktemp("detector") / "small.safetensors"
    torch.manual_seed(0)
    with small_backbone_listed():
        model = ModelConfig.model_validate(
            {
                "backbone": {"kind": "small", "norm": "batch"},
                "pyramid": {"channels": 16},
                "head": {"num_convs": 1, "num_groups": 4},
            }
        )
        make_artifact(
            model.build(2),
            model=model,
            preprocess=PreprocessConfig(min_size=64, max_size=96),
            postprocess=PostprocessConfig(score_threshold=0.001, max_detections=20),
            categories=Categories(("disc", "star"), (4, 9)),
        ).save(path)
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("photo") / "secret_name.png"
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(path)
    return path


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def ask(port: int, path: str, body: object = None, kind: str = "image/png") -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        headers = {"Content-Type": kind}
        connection.request("GET" if body is None else "POST", path, body, headers)  # type: ignore[arg-type]
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


@contextmanager
def launched(port: int, process: Launched) -> Iterator[Launched]:
    """A process that answers at a port; it is ended in any case."""
    deadline = time.monotonic() + 2 * PATIENCE
    try:
        while True:
            try:
                assert ask(port, "/health/ready").status == 200
                break
            except ConnectionRefusedError:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield process
    finally:
        process.kill()


def peak_kilobytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1])


def test_it_finds_what_predict_finds_and_keeps_nothing(
    detector: Path, photo: Path, tmp_path: Path, run_retina: RunRetina
) -> None:
    predicted = run_retina(
        *("predict", detector, photo, "--output", tmp_path / "found", "--score-threshold", "0"),
        *("--device", "cpu"),
    )
    assert predicted.returncode == 0, predicted.stderr
    expected = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert len(expected) == 20
    empty = tmp_path / "empty"
    empty.mkdir()
    port = free_port()
    process = Launched(
        small_retina,
        *("serve", str(detector), "--port", str(port), "--device", "cpu"),
        environment={"TMPDIR": str(empty), "HOME": str(empty), "COLUMNS": "40"},
        cwd=empty,
    )
    with launched(port, process):
        data = photo.read_bytes()
        large = encoded(np.zeros((1500, 1500, 3), np.uint8), "BMP")  # 6.75 MB
        raw = ask(port, "/v1/detect?score_threshold=0", data)
        multipart = form(data, file_name=photo.name)
        in_form = ask(port, "/v1/detect?score_threshold=0", *multipart)
        assert ask(port, "/v1/detect", *form(large, file_name=photo.name)).status == 200
        assert ask(port, "/v1/detect", b"no picture").status == 415
        _a_body_of_200_megabytes_is_never_held(port, process.pid)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    rows = [
        {key: row[key] for key in ("image_id", "category_id", "category_name", "bbox", "score")}
        for row in expected
    ]
    for answer in (raw, in_form):
        assert answer.json() == {"detections": rows, "size": {"width": 90, "height": 70}}
    assert process.returncode == 130
    assert out == (
        f"small.safetensors (2 classes) at http://127.0.0.1:{port}, for this machine alone; "
        "Ctrl-C ends it\n"
    )
    assert err == ""
    assert list(empty.iterdir()) == []


def _a_body_of_200_megabytes_is_never_held(port: int, pid: int) -> None:
    before = peak_kilobytes(pid)
    pieces = (bytes(1_000_000) for _ in range(200))
    assert ask(port, "/v1/detect", pieces).status == 413
    assert peak_kilobytes(pid) - before < 80_000  # the 50 MB that are taken, and buffers


def test_tiles_and_views_are_those_of_the_predictor(
    detector: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the command would serve is served here; several pictures of several sizes at once."""
    built: list[Service] = []

    def keep(app: object, service: Service, *_: object, on_start: Callable[[], None]) -> int:
        built.append(service)
        on_start()
        return 2

    monkeypatch.setattr("retina.serving.server.serve", keep)
    options = ("--tile", 64, "--overlap", 0.3, "--test-time", "flip,1.2", "--merge", "weighted")
    with small_backbone_listed():
        done = invoke("serve", detector, "--port", 0, "--device", "cpu", *options)
        predictor = load(detector, device="cpu").with_views(
            tile=64, overlap=0.3, test_time=["flip", 1.2], merge="weighted"
        )
    assert done.code == 130, done.err
    assert "(2 classes, looking at tiles of 64, flip, 1.2) at http://" in done.out
    generator = np.random.default_rng(0)
    pictures = [
        generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        for size in ((90, 150), (40, 60), (90, 150), (150, 90))
    ]
    query = "?score_threshold=0&max_detections=300"
    with running(built[0].runtime, max_wait=0.2) as served, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda one: served.detect(encoded(one), query).json(), pictures))
    for picture, answer in zip(pictures, answers, strict=True):
        (expected,) = predictor.predict(picture, 0.0)
        rows = answer["detections"]
        assert len(rows) == min(len(expected), 300) >= 20
        scores = [row["score"] for row in rows]
        assert scores == pytest.approx(expected.scores[:300].tolist(), abs=1e-5)
    assert len(answers[0]["detections"]) > 20  # more than the network gives of one view


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--overlap", "0.5"), "--overlap says how to look at tiles"),
        (("--tile", "1"), "--tile 1: a tile has at least"),
        (("--test-time", "flop"), "--test-time flop: write flip"),
    ],
)
def test_views_that_cannot_be_are_refused(
    options: tuple[str, ...], told: str, detector: Path, invoke: Invoke
) -> None:
    done = invoke("serve", detector, *options)
    assert done.code == 2
    assert told in done.err


def test_what_is_held_is_answered_before_it_ends(detector: Path, photo: Path) -> None:
    port = free_port()
    waits = ("--batch-size", "64", "--max-wait-ms", "1000")  # so that all of them are held
    process = Launched(
        small_retina, "serve", str(detector), "--port", str(port), "--device", "cpu", *waits
    )
    data = photo.read_bytes()
    with launched(port, process), ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(ask, port, "/v1/detect", data) for _ in range(12)]
        while "retina_requests_held 12.0" not in ask(port, "/metrics").body.decode():
            time.sleep(0.01)
        stopped = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 143
        assert time.monotonic() - stopped < 10
        assert [answer.result().status for answer in answers] == [200] * 12
    with pytest.raises(ConnectionRefusedError):
        ask(port, "/health/live")


def test_a_detector_that_never_comes_back_does_not_keep_it_from_ending() -> None:
    port = free_port()
    with launched(port, Launched(serve_stuck, port)) as process, ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(ask, port, "/v1/detect", encoded(scene())) for _ in range(2)]
        while "retina_requests_held 2.0" not in ask(port, "/metrics").body.decode():
            time.sleep(0.01)
        stopped = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        assert [answer.result().status for answer in answers] == [503, 503]
        assert "stopping" in answers[0].result().json()["detail"]
        assert process.wait(20) == 143
        assert time.monotonic() - stopped < 10


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org", "127.0.0.1.nip.io"]
)
def test_it_listens_elsewhere_only_with_a_key(host: str, detector: Path, invoke: Invoke) -> None:
    done = invoke("serve", detector, "--host", host)
    assert done.code == 2
    assert done.err.startswith(f"error: --host {host}: ")
    assert "--api-key" in done.err


@pytest.mark.parametrize("key", ["", "two words", "schlüssel", "a\nb"])
def test_a_key_that_no_header_can_hold_is_refused(
    key: str, detector: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = invoke("serve", detector, "--api-key", key)
    assert done.code == 2
    assert done.err.startswith("error: --api-key: ")
    assert key not in done.err or not key
    if key:
        monkeypatch.setenv("RETINA_API_KEY", key)
        assert invoke("serve", detector, "--host", "0.0.0.0").err == done.err


def test_a_port_that_is_taken_or_a_host_that_is_none_is_told(
    detector: Path, invoke: Invoke
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = invoke("serve", detector, "--port", str(port))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: cannot listen on 127.0.0.1 port {port}: ")
    done = invoke("serve", detector, "--host", "no.such.host.invalid", "--api-key", "k")
    assert done.code == 2
    assert "--host no.such.host.invalid: is no address of this machine" in done.err


def test_without_its_packages_it_says_what_to_install(
    detector: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "uvicorn" else find_spec(name)
    )
    done = invoke("serve", detector)
    assert done.code == 2
    assert "needs the package uvicorn; pip install 'retina-detector[serve]'" in done.err
