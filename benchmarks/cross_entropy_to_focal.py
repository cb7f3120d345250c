"""Table 1 of Lin et al. 2017 in small: from cross-entropy to the focal loss, all else equal.

    python benchmarks/cross_entropy_to_focal.py --config benchmarks/bccd_small.yaml \
        --folder runs/table1/bccd --seeds 0 1 2 --jobs 2

The detector is trained on ``dataset.train`` for a fixed budget and its last weights are scored on
``dataset.validation``; nothing is selected. γ goes with the α that the paper found best for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training_grid import Cell, mean_and_spread, train_grid


def _cell(name: str, alpha: str, gamma: float, prior: float = 0.01) -> Cell:
    loss = f"objective.classification={{kind: focal, alpha: {alpha}, gamma: {gamma}}}"
    return Cell(name, (loss, f"model.head.prior_probability={prior}"))


CELLS = (
    _cell("cross-entropy, no prior", "null", 0.0, prior=0.5),
    _cell("cross-entropy", "null", 0.0),
    _cell("balanced cross-entropy α=0.75", "0.75", 0.0),
    _cell("focal γ=0.5 α=0.5", "0.5", 0.5),
    _cell("focal γ=1 α=0.25", "0.25", 1.0),
    _cell("focal γ=2 α=0.25", "0.25", 2.0),
    _cell("focal γ=5 α=0.25", "0.25", 5.0),
)


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    table = train_grid(
        arguments.config, CELLS, seeds=arguments.seeds, folder=arguments.folder, jobs=arguments.jobs
    )
    print("\n| loss | AP | AP50 | AP75 |\n|---|---|---|---|")
    for name, outcomes in table.items():
        numbers = " | ".join(mean_and_spread(outcomes, key) for key in ("AP", "AP50", "AP75"))
        print(f"| {name} | {numbers} |")


if __name__ == "__main__":
    main()
