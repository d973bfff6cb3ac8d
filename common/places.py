"""Where the paths and links of a data set may lead: into its own folder and the Hub's cache, no further.

Belongs here: that rule alone. A data set is other people's data: without the rule a row or a link could make us open,
and report on, any file of the machine. What a person names on the command line is theirs to choose.
"""

import os
from pathlib import Path

import datasets
from huggingface_hub import constants

from common.errors import UserError


def allowed_places(folder: str | Path) -> list[str]:
    """The real paths, each with a separator at its end, that a data set in `folder` may use."""
    cached = (constants.HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE)
    return [os.path.join(place, "") for place in map(os.path.realpath, (folder, *cached))]


def is_inside(real: str, allowed: list[str]) -> bool:
    """Whether a real path is one of the allowed places or lies in one."""
    return any(os.path.join(real, "").startswith(place) for place in allowed)


def refuse_outside(path: Path, folder: Path) -> None:
    """Raises `UserError` for a link in `folder` that leads out of it and out of the Hub's cache."""
    if path.is_symlink() and not is_inside(os.path.realpath(path), allowed_places(folder)):
        raise UserError(f"{path}: is a link that leads out of the data folder {folder}; copy the file there")
