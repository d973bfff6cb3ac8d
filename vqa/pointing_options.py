"""The options of `scripts/evaluate_attention.py`: typed, with their help texts.

Belongs here: declarations only, nothing that imports torch. What they do is in `vqa/pointing.py`.
"""

from typing import Annotated

from pydantic import Field

from common.config import options
from common.errors import UserError
from common.options import ScoreOptions
from vqa.options import VqaSourceOptions


@options
class EvaluateAttentionOptions(VqaSourceOptions, ScoreOptions):
    """Score where a trained run looks: the pointing game, and how much of its attention lies in the boxes around what
    each question asks about, beside uniform attention's.

    The data need a column of boxes: JSON [[x0, y0, x1, y1], ...] in 0-1 of the photo. Questions without are left out.

    examples:
      python scripts/evaluate_attention.py RUN
      python scripts/evaluate_attention.py RUN --data heldout.csv --output where.json --picture where.png
    """

    output: str | None = None
    """JSON file for the figures, .md and .csv with the table beside it; default only printed"""
    overwrite: bool = False
    """replace --output, --predictions and --picture"""
    predictions: str | None = None
    """CSV file for the figures of each question"""
    picture: str | None = None
    """picture (.png or .svg) of typical hits and misses of each type on their photos"""
    per_type: Annotated[int, Field(ge=1, le=12)] = 4
    """hits and misses of each type in --picture"""

    def __post_init__(self) -> None:
        VqaSourceOptions.__post_init__(self)
        if self.output is not None and not self.output.endswith(".json"):
            raise UserError(f"--output {self.output}: name it .json; the table is written beside it as .md and .csv")
        if self.picture is not None and not self.picture.lower().endswith((".png", ".svg")):
            raise UserError(f"--picture {self.picture}: name it .png or .svg")
        if self.picture is None and self.per_type != 4:
            raise UserError("--per-type says how many --picture shows: add --picture FILE.png")
