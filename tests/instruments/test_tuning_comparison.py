"""What a stage concludes, from samples made by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from retina.configuration import ConfigError, validate
from retina.evaluation.bootstrap import CategoryMatches, ImageMatches
from retina.instruments.tuning.comparison import CellScores, Stage, compare, score_cell
from retina.instruments.tuning.grid import Cell, GridConfig, paper_alpha
from retina.instruments.tuning.report import conclusion, write_reports
from retina.instruments.tuning.search import TuningResult

GRID = GridConfig()
NOISE = np.random.default_rng(0).normal(0, 0.05, 2000)


def scores(gamma: float, ap: float, alpha: float | None = 0.25, spread: float = 0.0) -> CellScores:
    """A cell whose AP moves with the images as all others do, and ``spread`` on its own."""
    own = np.random.default_rng(int(1000 * ap)).normal(0, 1, len(NOISE)) * spread
    return CellScores(Cell(gamma, alpha), (), (ap,), ap50=0.5, samples=ap + NOISE + own)


def stage_of(*cells: CellScores, symbol: str = "γ", num_images: int = 20) -> Stage:
    stage = compare(symbol, cells, GRID, num_images=num_images)
    assert stage is not None
    return stage


def test_the_intervals_of_two_cells_may_overlap_and_yet_be_told_apart_in_pairs() -> None:
    stage = stage_of(scores(1.0, 0.300, spread=0.002), scores(5.0, 0.330, spread=0.002))
    row, best = stage.rows
    assert row.interval is not None
    assert best.interval is not None
    assert row.interval[1] > best.interval[0]
    assert row.interval == pytest.approx((0.300 - 1.96 * 0.05, 0.300 + 1.96 * 0.05), abs=0.01)
    assert row.behind == pytest.approx(0.03)
    assert row.behind_interval == pytest.approx((0.03 - 0.0055, 0.03 + 0.0055), abs=0.001)
    assert not row.is_contender
    assert stage.chosen == stage.best == Cell(5.0, 0.25)
    assert stage.reason == "γ = 5 is the best, and clearly so"


def test_the_papers_gamma_is_kept_where_the_images_do_not_tell_it_from_the_best() -> None:
    stage = stage_of(scores(1.0, 0.312, spread=0.01), scores(2.0, 0.300, spread=0.01))
    assert stage.best == Cell(1.0, 0.25)
    assert stage.chosen == Cell(2.0, 0.25)
    assert stage.reason == (
        "γ = 1 is the best, but not distinguishable from the paper's γ = 2, which is kept"
    )
    (verdict,) = stage.verdicts()
    assert verdict.startswith("γ = 1 beats γ = 2 by 0.012, interval −0.0")
    assert verdict.endswith(": not distinguishable")


def test_where_the_paper_says_nothing_the_best_is_taken_and_its_rivals_are_named() -> None:
    stage = stage_of(scores(0.0, 0.30, spread=0.01), scores(1.0, 0.31, spread=0.01))
    assert stage.chosen == Cell(1.0, 0.25)
    assert stage.reason == "γ = 1 is the best; γ = 0 cannot be told from it on these images"


def test_a_thousandth_of_ap_is_no_difference_however_narrow_the_interval() -> None:
    stage = stage_of(scores(1.0, 0.3009), scores(2.0, 0.3000))
    assert stage.rows[1].is_contender
    assert stage.chosen == Cell(2.0, 0.25)


def test_the_usual_alpha_depends_on_gamma() -> None:
    assert [paper_alpha(gamma) for gamma in (0.0, 0.5, 1.0, 2.0, 5.0)] == [0.75, 0.5] + [0.25] * 3
    stage = stage_of(
        scores(0.0, 0.30, alpha=0.75, spread=0.01),
        scores(0.0, 0.31, alpha=0.25, spread=0.01),
        symbol="α",
    )
    assert stage.chosen == Cell(0.0, 0.75)


def test_a_failed_cell_has_a_row_and_no_numbers() -> None:
    stage = stage_of(CellScores(Cell(5.0, 0.25), ("the loss is not finite",)), scores(2.0, 0.3))
    failed, fine = stage.rows
    assert (failed.interval, failed.behind, failed.is_contender) == (None, None, False)
    assert fine.behind_interval == (0.0, 0.0)
    assert stage.verdicts() == []
    assert stage.reason == "γ = 2 is the only one that came through"
    assert compare("γ", [CellScores(Cell(5.0, 0.25), ("no",))], GRID, num_images=20) is None


def test_of_fewer_than_twenty_images_there_is_no_interval_and_nothing_is_told_apart() -> None:
    stage = stage_of(scores(1.0, 1.0), scores(5.0, 0.1), num_images=19)
    for row in stage.rows:
        assert (row.interval, row.behind_interval, row.is_contender) == (None, None, True)
    assert stage.verdicts() == [
        "γ = 1 beats γ = 5 by 0.900, no interval from so few images: not distinguishable"
    ]
    assert stage.reason == "γ = 1 is the best; γ = 5 cannot be told from it on these images"
    assert not stage_of(scores(1.0, 1.0), scores(5.0, 0.1)).rows[1].is_contender


def test_where_no_ap_is_above_zero_nothing_was_learned(tmp_path: Path) -> None:
    def zero(gamma: float) -> CellScores:
        return CellScores(Cell(gamma, 0.25), (), (0.0,), ap50=0.0, samples=np.zeros(2000))

    stage = stage_of(zero(1.0), zero(2.0))
    assert not stage.has_learned
    assert stage.reason == "nothing was learned, the highest AP is 0.0000; give more epochs"
    assert stage.verdicts() == []
    result = TuningResult((stage,), stage.chosen, GRID, (0,), 30, 30)
    assert conclusion(result).startswith("nothing was learned, so there is nothing to choose by")
    write_reports(result, tmp_path)
    assert "≈ best" not in (tmp_path / "tune.md").read_text()
    assert not json.loads((tmp_path / "tune.json").read_text())["has_learned"]
    learned = stage_of(zero(1.0), scores(2.0, 0.3))
    assert learned.has_learned
    assert conclusion(TuningResult((learned,), learned.chosen, GRID, (0,), 30, 30)) == (
        "train with: objective.classification.gamma=2.0 objective.classification.alpha=0.25"
    )


def test_two_seeds_that_differ_tell_nothing_apart() -> None:
    """Ahead by 0.05 and 0.03, the images all alike: 0.04 ± 12.706 · 0.01, Student's t."""
    cells = [
        CellScores(Cell(gamma, 0.25), (), aps, ap50=0.5, samples=np.full(100, np.mean(aps)))
        for gamma, aps in ((1.0, (0.35, 0.33)), (5.0, (0.30, 0.30)))
    ]
    row = stage_of(*cells).rows[1]
    assert row.behind_interval == pytest.approx((0.04 - 0.12706, 0.04 + 0.12706), abs=1e-5)
    assert row.is_contender


def test_a_cells_resamples_are_the_means_over_its_seeds() -> None:
    """One image; one seed finds its object, the other does not: half of an AP of 1."""
    found, missed = (
        ImageMatches(
            1,
            (
                CategoryMatches(
                    images=np.array([0]),
                    ranks=np.array([0]),
                    is_true=np.full((10, 1), is_true),
                    is_ignored=np.zeros((10, 1), dtype=bool),
                    num_objects=np.array([1]),
                ),
            ),
        )
        for is_true in (True, False)
    )
    multiplicities = np.ones((4, 1), dtype=np.int64)
    result = score_cell(Cell(2.0, 0.25), [found, missed], 0.5, multiplicities)
    assert result.aps == pytest.approx((1.0, 0.0))
    assert result.samples is not None
    assert result.samples.tolist() == pytest.approx([0.5] * 4)


def test_the_default_grid_is_the_papers() -> None:
    assert [cell.gamma for cell in GRID.gamma_cells()] == [0.0, 0.5, 1.0, 2.0, 5.0]
    assert {cell.alpha for cell in GRID.gamma_cells()} == {0.25}
    assert [cell.alpha for cell in GRID.alpha_cells(1.0)] == [0.1, 0.25, 0.5, 0.75, 0.9]
    grid = validate({"alphas": [0.5, None], "alpha": 0.25}, GridConfig, source="grid.yaml")
    assert [cell.alpha for cell in grid.alpha_cells(2.0)] == [0.25, 0.5, None]
    assert Cell(0.5, None).name == "gamma0.5_alphanone"
    assert Cell(0.5, None).overrides[1] == "objective.classification.alpha=null"


def test_an_alpha_of_one_is_none() -> None:
    grid = validate({"alphas": [0.5, None], "alpha": 1}, GridConfig, source="grid.yaml")
    assert [cell.name for cell in grid.alpha_cells(2.0)] == ["gamma2_alpha0.5", "gamma2_alphanone"]
    grid = validate({"alphas": [0.5, 1.0], "alpha": 0.25}, GridConfig, source="grid.yaml")
    assert grid.alphas == (0.5, None)


def test_no_two_cells_share_a_folder() -> None:
    grid = validate({"gammas": [1.0000001, 1.0000002, 1]}, GridConfig, source="grid.yaml")
    assert [cell.name for cell in grid.gamma_cells()] == [
        "gamma1_alpha0.25", "gamma1.0000001_alpha0.25", "gamma1.0000002_alpha0.25",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"gamas": [1]}, "gamas: unknown key, did you mean 'gammas'?"),
        ({"gammas": [1, -2]}, "gammas.1: input should be greater than or equal to 0 (value -2)"),
        ({"gammas": [1, 1.0]}, "a value stands twice in [1.0, 1.0]"),
        ({"alphas": [0.25, 0]}, "alpha=0 would give the foreground no loss at all"),
        ({"alpha": 1.5}, "alpha=1.5"),
        ({"budget": {"epochs": 0}}, "budget.epochs: input should be greater than or equal to 1"),
        ({"gammas": [float("inf")]}, "gammas.0: input should be a finite number"),
        ({"alphas": [1, None]}, "a value stands twice in [None, None]"),
        ({"seeds": [2**32]}, "seeds.0: input should be less than 4294967296"),
        ({"resamples": 10**9}, "resamples: input should be less than or equal to 10000"),
        ({"resamples": 10}, "resamples: input should be greater than or equal to 100"),
    ],
)
def test_a_bad_grid_is_told_what_is_wrong(tree: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        validate(tree, GridConfig, source="grid.yaml")
    assert message in str(error.value)
