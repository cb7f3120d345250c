"""One process's share of a prediction: decoding, the network, drawing and writing, overlapping."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import cv2
import numpy as np

from retina.datasets.large_tiff import LargeTiff
from retina.errors import RunError, UnreadableImageError, UserError
from retina.prediction.drawing import Picture
from retina.prediction.inputs import Shot
from retina.prediction.outputs.images import ImageOutput, Later, Place, PredictedImage
from retina.prediction.picture_size import size_of
from retina.prediction.pipeline import Behind, in_batches, map_ahead, num_threads, read_ahead
from retina.prediction.predictor import Predictor
from retina.runtime.detection_log import DetectionLog, LoggedImage, no_detections
from retina.structures import Detections, Size


@dataclass(frozen=True, slots=True)
class _Decoded:
    """An image; None where it could not be read, and why."""

    item: int
    shot: Shot
    image: Picture | LargeTiff | None
    failure: str = ""


class Share:
    """Predicts on some inputs, logs what is found, and writes about each image.

    Args:
        predictor: finds the objects.
        place: where to write, and what the inputs are.
        log: keeps what is found.
        outputs: what is written about each image.
        score_threshold: as for `Predictor.predict`.
        batch_size: images that the network sees at a time.
        on_progress: called with 1 for every input that is done, in another thread.
    """

    def __init__(
        self,
        predictor: Predictor,
        place: Place,
        log: DetectionLog,
        outputs: Sequence[ImageOutput],
        *,
        score_threshold: float | None,
        batch_size: int,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self._predictor = predictor
        self._inputs = place.inputs
        self._log = log
        self._outputs = outputs
        self._score_threshold = score_threshold
        self._batch_size = batch_size
        self._on_progress = on_progress

    def predict(self, items: Sequence[int]) -> None:
        """Predict on the inputs of these numbers.

        The network runs in the thread that calls this; others decode before it and write behind it.

        Raises:
            RunError: memory ran out, or the disk is full; what was found before is logged.
        """
        threads, batch_size = num_threads(), self._batch_size
        shots = read_ahead(self._shots(items), depth=2)
        decoded = map_ahead(self._decode, shots, threads=threads, ahead=batch_size + threads)
        with ExitStack() as stack:
            for output in self._outputs:
                stack.callback(output.close)
            stack.callback(shots.close)
            stack.callback(decoded.close)
            behind = Behind(self._write, self._finish, threads=threads, depth=batch_size)
            stack.enter_context(behind)
            for batch in in_batches(decoded, batch_size):
                for pair in self._detect(batch):
                    behind.put(pair)

    def _shots(self, items: Iterable[int]) -> Iterator[tuple[int, Shot]]:
        return ((item, shot) for item in items for shot in self._inputs[item].shots())

    def _decode(self, numbered: tuple[int, Shot]) -> _Decoded:
        item, shot = numbered
        try:
            image = shot.read() if shot.file is None else self._predictor.read(shot.file)
        except UserError as error:
            return _Decoded(item, shot, None, str(error))
        return _Decoded(item, shot, image)

    def _detect(self, batch: Sequence[_Decoded]) -> Iterator[tuple[_Decoded, Detections]]:
        """What is in each image; nothing in those that could not be read."""
        images = [one.image for one in batch if isinstance(one.image, np.ndarray)]
        try:
            found = iter(self._predict(images))
        except UserError:  # a detector may refuse an image for its size: the others are found
            yield from (self._detect_one(one) for one in batch)
            return
        for one in batch:
            if isinstance(one.image, np.ndarray):
                yield one, next(found)
            else:
                yield self._detect_one(one)

    def _detect_one(self, one: _Decoded) -> tuple[_Decoded, Detections]:
        """What is in an image by itself, or in a file of which each part may prove to be broken."""
        if one.image is None:
            return one, no_detections()
        try:
            (found,) = self._predict([one.image])
        except UnreadableImageError as error:  # names its file
            return replace(one, image=None, failure=str(error)), no_detections()
        except UserError as error:
            failure = f"{self._inputs[one.item].name}: {error}"
            return replace(one, image=None, failure=failure), no_detections()
        return one, found

    def _predict(self, images: Sequence[Picture | LargeTiff]) -> list[Detections]:
        return self._predictor.predict(
            list(images), self._score_threshold, batch_size=max(1, len(images))
        )

    def _write(self, pair: tuple[_Decoded, Detections]) -> tuple[LoggedImage, list[Later]]:
        """Write about one image; where that fails, what was found is worth more.

        Raises:
            RunError, MemoryError: the machine is at fault: the next image would fail as well.
        """
        one, found = pair
        logged = LoggedImage(
            item=one.item,
            size=_size(one.image),
            found=found,
            failure=one.failure,
            frame=one.shot.frame,
            time=one.shot.time,
            is_last=one.shot.is_last,
        )
        if one.image is None:
            return logged, []
        image = PredictedImage(one.item, one.image, found, one.shot.frame, one.shot.time)
        try:
            steps = [output.write(image) for output in self._outputs]
        except Exception as error:
            _raise_if_of_machine(error)
            return self._with_failure(logged, error), []
        return logged, [step for step in steps if step is not None]

    def _finish(self, written: tuple[LoggedImage, list[Later]]) -> None:
        """What is done in the order of the images."""
        logged, steps = written
        try:
            for step in steps:
                step()
            for output in self._outputs if logged.is_last else ():
                output.end(logged.item)
        except Exception as error:
            _raise_if_of_machine(error)
            logged = self._with_failure(logged, error)
        self._log.add(logged)
        if logged.is_last and self._on_progress is not None:
            self._on_progress(1)

    def _with_failure(self, logged: LoggedImage, error: Exception) -> LoggedImage:
        reason = " ".join(str(error).split()) or type(error).__name__
        name = self._inputs[logged.item].name
        told = f"{name}: it could not be written about, but what was found in it is kept: {reason}"
        return replace(logged, failure=told)


def _raise_if_of_machine(error: Exception) -> None:
    """Let through what is no fault of one image, so that the run can go on with it later."""
    if isinstance(error, RunError | MemoryError):
        raise error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise RunError("the disk is full; free some space, and go on with --resume") from None
    if isinstance(error, cv2.error) and error.code == cv2.Error.STS_NO_MEM:
        raise MemoryError(error.err) from None


def _size(image: Picture | LargeTiff | None) -> Size:
    if image is None:
        return 0, 0
    return image.size if isinstance(image, LargeTiff) else size_of(image)
