import math

import pytest
import torch

from retina.objective.criterion import LossSums
from retina.training.meter import StepMeter


def losses(*values: float) -> LossSums:
    return LossSums.unstack(torch.tensor(values))


def test_the_means_are_those_of_the_finite_steps() -> None:
    meter = StepMeter(torch.device("cpu"))
    meter.add(losses(1.0, 2.0, 0.25, 10.0, 10.0), 4)
    meter.add(losses(math.nan, 5.0, 0.25, 10.0, 10.0), 4)
    meter.add(losses(3.0, 4.0, 0.75, 30.0, 30.0), 4)
    report = meter.flush()
    assert report["loss"] == pytest.approx(5.0)
    assert report["classification"] == pytest.approx(2.0)
    assert report["foreground_loss_share"] == pytest.approx(0.25)
    assert report["num_foreground"] == pytest.approx(20.0)


def test_without_a_finite_step_there_is_no_mean() -> None:
    meter = StepMeter(torch.device("cpu"))
    meter.add(losses(math.inf, 5.0, 0.25, 10.0, 10.0), 4)
    assert math.isnan(meter.flush()["loss"])
    meter.add(losses(1.0, 5.0, 0.25, 10.0, 10.0), 4)
    assert meter.flush()["loss"] == pytest.approx(6.0)
