"""``retina data stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retina.cli.options import Annotations, DataConfig, Images, Source, TrainSplit, labelled_data
from retina.cli.output import make_console

if TYPE_CHECKING:
    from retina.datasets.statistics import DatasetStatistics
    from retina.tables import Table


def command(
    source: Source = None,
    annotations: Annotations = None,
    images: Images = None,
    config: DataConfig = None,
    split: TrainSplit = None,
) -> None:
    """Describe a data set: classes and their imbalance, sizes, occlusion, crowding.

    Example: `retina data stats --images photos --annotations labels.json`
    """
    from retina.datasets.statistics import dataset_statistics

    resolved = labelled_data(source, annotations, images, config, split)
    statistics = dataset_statistics(resolved.dataset)
    console = make_console()
    console.print(_class_table(statistics).to_terminal())
    console.print(_fact_table(resolved.full_name, statistics).to_terminal())


def _class_table(statistics: DatasetStatistics) -> Table:
    from retina.tables import Column, Table

    return Table(
        title="classes",
        columns=(
            Column("class", "class"),
            Column("boxes", "boxes", justify="right"),
            Column("share", "share", "{:.1%}".format, justify="right"),
        ),
        rows=tuple(
            {"class": name, "boxes": count, "share": count / max(1, statistics.num_boxes)}
            for name, count in sorted(statistics.class_counts, key=lambda row: -row[1])
        ),
    )


def _fact_table(title: str, statistics: DatasetStatistics) -> Table:
    from retina.tables import Column, Table

    return Table(
        title=title,
        columns=(Column("what", "what"), Column("value", "value", justify="right")),
        rows=tuple({"what": what, "value": value} for what, value in statistics.rows()),
        has_header=False,
    )
