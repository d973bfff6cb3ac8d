"""What a classifier's run leaves for the eye: its confusion matrix, and the photos it classified best and worst.

Belongs here: choosing what is drawn. Drawing is in `common/plots.py` and `common/photo_sheets.py`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from common.confusion import confusions
from common.plots import draw_confusion
from common.runs import write_csv

_MOST = 40  # classes with a row of their own in the picture; the table has them all
Sample = TypeVar("Sample", bound=Mapping[str, Any])


def write_confusion(rows: Sequence[Mapping[str, Any]], classes: Sequence[str], run: Path, split: str) -> None:
    """`confusion-<split>.csv`, a row per gold class and a column per predicted one, and the same as a picture.

    `rows` are those of `predictions-<split>.csv`. Samples of a class that the run does not know have rows at the end.
    """
    counts = Counter((row["gold"], row["predicted"]) for row in rows)
    unknown = sorted({row["gold"] for row in rows} - set(classes))
    table = [
        {"gold \\ predicted": gold} | {name: counts[gold, name] for name in classes} for gold in [*classes, *unknown]
    ]
    write_csv(run / f"confusion-{split}.csv", table)
    together = [{**row, "all": split} for row in rows]
    draw_confusion(
        confusions(together, by="all", most=_MOST), run / f"confusion-{split}.png", title=f"{run.name}: {split}"
    )


def best_and_worst(rows: Sequence[Sample], count: int) -> tuple[list[Sample], list[Sample]]:
    """The `count` samples whose gold class is most probable, best first, and the `count` others whose is least, worst
    first. `rows` have `gold_probability`, `gold_rank` and `id`; equally probable ones come by rank, then by id."""
    ordered = sorted(rows, key=lambda row: (-row["gold_probability"], row["gold_rank"], row["id"]))
    count = min(count, (len(ordered) + 1) // 2)
    return ordered[:count], ordered[count:][::-1][:count]
