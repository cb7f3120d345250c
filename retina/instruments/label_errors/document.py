"""Suspects as JSON: original ids, and boxes as COCO writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retina.datasets.dataset import DetectionDataset
from retina.instruments.label_errors.finding import KINDS, Suspect


def suspects_document(
    suspects: Sequence[Suspect], dataset: DetectionDataset, *, images: Path
) -> list[dict[str, object]]:
    """The list of ``suspects.json``.

    Args:
        suspects: the highest score first.
        dataset: theirs.
        images: the folder that the file names are relative to.
    """
    truth, categories = dataset.ground_truth(), dataset.categories
    folder = images.absolute()
    ranks = dict.fromkeys(KINDS, 0)

    def category(label: int) -> dict[str, object]:
        return {"category_id": categories.dataset_ids[label], "category": categories.names[label]}

    records: list[dict[str, object]] = []
    for one in suspects:
        ranks[one.kind] += 1
        path = Path(dataset.file_path(one.image_index)).absolute()
        name = path.relative_to(folder) if path.is_relative_to(folder) else path
        record: dict[str, object] = {
            "kind": one.kind,
            "score": round(one.score, 6),
            "rank_in_kind": ranks[one.kind],
            "image_id": int(dataset.image_ids[one.image_index]),
            "file_name": name.as_posix(),
            "annotation_id": None,
            "label": None,
            "suggestion": None,
        }
        if one.annotation is not None:
            record["annotation_id"] = int(truth.annotation_ids[one.annotation])
            record["label"] = {
                "bbox": truth.boxes_xywh[one.annotation].tolist(),
                **category(int(truth.category_labels[one.annotation])),
            }
        if one.suggestion is not None:
            x1, y1, x2, y2 = one.suggestion.box
            record["suggestion"] = {
                "bbox": [round(side, 2) for side in (x1, y1, x2 - x1, y2 - y1)],
                **category(one.suggestion.label),
                "score": round(one.suggestion.score, 6),
            }
        records.append(record)
    return records
