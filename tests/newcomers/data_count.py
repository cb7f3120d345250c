"""A command: ``retina data count``."""

from __future__ import annotations

from retina.cli.options import Annotations, DataConfig, Images, Source, TrainSplit
from retina.cli.output import make_console


def command(
    source: Source = None,
    annotations: Annotations = None,
    images: Images = None,
    config: DataConfig = None,
    split: TrainSplit = None,
) -> None:
    """Count the objects of each class.

    Example: `retina data count --images photos --annotations labels.json`
    """
    from retina.experiment import DataOptions, resolve_data

    dataset = resolve_data(
        DataOptions(
            source=source,
            annotations=annotations,
            images=images,
            config=config,
            split=split,
            source_option="SOURCE",
        ),
        purpose="which data",
        default_split="train",
        check_images=False,
    ).dataset
    console = make_console()
    for name, count in zip(dataset.categories.names, dataset.class_counts(), strict=True):
        console.print(f"{name} {count}")
