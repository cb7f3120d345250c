"""Bombs, slow and broken bodies, too much of all: each is refused, and the rest is served."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from torch import Tensor

from retina.datasets.jpeg import num_scans
from retina.serving import server as server_module
from retina.serving.limits import Limits
from retina.structures import Detections
from tests.serving.running import (  # type: ignore[import-not-found]
    PATIENCE,
    Answer,
    RectangleRuntime,
    Running,
    encoded,
    form,
    running,
    scene,
)

PNG = encoded(scene())
SMALL = Limits(max_bytes=200_000, max_pixels=10_000, queue=8)


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    with running(RectangleRuntime(), limits=SMALL) as service:
        yield service


@pytest.fixture(autouse=True)
def _still_serves(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test has sent, the next picture is answered, and nothing of it is held."""
    yield
    if "served" in request.fixturenames:
        served: Running = request.getfixturevalue("served")
        assert served.detect(PNG).status == 200
        assert wait_until(lambda: served.service.admission.num_inside == 0)
        assert served.service.admission.held_bytes == 0


def wait_until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.005)
    return holds()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(chunks) + end


def jpeg_of_many_scans() -> bytes:
    """Progressive, with one of its scans 200 times: each is a pass over all pixels."""
    data = encoded(scene(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 200 + data[-2:]


def test_what_phones_append_to_a_photo_is_no_scan() -> None:
    photo = encoded(scene(), "JPEG")
    film = b"ftyp" + b"\xff\xda" * 100
    assert num_scans(photo + film) == num_scans(photo) == 1
    assert num_scans(jpeg_of_many_scans() + film) > 200


BOMBS = {
    "pixels that are not there": (png_of(60_000, 60_000), 413),
    "more than Pillow takes": (png_of(2**31 - 1, 2**31 - 1), 413),
    "pixels that are there": (encoded(np.zeros((200, 200, 3), np.uint8)), 413),
    "a wide TIFF": (encoded(np.zeros((1, 20_000, 3), np.uint8), "TIFF"), 413),
    "a text that unpacks": (
        png_of(8, 8, png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000)))),
        422,
    ),
    "scans": (jpeg_of_many_scans(), 422),
    "a JPEG that breaks off": (encoded(scene(), "JPEG")[:400], 422),
    "a PNG that breaks off": (PNG[:-40], 422),
    "no pixels": (png_of(0, 0), 415),
    "text": (b"hello", 415),
    "a GIF": (encoded(scene(), "GIF"), 415),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", 415),
    "a pickle": (b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.", 415),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
    "nothing": (b"", 400),
    "an address": (b"http://127.0.0.1/photo.png", 415),
    "a path": (b"/etc/passwd", 415),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_is_no_picture_or_a_bomb_is_refused_at_once(name: str, served: Running) -> None:
    data, status = BOMBS[name]
    for answer in (served.detect(data), served.ask("/v1/detect", *form(data))):
        assert answer.status == status, answer.body
        assert 10 < len(answer.json()["detail"]) < 300


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "image/gif",
        "x",
        "",
    ],
)
def test_other_content_types_are_refused(kind: str | None, served: Running) -> None:
    answer = served.ask("/v1/detect", PNG, kind)
    assert answer.status == 415
    assert "multipart/form-data" in answer.json()["detail"]


def test_a_compressed_body_is_refused(served: Running) -> None:
    answer = served.ask("/v1/detect", PNG, "image/png", headers={"Content-Encoding": "gzip"})
    assert answer.status == 415


BODY, FORM = form(PNG)
FORMS = {
    "breaks off in the file": (BODY[:150], FORM),
    "breaks off in the last boundary": (BODY[:-6], FORM),
    "another part": (form(PNG, name="picture")[0], FORM),
    "two files": (BODY.removesuffix(b"--\r\n") + b"\r\n" + BODY.partition(b"\r\n")[2], FORM),
    "a field": (b'--xyz\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--xyz--', FORM),
    "no boundary": (BODY, "multipart/form-data"),
    "another boundary": (BODY, "multipart/form-data; boundary=abc"),
    "no parts": (b"--xyz--\r\n", FORM),
    "a head without an end": (b"--xyz\r\nContent-Disposition: " + b"x" * 100_000, FORM),
    "many parts": (b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 2_000, FORM),
    "noise": (bytes(range(256)) * 400, FORM),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_that_is_none_is_refused(name: str, served: Running) -> None:
    answer = served.ask("/v1/detect", *FORMS[name])
    assert answer.status == 400, answer.body
    assert "'file'" in answer.json()["detail"]


def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(served: Running) -> None:
    connection = served.connect()
    connection.putrequest("POST", "/v1/detect")
    for name, value in (("Content-Type", "image/png"), ("Content-Length", "50000001")):
        connection.putheader(name, value)
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_who_sends_all_of_a_body_that_is_too_large_can_read_the_answer(served: Running) -> None:
    """Whether it says the size of it or not; 200 MB are sent in `test_command.py`."""
    piece = bytes(1_000_000)
    for headers in ({}, {"Content-Length": "20000000"}):
        pieces = (piece for _ in range(20))
        answer = served.ask("/v1/detect", pieces, "image/png", headers=headers)
        assert answer.status == 413
        assert "200000 bytes" in answer.json()["detail"]


def raw(served: Running, *pieces: bytes, pause: float = 0.0) -> bytes:
    """What comes back until the end, after bytes as they are."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        found = b""
        while received := connection.recv(65_536):
            found += received
    return found


def head(length: int, kind: str = "image/png") -> bytes:
    return (
        f"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def test_a_body_that_comes_too_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retina.serving.responses.LINGER_SECONDS", 0.2)
    with running(RectangleRuntime(), limits=Limits(body_timeout=0.4)) as service:
        assert raw(service, head(len(PNG)), PNG[:20]).startswith(b"HTTP/1.1 408 ")
        assert raw(service, head(len(BODY), FORM), BODY[:20]).startswith(b"HTTP/1.1 408 ")
        assert service.service.admission.num_inside == 0
        assert service.service.admission.held_bytes == 0


def test_a_head_that_comes_too_slowly_is_given_up(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 0.8)
    assert raw(served) == b""
    dripping = [b"GET / HTTP/1.1\r\n", *(f"X-{n}: y\r\n".encode() for n in range(4))]
    assert raw(served, *dripping, pause=0.1) == b""
    after_an_answer = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert raw(served, after_an_answer, b"GET /hea", pause=0.05).count(b"HTTP/1.1") == 1


def test_what_is_no_http_is_refused(served: Running) -> None:
    for sent in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n" * 9000):
        try:
            answer = raw(served, sent)
        except ConnectionError:
            continue
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


def test_a_client_that_goes_while_it_sends_leaves_nothing(served: Running) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(head(100_000) + PNG)
        assert wait_until(lambda: served.service.admission.held_bytes > 0)
    assert wait_until(lambda: served.service.admission.num_inside == 0)


@pytest.fixture
def shut() -> Iterator[Running]:
    """A service of two places whose detector waits for its gate."""
    runtime = RectangleRuntime()
    limits = Limits(queue=2, timeout=PATIENCE, body_timeout=PATIENCE, max_held_bytes=300_000)
    with running(runtime, limits=limits, batch_size=1) as service:
        runtime.gate.clear()
        try:
            yield service
        finally:
            runtime.gate.set()


def test_more_than_the_queue_holds_are_refused_and_those_in_it_answered(shut: Running) -> None:
    admission = shut.service.admission
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(shut.detect, PNG) for _ in range(2)]
        assert wait_until(lambda: admission.num_inside == 2)
        refused = shut.detect(PNG)
        assert refused.status == 429
        assert refused.headers["Retry-After"] == "1"
        assert shut.ask("/health/ready").status == 200
        gate_of(shut).set()
        assert [one.result().status for one in waiting] == [200, 200]


def gate_of(service: Running) -> threading.Event:
    runtime = service.service.runtime
    assert isinstance(runtime, RectangleRuntime)
    return runtime.gate


def test_who_waits_too_long_is_told() -> None:
    runtime = RectangleRuntime()
    with running(runtime, limits=Limits(timeout=0.5)) as service:
        runtime.gate.clear()
        started = time.monotonic()
        answer = service.detect(PNG)
        runtime.gate.set()
        assert answer.status == 504
        assert "0.5 s" in answer.json()["detail"]
        assert 0.5 <= time.monotonic() - started < PATIENCE / 2


def test_many_large_bodies_at_a_time_are_refused(shut: Running) -> None:
    with socket.create_connection(("127.0.0.1", shut.port)) as connection:
        connection.sendall(head(250_000) + bytes(200_000))
        assert wait_until(lambda: shut.service.admission.held_bytes == 200_000)
        answer = shut.ask("/v1/detect", bytes(150_000), "image/png")
        assert answer.status == 429
        assert "large pictures" in answer.json()["detail"]


def test_who_has_gone_is_not_run(shut: Running) -> None:
    runtime = shut.service.runtime
    assert isinstance(runtime, RectangleRuntime)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(shut.detect, PNG)
        assert runtime.begun.wait(PATIENCE)
        with socket.create_connection(("127.0.0.1", shut.port)) as second:
            second.sendall(head(len(PNG)) + PNG)
            assert wait_until(lambda: shut.service.admission.num_inside == 2)
        assert wait_until(lambda: shut.service.admission.num_inside == 1)
        runtime.gate.set()
        assert first.result().status == 200
    assert runtime.batches == [1]


def with_corner(blue: int) -> bytes:
    pixels = scene()
    pixels[0, 0] = (0, 0, blue)
    return encoded(pixels)


def test_a_picture_that_the_detector_fails_on_takes_no_other_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runtime = RectangleRuntime()
    with (
        running(runtime, limits=Limits(timeout=PATIENCE), max_wait=PATIENCE / 2) as service,
        ThreadPoolExecutor(4) as pool,
    ):
        pictures = [PNG, with_corner(255), PNG, with_corner(254)]
        answers: list[Answer] = [*pool.map(service.detect, pictures)]
        assert [answer.status for answer in answers] == [200, 503, 200, 500]
        assert runtime.batches == [4, 1, 1, 1, 1]
        assert "memory" in answers[1].json()["detail"]
        assert "fault" not in answers[3].body.decode()  # what went wrong is for the log
        assert service.counted("retina_failed_pictures_total") == 2
    assert "a fault of the detector" in caplog.text


class Broken(BaseException):
    """What no detector raises; nothing else ends the task that runs the batches."""


def test_a_service_that_runs_no_batches_any_more_says_so(caplog: pytest.LogCaptureFixture) -> None:
    runtime = RectangleRuntime()

    def detect(images: Sequence[Tensor]) -> list[Detections]:
        raise Broken

    runtime.detect = detect  # type: ignore[method-assign]
    with running(runtime, limits=Limits(timeout=0.3)) as service:
        assert service.ask("/health/live").status == 200
        assert service.detect(PNG).status == 504
        answer = service.ask("/health/live")
        assert (answer.status, answer.json()) == (503, {"status": "broken"})
    assert "no batches are run any more" in caplog.text


def test_a_connection_answers_many_requests(served: Running) -> None:
    connection: http.client.HTTPConnection = served.connect()
    for _ in range(3):
        connection.request("POST", "/v1/detect", PNG, {"Content-Type": "image/png"})
        response = connection.getresponse()
        assert response.status == 200
        assert len(response.read()) > 50
    connection.close()
