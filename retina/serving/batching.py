"""Pictures of several requests through the network together.

A picture waits until there is a full batch, but not longer than a bound. Only pictures that the
network sees at the same padded size run together (as a whole, and in tiles and scales where these
are looked at), so no picture's answer depends on the pictures that it happens to run with: padding
one of them further would change what the network says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from torch import Tensor

from retina.modeling.preprocess import size_of
from retina.runtime import Runtime
from retina.serving.metrics import Metrics
from retina.structures import Detections

THREAD = "retina-serve-detect"

Shapes = tuple[tuple[int, int, int, int], ...]
"""See `Runtime.input_shapes`."""

Outcome = Detections | Exception


@dataclass(slots=True, eq=False)
class _Job:
    image: Tensor
    shapes: Shapes
    arrived: float
    answer: asyncio.Future[Detections] = field(default_factory=asyncio.Future)


class Batcher:
    """Runs the pictures of all requests, one batch at a time; it lives in one event loop.

    Args:
        runtime: finds the objects, in a thread of its own.
        batch_size: pictures of a batch, at most.
        max_wait: seconds that a picture waits for others, at most.
        metrics: count batches.
    """

    def __init__(
        self, runtime: Runtime, *, batch_size: int, max_wait: float, metrics: Metrics
    ) -> None:
        self.runtime = runtime
        self.batch_size, self.max_wait = batch_size, max_wait
        self._metrics = metrics
        self._waiting: list[_Job] = []
        self._changed = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=THREAD)

    async def detect(self, image: Tensor) -> Detections:
        """The objects in a picture; a caller that is cancelled takes it out of the queue.

        Args:
            image: ``(3, H, W)`` uint8 RGB.

        Raises:
            UserError: the detector cannot take a picture of this size.
            RunError: memory ran out for this picture alone.
        """
        shapes = self.runtime.input_shapes(size_of(image))
        job = _Job(image, shapes, time.monotonic())
        self._waiting.append(job)
        self._changed.set()
        return await job.answer

    async def run(self) -> None:
        """Run batches for ever; the service keeps this as a task."""
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            images = [job.image for job in batch]
            started = time.monotonic()
            outcomes = await loop.run_in_executor(self._thread, detect_each, self.runtime, images)
            self._metrics.count_batch(len(batch), time.monotonic() - started, outcomes)
            for job, outcome in zip(batch, outcomes, strict=True):
                if job.answer.done():  # its request has given up
                    continue
                if isinstance(outcome, Exception):
                    job.answer.set_exception(outcome)
                else:
                    job.answer.set_result(outcome)

    def close(self) -> None:
        """Run nothing more; a batch that runs is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _next_batch(self) -> list[_Job]:
        """The oldest picture and those that may run with it, once they are enough or it is time."""
        while True:
            self._waiting = [job for job in self._waiting if not job.answer.done()]
            left = None
            if self._waiting:
                oldest = self._waiting[0]
                alike = [job for job in self._waiting if job.shapes == oldest.shapes]
                left = oldest.arrived + self.max_wait - time.monotonic()
                if len(alike) >= self.batch_size or left <= 0:
                    batch = alike[: self.batch_size]
                    self._waiting = [job for job in self._waiting if job not in batch]
                    return batch
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                continue


def detect_each(runtime: Runtime, images: Sequence[Tensor]) -> list[Outcome]:
    """What is found in each picture of a batch, or why nothing could be.

    Where the batch fails, each of its pictures is run alone: one that is too large for the memory
    takes no other down with it.
    """
    try:
        return [*runtime.detect(images)]
    except Exception as error:
        if len(images) == 1:
            return [error]
        return [outcome for image in images for outcome in detect_each(runtime, [image])]
