"""The options of the video commands: typed, with defaults (those of the embedded data set), and their help texts.

Belongs here: declarations only, nothing that imports torch.
"""

import dataclasses
from typing import Annotated, Literal

from pydantic import Field

from common.columns import check_columns
from common.config import flag, options
from common.errors import UserError
from common.options import (
    Count,
    DataOptions,
    EncoderOptions,
    Epochs,
    ExampleOptions,
    Fraction,
    Many,
    RunOptions,
    ScoreOptions,
    StreamOptions,
    TrainingOptions,
    Workers,
)


@options
class ClipSourceOptions:
    """clips (video/data)"""

    clips: str | None = None
    """folder the clips of a table are in; default the table's own"""
    columns: tuple[str, ...] = ()
    """other column names, as OURS=THEIRS: path label group split id"""
    split_list: Annotated[int, Field(ge=1, le=3)] | None = None
    """the official UCF101 lists of this number (1, 2 or 3) say what is train and what is test"""
    lists: str | None = None
    """folder of the official lists; default looked for in and beside --data"""
    features: str | None = None
    """instead of clips, features that someone computed before: a .safetensors file, or a folder of them"""
    index: str | None = None
    """table of path, label, group and split of the --features, in their order; default index.csv beside them"""
    on_bad_clip: Literal["fail", "skip"] = "fail"
    """a missing or unreadable clip stops the run, or is left out and counted"""

    def __post_init__(self) -> None:
        check_columns(self.columns, "path=video_name")
        if self.index is not None and self.features is None:
            raise UserError("--index is the table of --features: give both")
        if self.lists is not None and self.split_list is None:
            raise UserError("--lists is the folder of the lists of --split-list: give both")
        if self.features is None and getattr(self, "data", None) is None:
            for name in ("clips", "columns", "split_list", "lists"):
                if getattr(self, name):
                    raise UserError(f"{flag(name)} is of --data: give both, or neither")
        if self.features is not None:
            if getattr(self, "data", None) is not None:
                raise UserError("--features are used instead of clips: give them or --data, not both")
            for name in ("clips", "split_list", "lists"):
                if getattr(self, name) is not None:
                    raise UserError(f"{flag(name)} is of clips, and --features are used instead: leave it out")


@options
class FrameOptions:
    """frames (video/sampling, video/augment)"""

    sampling: Literal["first", "uniform", "random", "stride", "all"] = "uniform"
    """the first frames; midpoints of equal segments; in training a random frame of each segment (midpoints otherwise);
    every --stride-th; all of them"""
    frames: Count = 8
    """how many; with sampling all, the least number"""
    stride: Count = 1
    """sampling stride: from one frame to the next"""
    short: Literal["mask", "repeat", "loop", "zeros"] = "mask"
    """a clip with too few frames: the rest is masked, its last frame is repeated, it starts again, or black frames are
    read as if they were frames (report R0)"""
    max_frames: Count = 2048
    """sampling all: a longer clip is thinned to so many"""
    frame_order: Literal["kept", "shuffled"] = "kept"
    """shuffled: a control that sees the same frames without their order, in training and in scoring"""
    augment: tuple[Literal["crop", "flip", "color", "blur", "erase"], ...] = ()
    """what training views of a clip vary; blur and erase as in report R0"""
    augment_per: Literal["clip", "frame"] = "clip"
    """blur, erase and color: the same for a whole clip, or drawn for each frame (report R0)"""
    copies: Many = 0
    """each training clip is there so many times more, augmented (report R0: 1), besides its plain self"""

    def __post_init__(self) -> None:
        if self.sampling == "all" and self.frames > self.max_frames:
            raise UserError(
                f"--frames {self.frames}: sampling all fills up to them; at most --max-frames {self.max_frames}"
            )


@options
class VideoModelOptions:
    """model (video/model)"""

    head: Literal["lstm", "gru", "rnn", "mean", "max", "last"] = "lstm"
    """net over the frames; or none: their mean, their maximum, the last one alone"""
    hidden: Count = 128
    """size of its state"""
    layers: Count = 1
    """its layers (2: a deep LSTM)"""
    bidirectional: bool = False
    """read the clip in both directions"""
    readout: Literal["last", "mean", "max", "attention"] = "last"
    """of its states: the last valid one, their mean, their maximum, or temporal attention over them"""
    pool: Count = 4
    """the encoder's grid is averaged to so many cells a side before the net sees it (1: one vector a frame)"""
    projection: Many = 0
    """a linear layer on each frame first, to this size; 0: none"""
    difference: bool = False
    """beside each frame's features, what they differ by from those of the frame before"""
    feature_norm: bool = True
    """LayerNorm on each frame's features"""
    input_dropout: Fraction = 0.0
    """on them"""
    dropout: Fraction = 0.2
    """before the last layer, and between recurrent layers"""
    initialisation: Literal["pytorch", "keras"] = "pytorch"
    """of the head's weights (keras: Glorot, orthogonal, forget bias 1)"""

    def __post_init__(self) -> None:
        if self.head in ("mean", "max", "last"):
            for name, plain in (("layers", 1), ("bidirectional", False), ("readout", "last")):
                if getattr(self, name) != plain:
                    raise UserError(
                        f"{flag(name)} {getattr(self, name)} is of a recurrent net, and --head {self.head} has none"
                    )


@options
class TrainVideoOptions(  # type: ignore[misc]  # of clips, other things vary than of photos: FrameOptions.augment
    VideoModelOptions,
    FrameOptions,
    EncoderOptions,
    TrainingOptions,
    ClipSourceOptions,
    StreamOptions,
    DataOptions,
    ExampleOptions,
    RunOptions,
):
    """Train a model that classifies short clips; score it; leave a run directory.

    Without --data it trains on an embedded set of moving shapes, made on the fly.

    examples:
      accelerate launch scripts/train_video.py
      python scripts/train_video.py --config configs/video/fight.yaml --data FOLDER --weights imagenet
      python scripts/train_video.py --data UCF_DIR --split-list 1 --classes Biking Diving --weights imagenet --pool 1
      python scripts/train_video.py --features vgg16.safetensors --index index.csv --head mean
      python scripts/train_video.py --streaming 'train-*.tar' --stream-steps 1000 --data FOLDER --weights imagenet
    """

    classes: tuple[str, ...] = ()
    """use only these classes, in this order; default all"""
    folds: Many = 0
    """cross-validation: validation is one of so many parts of train, whole groups; 0: --validation-fraction of it"""
    fold: Many | None = None
    """which of the --folds, from 0; default the --seed, counted round and round, so that seeds 0, 1, … take turns"""
    epochs: Epochs = 12
    """passes over the training split"""
    random_split: bool = False
    """mix the clips of train and test, whatever their group: shows what a leak is worth (scripts/show_leak.py)"""
    random_test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """with --random-split: this part of all clips becomes test, and --validation-fraction of the rest validation, both
    at random (report R1: 0.2, 0.2); default: train and test keep their sizes, validation its clips"""
    swap_splits: bool = False
    """train on what is called test and test on what is called train (what report R2 may have done)"""
    timed: Many = 0
    """time the trained model on so many clips, decoded beforehand: seconds for 32 (report R0's batch); 0: don't"""

    def __post_init__(self) -> None:
        for base in (RunOptions, ClipSourceOptions, VideoModelOptions):
            base.__post_init__(self)
        if self.folds == 1 or (self.fold is not None and self.fold >= self.folds):
            raise UserError(
                f"--folds {self.folds}, --fold {self.fold}: give 2 or more folds, and one of 0, 1, … of them"
            )
        if self.random_test_fraction is not None and not self.random_split:
            raise UserError("--random-test-fraction is of --random-split: give both")
        if self.random_split and (self.swap_splits or (self.random_test_fraction and self.folds)):
            raise UserError("--random-split makes new splits: leave --swap-splits and, with a fraction, --folds out")
        if self.folds and self.fold is None:
            self.fold = self.seed % self.folds
        if self.data is None and self.features is None and self.image_size is None:
            self.image_size = 48  # of the embedded clips
        if self.features is not None:
            if self.streaming is not None:
                raise UserError("--features and --streaming are two sources of train: give one")
            if self.augment or self.views > 1 or self.copies:
                raise UserError("--features have no frames that vary: leave --augment, --views and --copies out")
            # What is of clips is not used: saved with the run, it would look as if it had been.
            for group in (EncoderOptions, FrameOptions):
                for field in dataclasses.fields(group):
                    if field.name != "frame_order":
                        setattr(self, field.name, field.default)
            self.train_encoder, self.pool, self.timed = "none", 1, 0
            return
        if self.copies and self.views > 1:
            raise UserError("--copies shows a clip several times an epoch, --views one of its views: give one of them")
        if self.copies and not self.augment and self.sampling != "random":
            raise UserError(f"--copies {self.copies} needs --augment: without it the copies would be the same")
        FrameOptions.__post_init__(self)
        if self.resize == "pad":
            raise UserError("--resize pad: frames are cropped to their centre square (crop) or squashed")
        views, augment = self.views, self.augment
        if self.train_encoder != "all" and (self.train_encoder != "auto" or self._pretrained):
            self.views += self.copies  # which are views that are kept, too
        if self.views > 1 and self.sampling == "random":
            self.augment = augment or ("crop",)  # so that these checks see: frames of their own make views differ, too
        EncoderOptions.__post_init__(self)
        if self.sampling == "random" and self.train_encoder == "none" and self.views == 1:
            raise UserError("--sampling random with a frozen encoder needs cached views: add --views N (say 4)")
        self.views, self.augment = views, augment
        StreamOptions.__post_init__(self)
        if self.streaming is not None:
            self._check_stream()

    def _check_stream(self) -> None:
        wrong = {"--sampling random": self.sampling == "random", "--frame-order": self.frame_order != "kept"}
        wrong |= {flag(name): bool(getattr(self, name)) for name in ("copies", "folds", "random_split", "swap_splits")}
        wrong |= {"--split-list": self.split_list is not None}
        if any(wrong.values()):
            names = ", ".join(name for name, is_wrong in wrong.items() if is_wrong)
            raise UserError(f"--streaming reads train as it comes, each clip as it is: leave {names} out")

    @property
    def _pretrained(self) -> bool:
        return self.weights != "none" or self.encoder.startswith("hf:")


@options
class EvaluateVideoOptions(ClipSourceOptions, ScoreOptions):
    """Score a trained video run again, on its own test split or on other clips.

    examples:
      python scripts/evaluate.py RUN --help      # the options of that run's task
      python scripts/evaluate.py RUN
      python scripts/evaluate.py RUN --data heldout.csv --output heldout.json
    """

    def __post_init__(self) -> None:
        ClipSourceOptions.__post_init__(self)


@options
class PredictVideoOptions:
    """Classify clips with a trained run.

    examples:
      python scripts/predict_video.py --run RUN --video clip.avi
      python scripts/predict_video.py --run RUN --video clip.avi --output marked.mp4
      python scripts/predict_video.py --run RUN --video FOLDER --output classes.csv
    """

    run: str
    """run directory, or a checkpoint directory"""
    video: str
    """a clip, or a folder of clips"""
    checkpoint: Literal["best_accuracy", "best_loss", "last"] | None = None
    """which of the run's checkpoints; default the one it was scored with"""
    top: Count = 5
    """classes to show"""
    json: bool = False
    """print one JSON object per clip instead of text"""
    output: str | None = None
    """.mp4: the clip with its class written on it; of a folder a .csv of each clip's class, or a folder for
    marked clips"""
    overwrite: bool = False
    """replace --output"""
    on_bad_clip: Literal["fail", "skip"] = "fail"
    """of a folder, a clip that cannot be read stops everything, or is left out and counted"""
    workers: Workers = 0
    """processes that decode beside the model"""
