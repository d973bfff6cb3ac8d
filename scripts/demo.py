#!/usr/bin/env python
"""A page in the browser to ask a picture, classify a clip, look at a study: `python scripts/demo.py --vqa RUN`."""

from common.config import parse
from common.demo_options import DemoOptions
from common.errors import command


@command
def main() -> None:
    options = parse(DemoOptions)
    options.check_paths()
    from common.demo import serve
    from common.demo_study import study_tab
    from video.demo import video_tab
    from vqa.demo import vqa_tab

    serve(options, [vqa_tab(options), video_tab(options), study_tab(options)])


if __name__ == "__main__":
    main()
