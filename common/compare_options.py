"""The options of `scripts/compare_runs.py`: typed, with their help texts.

Belongs here: declarations only, nothing that imports numpy. What they do is in `common/compare.py`.
"""

from pathlib import Path

from common.config import options, positional
from common.errors import UserError

OUTPUTS = (".json", ".md")


@options
class CompareOptions:
    """Compare two runs, or two groups of runs with the same seeds, from their saved predictions: what differs, by how
    much, and whether the data can tell.

    Give two runs A and B; or the runs of A, and behind --against those of B. All must have been scored on the same
    samples.

    examples:
      python scripts/compare_runs.py runs/attention runs/no-attention
      python scripts/compare_runs.py runs/a-seed0 runs/a-seed1 --against runs/b-seed0 runs/b-seed1
      python scripts/compare_runs.py runs/a runs/b --split validation --output compared.json
    """

    runs: tuple[str, ...] = positional()
    """run directories: A and B; or, with --against, those of A, one per seed"""
    against: tuple[str, ...] = ()
    """run directories of B, with the same seeds"""
    split: str = "test"
    """which predictions-SPLIT.csv of the runs is read"""
    output: str | None = None
    """FILE.json (every figure) or FILE.md (what is printed)"""
    overwrite: bool = False
    """replace the file in --output"""

    def __post_init__(self) -> None:
        if not self.against and len(self.runs) != 2:
            raise UserError(
                f"{len(self.runs)} run directories: give two, A B; or several with the same seeds, "
                "A1 A2 --against B1 B2"
            )
        if self.against and len(self.runs) != len(self.against):
            raise UserError(f"{len(self.runs)} runs --against {len(self.against)}: give as many, with the same seeds")
        if self.output is not None and Path(self.output).suffix not in OUTPUTS:
            raise UserError(f"--output {self.output}: give a file that ends in {' or '.join(OUTPUTS)}")
