"""Short-video classification: a clip in, classes with probabilities out. May import `common`, never `vqa`."""


def pipeline(run, *, checkpoint: str | None = None):
    """What classifies clips with a video run: its directory, a shared folder, or a name on the Hub.

    `pipeline(run)("clip.mp4")` → `[{"label": …, "score": …}, …]`, best first; see `video.pipelines.VideoPipeline`.
    """
    from video.pipelines import VideoPipeline  # torch and transformers, which take seconds: only where they are used

    return VideoPipeline.from_pretrained(run, checkpoint=checkpoint)
