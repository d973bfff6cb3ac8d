"""VQA runs to share: what is said of them, and the model as ONNX.

Belongs here: from a checkpoint to `common.export.Shareable`. How a question gets into it without this code is
`vqa/export_text.py`'s.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from common.config import build
from common.errors import UserError
from common.export import Onnx, Shareable
from common.export_card import About, Left
from common.export_onnx import Inputs, OnnxModel
from common.export_photos import IMPORTS, OPEN, about_photo, photo_lines, spread
from common.runs import cache_directory
from vqa import export_text
from vqa.export_model import ORDER, OUTPUTS, PlainVqa, about_inputs, axes
from vqa.model import VqaConfig
from vqa.options import TrainVqaOptions
from vqa.predict import Answerer
from vqa.scoring import load_source
from vqa.text import turned

_BATCHES = ((1, 1), (2, 5), (4, 12))  # photos, questions about them
_LOOKS = {"grid": "grid_attention", "words": "word_attention"}  # what is attended over, and the output that shows it


def open_shareable(left: Left, checkpoint: Path) -> Shareable:
    """A checkpoint of a VQA run, to be shared. Raises `UserError` for a damaged one."""
    answerer = Answerer.from_pretrained(checkpoint)
    answerer.model.cpu()
    question = _some_questions(left)[0]
    config, answers = answerer.model.config, answerer.processor.answers
    photo = '"photo.jpg"' if config.inputs != "question" else "None"
    about = About(
        task="visual-question-answering",
        what=_what(config, len(answers)),
        made_up="the embedded shapes of Hỏi Ảnh (generated pictures)",
        language="vi",
        tags=["vietnamese"],
        use="import vqa\n\n"
        f'ask = vqa.pipeline("FOLDER")\nprint(ask({photo}, {json.dumps(question, ensure_ascii=False)}, top_k=3))',
        limits=_limits(config, left, len(answers)),
    )
    return Shareable(about=about, save=answerer.save_pretrained, onnx=lambda: _onnx(answerer, left, question))


def _what(config: VqaConfig, answers: int) -> str:
    asked = f"a Vietnamese question through a{'n' * (config.recurrent != 'gru')} {config.recurrent.upper()}"
    seen = "" if config.encoder is None else f"a photo through {config.encoder['name']}"
    both = {"both": f"{seen[:1].upper()}{seen[1:]} and {asked}", "image": seen, "question": asked}[config.inputs]
    looks = f", attention over the {config.looks}" if config.attends else ", no attention"
    return f"{both[:1].upper()}{both[1:]}{looks * (config.inputs == 'both')}; out comes one of {answers:,} answers."


def _limits(config: VqaConfig, left: Left, answers: int) -> list[str]:
    said = [
        f"It chooses one of the {answers:,} answers of its training data, whatever is asked; it cannot say that it "
        "does not know, nor anything new.",
        "It reads Vietnamese questions of the kinds it was trained on; others get an answer, too.",
    ]
    if config.inputs == "question":
        said.append("It sees no photo: it is a blind baseline, to show what questions alone tell.")
    if config.inputs == "image":
        said.append("It reads no question: it is a baseline, to show what photos alone tell.")
    if config.attention_weights != "learned":
        said.append(f"Its attention is a control ({config.attention_weights}), not a way to look.")
    if left.config.get("shuffled_images"):
        said.append("It was scored with photos exchanged, as a control: its figures are not those of its use.")
    if "grid" in config.attends:
        said.append("Where its attention lies is no proof of why it answers as it does.")
    return said


def _onnx(answerer: Answerer, left: Left, question: str) -> Onnx:
    config, processor = answerer.model.config, answerer.processor
    questions, ways = processor.questions, answerer.ways
    padded = processor.preprocessing is not None and processor.preprocessing.resize == "pad"
    fed = {"question": ("input_ids", "lengths"), "image": ("pixels", "valid")}.get(config.inputs, ORDER)
    used = [name for name in fed if name != "valid" or padded]
    outputs = ["logits", *(_LOOKS[items] for items in ("grid", "words") if items in config.attends)]
    texts: list[str] = []
    description: dict[str, Any] = {}
    if config.inputs != "image":
        asked = _some_questions(left)
        export_text.check_questions(questions, asked, ways)
        description["question"] = {
            "tokenizer": export_text.FILE,
            "normalisation": f"in {export_text.FILE}",
            "segmentation": questions.segmentation,
            "max_length": questions.max_length,
            "padding_id": questions.pad_id,
        } | (export_text.about_ways(ways) if len(ways) > 1 else {})
        imports, texts = export_text.lines(questions, question, ways)
        texts = [
            "from tokenizers import Tokenizer",
            *imports,
            f'tokenizer = Tokenizer.from_file("{export_text.FILE}")',
            *texts,
        ]
    samples, said = _samples(answerer, left, used)
    if processor.preprocessing is not None:
        description["photo"] = about_photo(processor.preprocessing)
    description["answers"] = processor.answers.to_list()
    about_outputs = {name: OUTPUTS[name] for name in outputs}
    if len(ways) > 1:
        over = f"a photo and its other ways round ({', '.join(config.test_augment)}; {len(ways)} in all)"
        description["mean_over"] = f"{over}: the graph makes them of the pixels, and the mean of their answers"
        about_outputs["logits"] += f"; of the mean over {over}"
    return Onnx(
        model=OnnxModel(
            module=PlainVqa(answerer.model, outputs, ways, processor.answers),
            inputs={name: axes(name, len(ways)) for name in used},
            outputs=outputs,
            reference=lambda sample: _answered(answerer, sample, outputs),
            samples=samples,
            about_samples=said,
        ),
        description={"inputs": about_inputs(used, len(ways)), "outputs": about_outputs, **description},
        use="\n".join(_lines(answerer, used, texts)),
        limits=[f"model.onnx computes each photo {len(ways)} times, as the answers are the mean over {over}."]
        if len(ways) > 1
        else [],
        beside=(lambda folder: export_text.save_tokenizer(questions, folder / export_text.FILE)) if texts else None,
    )


def _answered(answerer: Answerer, sample: Inputs, outputs: Sequence[str]) -> list[torch.Tensor]:
    """What the model itself answers where a person asks it the questions of a sample, which is what counts."""
    log_p, output = answerer.log_probabilities(
        sample["views"], sample["questions"], image_index=sample["about"], return_attention=True
    )
    found = dict(output) | ({"logits": log_p} if len(answerer.ways) > 1 else {})
    return [found[name] for name in outputs]


def _lines(answerer: Answerer, used: Sequence[str], texts: Sequence[str]) -> list[str]:
    """The lines of Python for onnxruntime: a photo and a question to an answer."""
    imports = [line for line in texts if line.startswith(("from ", "import "))]
    sees = "pixels" in used
    fed = {name: name for name in used} | {"image_index": "np.array([0])"}
    feed = ", ".join(f'"{name}": {fed[name]}' for name in used)
    preprocessing = answerer.processor.preprocessing
    return [
        *(line for line in IMPORTS if sees or "PIL" not in line),
        *imports,
        "",
        *OPEN,
        *(line for line in texts if line not in imports),
        *(photo_lines(preprocessing) if sees and preprocessing is not None else []),
        f'logits = session.run(["logits"], {{{feed}}})[0][0]',
        'print(about["answers"][logits.argmax()])',
    ]


def _some_questions(left: Left) -> list[str]:
    """The questions that the run was scored on, without repeats; one of ours if it left none."""
    found: dict[str, None] = {}
    for path in sorted(left.path.glob("predictions-*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            found |= dict.fromkeys(row.get("question") or "" for row in csv.DictReader(file))
    found.pop("", None)
    return list(found) or ["trong ảnh có gì"]


def _samples(answerer: Answerer, left: Left, used: Sequence[str]) -> tuple[list[Inputs], str]:
    """Batches of questions of all lengths about photos of the run's own validation split; of noise, if these are not
    here."""
    photos: list[Any] = []
    questions, said = _some_questions(left), "questions it was scored on"
    if "pixels" in used:
        photos, seen = _photos(answerer, left)
        said = f"{said}, about {seen}" if "input_ids" in used else seen
    processor = answerer.processor
    lengths = processor.questions(questions)["lengths"].tolist()
    by_length = [question for _, question in sorted(zip(lengths, questions, strict=True))]
    found = []
    for few, many in _BATCHES:
        few = min(few, len(photos)) if photos else few
        many = many if "input_ids" in used else few  # else a photo has one answer
        asked = [by_length[place] for place in spread(len(by_length), many)]
        asked = [asked[place % len(asked)] for place in range(many)]
        inputs = _question_inputs(answerer, asked)
        if photos:
            views = [photos[place] for place in spread(len(photos), few)]
            inputs["pixels"] = torch.stack([pixels for pixels, _ in views])
            inputs["valid"] = torch.tensor([valid for _, valid in views])
            inputs["image_index"] = torch.arange(many) % few
        sample: Inputs = {name: inputs[name] for name in used}
        sample |= {"views": views if photos else [], "questions": asked, "about": [n % few for n in range(many)]}
        found.append(sample)
    return found, said


def _question_inputs(answerer: Answerer, questions: Sequence[str]) -> dict[str, torch.Tensor]:
    """`input_ids` and `lengths` of questions, as each way round has them if there are several."""
    ways, read = answerer.ways, answerer.processor.questions
    if len(ways) == 1:
        return dict(read(questions))
    every = read([turned(question, way) for way in ways for question in questions])
    return {name: tensor.unflatten(0, (len(ways), len(questions))) for name, tensor in every.items()}


def _photos(answerer: Answerer, left: Left) -> tuple[list[Any], str]:
    most = max(photos for photos, _ in _BATCHES)
    try:
        options = build(TrainVqaOptions, left.config, where=str(left.path / "config.yaml"))
        files = sorted(set(load_source(options, cache_directory(options.cache)).splits["validation"]["image"][:]))
        return [answerer.processor.view(files[place]) for place in spread(len(files), most)], "photos of validation"
    except UserError:
        preprocessing = answerer.processor.preprocessing
        assert preprocessing is not None  # it sees photos
        size, noise = preprocessing.size, torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (most, 3, size, size), dtype=torch.uint8, generator=noise)
        return [(view, (0.0, 0.0, 1.0, 1.0)) for view in pixels], "noise, as the run's photos were not here"
