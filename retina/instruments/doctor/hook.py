"""The doctor's cheap checks at the start of a training."""

from __future__ import annotations

from retina.distributed import is_main_process
from retina.experiment.setup import TrainingSetup
from retina.instruments.doctor.checks import short_form
from retina.training.run import Hook, TrainingRun


def make_hook(training: TrainingSetup) -> DoctorHook:
    """The hook of a training."""
    return DoctorHook(training)


class DoctorHook(Hook):
    """Shows a line for each thing that looks wrong; on the first rank only, and once."""

    def __init__(self, training: TrainingSetup) -> None:
        self._training = training
        self._is_done = False

    def begin(self, run: TrainingRun) -> None:
        """Make the checks that cost nothing, and show a line for each error and warning."""
        if self._is_done or not is_main_process():
            return
        self._is_done = True
        training = self._training
        for finding in short_form(training.config, training.train, training.validation):
            run.progress.message(finding.line())
