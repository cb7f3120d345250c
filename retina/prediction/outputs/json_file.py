"""``detections.json``: all that was found, in COCO's results format."""

from __future__ import annotations

from retina.datasets.written_results import ImageResults, write_image_results
from retina.prediction.outputs.results import Results


def write_json(results: Results) -> None:
    """Write the file; rows have the name of their file, and of a video the frame and the time."""
    place = results.place
    rows = (
        ImageResults(image_id, one.found, place.inputs[one.item].name, one.frame, one.time)
        for image_id, one in results.images()
    )
    write_image_results(place.folder / "detections.json", rows, place.categories)
