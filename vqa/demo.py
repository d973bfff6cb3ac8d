"""The tab that asks a picture: a photo and a Vietnamese question → answers, and where the model looked for them.

Belongs here: what is asked, what is shown of the answer, and the words of this tab. The page around it is
`common/demo.py`'s, how things look `common/demo_html.py`'s, answering `vqa/predict.py`'s.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup
from PIL import Image
from transformers.utils.logging import disable_progress_bar

from common.demo import Limits, Tab, answering, into_sight, named, scored_on, uploaded
from common.demo_html import bars, block, figure, heading, note, percent, pictures, problem, said, words
from common.demo_options import DemoOptions
from common.errors import UserError
from common.images import Box, TooLarge, read_image, shown_box
from common.looks import looked, small
from common.pretrained import find_checkpoint
from vqa.demo_examples import example_photos, example_questions
from vqa.predict import Answerer
from vqa.text import MOST_LETTERS, has_words

_TOP = 5

PHRASES = {
    "title": {"vi": "Hỏi ảnh", "en": "Picture"},
    "photo": {"vi": "Ảnh", "en": "Photo"},
    "drop": {
        "vi": "Thả ảnh vào đây\n- hoặc -\nBấm để chọn ảnh",
        "en": "Drop a photo here\n- or -\nClick to choose one",
    },
    "question": {"vi": "Câu hỏi (tiếng Việt)", "en": "Question (in Vietnamese)"},
    "for_example": {"vi": "ví dụ: món này là món gì?", "en": "for example: món này là món gì?"},
    "ask": {"vi": "Hỏi", "en": "Ask"},
    "pick": {"vi": "Chọn một câu hỏi", "en": "Pick a question"},
    "examples": {"vi": "Ảnh ví dụ", "en": "Example photos"},
    "empty": {"vi": "Câu trả lời sẽ hiện ở đây.", "en": "The answer will be here."},
    "answer": {"vi": "Câu trả lời", "en": "Answer"},
    "looked": {"vi": "Mô hình đã nhìn vào đâu", "en": "Where the model looked"},
    "clear": {
        "vi": "Rõ, trong đường viền: nơi được nhìn; phủ xám: nơi bị bỏ qua. Đường viền: nửa trọng số lớn nhất.",
        "en": "Clear, in the line: where it looked; grey: what it passed over. The line: half the strongest weight.",
    },
    "cropped": {"vi": "Rìa ảnh bị cắt, mô hình không thấy.", "en": "The edge is cut off: the model does not see it."},
    "whole": {"vi": "ảnh đã hỏi", "en": "the photo asked about"},
    "glimpse": {"vi": "lần nhìn {}", "en": "glimpse {}"},
    "grounding": {"vi": "nơi tìm thấy điều được hỏi", "en": "where it finds what is asked about"},
    "strongest": {"vi": "ô mạnh nhất {}", "en": "strongest cell {}"},
    "words": {"vi": "Trọng số của từng từ", "en": "Weight of each word"},
    "no_attention": {
        "vi": "Mô hình này được huấn luyện không có attention, nên không có gì để vẽ lên ảnh.",
        "en": "This model was trained without attention, so there is nothing to draw over the photo.",
    },
    "uniform": {
        "vi": "Bản đối chứng: attention nhìn đều khắp ảnh.",
        "en": "A control: its attention looks everywhere alike.",
    },
    "question_independent": {
        "vi": "Bản đối chứng: attention không phụ thuộc câu hỏi.",
        "en": "A control: its attention does not depend on the question.",
    },
    "blind": {
        "vi": "Mô hình này không nhìn ảnh, chỉ đọc câu hỏi.",
        "en": "This model sees no photo, only the question.",
    },
    "deaf": {
        "vi": "Mô hình này không đọc câu hỏi, chỉ nhìn ảnh.",
        "en": "This model reads no question, only the photo.",
    },
    "unknown": {"vi": "Mô hình chưa từng học từ: {}.", "en": "Words that the model has never learnt: {}."},
    "known": {
        "vi": "Mô hình biết {} câu trả lời; nó luôn chọn một trong số đó, kể cả khi không câu nào đúng.",
        "en": "The model knows {} answers; it always chooses one of them, even where none is right.",
    },
    "measured": {"vi": "Độ chính xác trên {}: {} ({} câu hỏi).", "en": "Accuracy on {}: {} ({} questions)."},
    "no_photo": {"vi": "Chưa có ảnh: hãy chọn một bức.", "en": "There is no photo yet: choose one."},
    "no_question": {
        "vi": "Chưa có câu hỏi: hãy gõ hoặc chọn một câu.",
        "en": "There is no question yet: type or pick one.",
    },
    "long": {
        "vi": "Câu hỏi quá dài: nhiều nhất {} chữ cái.",
        "en": "The question is too long: at most {} letters.",
    },
    "large": {
        "vi": "Ảnh quá lớn: nhiều nhất {} triệu điểm ảnh. Hãy thu nhỏ rồi thử lại.",
        "en": "The photo is too large: at most {} million pixels. Make it smaller and try again.",
    },
    "bad": {
        "vi": "Tệp này không đọc được như một bức ảnh. Hãy dùng JPEG, PNG hoặc WebP.",
        "en": "This file cannot be read as a photo. Use JPEG, PNG or WebP.",
    },
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the page shows of one answer."""

    best: list[dict[str, Any]]
    """answers with their probabilities, best first"""
    maps: Any
    """`(G, h, w)` where it looked, glimpse by glimpse, or None"""
    box: Box
    """the part of the photo's plane that the maps cover"""
    words: list[tuple[str, float]] | None
    """pieces of the question with their weight, the mean over the glimpses, or None"""
    unknown: list[str]
    """pieces that the vocabulary lacks"""


class Asker:
    """A loaded run that answers one question at a time, for however many people."""

    def __init__(self, run: str) -> None:
        disable_progress_bar()
        self.answerer = Answerer.from_pretrained(find_checkpoint(run, None, task="vqa"))
        self.measured = scored_on(Path(run))
        self._one = threading.Lock()

    def __call__(self, photo: Image.Image | None, question: str) -> Asked:
        """Ask; a photo is needed unless the model sees none."""
        config, processor = self.answerer.model.config, self.answerer.processor
        with self._one:
            probabilities, output = self.answerer(
                [] if photo is None else [photo], [question], return_attention=bool(config.attends)
            )
        maps = output.grid_attention
        pieces, weights = processor.questions.tokens(question), None
        if output.word_attention is not None:
            mean = output.word_attention[0].float().mean(dim=0).tolist()
            weights = list(zip(pieces, mean, strict=False))
        preprocessing = processor.preprocessing
        ids = processor.questions([question])["input_ids"][0].tolist()
        lacking = processor.questions.tokenizer.unk_token_id
        return Asked(
            best=self.answerer.best(probabilities[0], _TOP),
            maps=None if maps is None else maps[0].float().cpu().numpy(),
            box=(0, 0, 1, 1) if photo is None or preprocessing is None else shown_box(photo.size, preprocessing),
            words=weights,
            unknown=[piece for piece, number in zip(pieces, ids, strict=False) if number == lacking],
        )


# --- the answer -------------------------------------------------------------------------------------------------------


def answer(asker: Asker, payload: Any, question: Any, language: str, limits: Limits) -> str:
    """What the page says to an uploaded file and a question, whatever they are: an answer, or what is wrong."""
    phrases = said(PHRASES, language)
    path = uploaded(payload)
    config = asker.answerer.model.config
    question = " ".join(question.split()) if isinstance(question, str) else ""
    if path is None and config.inputs != "question":
        return problem(phrases["no_photo"])
    if asker.answerer.reads and not has_words(question):
        return problem(phrases["no_question"])
    if asker.answerer.reads and len(question) > MOST_LETTERS:
        return problem(phrases["long"].format(MOST_LETTERS))
    photo = None
    if path is not None and config.inputs != "question":
        try:
            photo = read_image(path, max_pixels=limits.most_pixels)
        except TooLarge as error:
            return problem(phrases["large"].format(f"{limits.most_pixels / 1e6:g}"), named(error, path, payload))
        except UserError as error:
            return problem(phrases["bad"], named(error, path, payload))
    return shown(asker, asker(photo, question), photo, question, language)


def shown(asker: Asker, asked: Asked, photo: Image.Image | None, question: str, language: str) -> str:
    """An answer as HTML: bars, the photo as it was looked at in each glimpse, and what must be known to believe it."""
    phrases = said(PHRASES, language)
    config = asker.answerer.model.config
    parts = [heading(phrases["answer"]), note(question)]
    parts += [Markup('<p class="first">{}</p>').format(asked.best[0]["answer"])]
    parts += [bars([(row["answer"], row["probability"]) for row in asked.best], language)]
    if asked.unknown and asker.answerer.reads:
        parts += [note(phrases["unknown"].format(", ".join(dict.fromkeys(asked.unknown))))]
    if photo is not None:
        parts += [heading(phrases["looked"]), *_looks(config, asked, photo, phrases, language)]
    if asked.words is not None:
        parts += [heading(phrases["words"]), words(asked.words, language)]
    aside = {"question": ["blind"], "image": ["deaf"]}.get(config.inputs, [])
    parts += [note(phrases[name]) for name in aside]
    parts += [note(phrases["known"].format(config.answers))]
    if asker.measured:
        split, accuracy, n = asker.measured
        parts += [note(phrases["measured"].format(split, percent(accuracy, language), n))]
    return block(*parts)


def _looks(config: Any, asked: Asked, photo: Image.Image, phrases: dict[str, str], language: str) -> list[Markup]:
    if asked.maps is None:
        plain = pictures([figure(small(photo), phrases["whole"], alt=phrases["whole"])])
        return [plain] if config.attends else [note(phrases["no_attention"]), plain]
    figures = [figure(small(photo), phrases["whole"], alt=phrases["whole"])]
    for number, weights in enumerate(asked.maps, start=1):
        found = config.grounds and number == len(asked.maps)
        name = phrases["grounding"] if found else phrases["glimpse"].format(number)
        told = f"{name} · {phrases['strongest'].format(percent(float(weights.max()), language))}"
        figures.append(figure(looked(photo, weights, asked.box), told, alt=f"{phrases['looked']}: {told}"))
    x0, y0, x1, y1 = asked.box
    cut = x0 > 0.5 or y0 > 0.5 or x1 < photo.width - 0.5 or y1 < photo.height - 0.5
    aside = [phrases["clear"]] + [phrases["cropped"]] * cut
    if config.attention_weights != "learned":
        aside += [phrases[config.attention_weights]]
    return [pictures(figures), note(" ".join(aside))]


# --- the tab ----------------------------------------------------------------------------------------------------------


def vqa_tab(options: DemoOptions) -> Tab | None:
    """The tab of `--vqa`. Raises `UserError` for a run that cannot be loaded, and for bad examples."""
    run = options.vqa
    if run is None:
        return None
    asker, limits = Asker(run), Limits.of(options)

    def build(language: str, folder: Path) -> None:
        own = folder / f"photos-{language}"
        own.mkdir()
        photos = example_photos(options, own)
        questions = example_questions(run, [question for _, question in photos])
        _build(asker, photos, questions, language, limits)

    return Tab(title=PHRASES["title"], build=build)


def _build(
    asker: Asker, photos: Sequence[tuple[Path, str]], questions: Sequence[str], language: str, limits: Limits
) -> None:
    phrases = said(PHRASES, language)
    with gr.Row():
        with gr.Column(min_width=280, scale=2):
            photo = gr.Image(
                label=phrases["photo"],
                placeholder=phrases["drop"],
                sources=["upload", "webcam", "clipboard"],
                type="filepath",
                image_mode=None,
                height=300,
                buttons=[],
                elem_id="photo",
            )
            question = gr.Textbox(
                label=phrases["question"],
                placeholder=phrases["for_example"],
                max_length=MOST_LETTERS,
                elem_id="question",
            )
            button = gr.Button(phrases["ask"], variant="primary", elem_id="ask")
            if questions:
                gr.Examples(
                    [[text] for text in questions],
                    inputs=[question],
                    label=phrases["pick"],
                    elem_id="questions",
                    api_visibility="private",
                )
        with gr.Column(min_width=280, scale=3):
            found = gr.HTML(block(note(phrases["empty"])), elem_id="answer")
    if photos:
        both = any(text for _, text in photos)
        gr.Examples(
            [[str(path), text] if both else [str(path)] for path, text in photos],
            inputs=[photo, question] if both else [photo],
            label=phrases["examples"],
            elem_id="photos",
            api_visibility="private",
        )

    @answering(language)
    def said_to(payload: Any, text: Any) -> str:
        return answer(asker, payload, text, language, limits)

    gr.on(
        [button.click, question.submit],
        said_to,
        inputs=[photo, question],
        outputs=found,
        preprocess=False,
        api_visibility="private",
    ).then(None, js=into_sight("#answer"), api_visibility="private")
