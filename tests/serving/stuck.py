"""A service whose detector never comes back, to be run in a process of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from torch import Tensor

from retina.serving.app import make_app
from retina.serving.limits import Limits
from retina.serving.server import bind, serve
from retina.serving.service import Service
from retina.structures import Detections
from tests.serving.running import RectangleRuntime  # type: ignore[import-not-found]


class StuckRuntime(RectangleRuntime):
    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        time.sleep(60)
        return []


def serve_stuck(port: int) -> None:
    service = Service(
        StuckRuntime(),
        name="stuck",
        version="0",
        limits=Limits(stop_seconds=0.5),
        batch_size=1,
        max_wait=0.0,
    )
    number = serve(make_app(service), service, bind("127.0.0.1", port), lambda: None)
    sys.exit(128 + number)
