"""``retina data check``."""

from __future__ import annotations

from retina.cli.options import Annotations, DataConfig, Images, Source, TrainSplit, labelled_data
from retina.cli.output import describe_report, make_console, print_lines, progress
from retina.wording import counted


def command(
    source: Source = None,
    annotations: Annotations = None,
    images: Images = None,
    config: DataConfig = None,
    split: TrainSplit = None,
) -> None:
    """Read a data set as a training would, decode every image, and list what is wrong with it.

    The exit code is 1 where an image cannot be used.

    Example: `retina data check --images photos --annotations labels.json`
    """
    from retina.datasets.checking import check_dataset

    console = make_console()
    resolved = labelled_data(source, annotations, images, config, split)
    with progress(console, "decoding", len(resolved.dataset)) as advance:
        check = check_dataset(resolved.dataset, on_progress=advance)
    print_lines(console, *describe_report(resolved.full_name, check.report))
    print_lines(console, *(f"  {finding}" for finding in check.findings))
    if check.broken_images:
        print_lines(console, f"{counted(len(check.broken_images), 'image')} cannot be used:")
        print_lines(console, *(f"  {message}" for message in check.broken_images.values()))
        print_lines(console, "retina data fix writes a copy of the annotations without them")
        raise SystemExit(1)
    print_lines(console, "every image can be used")
