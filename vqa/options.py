"""The options of the VQA commands: typed, with defaults (those of the embedded data set), and their help texts.

Belongs here: declarations only, nothing that imports torch.
"""

from typing import Annotated, Literal, Protocol

from pydantic import Field

from common.columns import check_columns
from common.config import options
from common.errors import UserError
from common.options import (
    Count,
    DataOptions,
    EncoderOptions,
    ExampleOptions,
    Fraction,
    RunOptions,
    ScoreOptions,
    Streaming,
    StreamOptions,
    TrainingOptions,
)


@options
class VqaSourceOptions:
    """questions and photos (vqa/data)"""

    images: str | None = None
    """folder the photos are in; default the folder of --data"""
    columns: tuple[str, ...] = ()
    """other column names, as OURS=THEIRS: image question answer answers type group id boxes"""
    on_bad_image: Literal["fail", "skip"] = "fail"
    """a missing or unreadable photo stops the run, or its rows are left out and counted"""

    def __post_init__(self) -> None:
        check_columns(self.columns, "question=cau_hoi")


@options
class TextOptions:
    """Vietnamese text (vqa/text)"""

    segmentation: str = "pyvi"
    """pyvi, syllable, or any Hugging Face tokenizer by name or path (PhoBERT's, say)"""
    min_word_count: Count = 1
    """words rarer than this in the training questions become unknown"""
    max_question_length: Count = 32
    """tokens after which a question is cut"""
    min_answer_count: Count = 1
    """training answers rarer than this are not learned"""
    top_answers: Count | None = None
    """learn only so many of the most frequent answers"""


@options
class ModelOptions:
    """model (vqa/model)"""

    attention: bool = True
    """attend over the photo's cells or the question's words, or fuse the mean of the grid"""
    inputs: Literal["both", "question", "image"] = "both"
    """what the model may see: question is the blind baseline, image never reads the question"""
    embedding: Count = 64
    """size of a word's vector"""
    recurrent: Literal["lstm", "gru", "rnn"] = "lstm"
    """net over the words"""
    hidden: Count = 128
    """its size"""
    layers: Count = 1
    """its layers"""
    bidirectional: bool = False
    """read the question in both directions"""
    attention_over: Literal["grid", "words", "both"] = "grid"
    """what is attended over"""
    scoring: Literal["product", "concat"] = "product"
    """how a cell is scored against the question"""
    glimpses: Count = 2
    """attention maps side by side"""
    attention_hidden: Count = 128
    """size of the space in which cells and question meet"""
    coordinates: bool = True
    """attended cells carry their place"""
    grounding: bool = False
    """attention over the grid: answers that name a place (bên trái, ở giữa) come from a net of their own, which finds
    the thing asked about, and learns from yes and no whether it is there"""
    auxiliary: Annotated[float, Field(ge=0, le=1e6)] = 0.25
    """weight of that loss of yes and no beside that of the answer"""
    grounding_hidden: Count = 128
    """size of the space in which that net compares cells and words"""
    grounding_dropout: Fraction = 0.3
    """on its cells"""
    projection: Count = 128
    """size of a projected cell"""
    fusion: Literal["product", "concat"] = "product"
    """how question and photo become one"""
    fusion_hidden: Count = 256
    """size of the fused vector"""
    question_dropout: Fraction = 0.1
    """on word vectors"""
    cell_dropout: Fraction = 0.0
    """on the encoder's features"""
    attention_dropout: Fraction = 0.0
    """before the scores"""
    dropout: Fraction = 0.1
    """before and after the fusion"""
    test_augment: tuple[Literal["flip", "turn"], ...] = ()
    """what is scored and predicted is the mean over a photo plain and mirrored (flip), or turned by quarters (turn)"""


class _Controlled(Protocol):
    """The fields of a command's options that `ControlOptions` must go with, its own and those of others."""

    attention_weights: Literal["learned", "uniform", "question_independent"]
    match_parameters: bool
    shuffled_images: bool
    attention: bool
    inputs: Literal["both", "question", "image"]
    attention_over: Literal["grid", "words", "both"]
    grounding: bool


class _VqaStreaming(Streaming, Protocol):
    vocabulary: str | None
    vocabulary_rows: int | None
    shuffled_images: bool


@options
class ControlOptions:
    """controls, which a claim about attention needs beside it (vqa/controls)"""

    attention_weights: Literal["learned", "uniform", "question_independent"] = "learned"
    """over the grid: as learned; 1/N on every cell; or learned from the photo alone, whatever the question"""
    match_parameters: bool = False
    """without attention: a recurrent net so large that the model has as many parameters as the one with attention"""
    shuffled_images: bool = False
    """at the end, score with every photo exchanged for one of another group; training is the ordinary one, and is taken
    over from a finished run beside --output that has the same options, if there is one"""

    def __post_init__(self: _Controlled) -> None:  # type: ignore[override]  # a mixin's: see _Controlled
        if self.attention_weights != "learned":
            if not self.attention or self.inputs != "both" or self.attention_over != "grid":
                raise UserError(
                    f"--attention-weights {self.attention_weights} is about attention over the photo's grid: it needs "
                    "--attention, --inputs both and --attention-over grid"
                )
            if self.grounding:
                raise UserError(
                    f"--attention-weights {self.attention_weights}: --grounding would look all the same; add "
                    "--no-grounding"
                )
        if self.match_parameters and (self.attention or self.inputs != "both"):
            raise UserError(
                "--match-parameters gives a model without attention as many parameters as the one with it: it needs "
                "--no-attention and --inputs both"
            )
        if self.shuffled_images and self.inputs == "question":
            raise UserError("--shuffled-images: with --inputs question no image is seen")


@options
class VqaStreamOptions(StreamOptions):
    """streaming (common/streams, vqa/streaming)"""

    vocabulary: str | None = None
    """--streaming: take the words and answers of this checkpoint, instead of a first pass over the texts"""
    vocabulary_rows: Count | None = None
    """--streaming: rows of that first pass; default all"""

    def __post_init__(self: _VqaStreaming) -> None:  # type: ignore[override]  # a mixin's: see Streaming
        StreamOptions.__post_init__(self)
        if self.streaming is None and (self.vocabulary or self.vocabulary_rows):
            raise UserError("--vocabulary and --vocabulary-rows are of --streaming: give it, or leave them out")
        if self.streaming is not None and self.shuffled_images:
            raise UserError("--shuffled-images: score a run that was trained on a stream with scripts/evaluate.py")


@options
class TrainVqaOptions(
    ControlOptions,
    ModelOptions,
    TextOptions,
    EncoderOptions,
    TrainingOptions,
    VqaSourceOptions,
    VqaStreamOptions,
    DataOptions,
    ExampleOptions,
    RunOptions,
):
    """Train a model that answers Vietnamese questions about photos; score it; leave a run directory.

    Without --data it trains on an embedded set of coloured shapes, made on the fly.

    examples:
      accelerate launch scripts/train_vqa.py --attention
      accelerate launch scripts/train_vqa.py --config configs/vqa/food.yaml --data FOLDER --weights imagenet
      accelerate launch scripts/train_vqa.py --output runs/mine --resume
      ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 scripts/train_vqa.py --no-attention
      python scripts/train_vqa.py --streaming 'shards/train-*.tar' --stream-steps 1000 --data FOLDER --weights imagenet
    """

    def __post_init__(self) -> None:
        for base in (RunOptions, EncoderOptions, VqaSourceOptions, ControlOptions, VqaStreamOptions):
            base.__post_init__(self)
        if self.inputs == "question":  # a recipe's views are of no use to a model that sees no photo
            self.augment, self.views, self.test_augment = (), 1, ()


@options
class PredictVqaOptions(VqaSourceOptions):
    """Answer Vietnamese questions about photos with a trained run, or show how it answered those it was scored on.

    examples:
      python scripts/predict_vqa.py --run RUN --image photo.jpg --question "món này là món gì"
      python scripts/predict_vqa.py --run RUN --image photo.jpg --question "..." --attention-map where.png
      python scripts/predict_vqa.py --run RUN --input questions.csv --output answers.csv
      python scripts/predict_vqa.py --run RUN --input FOLDER --question "đây là món gì" --output answers.csv
      python scripts/predict_vqa.py --run RUN --examples sheet.png --split test
    """

    run: str
    """run directory, or (but for --examples) a checkpoint directory"""
    checkpoint: Literal["best_accuracy", "best_loss", "last"] | None = None
    """which of the run's checkpoints; default the one it was scored with"""
    image: str | None = None
    """one photo"""
    question: str | None = None
    """one question; with a folder as --input, asked of every photo in it"""
    input: str | None = None
    """a CSV with image and question columns, or a folder of photos"""
    output: str | None = None
    """CSV to write the answers to"""
    overwrite: bool = False
    """replace --output, --attention-map and --examples"""
    top: Count = 5
    """answers to show for one photo"""
    json: bool = False
    """print one JSON object instead of text"""
    attention_map: str | None = None
    """picture (.png or .svg) of where each glimpse looked over the photo"""
    examples: str | None = None
    """picture (.png or .svg) of typical right and wrong answers to each type of the questions the run was scored on"""
    split: Literal["validation", "test"] = "validation"
    """split that --examples are from"""
    per_type: Annotated[int, Field(ge=1, le=12)] = 4
    """right and wrong --examples of each type"""

    def __post_init__(self) -> None:
        VqaSourceOptions.__post_init__(self)
        if sum(given is not None for given in (self.image, self.input, self.examples)) != 1:
            raise UserError(
                "give one photo with --image and --question, or many with --input and --output, or --examples"
            )
        if self.question is not None and not self.question.strip():
            raise UserError("--question is blank")
        if self.image is not None and self.question is None:
            raise UserError("--image needs --question")
        if self.input is not None and self.output is None:
            raise UserError("--input needs --output, the CSV to write")
        if self.image is None and (self.attention_map or self.json):
            raise UserError("--attention-map and --json are for one photo: use --image and --question")
        if self.examples is None:
            if (self.split, self.per_type) != ("validation", 4):
                raise UserError("--split and --per-type say which --examples to show: add --examples FILE.png")
            return
        if not self.examples.lower().endswith((".png", ".svg")):
            raise UserError(f"--examples {self.examples}: name it .png or .svg")
        for name in ("question", "output", "checkpoint", "columns"):
            if getattr(self, name):
                raise UserError(f"--{name} and --examples: these show the questions the run was scored on, as it was")


@options
class EvaluateOptions(VqaSourceOptions, ScoreOptions):
    """Score a trained run again, on its own test split or on another file.

    examples:
      python scripts/evaluate.py RUN --help      # the options of that run's task
      python scripts/evaluate.py RUN
      python scripts/evaluate.py RUN --data heldout.csv --output heldout.json
      python scripts/evaluate.py RUN --shuffled-images
    """

    shuffled_images: bool = False
    """with every photo exchanged for one of another group; so is a run that was trained with it in any case"""
