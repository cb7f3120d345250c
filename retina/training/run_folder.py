"""What a training leaves on disk beside its logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retina.artifact import Artifact
from retina.datasets import DatasetConfig, DetectionDataset
from retina.datasets.written_results import write_results
from retina.evaluation.evaluator import EvaluationResult
from retina.evaluation.folder import DETECTIONS, EVALUATION, METRICS, record_truth
from retina.evaluation.metrics import DetectionMetrics
from retina.evaluation.summary import write_metrics
from retina.modeling.detector import RetinaNet
from retina.modeling.thresholds import ThresholdsConfig

LAST_STATE = Path("checkpoints/last.pt")
"""Where the newest training state is in a run folder."""

CONFIG = Path("config.yaml")
"""Where a run folder has the resolved config, enough to repeat the run."""

_OF_A_RUN = (
    LAST_STATE,
    LAST_STATE.with_name("previous.pt"),
    LAST_STATE.with_name("last.safetensors"),
    LAST_STATE.with_name("best.safetensors"),
    Path("metrics.jsonl"),
)

MakeArtifact = Callable[[RetinaNet, dict[str, float | int], ThresholdsConfig | None], Artifact]
"""The file content of a detector, given facts about its training and the scores from which on its
detections are shown."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The checkpoints and the evaluation of a run; only the first process writes.

    Attributes:
        path: the folder.
        make_artifact: gives the content of a detector's file.
        validation: reads the validation set, None without one.
    """

    path: Path
    make_artifact: MakeArtifact
    validation: DatasetConfig | None = None

    @property
    def last_state(self) -> Path:
        """The training state that `--resume` goes on from."""
        return self.path / LAST_STATE

    def save_detector(
        self,
        name: Literal["last", "best"],
        detector: RetinaNet,
        *,
        step: int,
        metrics: DetectionMetrics | None,
        thresholds: ThresholdsConfig | None = None,
    ) -> None:
        """Write a detector ready for use, with what was measured of it."""
        facts: dict[str, float | int] = {"step": step}
        if metrics is not None:
            facts |= metrics.numbers()
        artifact = self.make_artifact(detector, facts, thresholds)
        artifact.save(self.path / "checkpoints" / f"{name}.safetensors")

    def write_evaluation(self, result: EvaluationResult, dataset: DetectionDataset) -> None:
        """Keep the numbers and detections of the best detector, and what they were scored on."""
        folder = self.path / EVALUATION
        categories = dataset.categories
        write_metrics(folder / METRICS, result.metrics)
        write_results(folder / DETECTIONS, result.image_ids, result.detections, categories)
        if self.validation is not None:
            record_truth(folder, dataset.ground_truth(), self.validation)


def holds_run(folder: Path) -> bool:
    """Whether a training has left its log, a state or a detector in a folder."""
    return any((folder / name).is_file() for name in _OF_A_RUN)


def recorded_run(config: Path) -> Path | None:
    """The run folder whose resolved config a file is; None for a config of its own.

    A run may be moved, copied or called by another path: it is where its files are, whatever
    ``output_dir`` its config names.
    """
    is_record = config.name == CONFIG.name and config.is_file() and holds_run(config.parent)
    return config.parent if is_record else None


def kept_checkpoint(path: Path) -> str:
    """What is left to go on from, a sentence."""
    if path.exists():
        return f"The last checkpoint is intact: {path}"
    return "There is no checkpoint yet (training.checkpoint_every_steps)"
