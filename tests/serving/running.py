"""A service that runs in a thread, a runtime whose detections are known, and a client."""

from __future__ import annotations

import http.client
import io
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch import Tensor

from retina.errors import RunError
from retina.modeling.preprocess import PreprocessConfig
from retina.runtime import Runtime
from retina.serving.app import make_app
from retina.serving.limits import Limits
from retina.serving.server import Server, bind
from retina.serving.service import Service
from retina.structures import Categories, Detections

PATIENCE = 120.0  # seconds: a machine may be busy
RED, GREEN = 0, 1
SCORES = {RED: 0.75, GREEN: 0.5}


class RectangleRuntime(Runtime):
    """Finds what is pure red or green in a picture: one rectangle of each.

    A picture with a blue pixel in its corner is more than it can bear.

    Attributes:
        gate: closed, it lets a batch wait.
        begun: set when a batch has come.
        batches: the number of pictures of each.
    """

    def __init__(self) -> None:
        self.categories = Categories(("red", "green"), (3, 7))
        self.preprocess = PreprocessConfig(min_size=64, max_size=96).build()
        self.thresholds = torch.tensor([0.5, 0.6], dtype=torch.float64)
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()
        self.batches: list[int] = []

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        self.batches.append(len(images))
        self.begun.set()
        assert self.gate.wait(PATIENCE)
        corners = {tuple(image[:, 0, 0].tolist()) for image in images}
        if (0, 0, 255) in corners:
            raise RunError("out of memory")
        if (0, 0, 254) in corners:
            raise ZeroDivisionError("a fault of the detector")
        return [_rectangles(image) for image in images]


def _rectangles(image: Tensor) -> Detections:
    boxes, labels = [], []
    for label in (RED, GREEN):
        others = [channel for channel in range(3) if channel != label]
        rows, columns = torch.nonzero(
            (image[label] > 200) & (image[others] < 60).all(dim=0), as_tuple=True
        )
        if len(rows):
            corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            boxes.append([float(one) for one in corners])
            labels.append(label)
    return Detections(
        torch.tensor(boxes).reshape(-1, 4),
        torch.tensor([SCORES[label] for label in labels]),
        torch.tensor(labels, dtype=torch.int64),
    )


def scene(width: int = 48, height: int = 32) -> npt.NDArray[np.uint8]:
    """Grey, with red from (8, 4) to (24, 20) and green from (32, 16) to (40, 24)."""
    pixels = np.full((height, width, 3), 120, np.uint8)
    pixels[4:20, 8:24] = (255, 0, 0)
    pixels[16:24, 32:40] = (0, 255, 0)
    return pixels


RED_BOX, GREEN_BOX = [8.0, 4.0, 16.0, 16.0], [32.0, 16.0, 8.0, 8.0]


def encoded(pixels: npt.NDArray[np.uint8], kind: str = "PNG", **options: Any) -> bytes:
    """An image file."""
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def form(data: bytes, *, name: str = "file", file_name: str = "photo.png") -> tuple[bytes, str]:
    """A body with one file, as curl and browsers send it, and its content type."""
    disposition = f'form-data; name="{name}"; filename="{file_name}"'
    head = f"--xyz\r\nContent-Disposition: {disposition}\r\nContent-Type: image/png\r\n\r\n"
    return head.encode() + data + b"\r\n--xyz--\r\n", "multipart/form-data; boundary=xyz"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """A service that runs."""

    port: int
    service: Service
    server: Server

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(
        self,
        path: str,
        body: Any = None,
        kind: str | None = None,
        *,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        connection = self.connect()
        try:
            sent = {**({"Content-Type": kind} if kind else {}), **(headers or {})}
            connection.request(method or ("POST" if body is not None else "GET"), path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def detect(self, data: bytes, query: str = "", kind: str = "image/png") -> Answer:
        return self.ask(f"/v1/detect{query}", data, kind)

    def counted(self, line: str) -> float:
        """The value of a series of /metrics, 0 where there is none yet."""
        text = self.service.metrics.text().decode()
        found = [row for row in text.splitlines() if row.startswith(f"{line} ")]
        return float(found[0].rpartition(" ")[2]) if found else 0.0


@contextmanager
def running(
    runtime: Runtime,
    *,
    limits: Limits | None = None,
    batch_size: int = 4,
    max_wait: float = 0.0,
    api_key: str | None = None,
) -> Iterator[Running]:
    """A service on a free port of this machine."""
    service = Service(
        runtime,
        name="test.safetensors",
        version="0",
        limits=limits or Limits(),
        batch_size=batch_size,
        max_wait=max_wait,
    )
    listening = bind("127.0.0.1", 0)
    started = threading.Event()
    server = Server(make_app(service, api_key=api_key), service, started.set)
    port = listening.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    assert started.wait(PATIENCE)
    try:
        yield Running(port, service, server)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()
