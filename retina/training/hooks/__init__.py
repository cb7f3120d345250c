"""What goes on beside the training, one file each; see `Hook`."""

from retina.training.hooks.hook import FailedStep, Hook, StepDiagnosis

__all__ = ["FailedStep", "Hook", "StepDiagnosis"]
