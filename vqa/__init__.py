"""Visual question answering: a photo and a Vietnamese question in, answers with probabilities out.

May import `common`, never `video`.
"""


def pipeline(run, *, checkpoint: str | None = None):
    """What answers questions with a VQA run: its directory, a shared folder, or a name on the Hub.

    `pipeline(run)("photo.jpg", "món này là món gì")` → `[{"answer": …, "score": …}, …]`, best first; see
    `vqa.pipelines.VqaPipeline`.
    """
    from vqa.pipelines import VqaPipeline  # torch and transformers, which take seconds: only where they are used

    return VqaPipeline.from_pretrained(run, checkpoint=checkpoint)
