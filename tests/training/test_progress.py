import io

import pytest
from rich.console import Console

from retina.training.progress import StepReport, TrainingProgress

REPORT = StepReport(
    step=40,
    epoch=2,
    loss=1.2345,
    classification=0.8,
    box_regression=0.4345,
    lr=1e-3,
    images_per_second=123.4,
    data_wait=0.07,
)


def test_plain_lines_where_the_output_is_no_terminal() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=False, width=80)
    with TrainingProgress(100, console=console, plain_interval=0.0) as progress:
        progress.report(REPORT)
        progress.message("epoch 2: validation AP 0.5")
    lines = output.getvalue().splitlines()
    assert lines[0].startswith("step 40/100  epoch 2  loss 1.2345 (class 0.8000, box 0.4345)")
    assert "lr 1.00e-03  data wait 7%  123.4 images/s  ETA" in lines[0]
    assert lines[1] == "epoch 2: validation AP 0.5"


def test_plain_lines_come_at_most_once_in_the_interval_and_at_the_end() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=False)
    with TrainingProgress(40, console=console, plain_interval=3600.0) as progress:
        for _ in range(3):
            progress.report(REPORT)  # the last step is always told
    assert output.getvalue().count("step 40/40") == 3
    with TrainingProgress(100, console=console, plain_interval=3600.0) as progress:
        for _ in range(3):
            progress.report(REPORT)
    assert output.getvalue().count("step 40/100") == 1


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_everything_uncut(width: int) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=width, legacy_windows=False)
    with TrainingProgress(100, console=console) as progress:
        progress.report(REPORT)
    shown = output.getvalue()
    for words in ("epoch 2", "40/100", "123.4 images/s", "ETA", "loss 1.2345", "data wait 7%"):
        assert words in shown, words
    assert "…" not in shown


def test_a_quiet_process_writes_nothing() -> None:
    output = io.StringIO()
    console = Console(file=output, quiet=True)
    with TrainingProgress(100, console=console, quiet=True) as progress:
        progress.report(REPORT)
        progress.message("x")
    assert output.getvalue() == ""
