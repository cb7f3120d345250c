"""Whether the anchors reach the objects: measured by the real assigner, and mended by a fit."""

from retina.instruments.doctor.coverage.measuring import (
    AnchorCoverage,
    InputImage,
    Outcome,
    input_images,
    measure_coverage,
)

__all__ = ["AnchorCoverage", "InputImage", "Outcome", "input_images", "measure_coverage"]
