"""``retina data check``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from retina.cli.options import (
    Annotations,
    DataConfig,
    EverySplit,
    Images,
    Source,
    labelled_splits,
    output_option,
)
from retina.cli.output import describe_report, make_console, print_lines, progress
from retina.registry import is_present
from retina.wording import counted

if TYPE_CHECKING:
    from retina.datasets.check_page import Section
    from retina.datasets.dataset import DetectionDataset
    from retina.experiment import ResolvedData

_DOCTOR = "retina.instruments.doctor"
_SAID_ALREADY = {"classes_rare", "classes_empty"}
_EXAMPLES = 4


def command(
    source: Source = None,
    annotations: Annotations = None,
    images: Images = None,
    config: DataConfig = None,
    split: EverySplit = None,
    output: Annotated[
        Path | None, output_option("Folder for check.html, a page with a picture of every finding.")
    ] = None,
) -> None:
    """Read a data set as a training would, decode every image, and list what is wrong with it.

    That is what a training would say, images that cannot be used, images that are there several
    times or in several splits, and what the doctor finds in the data. The exit code is 1 where an
    image cannot be used, or where a line says "error": a training would refuse the data, or hardly
    learn from it.

    Example: `retina data check --images photos --annotations labels.json --output checked`
    """
    from retina.datasets.check_page import html_page, section_of_repeats, sections_of
    from retina.datasets.checking import check_dataset
    from retina.datasets.repeats import describe_repeats, find_repeats
    from retina.storage import write_text

    console = make_console()
    found = labelled_splits(source, annotations, images, config, split)
    datasets = {name: resolved.dataset for name, resolved in found.items()}
    with progress(console, "decoding", sum(map(len, datasets.values()))) as advance:
        checks = {name: check_dataset(one, on_progress=advance) for name, one in datasets.items()}
    broken = [text for check in checks.values() for text in check.broken_images.values()]
    for name, check in checks.items():
        print_lines(console, describe_report(found[name].full_name, check.report)[0])
        print_lines(console, *(f"  {finding.text}" for finding in check.findings))
    fingerprints = {name: check.fingerprints for name, check in checks.items()}
    repeats = describe_repeats(find_repeats(datasets, fingerprints), datasets)
    print_lines(console, *(text for text, _ in repeats))
    learnt = _as_learnt(found, look_at_images=not broken)
    print_lines(console, *(section.text for section in learnt))
    if broken:
        print_lines(console, f"{counted(len(broken), 'image')} cannot be used:")
        print_lines(console, *(f"  {text}" for text in broken))
    num_images = sum(check.report.num_images for check in checks.values())
    num_boxes = sum(check.report.num_boxes for check in checks.values())
    conclusion = (
        f"{counted(num_images, 'image')}, {counted(num_boxes, 'box')}",
        f"{counted(len(broken), 'image')} cannot be used" if broken else "every image can be used",
    )
    if output is not None:
        parts = {
            found[name].full_name: list(sections_of(datasets[name], check))
            for name, check in checks.items()
        }
        parts["images that are there several times"] = [
            section_of_repeats(text, some, datasets) for text, some in repeats
        ]
        parts["as a training would take it"] = learnt
        name, first = next(iter(found.items()))
        title = first.full_name.removesuffix(f", {name}")
        write_text(output / "check.html", html_page(title, ", ".join(conclusion), parts))
        print_lines(console, f"{output / 'check.html'} shows what was found")
    print_lines(console, *conclusion)
    if broken:
        print_lines(console, "retina data fix writes a copy of the annotations without them")
    if broken or any(section.level == "error" for section in learnt):
        raise SystemExit(1)


def _as_learnt(found: dict[str, ResolvedData], *, look_at_images: bool) -> list[Section]:
    """What speaks against learning from the first split and scoring on the others."""
    from retina.datasets.categories import UnknownCategoriesError
    from retina.datasets.check_page import Section

    (_, train), *others = found.items()
    sections: list[Section] = []
    parts, datasets = [train.part], [train.dataset]
    for name, other in others:
        try:
            matched = other.part.build(train.dataset.categories, check_images=False)
        except UnknownCategoriesError as error:
            sections.append(Section(f"error: {name} would be refused: {error}", level="error"))
        else:
            if name == "validation":
                parts.append(other.part)
                datasets.append(matched)
    if is_present(_DOCTOR):
        from retina.datasets.formats.coco_file import WITHOUT_ANNOTATIONS
        from retina.instruments.doctor.checks import data_findings

        # A file for predictions alone has nothing to learn from, and its report has said so.
        is_told = WITHOUT_ANNOTATIONS in train.dataset.report.findings
        said = _SAID_ALREADY | ({"no_boxes"} if is_told else set())
        for one in data_findings(parts, datasets, look_at_images=look_at_images):
            if one.code not in said:
                sections.append(_section(one.line(), one.code, one.level, datasets))
    return sections


def _section(text: str, code: str, level: str, datasets: Sequence[DetectionDataset]) -> Section:
    """A finding of the doctor; of one about boxes, a few images with theirs."""
    from retina.datasets.check_page import section_of
    from retina.datasets.checking import CheckFinding

    # The findings name their split where it is not the training's.
    dataset = datasets[-1] if "the validation boxes" in text else datasets[0]
    with_boxes = [i for i in range(len(dataset)) if len(dataset.targets(i))]
    shown = tuple(with_boxes[:_EXAMPLES]) if code.startswith("boxes_") else ()
    return section_of(dataset, CheckFinding(text, images=shown), level=level)
