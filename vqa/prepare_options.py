"""The options of `scripts/prepare_data.py`: typed, with their help texts.

Belongs here: declarations only, nothing that imports torch. What they do is in `vqa/prepare.py`.
"""

import re
from typing import Annotated, Literal

from pydantic import Field

from common.columns import check_columns
from common.config import options, positional
from common.errors import UserError
from common.options import Count, Seed

KINDS = ("what", "yes/no", "color", "category", "number", "place")


@options
class SplitOptions:
    """splits (common/splits, common/near_duplicates)"""

    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """part of what is not test that becomes validation"""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """part of the photos that becomes test"""
    keep_splits: bool = True
    """use the splits that the source has (folders train, valid, test, or a column); --no-keep-splits makes new ones"""
    near_duplicates: Annotated[int, Field(ge=0, le=20)] | None = 6
    """photos whose perceptual hashes differ in at most so many of 64 bits are one group; none: only exact copies are"""
    group_pattern: str | None = None
    """regular expression: what its first parenthesis finds in a photo's path is its group, such as '(video[0-9]+)'"""


@options
class QuestionOptions:
    """questions (vqa/questions)"""

    questions: tuple[Literal["what", "yes/no", "color", "category", "number", "place"], ...] = ()
    """kinds to ask; default: what, yes/no, color, and category where --names has it, of labels; yes/no, number and
    place of boxes"""
    style: Literal["photo", "food"] = "photo"
    """wording: đây là gì …, or món này là món gì …"""
    what: tuple[str, ...] = ()
    """other wordings of what it is"""
    yes_no: tuple[str, ...] = ()
    """other wordings of whether it is, {} for the name: "đây có phải là {} không" """
    color: tuple[str, ...] = ()
    """other wordings of its colour"""
    category: tuple[str, ...] = ()
    """other wordings of its category"""
    number: tuple[str, ...] = ()
    """other wordings of how many, {} for the name"""
    place: tuple[str, ...] = ()
    """other wordings of where, {} for the name"""
    clear_color: Annotated[float, Field(gt=0, le=1)] = 0.4
    """a photo is asked for its colour if one colour has at least this part of its middle"""
    color_middle: Annotated[float, Field(gt=0, le=1)] = 0.75
    """which part of its width and height that middle is"""
    most_counted: Annotated[int, Field(ge=1, le=10)] = 5
    """more things than this are "nhiều" """
    balance: Annotated[float, Field(ge=1, le=1e6)] | None = 1.0
    """of colours, numbers and places (of each thing) the commonest answer at most so many times as often as the next;
    none: as they come"""
    per_class: Count | None = None
    """of labels: use at most so many photos of a class"""

    def __post_init__(self) -> None:
        for kind, holes in (("what", 0), ("category", 0), ("yes_no", 1), ("number", 1), ("place", 1), ("color", None)):
            for wording in getattr(self, kind):
                found = wording.count("{}")
                if not wording.strip() or found != (min(found, 1) if holes is None else holes):
                    need = {0: "write it without {}", 1: "write {} once, where the name stands", None: "one {}"}[holes]
                    raise UserError(f"--{kind.replace('_', '-')} {wording!r}: {need}")


@options
class PrepareOptions(SplitOptions, QuestionOptions):
    """Make a Vietnamese question set from labelled photos or from boxes, or rebuild ours from their public sources.

    The first word says from what: labels (a folder per class, or a table with image and label), boxes (a table, COCO's
    JSON, YOLO's folders, Pascal VOC's XML), vifood, viphoto or viparts (a folder of the downloads; docs/data.md).

    examples:
      python scripts/prepare_data.py labels PHOTOS --output data/mine
      python scripts/prepare_data.py labels PHOTOS --output data/mine --names names.csv --style food
      python scripts/prepare_data.py boxes instances.json --images PHOTOS --output data/where
      python scripts/prepare_data.py vifood V_KLTN --output data/vifood_vqa
    """

    kind: Literal["labels", "boxes", "vifood", "viphoto", "viparts"] = positional()
    """what the source is"""
    source: str = positional()
    """folder or file it is made from"""
    output: str
    """folder to write; it appears whole or not at all"""
    overwrite: bool = False
    """replace the set in --output, if this command made it"""
    seed: Seed = 0
    """of splits, wordings and of which is asked: the same photos and seed give the same set"""
    names: str | None = None
    """CSV with the columns label,name[,category][,countable]: Vietnamese names of classes; default the label, its
    underscores as spaces"""
    format: Literal["auto", "table", "coco", "yolo", "voc"] = "auto"
    """of boxes"""
    images: str | None = None
    """folder the photos of a table or a COCO file are in; default the folder of that file"""
    columns: tuple[str, ...] = ()
    """other column names of a table, as OURS=THEIRS: image label group split x0 y0 x1 y1"""
    photos: Literal["copy", "stay"] = "copy"
    """copy the photos into --output, or leave them where they are: then training needs --images too"""
    on_bad_image: Literal["fail", "skip"] = "fail"
    """an unreadable photo stops it, or is left out and counted"""
    cache: str | None = None
    """folder that remembers which photos were checked; default $HOIANH_CACHE or ~/.cache/hoianh"""

    def __post_init__(self) -> None:
        QuestionOptions.__post_init__(self)
        check_columns(self.columns, "label=nhan")
        if self.group_pattern is not None:
            try:
                holes = re.compile(self.group_pattern).groups
            except re.error as error:
                raise UserError(f"--group-pattern {self.group_pattern!r}: is no regular expression ({error})") from None
            if not holes:
                raise UserError(f"--group-pattern {self.group_pattern!r}: put the group in parentheses: 'video(\\d+)'")
        allowed = {"labels": KINDS[:4], "boxes": ("yes/no", "number", "place")}.get(self.kind, ())
        for kind in self.questions:
            if kind not in allowed:
                told = ", ".join(allowed) or "none: our own sets have questions of their own"
                raise UserError(f"--questions {kind}: of {self.kind} these can be asked: {told}")
