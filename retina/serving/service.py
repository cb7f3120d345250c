"""From a request to its answer: admission, body, pixels, batch, answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from torch import Tensor

from retina.errors import RunError, UserError
from retina.runtime import Runtime
from retina.serving.answers import DetectAnswer, detect_answer, drawn_picture
from retina.serving.batching import Batcher
from retina.serving.body import read_picture
from retina.serving.decoding import decode_picture
from retina.serving.limits import Admission, Limits, Refusal
from retina.serving.metrics import Metrics
from retina.structures import Detections

PICTURE_THREADS = "retina-serve-picture"

_DECODERS = 2
"""Pictures that are decoded or drawn at a time: decoding a large one takes up to 2 GB."""

_WARM_UP_SIDE = 64

Result = TypeVar("Result")


class DetectOptions(BaseModel):
    """What a request may wish, in its query."""

    model_config = ConfigDict(extra="forbid")

    score_threshold: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            allow_inf_nan=False,
            description="Detections of at least this score; by default from the score on that the "
            "detector keeps for each class.",
        ),
    ] = None
    max_detections: Annotated[
        int | None, Field(ge=1, description="The best so many, at most those of the limits.")
    ] = None
    output: Annotated[
        Literal["json", "jpeg", "png"],
        Field(description="The detections as JSON, or drawn into the picture."),
    ] = "json"
    image_id: Annotated[
        int, Field(ge=0, le=2**53 - 1, description="Stands in each row of the JSON.")
    ] = 1


class Service:
    """A detector that answers requests; it is used in one event loop.

    Args:
        runtime: finds the objects.
        name: of the detector.
        version: of this package.
        limits: what is taken on at most.
        batch_size: pictures that run together, at most.
        max_wait: seconds that a picture waits for others, at most.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        name: str,
        version: str,
        limits: Limits,
        batch_size: int,
        max_wait: float,
    ) -> None:
        self.runtime, self.limits = runtime, limits
        self.name, self.version = name, version
        self.admission = Admission(limits)
        self.metrics = Metrics(lambda: self.admission.num_inside)
        self._batcher = Batcher(
            runtime, batch_size=batch_size, max_wait=max_wait, metrics=self.metrics
        )
        self._batches: asyncio.Task[None] | None = None
        # Decoded pictures are large: those of the batch that runs, and those of the next one.
        self._slots = asyncio.Semaphore(2 * batch_size)
        self._pool = ThreadPoolExecutor(max_workers=_DECODERS, thread_name_prefix=PICTURE_THREADS)

    @property
    def is_alive(self) -> bool:
        """Whether batches are run; where they are not any more, only a new process helps."""
        return self._batches is not None and not self._batches.done()

    def warm_up(self) -> None:
        """Run the detector once: the first picture takes longer, and nobody shall wait for that.

        Raises:
            RunError: memory ran out.
        """
        with suppress(UserError):  # an export may take images of one shape only
            self.runtime.detect([torch.zeros(3, _WARM_UP_SIDE, _WARM_UP_SIDE, dtype=torch.uint8)])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ready for requests, for the ``with`` block."""
        self._batches = asyncio.create_task(self._batcher.run())
        self._batches.add_done_callback(_log_end)
        try:
            yield
        finally:
            self._batches.cancel()
            self._batcher.close()
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def detect(self, request: Request, options: DetectOptions) -> DetectAnswer | bytes:
        """The answer to a request: JSON, or a picture.

        The picture that was sent is held for as long as this takes, and written nowhere.

        Raises:
            Refusal: there is none, and why.
        """
        async with self.admission.enter() as held:
            # No name here keeps the bytes once they are decoded.
            answer = self._answer(
                await read_picture(request, self.limits, held), held.release, options
            )
            return await _unless_gone(request, answer)

    async def _answer(
        self, data: bytes, release: Callable[[], None], options: DetectOptions
    ) -> DetectAnswer | bytes:
        async with self._slots:
            image = await self._decoded(data)
            del data
            release()
            found = self._kept(await self._found(image), options)
            categories = self.runtime.categories
            if options.output == "json":
                return detect_answer(found, categories, image, options.image_id)
            return await self._in_pool(drawn_picture, found, categories, image, options.output)

    async def _decoded(self, data: bytes) -> Tensor:
        try:
            return await self._in_pool(decode_picture, data, self.limits)
        except MemoryError:
            raise Refusal(503, "there is no memory for a picture this large") from None

    async def _found(self, image: Tensor) -> Detections:
        try:
            return await self._batcher.detect(image)
        except UserError as error:
            raise Refusal(422, f"the detector cannot take this picture: {error}") from None
        except RunError:
            raise Refusal(503, "memory ran out on this picture; send a smaller one") from None

    def _kept(self, found: Detections, options: DetectOptions) -> Detections:
        if not bool(found.boxes.isfinite().all() and found.scores.isfinite().all()):
            raise Refusal(500, "the detector finds numbers that are none: its training diverged")
        threshold = (
            self.runtime.thresholds if options.score_threshold is None else options.score_threshold
        )
        kept = found.at_least(threshold)
        most = min(options.max_detections or self.limits.max_detections, self.limits.max_detections)
        return Detections(kept.boxes[:most], kept.scores[:most], kept.labels[:most])

    async def _in_pool(self, function: Callable[..., Result], *arguments: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)


def _log_end(batches: asyncio.Task[None]) -> None:
    if not batches.cancelled():
        logging.getLogger(__name__).error(
            "no batches are run any more", exc_info=batches.exception()
        )


async def _unless_gone(request: Request, answer: Awaitable[Result]) -> Result:
    """The answer, as long as somebody waits for it."""
    work = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Refusal(499, "the client has gone")
        return work.result()
    finally:
        work.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
