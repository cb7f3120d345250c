"""What the sources of a prediction mean, and the ids under which their results stand."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retina.datasets import FORMATS, FoundSource, find_source
from retina.datasets.file_listing import IMAGE_SUFFIXES, list_files
from retina.datasets.file_names import find_files
from retina.errors import UserError
from retina.prediction.downloads import ImageUrl
from retina.prediction.inputs import ImageFile, Input
from retina.prediction.lists import is_list, is_url, read_list
from retina.prediction.video import SUFFIXES as VIDEO_SUFFIXES
from retina.prediction.video import Video, import_av
from retina.structures import OriginalId
from retina.wording import counted


@dataclass(frozen=True, slots=True)
class FoundImages:
    """The images that sources mean.

    Attributes:
        inputs: each once, in order.
        ids: of each: those of the annotations and lists where every source gives them, else 1, 2,
            …; empty where there is a video, whose frames count as images.
        passed_over: what folders hold besides, by paths below them.
        notes: what sources were taken for, one line each.
    """

    inputs: tuple[Input, ...]
    ids: tuple[OriginalId, ...]
    passed_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The image files among them."""
        return tuple(one.file for one in self.inputs if one.file is not None)


@dataclass(frozen=True, slots=True)
class _Images:
    """What one source means; ``ids`` is empty where it has none, and has None where one lacks."""

    inputs: Sequence[Input]
    ids: Sequence[OriginalId | None] = ()
    passed_over: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How sources are read.

    Attributes:
        images: the folder of the images of an annotation file; None looks for it.
        split: of a data folder; None takes test, else validation.
        stride: of a video every so many frames are taken.
        allow_urls: whether images may be fetched from the web.
    """

    images: Path | None = None
    split: str | None = None
    stride: int = 1
    allow_urls: bool = False


def find_images(sources: Sequence[str], options: SourceOptions | None = None) -> FoundImages:
    """What files, folders (searched in depth), globs, data sets, lists, videos and URLs mean.

    A folder is a data set where it is laid out as one and lists all of its images; else its image
    files are meant, whatever lies beside them: a video is named by itself.

    Args:
        sources: of any of these kinds.
        options: how they are read; None for the defaults.

    Raises:
        UserError: a source is missing, is no data set although ``images`` or ``split`` is given, a
            URL is not allowed, or nothing is an image.
    """
    options = options or SourceOptions()
    every = [_images_of(source, options) for source in sources]
    found: dict[Input, OriginalId | None] = {}
    for one in every:
        for given, image_id in zip(one.inputs, one.ids or [None] * len(one.inputs), strict=True):
            if found.get(given) is None:  # one that is named twice may have its id the second time
                found[given] = image_id
    if not found:
        raise UserError(f"{', '.join(sources)}: matches no image file")
    notes = [one.note for one in every if one.note]
    has_video = any(isinstance(one, Video) for one in found)
    if has_video:
        import_av()  # where it is missing, before anything is done
    ids = [image_id for image_id in found.values() if image_id is not None]
    if has_video or len(set(ids)) < len(found):
        if ids:
            notes.append(f"the image ids count from 1: {_why_anew(found)}")
        ids = [] if has_video else [*range(1, len(found) + 1)]
    passed_over = tuple(name for one in every for name in one.passed_over)
    return FoundImages(tuple(found), tuple(ids), passed_over, tuple(notes))


def _why_anew(found: Mapping[Input, OriginalId | None]) -> str:
    """Why the ids of the sources cannot be used."""
    without = [one.name for one, image_id in found.items() if image_id is None]
    if any(isinstance(one, Video) for one in found):
        return "a video has many images, and no id for each of them"
    if without:
        shown = ", ".join(without[:3]) + (" …" if len(without) > 3 else "")
        return f"{len(without)} of {counted(len(found), 'image')} have none ({shown})"
    times = Counter(found.values())
    shared = next(image_id for image_id in times if times[image_id] > 1)
    first, second = [one.name for one, image_id in found.items() if image_id == shared][:2]
    both = f"{shared} is that of {first} and {second}"
    return f"those of the sources do not tell all apart ({both})"


def _images_of(source: str, options: SourceOptions) -> _Images:
    if is_list(source):
        lines = read_list(source)
        inputs = [_input(line.source, options) for line in lines]
        return _Images(inputs, [line.image_id for line in lines])
    if is_url(source):
        return _Images([_input(source, options)])
    path = Path(source)
    if options.images is not None or options.split is not None:
        return _listed_by(find_source(path, images=options.images), options.split)
    if path.is_dir():
        return _in_data_folder(path) or _in_folder(path)
    if path.is_file():
        is_known = path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
        if not is_known and any(format_.recognises(path) for format_ in FORMATS):
            return _listed_by(find_source(path), None)
        return _Images([_input(source, options)])
    matches = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - absolute globs too
    if not matches:
        raise UserError(f"{source}: no such file, folder or pattern that matches anything")
    return _Images([_input(match, options) for match in matches if Path(match).is_file()])


def _input(source: str, options: SourceOptions) -> Input:
    if is_url(source):
        if not options.allow_urls:
            raise UserError(f"{source}: nothing is fetched from the web without --allow-urls")
        return ImageUrl(source)
    path = Path(source)
    is_video = path.suffix.lower() in VIDEO_SUFFIXES
    return Video(path, options.stride) if is_video else ImageFile(path)


def _listed_by(source: FoundSource, split: str | None) -> _Images:
    """The images that annotations list, under their ids."""
    default = "train" if set(source.splits) == {"train"} else "validation"
    part, name = source.split(split, default)
    table, _ = find_files(part.read(), part.images)  # one that is missing fails when it is opened
    ids = [table.original_image_ids.get(number, number) for number in table.image_ids.tolist()]
    files = [ImageFile(part.images / table.file_name(row)) for row in range(table.num_images)]
    chosen = f"; {name.rpartition(', ')[2]} is predicted on" if source.splits else ""
    return _Images(files, ids, note=f"{source.describe()}{chosen}, with its image ids")


def _in_data_folder(folder: Path) -> _Images | None:
    """The images of a data set that a folder itself is; None where these are not what is meant."""
    try:
        source = find_source(folder)
        if source.path != folder:  # among other things below it
            return None
        listed = _listed_by(source, None)
    except UserError:  # a prediction needs no annotations
        return None
    files = [one.file for one in listed.inputs if one.file is not None]
    inside = list_files(folder, IMAGE_SUFFIXES).files
    lists_all = bool(source.splits) or _resolved(inside) <= _resolved(files)
    return listed if lists_all else None


def _resolved(paths: Sequence[Path]) -> set[Path]:
    return {path.resolve() for path in paths}


def _in_folder(folder: Path) -> _Images:
    inside = list_files(folder, IMAGE_SUFFIXES)
    if not inside.files:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(
            f"{folder}: the folder has no image ({suffixes}); videos are named one by one"
        )
    files = [ImageFile(path) for path in inside.files]
    return _Images(files, passed_over=inside.passed_over)
