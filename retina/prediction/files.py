"""Predicting on image files: what is written about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from retina.datasets.coco_results import write_results
from retina.datasets.dataset import Image
from retina.datasets.large_tiff import LargeTiff
from retina.errors import UnreadableImageError, UserError
from retina.prediction.drawing import draw_detections
from retina.prediction.picture_size import WRITTEN_SIDE, scaled, size_of
from retina.prediction.predictor import Predictor
from retina.storage import make_folder, replacing
from retina.structures import Categories, Detections, OriginalId

SMALLEST_PICTURE = 320
"""The shorter side that an annotated picture has at least, in pixels."""


@dataclass(frozen=True, slots=True)
class PredictionRun:
    """What predicting on files gave.

    Attributes:
        num_images: files that were predicted on.
        num_detections: over all of them.
        failures: one message for each file that could not be read, or whose picture could not be
            drawn or written.
    """

    num_images: int
    num_detections: int
    failures: tuple[str, ...]


def predict_files(
    predictor: Predictor,
    paths: Sequence[Path],
    output: Path,
    *,
    image_ids: Sequence[OriginalId] | None = None,
    score_threshold: float | None = None,
    batch_size: int = 8,
    on_progress: Callable[[int], None] | None = None,
) -> PredictionRun:
    """Write an annotated picture of every image, and one ``detections.json`` over all.

    A small image is enlarged by a whole factor for its picture, so that the names can be read, and
    one longer than `WRITTEN_SIDE` is made smaller; the JSON is in pixels of the image itself.

    The JSON is in COCO's results format with a ``file_name`` beside the ``image_id``. A file that
    cannot be read is one of the failures, and the rest goes on; so is a picture that cannot be
    made, and what was found is in the JSON all the same. Where the run breaks off, the JSON holds
    what was found until then.

    Args:
        predictor: finds the objects.
        paths: the image files.
        output: the folder to write into.
        image_ids: of each file, each once; None counts them from 1.
        score_threshold: as for `Predictor.predict`.
        batch_size: images that the network sees at a time.
        on_progress: called with the number of files done since the last call.

    Raises:
        UserError: a picture would replace an image, or the folder may not be written.
    """
    names = _picture_names(paths)
    sources = {path.resolve() for path in paths}
    if any((output / name).resolve() in sources for name in names):
        raise UserError(f"{output}: the pictures would replace the images; choose another folder")
    make_folder(output)
    indices: list[int] = []
    detections: list[Detections] = []
    failures: list[str] = []
    try:
        for chunk in _chunks(range(len(paths)), batch_size):
            for images in _opened(predictor, paths, chunk, failures):
                try:
                    found = predictor.predict(
                        list(images.values()), score_threshold, batch_size=max(1, len(images))
                    )
                except UnreadableImageError as error:  # a large file, read part by part
                    failures.append(str(error))
                    continue
                indices += images
                detections += found
                for (index, image), one in zip(images.items(), found, strict=True):
                    try:
                        _write_picture(output / names[index], image, one, predictor.categories)
                    except Exception as error:  # whatever it is, the results are worth more
                        failures.append(_without_picture(paths[index], error))
            if on_progress is not None:
                on_progress(len(chunk))
    finally:
        write_results(
            output / "detections.json",
            [index + 1 if image_ids is None else image_ids[index] for index in indices],
            detections,
            predictor.categories,
            file_names=[str(paths[index]) for index in indices],
        )
    return PredictionRun(len(indices), sum(map(len, detections)), tuple(failures))


def _opened(
    predictor: Predictor, paths: Sequence[Path], chunk: range, failures: list[str]
) -> Iterator[dict[int, Image | LargeTiff]]:
    """The images of a chunk by their indices: large files one by one, all others together.

    A file that cannot be read becomes one of the failures.
    """
    images: dict[int, Image | LargeTiff] = {}
    for index in chunk:
        try:
            image = predictor.read(paths[index])
        except UserError as error:
            failures.append(str(error))
            continue
        if isinstance(image, LargeTiff):
            yield {index: image}
        else:
            images[index] = image
    yield images


def _chunks(items: range, size: int) -> Iterator[range]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _picture_names(paths: Sequence[Path]) -> list[str]:
    """A file name for each picture; files of the same name get a number."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = f"{path.stem}.jpg", 1
        while name in taken:
            number += 1
            name = f"{path.stem}_{number}.jpg"
        taken.add(name)
        names.append(name)
    return names


def _write_picture(
    path: Path, image: Image | LargeTiff, found: Detections, categories: Categories
) -> None:
    if isinstance(image, LargeTiff):
        found = replace(found, boxes=found.boxes / image.reduction)
        image = image.overview
    ground = scaled(image, smallest_side=SMALLEST_PICTURE, longest_side=WRITTEN_SIDE)
    found = found.rescaled(size_of(image), size_of(ground))
    picture = draw_detections(ground, found, categories)
    encoded, content = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert encoded
    with replacing(path) as aside:
        aside.write_bytes(content.tobytes())


def _without_picture(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{path}: no picture of it (its objects are in detections.json): {reason}"
