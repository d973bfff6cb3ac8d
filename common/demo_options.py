"""The options of the page on which a picture is asked, a clip is classified and a study is shown.

Belongs here: declarations and their ranges, nothing that imports torch or Gradio. The page is `common/demo.py`'s.
"""

import os
from typing import Annotated, Literal

from pydantic import Field

from common.config import options
from common.errors import UserError
from common.options import Count


@options
class ServeOptions:
    """who may use the page, and how much of the machine (common/demo, common/demo_gate)"""

    language: Literal["vi", "en"] = "vi"
    """language of the page at /; either is a link away"""
    host: str = "127.0.0.1"
    """address to listen at; 127.0.0.1 is this machine alone, 0.0.0.0 whoever reaches it by the network"""
    port: Annotated[int, Field(ge=0, lt=2**16)] = 7860
    """port to listen at; 0 takes any free one"""
    max_upload_mb: Annotated[float, Field(gt=0, le=1024)] = 20.0
    """largest file that is taken, in MB of 2**20 bytes; twenty times as much is kept at most"""
    max_megapixels: Annotated[float, Field(gt=0, le=100)] = 40.0
    """largest photo that is decoded, millions of pixels"""
    max_frames: Count = 3000
    """longest clip that is decoded, frames (two minutes of 25 a second)"""
    keep_minutes: Annotated[float, Field(gt=0, le=1e6)] = 30.0
    """how long an uploaded file is kept; all are gone when the page ends"""
    queue: Count = 20
    """people who may wait for an answer; one is answered at a time"""


@options
class DemoOptions(ServeOptions):
    """A page in the browser: ask a picture, classify a clip, look at a study. Give any of --vqa, --video and --study.

    examples:
      python scripts/demo.py --vqa RUN
      python scripts/demo.py --vqa RUN --photos FOLDER --video RUN --clips FOLDER --study STUDY_DIR
      python scripts/demo.py --vqa RUN --language en --port 8000 --max-upload-mb 5
    """

    vqa: str | None = None
    """VQA run (or checkpoint) that answers questions about photos"""
    photos: str | None = None
    """examples for --vqa: a folder of photos, or a table with image and question columns; default embedded scenes, if
    the run was trained on them"""
    video: str | None = None
    """video run (or checkpoint) that classifies clips"""
    clips: str | None = None
    """examples for --video: a folder of clips; default embedded clips, if the run was trained on them"""
    study: str | None = None
    """folder of a study that scripts/run_study.py wrote, finished or not"""

    def __post_init__(self) -> None:
        if not (self.vqa or self.video or self.study):
            raise UserError(
                "nothing to show: give a VQA run with --vqa RUN, a video run with --video RUN, a study with --study "
                "DIR, or several of these (--help lists every option)"
            )
        for examples, run in (("photos", "vqa"), ("clips", "video")):
            if getattr(self, examples) and not getattr(self, run):
                raise UserError(f"--{examples} are examples for --{run}: give it, or leave --{examples} out")

    def check_paths(self) -> None:
        """Raises `UserError` for what is not there: called before libraries take their seconds to load."""
        for name in ("vqa", "video", "study", "photos", "clips"):
            given = getattr(self, name)
            if given is not None and not os.path.exists(given):
                raise UserError(f"--{name} {given}: no such file or folder")
