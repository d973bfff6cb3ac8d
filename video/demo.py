"""The tab that classifies a clip: its class, what each frame weighs, and how the class comes about over time.

The class over time is what the model says after the first frame that it reads, after the first two, and so on: each
time as if the clip ended there, so that the last point is its answer to the whole clip. It is no separate judgement of
single moments. A model that reads its frames shuffled has no such curve, and the page says so; nor are there weights of
frames unless it was trained with `--readout attention`.

Belongs here: what is computed of a clip and shown of it, the examples, and the words of this tab. The page around it is
`common/demo.py`'s, reading and classifying `video/predict.py`'s.
"""

import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from markupsafe import Markup
from PIL import Image
from transformers.utils.logging import disable_progress_bar

from common.demo import Limits, Tab, answering, into_sight, named, scored_on, uploaded
from common.demo_html import bars, block, chart, figure, heading, note, percent, pictures, problem, said
from common.demo_options import DemoOptions
from common.errors import UserError
from common.pretrained import find_checkpoint
from common.runs import read_run
from video.clips import find_clips
from video.decode import count_frames
from video.demo_curve import draw_classes
from video.motions import write_motions
from video.predict import Classifier, load_clip

_TOP = 5
_FRAMES = 16  # on the page
_POINTS = 32  # of the curve: each is a pass through the head
_SIDE = 160  # pixels of a frame
_EXAMPLES = 6
_SEED = 59  # of the embedded example clips: not those that are trained on, and all bright enough to be seen

PHRASES = {
    "title": {"vi": "Video", "en": "Clip"},
    "clip": {"vi": "Video (mp4, mov, avi, webm, …)", "en": "Clip (mp4, mov, avi, webm, …)"},
    "classify": {"vi": "Phân loại", "en": "Classify"},
    "examples": {"vi": "Video ví dụ", "en": "Example clips"},
    "empty": {"vi": "Kết quả sẽ hiện ở đây.", "en": "The result will be here."},
    "class": {"vi": "Lớp", "en": "Class"},
    "time": {"vi": "Lớp theo thời gian", "en": "The class over time"},
    "after": {"vi": "số khung hình đã xem", "en": "frames seen so far"},
    "probability": {"vi": "xác suất", "en": "probability"},
    "prefix": {
        "vi": "Mỗi điểm: câu trả lời nếu video dừng ở đó; điểm cuối là câu trả lời cho cả video.",
        "en": "Each point: the answer if the clip ended there; the last one is the answer to the whole clip.",
    },
    "shuffled": {
        "vi": "Mô hình này đọc các khung hình theo thứ tự bị xáo trộn, nên không có lớp theo thời gian.",
        "en": "This model reads the frames in a shuffled order, so there is no class over time.",
    },
    "frames": {"vi": "Các khung hình mô hình đã xem", "en": "The frames that the model saw"},
    "frame": {"vi": "khung {}", "en": "frame {}"},
    "weights": {
        "vi": "Dưới mỗi khung: trọng số của nó trong attention theo thời gian.",
        "en": "Under each frame: its weight in the attention over time.",
    },
    "some": {"vi": "Hiện {} trong {} khung hình.", "en": "Shown are {} of {} frames."},
    "heaviest": {"vi": "Đó là những khung có trọng số lớn nhất.", "en": "They are those with the largest weights."},
    "no_attention": {
        "vi": "Mô hình này không có attention theo khung hình (--readout attention), nên không vẽ trọng số.",
        "en": "This model has no attention over frames (--readout attention), so no weights are drawn.",
    },
    "known": {
        "vi": "Mô hình biết {} lớp; nó luôn chọn một lớp, kể cả khi không lớp nào đúng.",
        "en": "The model knows {} classes; it always chooses one, even where none is right.",
    },
    "measured": {"vi": "Độ chính xác trên {}: {} ({} video).", "en": "Accuracy on {}: {} ({} clips)."},
    "no_clip": {"vi": "Chưa có video: hãy chọn một video.", "en": "There is no clip yet: choose one."},
    "long": {
        "vi": "Video quá dài: {} khung hình, nhiều nhất {}. Hãy cắt ngắn rồi thử lại.",
        "en": "The clip is too long: {} frames, at most {}. Cut it and try again.",
    },
    "bad": {
        "vi": "Tệp này không đọc được như một video. Hãy dùng mp4, mov, avi hoặc webm.",
        "en": "This file cannot be read as a clip. Use mp4, mov, avi or webm.",
    },
}


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What the page shows of one clip."""

    best: list[dict[str, Any]]
    """classes with their probabilities, best first"""
    frames: np.ndarray
    """(T, S, S, 3) uint8, as the model saw them, in its order"""
    weights: np.ndarray | None
    """(T,) what each frame weighs, or None"""
    seen: list[int] | None
    """after how many frames `over_time` was asked; None if the order of frames is shuffled"""
    over_time: np.ndarray | None
    """(points, classes) probabilities then"""


class Watcher:
    """A loaded run that classifies one clip at a time, for however many people."""

    def __init__(self, run: str) -> None:
        disable_progress_bar()
        self.classifier = Classifier.from_pretrained(find_checkpoint(run, None, task="video"))
        if self.classifier.source is None:
            raise UserError(f"--video {run}: was trained on features that someone computed before; it reads no clips")
        self.measured = scored_on(Path(run))
        self._one = threading.Lock()

    def __call__(self, path: Path) -> Watched:
        """Classify. Raises `UserError` for a clip that cannot be read."""
        with self._one:
            return self._watch(path)

    @torch.inference_mode()
    def _watch(self, path: Path) -> Watched:
        model, source = self.classifier.model, self.classifier.source
        assert source is not None  # a run of stored features, which reads no clips, is not opened
        inputs = load_clip(source, model.config.frame_order, path)
        probabilities, output = self.classifier.ask(inputs)
        frames = inputs["pixels"][inputs["places"]]
        seen = over_time = None
        if "order" in inputs:
            frames = frames[inputs["order"]]
        else:
            seen, over_time = self._over_time(inputs)
        return Watched(
            best=self.classifier.best(probabilities, _TOP),
            frames=frames.permute(0, 2, 3, 1).numpy(),
            weights=None if output.attention is None else output.attention[0].float().cpu().numpy(),
            seen=seen,
            over_time=over_time,
        )

    def _over_time(self, inputs: dict[str, torch.Tensor]) -> tuple[list[int], np.ndarray]:
        """After how many frames it was asked, evenly spread, the last with all; and what it said."""
        model = self.classifier.model
        features = model.encode(inputs["pixels"].to(model.device))[inputs["places"].to(model.device)]  # (T, D)
        count = len(features)
        seen = sorted(set(np.linspace(1, count, min(count, _POINTS)).round().astype(int).tolist()))
        said = []
        for length in seen:
            lengths = torch.tensor([length], device=model.device)
            logits = model(lengths=lengths, features=features[None, :length]).logits  # padded, as (1, T, D)
            said.append(logits[0].float().softmax(dim=-1).cpu().numpy())
        return seen, np.stack(said)


# --- the answer -------------------------------------------------------------------------------------------------------


def answer(watcher: Watcher, payload: Any, language: str, limits: Limits) -> str:
    """What the page says to an uploaded file, whatever it is: classes, or what is wrong."""
    phrases = said(PHRASES, language)
    payload = payload[0] if isinstance(payload, list) and payload else payload
    path = uploaded(payload)
    if path is None:
        return problem(phrases["no_clip"])
    try:
        count = count_frames(path)
        if count > limits.most_frames:
            return problem(phrases["long"].format(count, limits.most_frames))
        watched = watcher(path)
    except UserError as error:
        return problem(phrases["bad"], named(error, path, payload))
    return shown(watcher, watched, language)


def shown(watcher: Watcher, watched: Watched, language: str) -> str:
    """A result as HTML: bars, the class over time, the frames with their weights, and how far to believe it."""
    phrases = said(PHRASES, language)
    classes = watcher.classifier.model.config.classes
    parts = [heading(phrases["class"]), Markup('<p class="first">{}</p>').format(watched.best[0]["class"])]
    parts += [bars([(row["class"], row["probability"]) for row in watched.best], language)]
    parts += [heading(phrases["time"])]
    if watched.over_time is None or watched.seen is None:
        parts += [note(phrases["shuffled"])]
    else:
        drawn = draw_classes(
            watched.seen, watched.over_time, classes, across=phrases["after"], up=phrases["probability"]
        )
        parts += [chart(drawn, alt=phrases["time"]), note(phrases["prefix"])]
    parts += [heading(phrases["frames"]), *_frames(watched, phrases, language)]
    parts += [note(phrases["known"].format(len(classes)))]
    if watcher.measured:
        split, accuracy, n = watcher.measured
        parts += [note(phrases["measured"].format(split, percent(accuracy, language), n))]
    return block(*parts)


def _frames(watched: Watched, phrases: dict[str, str], language: str) -> list[Markup]:
    count, weights = len(watched.frames), watched.weights
    if weights is None or count <= _FRAMES:
        chosen = np.linspace(0, count - 1, min(count, _FRAMES)).round().astype(int)
    else:
        chosen = np.sort(np.argsort(-weights, kind="stable")[:_FRAMES])
    figures = []
    for place in chosen.tolist():
        name = phrases["frame"].format(place + 1)
        told = name if weights is None else f"{name}: {percent(float(weights[place]), language)}"
        part = None if weights is None else float(weights[place] / max(weights.max(), 1e-12))
        picture = Image.fromarray(watched.frames[place]).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        figures.append(figure(picture, told, alt=told, weight=part))
    aside = [phrases["no_attention"] if weights is None else phrases["weights"]]
    if count > len(chosen):
        aside += [phrases["some"].format(len(chosen), count)] + [phrases["heaviest"]] * (weights is not None)
    return [pictures(figures, "small"), note(" ".join(aside))]


# --- examples ---------------------------------------------------------------------------------------------------------


def example_clips(options: DemoOptions, folder: Path) -> list[Path]:
    """Clips copied into `folder`, from which the browser may name them: of `--clips`, evenly spread; of a run that was
    trained on the embedded clips, others of these. Raises `UserError` for a folder without clips."""
    if options.clips is None:
        return _motions(folder) if options.video and _trained_on_motions(options.video) else []
    source = Path(options.clips)
    if not source.is_dir():
        raise UserError(f"--clips {source}: no such folder")
    clips = find_clips(source)
    if not clips:
        raise UserError(f"--clips {source}: no clips in this folder")
    found = []
    for number, clip in enumerate(clips[:: -(-len(clips) // _EXAMPLES)]):
        count_frames(source / clip)  # an example that cannot be classified is none
        found.append(Path(shutil.copyfile(source / clip, folder / f"{number}-{Path(clip).name}")))
    return found


def _trained_on_motions(run: str) -> bool:
    try:
        return read_run(run)[1].get("data") is None
    except UserError:  # a checkpoint by itself does not say
        return False


def _motions(folder: Path) -> list[Path]:
    clips = write_motions(folder / "motions", seed=_SEED, train=1, validation=1, test=_EXAMPLES) / "clips"
    made = sorted(clips.iterdir())[-_EXAMPLES:]
    return [path.rename(folder / f"clip-{number}.mp4") for number, path in enumerate(made, start=1)]


# --- the tab ----------------------------------------------------------------------------------------------------------


def video_tab(options: DemoOptions) -> Tab | None:
    """The tab of `--video`. Raises `UserError` for a run that cannot be loaded, and for bad examples."""
    if options.video is None:
        return None
    watcher, limits = Watcher(options.video), Limits.of(options)

    def build(language: str, folder: Path) -> None:
        own = folder / f"clips-{language}"
        own.mkdir()
        _build(watcher, example_clips(options, own), language, limits)

    return Tab(title=PHRASES["title"], build=build)


def _build(watcher: Watcher, clips: Sequence[Path], language: str, limits: Limits) -> None:
    phrases = said(PHRASES, language)
    with gr.Row():
        with gr.Column(min_width=280, scale=2):
            # No kinds of file are named: Gradio would refuse others, in English, before we could say why.
            clip = gr.File(label=phrases["clip"], height=160, elem_id="clip")
            button = gr.Button(phrases["classify"], variant="primary", elem_id="classify")
            if clips:
                gr.Examples(
                    [[str(path)] for path in clips],
                    inputs=[clip],
                    label=phrases["examples"],
                    elem_id="clips",
                    api_visibility="private",
                )
        with gr.Column(min_width=280, scale=3):
            found = gr.HTML(block(note(phrases["empty"])), elem_id="class")

    @answering(language)
    def said_to(payload: Any) -> str:
        return answer(watcher, payload, language, limits)

    button.click(said_to, inputs=[clip], outputs=found, preprocess=False, api_visibility="private").then(
        None, js=into_sight("#class"), api_visibility="private"
    )
