"""A step of a training that was not finite, run again from the file that it left behind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from retina.configuration import parse_yaml, validate
from retina.devices import Precision, is_out_of_memory
from retina.errors import UserError
from retina.experiment import ExperimentConfig
from retina.instruments.replay.file import ReplayFile, load_replay
from retina.instruments.replay.layer_check import (
    LayerCheck,
    check_layers,
    describe_checks,
    fix_of_checks,
)
from retina.modeling.loading import build_with_weights
from retina.structures import Batch
from retina.training.forward import ForwardPass
from retina.training.hooks.divergence_report import (
    WEIGHTS_FIX,
    describe_images,
    fix_of_boxes,
    general_fix,
)
from retina.wording import first_line

_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class StepReplay:
    """A step and what it did when it was run again.

    Attributes:
        file: what was read.
        batches: of the step.
        fp32: the step in single precision.
        as_trained: the step in the precision of the training; the same one where that was fp32.
    """

    file: ReplayFile
    batches: tuple[Batch, ...]
    fp32: LayerCheck
    as_trained: LayerCheck

    def conclusion(self) -> list[str]:
        """Where it breaks and what to do about it, a line each."""
        tried = tuple(dict.fromkeys((self.as_trained, self.fp32)))
        broken = describe_checks(tried)
        lines = [f"{broken[0].upper()}{broken[1:]}."]
        if all(check.is_finite for check in tried):
            lines.append(
                "Nothing breaks here: it was the sum over several processes, arithmetic that "
                "differs from device to device (try --device), or a fault of the machine."
            )
        else:
            lines.append(f"{self._fix(tried)}.")
        return lines

    def _fix(self, tried: tuple[LayerCheck, ...]) -> str:
        if any(check.weights for check in tried):
            return WEIGHTS_FIX
        return fix_of_boxes(self.batches) or fix_of_checks(tried) or general_fix(tried[0].precision)


def describe_step(replay: StepReplay) -> list[str]:
    """Which step it was, and of what."""
    file = replay.file
    shapes = ", ".join(" × ".join(map(str, batch.images.shape)) for batch in replay.batches)
    return [
        f"step {file.step} of rank {file.rank} in {file.precision}, learning rate {file.lr:.2e}, "
        f"batch {shapes}",
        describe_images(replay.batches),
    ]


def replay_step(path: Path, device: torch.device) -> StepReplay:
    """Run the step again, as the file has its images: nothing is augmented anew.

    Raises:
        UserError: the file is no replay file, or its parts do not fit each other.
    """
    file = load_replay(path)
    if file.precision not in _PRECISIONS:
        raise UserError(f"{path}: there is no precision '{file.precision}'")
    trained: Precision = file.precision
    source = f"{path}: its config"
    config = validate(parse_yaml(file.config, source), ExperimentConfig, source=source)
    model, num_classes = config.model.without_pretrained_weights(), len(file.class_names)
    try:
        detector = build_with_weights(lambda: model.build(num_classes), file.detector)
        criterion = config.objective.build(detector.box_coder, class_counts=file.class_counts)
        criterion.load_state_dict(file.criterion)
    except UserError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: its weights do not fit its config: {first_line(error)}") from None
    forward = ForwardPass(
        detector=detector.to(device),
        preprocess=config.preprocess.build().to(device),
        criterion=criterion.to(device),
        device=device,
        precision=trained,
    )
    try:
        fp32 = check_layers(replace(forward, precision="fp32"), file.batches)
        as_trained = fp32 if trained == "fp32" else check_layers(forward, file.batches)
    except (RuntimeError, ValueError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"{path}: its batch does not fit its config: {first_line(error)}") from None
    return StepReplay(file, file.batches, fp32, as_trained)
