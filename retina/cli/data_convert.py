"""``retina data convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from retina.cli.options import (
    Annotations,
    DataConfig,
    Images,
    Source,
    TrainSplit,
    labelled_data,
    output_option,
)
from retina.cli.output import make_console, print_lines
from retina.wording import counted


def command(
    output: Annotated[Path, output_option("The COCO file to write.")],
    source: Source = None,
    annotations: Annotations = None,
    images: Images = None,
    config: DataConfig = None,
    split: TrainSplit = None,
) -> None:
    """Write any readable data set as one COCO annotation file.

    Example: `retina data convert --images JPEGImages --annotations Annotations --split
    ImageSets/Main/train.txt --output train.json`
    """
    from retina.datasets.coco_export import write_coco

    resolved = labelled_data(source, annotations, images, config, split)
    dataset = resolved.dataset
    write_coco(dataset, output)
    print_lines(
        make_console(),
        f"{output}: {counted(dataset.report.num_images, 'image')}, "
        f"{counted(dataset.report.num_boxes, 'box')}, "
        f"{counted(len(dataset.categories), 'category')}",
    )
