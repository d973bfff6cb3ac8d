"""The options of `scripts/export.py`: typed, with their help texts.

Belongs here: declarations only, nothing that imports torch. What they do is in `common/export.py`.
"""

import re
from typing import Literal

from common.config import options, positional
from common.errors import UserError

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@options
class ExportOptions:
    """Share a trained run: as a complete folder, as ONNX, or on the Hugging Face Hub, each with a model card that has
    the run's data, command, figures and limits.

    examples:
      python scripts/export.py RUN --to folder --output shared/my-model
      python scripts/export.py RUN --to onnx --output shared/my-model-onnx
      python scripts/export.py RUN --to hub --name you/my-model --license cc-by-4.0
    """

    run: str = positional()
    """run directory"""
    to: Literal["hub", "folder", "onnx"]
    """folder: what from_pretrained loads; onnx: model.onnx for onnxruntime, checked against PyTorch, and all that is
    needed beside it; hub: the folder, uploaded"""
    output: str | None = None
    """folder to write (of --to folder and --to onnx)"""
    name: str | None = None
    """repository on the Hub, you/name (of --to hub)"""
    private: bool = False
    """make the repository private, if there is none yet (of --to hub)"""
    checkpoint: Literal["best_accuracy", "best_loss", "last"] | None = None
    """which of the run's checkpoints; default the one it was scored with. An unfinished run needs it named"""
    license: str | None = None
    """licence of the weights, as the Hub calls it (apache-2.0, cc-by-4.0, …); default: the card says "not stated" """
    dataset: str | None = None
    """what the training data are called, a Hub id if they have one; default the name of the run's --data"""
    data_license: str | None = None
    """licence of the training data; default: the card says "not stated" """
    overwrite: bool = False
    """replace the folder in --output, if it is one that this command wrote"""

    def __post_init__(self) -> None:
        if self.to == "hub":
            if self.name is None:
                raise UserError("--to hub needs the name of the repository: add --name you/name")
            if not _HUB_NAME.fullmatch(self.name):
                raise UserError(f"--name {self.name}: give a repository as you/name")
            if self.output is not None or self.overwrite:
                raise UserError("--output and --overwrite are of --to folder and --to onnx; the Hub takes --name")
        else:
            if self.output is None:
                raise UserError(f"--to {self.to} needs a folder to write: add --output FOLDER")
            if self.name is not None or self.private:
                raise UserError(f"--name and --private are of --to hub; --to {self.to} takes --output")
