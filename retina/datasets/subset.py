"""Some images of a data set."""

from __future__ import annotations

import numpy as np

from retina.datasets.dataset import AnnotatedImage, DatasetReport, DetectionDataset
from retina.structures import Categories, FloatArray, GroundTruth, IntArray, Targets


class SubsetDataset(DetectionDataset):
    """Some images of a data set, in the given order; classes and ids stay.

    Args:
        whole: the data set.
        indices: of the images, all different.
        finding: what the report says about the choice.
    """

    def __init__(self, whole: DetectionDataset, indices: IntArray, finding: str) -> None:
        self.antialias = whole.antialias
        self.max_unreadable = whole.max_unreadable
        self.whole = whole
        self.indices = indices
        self._finding = finding

    @property
    def categories(self) -> Categories:
        """The classes of the whole."""
        return self.whole.categories

    @property
    def image_ids(self) -> IntArray:
        """``(I,)`` the original ids, by index."""
        return self.whole.image_ids[self.indices]

    @property
    def image_sizes(self) -> IntArray:
        """``(I, 2)`` annotated height and width, by index."""
        return self.whole.image_sizes[self.indices]

    @property
    def report(self) -> DatasetReport:
        """The counts of these images, and what reading the whole found."""
        targets = [self.targets(index) for index in range(len(self))]
        num_crowd = sum(int(one.is_crowd.sum()) for one in targets)
        return DatasetReport(
            num_images=len(self),
            num_boxes=sum(map(len, targets)) - num_crowd,
            num_crowd=num_crowd,
            num_empty_images=sum(len(one) == 0 for one in targets),
            findings=(*self.whole.report.findings, self._finding),
        )

    @property
    def truth_findings(self) -> tuple[str, ...]:
        """Those of the whole, and the choice."""
        return (*self.whole.truth_findings, self._finding)

    def class_counts(self) -> tuple[int, ...]:
        """The number of objects of each class, crowd regions not counted."""
        targets = [self.targets(index) for index in range(len(self))]
        counts = np.zeros(len(self.categories), dtype=np.int64)
        for one in targets:
            labels = one.labels[~one.is_crowd].numpy()
            counts += np.bincount(labels, minlength=len(self.categories))
        return tuple(counts.tolist())

    def __len__(self) -> int:
        return len(self.indices)

    def file_path(self, index: int) -> str:
        """The path of an image file."""
        return self.whole.file_path(int(self.indices[index]))

    def targets(self, index: int) -> Targets:
        """The repaired objects of an image."""
        return self.whole.targets(int(self.indices[index]))

    def load(self, index: int) -> AnnotatedImage:
        """Decode an image, with its objects."""
        return self.whole.load(int(self.indices[index]))

    def ground_truth(self) -> GroundTruth:
        """What the evaluator scores against."""
        return self.whole.ground_truth().take_images(self.indices)

    def occluded_fractions(self) -> FloatArray:
        """``(G,)`` for the annotations of the ground truth; NaN where not annotated."""
        is_taken = np.zeros(len(self.whole), dtype=np.bool_)
        is_taken[self.indices] = True
        return self.whole.occluded_fractions()[is_taken[self.whole.ground_truth().image_indices]]
