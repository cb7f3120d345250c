"""Which data set is meant: by options, by a config, or by the run that a detector lies in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from retina.datasets import (
    FORMATS,
    SPLITS,
    DatasetConfig,
    DetectionDataset,
    FolderConfig,
    find_source,
    split_called,
    tell_source,
)
from retina.datasets.categories import (
    NoCategoryError,
    UnknownCategories,
    UnknownCategoriesError,
)
from retina.datasets.formats import config_of
from retina.errors import UserError
from retina.experiment.config import ExperimentConfig, load_experiment
from retina.experiment.parts import LEAVE_OUT, build_dataset, with_fix
from retina.structures import Categories
from retina.training.run_folder import CONFIG


def is_config(path: Path) -> bool:
    """Whether a path is taken for a config, not for data: a YAML file that no format recognises."""
    if path.suffix.lower() not in (".yaml", ".yml") or path.is_dir():
        return False
    return not (path.is_file() and any(format_.recognises(path) for format_ in FORMATS))


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """What the options of a command say about the data.

    Attributes:
        source: a config (YAML); an annotation file with its ``images/`` beside it; or a folder with
            ``annotations.json`` and ``images/``, with Pascal VOC's ``Annotations/`` and
            ``JPEGImages/``, or with ``train/``, ``validation/`` … of such a shape.
        annotations: a COCO file, or a folder of Pascal VOC XML files.
        images: the folder of their images.
        config: an experiment.
        split: of a config or a folder; with ``annotations`` the file that lists the image names of
            Pascal VOC.
        overrides: changes of the config, ``key=value``.
        detector: the file whose run says what the options leave open; None where none may.
        source_option: how the command calls ``source``, for messages.
    """

    source: Path | None = None
    annotations: Path | None = None
    images: Path | None = None
    config: Path | None = None
    split: str | None = None
    overrides: Sequence[str] = ()
    detector: Path | None = None
    source_option: str = "--data"

    @property
    def named_config(self) -> Path | None:
        """The config that ``config`` or ``source`` names."""
        source = self.source
        return source if source is not None and is_config(source) else self.config


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedData:
    """The data set that is meant.

    Attributes:
        dataset: one split, read.
        part: its config.
        name: for people: the split of a config, else what was named.
        full_name: the same, with the config's path.
        images: the folder of the images, or None where a config says it.
        config: the experiment that the data belongs to, or None.
        why_no_config: a clause for people.
    """

    dataset: DetectionDataset
    part: DatasetConfig
    name: str
    full_name: str
    images: Path | None = None
    config: ExperimentConfig | None
    why_no_config: str = ""


def resolve_data(
    options: DataOptions,
    *,
    purpose: str,
    default_split: str = "validation",
    categories: Categories | None = None,
    check_images: bool = True,
    unknown_categories: UnknownCategories = "refuse",
) -> ResolvedData:
    """Find the data set that the options mean, and read it.

    Args:
        options: of the command.
        purpose: what the data is for, as the end of "say …".
        default_split: of a config or a folder; where it is ``validation``, a folder's ``test``
            comes before it.
        categories: those of a detector, which the labels follow; None for those of the data.
        check_images: see `DatasetConfig.build`.
        unknown_categories: see `DatasetConfig.build`.

    Raises:
        UserError: the options contradict each other or name nothing, or the data cannot be read.
    """
    _refuse_contradictions(options)
    config_path = options.named_config
    if config_path is not None or (options.source is None and options.annotations is None):
        split = split_called(options.split or default_split, SPLITS, "--split")
        config_path = config_path or _config_of_run(options, purpose)
        config = load_experiment(config_path, options.overrides)
        try:
            dataset = build_dataset(
                config,
                split,
                categories=categories,
                check_images=check_images,
                unknown_categories=unknown_categories,
            )
        except UnknownCategoriesError as error:
            raise with_fix(error, _IN_CONFIG) from None
        return ResolvedData(
            dataset=dataset,
            part=getattr(config.dataset, split),
            name=split,
            full_name=f"{config_path}, {split}",
            config=config,
        )
    if options.overrides:
        raise UserError(f"{options.overrides[0]}: changes a config, and no config was given")
    source = None
    if options.annotations is not None:
        part = _annotated(
            options.annotations, options.images, options.split, needs_images=check_images
        )
        name = part.display_name
    else:
        assert options.source is not None
        source = find_source(options.source, images=options.images)
        part, name = source.split(options.split, default_split)
    try:
        dataset = part.build(
            categories,
            check_images=check_images,
            unknown_categories=unknown_categories,
        )
    except UnknownCategoriesError as error:
        raise with_fix(error, f"{LEAVE_OUT}{_IN_CONFIG}") from None
    if source is not None:
        tell_source(dataset, source)
    run_config, why = _training_config(options.detector)
    return ResolvedData(
        dataset=dataset,
        part=part,
        name=name,
        full_name=name,
        images=part.images,
        config=run_config,
        why_no_config=why,
    )


_IN_CONFIG = ", in a config that --config names"


def resolve_splits(
    options: DataOptions, *, purpose: str, check_images: bool = True
) -> dict[str, ResolvedData]:
    """All splits that the options mean, each read with categories of its own.

    One without any, as a test split of Pascal VOC whose objects are secret, has those of the first.

    Args:
        options: of the command; with a ``split`` it is the only one.
        purpose: what the data is for, as the end of "say …".
        check_images: see `DatasetConfig.build`.

    Returns:
        By the names of the splits; a single data set under an empty name.

    Raises:
        UserError: as `resolve_data`.
    """
    _refuse_contradictions(options)
    found: dict[str, ResolvedData] = {}
    for name in _split_names(options):
        read = partial(
            resolve_data,
            replace(options, split=name or options.split),
            purpose=purpose,
            check_images=check_images,
        )
        try:
            found[name] = read()
        except NoCategoryError:
            if not found:
                raise
            found[name] = read(categories=next(iter(found.values())).dataset.categories)
    return found


def _split_names(options: DataOptions) -> list[str]:
    """The splits that the options mean; a single empty name where there are none."""
    splits: list[str] = []
    if options.named_config is not None:
        dataset = load_experiment(options.named_config, options.overrides).dataset
        splits = [split for split in SPLITS if getattr(dataset, split) is not None]
    elif options.source is not None:
        found = find_source(options.source, images=options.images).splits
        splits = [split for split in SPLITS if split in found]
    if options.split is not None and splits:
        return [split_called(options.split, splits, "--split")]
    return splits or [""]


def run_folder(detector: Path) -> Path | None:
    """The folder of the run that a detector lies in, the one that holds its ``checkpoints/``.

    A detector in a folder of another name is no run's, whatever lies above it.
    """
    folder = detector.parent
    if folder.absolute().name != "checkpoints":
        return None
    run = folder.parent if folder.name else folder.absolute().parent
    return run if (run / CONFIG).is_file() else None


def _refuse_contradictions(options: DataOptions) -> None:
    source, config, annotations = options.source, options.config, options.annotations
    if source is not None and (config is not None or annotations is not None):
        raise UserError(
            f"{options.source_option} stands for --config or --annotations: give only one of them"
        )
    if options.named_config is not None and (annotations is not None or options.images is not None):
        raise UserError("give either a config or --annotations with --images, not both")
    if options.images is not None and annotations is None and source is None:
        raise UserError("--images needs --annotations: the file or folder that describes them")


def _config_of_run(options: DataOptions, purpose: str) -> Path:
    source = "SOURCE" if options.source_option == "SOURCE" else f"{options.source_option} SOURCE"
    ask = (
        f"say {purpose}: {source}, --annotations FILE --images FOLDER, or --config CONFIG "
        "--split NAME"
    )
    if options.detector is None:
        raise UserError(ask)
    run = run_folder(options.detector)
    if run is None:
        raise UserError(
            f"{options.detector}: lies in no checkpoints/ folder with a run's config.yaml beside "
            f"it; {ask}"
        )
    return run / CONFIG


def training_config(source: object) -> ExperimentConfig | None:
    """The config of the run that a detector file lies in; None where there is none to be read."""
    return _training_config(source)[0] if isinstance(source, Path) else None


def _training_config(detector: Path | None) -> tuple[ExperimentConfig | None, str]:
    """The config of the run that a detector lies in, or None and why."""
    run = None if detector is None else run_folder(detector)
    if run is None:
        return None, "no config.yaml tells the training's"
    path = run / CONFIG
    try:
        return load_experiment(path, []), ""
    except UserError as error:  # the data was named, and a training has defaults
        return None, f"{path} cannot be read: {error}"


def _annotated(
    annotations: Path, images: Path | None, split: str | None, *, needs_images: bool
) -> FolderConfig:
    """Annotations in the format that they have; for some a file lists the images of a split."""
    if images is None and needs_images:
        raise UserError(f"{annotations}: say where its images are with --images FOLDER")
    part = config_of(annotations, images)
    if split is not None:
        listed = part.split_listed_in(Path(split))
        if listed is None:
            raise UserError(
                f"--split {split}: an annotation file has no splits; leave it away, or name a "
                "config or a folder instead"
            )
        part = listed
    if not annotations.exists():
        raise UserError(f"{annotations}: no such annotation file or folder")
    return part
