"""From a video run to classes in two lines, in the shape of transformers' pipelines.

    classify = video.pipeline("runs/clips")
    classify("clip.mp4", top_k=2)                         # [{"label": "fight", "score": 0.93}, …]

Belongs here: what may be given, and what comes back. The classifying itself is `video.predict.Classifier`'s.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch

from common.errors import UserError
from common.pipelines import TOP_K, checkpoint_of, ranked
from video.predict import Classifier

ClipLike = str | Path | bytes | torch.Tensor


class VideoPipeline:
    """Classifies clips with a checkpoint of a video run."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    @classmethod
    def from_pretrained(cls, run: str | Path, *, checkpoint: str | None = None) -> Self:
        """`run`: a run directory, a shared folder, or a name on the Hub. Raises `UserError`."""
        return cls(Classifier.from_pretrained(checkpoint_of(run, checkpoint, task="video")))

    def __call__(self, clips: ClipLike | Sequence[ClipLike], *, top_k: int | None = TOP_K) -> list[Any]:
        """A clip (path or bytes of its file; features `(T, D)` for a model of these) → `[{"label": …, "score": …}, …]`,
        best first; a list of clips → a list of such lists. A clip at a time: its frames are a batch already. Raises
        `UserError` for a clip that cannot be read."""
        if isinstance(clips, ClipLike):
            return self._one(clips, top_k)
        return [self._one(clip, top_k) for clip in clips]

    def _one(self, clip: ClipLike, top_k: int | None) -> list[dict[str, Any]]:
        if isinstance(clip, bytes):
            with TemporaryDirectory() as folder:  # PyAV needs to go back and forth in a file
                path = Path(folder) / "clip"
                path.write_bytes(clip)
                try:
                    probabilities, _ = self.classifier(path)
                except UserError as error:
                    raise UserError(str(error).replace(str(path), "the clip's bytes")) from None
        else:
            probabilities, _ = self.classifier(clip)
        return ranked(probabilities, self.classifier.model.config.classes, top_k)
