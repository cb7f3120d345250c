"""All checks, in the order in which they run: the quick ones first."""

from tests.cuda.command_checks import COMMAND_CHECKS  # type: ignore[import-not-found]
from tests.cuda.kernel_checks import KERNEL_CHECKS  # type: ignore[import-not-found]
from tests.cuda.step_checks import STEP_CHECKS  # type: ignore[import-not-found]
from tests.cuda.training_checks import TRAINING_CHECKS  # type: ignore[import-not-found]

CHECKS = [*KERNEL_CHECKS, *STEP_CHECKS, *TRAINING_CHECKS, *COMMAND_CHECKS]
