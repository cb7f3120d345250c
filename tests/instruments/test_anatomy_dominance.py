"""When the warning comes, when it does not, and what it says."""

from __future__ import annotations

from retina.instruments.anatomy import Breakdown, FocalSetting
from retina.instruments.anatomy.dominance import DominanceWatch
from retina.instruments.anatomy.result import Part


def breakdown(easy: float) -> Breakdown:
    """Easy negatives with this share of the gradient, and half of it of the loss."""
    shares = (easy, 0.1, 0.9 - easy)
    parts = [Part(1, 1.0, 1.0, 1.0, share / 2, share, share) for share in shares]
    return Breakdown(*parts)


def warnings(shares: list[float], *, gamma: float = 0.0, every: int = 100) -> list[str | None]:
    watch = DominanceWatch(FocalSetting(gamma=gamma, alpha=None), total_steps=1000)
    return [watch.update(every * n, breakdown(share)) for n, share in enumerate(shares, 1)]


def test_three_reports_in_a_row_after_the_warm_up_give_one_warning() -> None:
    said = warnings([0.9, 0.5, 0.45, 0.48, 0.5, 0.6, 0.7])
    assert [bool(text) for text in said] == [False, False, False, True, False, False, False]
    text = said[3]
    assert text is not None
    assert "45% of the classification loss's gradient or more in 3 reports in a row" in text
    assert "now 24% of the loss (γ = 0, α = none)" in text
    assert "Raise objective.classification.gamma (now 0; 2 is the paper's)" in text


def test_a_report_between_starts_the_count_anew() -> None:
    assert warnings([0.9, 0.5, 0.5, 0.3, 0.5, 0.5]) == [None] * 6


def test_the_warm_up_is_a_tenth_of_the_training() -> None:
    assert warnings([0.9] * 5, every=20) == [None] * 5
    assert sum(text is not None for text in warnings([0.9] * 12, every=20)) == 1


def test_with_a_high_gamma_the_advice_is_another() -> None:
    text = warnings([0.5] * 4, gamma=2.0)[3]
    assert text is not None
    assert "whether the anchors fit the objects" in text
    assert "Raise objective" not in text


def test_a_resumed_training_goes_on_counting_and_does_not_warn_again() -> None:
    def watch() -> DominanceWatch:
        return DominanceWatch(FocalSetting(gamma=0.0, alpha=None), total_steps=1000)

    first, second, third = watch(), watch(), watch()
    assert [first.update(step, breakdown(0.6)) for step in (200, 300)] == [None, None]
    second.load_state_dict(first.state_dict())
    assert second.update(400, breakdown(0.6)) is not None
    third.load_state_dict(second.state_dict())
    assert [third.update(step, breakdown(0.6)) for step in (500, 600, 700)] == [None] * 3
