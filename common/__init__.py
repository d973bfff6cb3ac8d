"""What both tasks share: encoders, features, training, data safety, options and reporting.

Nothing in here knows of questions or of clips; a test keeps `common` from importing `vqa` or `video`.
"""


def pipeline(run, *, checkpoint: str | None = None):
    """What classifies photos with an image run: its directory, a shared folder, or a name on the Hub.

    `pipeline(run)("photo.jpg")` → `[{"label": …, "score": …}, …]`, best first; see `common.pipelines.ImagePipeline`.
    """
    from common.pipelines import ImagePipeline  # torch and transformers, which take seconds: only where they are used

    return ImagePipeline.from_pretrained(run, checkpoint=checkpoint)
