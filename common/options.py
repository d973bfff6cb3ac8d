"""The options that every training command shares, as typed dataclasses with their defaults and help texts.

Belongs here: declarations and their ranges, nothing that imports torch (so that `--help` answers at once). How options
are read is in `common/config.py`; what they do is in the module each class names.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from pydantic import Field

from common.config import options, positional
from common.errors import UserError

Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Many = Annotated[int, Field(ge=0, lt=2**31)]
Epochs = Annotated[int, Field(ge=1, le=1_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Workers = Annotated[int, Field(ge=0, le=1024)]
Positive = Annotated[float, Field(gt=0, le=1e30)]
CHECKPOINTS = ("best_accuracy", "best_loss", "last")
NOT_MEASURED = ("cache", "workers", "tracker", "examples", "checkpoint_minutes", "fsdp")
"""Options that change nothing that is measured; but for rounding, as the number of processes does, in the last."""


@options
class RunOptions:
    """run directory"""

    config: str | None = None
    """YAML file of options; the command line overrides it"""
    output: str | None = None
    """run directory to write; default runs/NAME, numbered if that exists"""
    resume: bool = False
    """go on with the run in --output from its last checkpoint, with its own saved options"""
    overwrite: bool = False
    """replace the run in --output"""
    seed: Seed = 0
    """seed of the initial weights, the order of the batches, dropout and augmentation"""
    tracker: Literal["none", "tensorboard"] = "none"
    """also log every epoch to TensorBoard, through Accelerate (RUN/tensorboard; pip install tensorboard)"""
    test: bool = True
    """score the test split at the end; --no-test leaves it unopened, for tuning"""
    score_train: bool = False
    """score the training split, too: what a table would say that scores what was trained on (report R2)"""

    def __post_init__(self) -> None:
        if self.resume and self.overwrite:
            raise UserError("--resume goes on with a run, --overwrite throws it away: give one of them")


@options
class DataOptions:
    """data"""

    data: str | None = None
    """folder, file or Hub id; without it, the embedded data set"""
    cache: str | None = None
    """folder for frozen features, the embedded set and checked photos; default $HOIANH_CACHE or ~/.cache/hoianh"""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """part of train that becomes validation (whole groups, stratified) where the source has none"""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """part that becomes test where the source is a single file"""
    split_seed: Seed = 0
    """seed of those splits, apart from --seed so that all seeds of a study share their splits"""
    allow_leaky_split: bool = False
    """go on, and say so in every table, when groups, photos or rows are in two splits"""
    limit: Count | None = None
    """use only the first so many photos of each file (so many clips, spread evenly over it and its classes): a
    smoke test"""
    workers: Workers = 2
    """processes that decode beside the encoder; threads, for a frozen one on a CPU (where torch has 2 to 8 threads,
    these decode and encode in turn, and this changes nothing)"""


class Streaming(Protocol):
    """The fields of a command's options that `StreamOptions` must go with, its own and those of others."""

    streaming: str | None
    stream_steps: int | None
    limit: int | None
    score_train: bool
    views: int
    weights: str
    train_encoder: str
    encoder: str

    @property
    def augment(self) -> Sequence[str]: ...


@options
class StreamOptions:
    """streaming (common/streams)"""

    streaming: str | None = None
    """training rows that are read as they come, without an index of all: files (a pattern such as 'train-*.tar'), a
    folder of them, or a Hub id; --data then holds validation and test"""
    stream_steps: Count | None = None
    """steps of --streaming that count as an epoch; the next one goes on from there"""
    shuffle_buffer: Count = 1000
    """rows of --streaming that are held, to be mixed"""

    def __post_init__(self: Streaming) -> None:  # type: ignore[override]  # a mixin's: see Streaming
        data = getattr(self, "data", None)
        if self.streaming is None:
            if self.stream_steps is not None:
                raise UserError("--stream-steps is of --streaming: give both")
            return
        if self.stream_steps is None:
            raise UserError(
                "--streaming: nobody knows how many rows there are; give the steps of an epoch, --stream-steps"
            )
        if data is None:
            raise UserError("--streaming gives the training rows alone: add --data, the folder of validation and test")
        if self.limit is not None or self.score_train:
            raise UserError("--streaming: --limit and --score-train need an index of all rows; leave them out")
        if self.augment or self.views > 1:
            raise UserError("--streaming shows each row as it is: leave --augment and --views out")
        if self.weights == "none" and self.train_encoder == "none" and not self.encoder.startswith("hf:"):
            raise UserError(
                "--streaming with a random encoder that stays frozen: its BatchNorm needs the statistics of training "
                "images; give --weights, or train it (--train-encoder all)"
            )


@options
class EncoderOptions:
    """image encoder (common/encoders)"""

    encoder: str = "custom_cnn"
    """mobilenet_v2, custom_cnn, resnet18/34/50/101/152, vgg16, alexnet, googlenet, or hf:NAME_OR_PATH"""
    weights: str = "none"
    """imagenet (torchvision's), none (random), or a local .safetensors or .pth file"""
    stages: tuple[str, ...] = ()
    """named stages whose grids are used, together; default the last; color joins a histogram to any of them"""
    encoder_seed: Seed | None = None
    """seed of its random weights, so that every --seed has the same; default drawn with the rest by --seed"""
    depth: int = 4
    """custom_cnn: blocks, each but the first halving the grid"""
    width: int = 16
    """custom_cnn: channels of the first block, doubled by each next"""
    train_encoder: str = "auto"
    """none (frozen, features computed once), all, or a stage: from there on; auto: none with weights, all without"""
    batch_norm: Literal["auto", "eval", "train"] = "auto"
    """BatchNorm in the trained part: fixed statistics or the batch's; auto: eval with weights, train without"""
    image_size: Annotated[int, Field(ge=16, le=1024)] | None = None
    """side in pixels of what the encoder sees; default what the weights want"""
    resize: Literal["crop", "squash", "pad"] | None = None
    """centre crop, squash to a square, or pad (photos alone: padded cells are masked); default what the weights want"""
    augment: tuple[Literal["crop", "flip", "turn", "color", "blur"], ...] = ()
    """what training views of a photo vary; with flip (mirrored) and turn (by quarters), "bên trái" is turned too"""
    views: Count = 1
    """frozen stages: cached views per photo, one plain and the rest augmented; training draws one per epoch. 1 with
    augment and trained stages: each epoch makes new views, and nothing is cached"""
    feature_precision: Literal["fp32", "fp16", "bf16"] = "fp16"
    """frozen features: fp32; fp16 (computed in fp32, stored in half the space); bf16 (computed so too: faster)"""
    feature_compile: bool = False
    """compile what computes them (torch.compile): a minute at first, so for many thousand photos, on a GPU above all;
    on a CPU it needs a C++ compiler"""

    def __post_init__(self) -> None:
        from common.zoo import check_encoder_name

        check_encoder_name(self.encoder)
        if self.views > 1 and not self.augment:
            raise UserError(f"--views {self.views} needs --augment: without it all views of a photo are the same")
        pretrained = self.weights != "none" or self.encoder.startswith("hf:")  # an hf: model brings its own weights
        if self.train_encoder == "auto":
            self.train_encoder = "none" if pretrained else "all"
        if self.batch_norm == "auto":
            self.batch_norm = "eval" if pretrained else "train"
        if self.views > 1 and self.train_encoder == "all":
            raise UserError("--views caches what frozen stages make of a photo; with none frozen, leave it out")
        if self.augment and self.views == 1 and self.train_encoder == "none":
            raise UserError("--augment with a frozen encoder needs cached views: add --views N (say 4)")


@options
class TrainingOptions:
    """training (common/training)"""

    epochs: Epochs = 24
    """passes over the training split"""
    batch_size: Count = 16
    """photos, each with all its questions, or clips per step, over all processes"""
    accumulation: Count = 1
    """parts in which a process works through its share of a batch; the result does not change, the memory does"""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """mixed precision of the trained network (recurrent nets stay in fp32); fp16 needs a GPU"""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """update rule"""
    learning_rate: Positive = 2e-3
    """of everything but the encoder"""
    encoder_learning_rate: Positive | None = None
    """of a trained encoder; default the same"""
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 1e-2
    """decoupled for adamw, L2 for the others"""
    momentum: Fraction = 0.9
    """of sgd"""
    schedule: Literal["constant", "cosine", "cosine_restarts", "plateau", "linear"] = "cosine"
    """learning rate over time; plateau's falls after epochs without a lower validation loss"""
    schedule_per: Literal["step", "epoch"] = "step"
    """how often the rate moves, but for plateau's, which only ever moves after an epoch"""
    warmup: Fraction = 0.05
    """part of all steps in which the rate rises to its value (constant, cosine, linear)"""
    restart_every: Count = 10
    """epochs between restarts of cosine_restarts"""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """factor of each fall of plateau"""
    plateau_patience: Many = 1
    """epochs without improvement that plateau waits"""
    clip: Annotated[float, Field(ge=0, le=1e30)] = 5.0
    """largest norm of the gradient; 0 does not clip"""
    label_smoothing: Fraction = 0.0
    """probability spread over all classes in the training loss"""
    weight_averaging: Fraction = 0.0
    """score and keep a running mean of the weights: the share it keeps at each step (0.99, say); 0: the weights"""
    patience: Many = 0
    """stop after this many epochs without improvement; 0 never stops early"""
    min_delta: Annotated[float, Field(ge=0, le=1e30)] = 0.0
    """how much better counts as an improvement"""
    monitor: Literal["loss", "accuracy"] = "loss"
    """validation figure that --patience watches"""
    best_accuracy_rule: Literal["validation", "both"] = "validation"
    """best_accuracy is kept when validation accuracy rises, or (both, report R1) training accuracy too"""
    score: Literal["best_accuracy", "best_loss", "last"] = "best_accuracy"
    """checkpoint that is scored at the end"""
    checkpoint_minutes: Annotated[float, Field(ge=0, le=1e6)] = 5.0
    """write one within an epoch, too, after so many minutes: what a killed run loses at most; 0: after epochs alone"""
    fsdp: bool = False
    """several processes share the weights, gradients and optimiser's state out (fully sharded data parallel), and hold
    them whole only to validate and to save, so that a larger encoder can be trained; figures differ by rounding"""


@options
class ExampleOptions:
    """examples of a run's predictions"""

    examples: Annotated[int, Field(ge=0, le=12)] = 3
    """examples.png shows so many good and so many bad predictions (of each type of question) on what they are about,
    and where the model looked; 0: no such picture"""


@options
class ScoreOptions:
    """scoring"""

    run: str = positional()
    """run directory"""
    data: str | None = None
    """file or folder (its test split) to score; default the run's own data"""
    split: Literal["train", "validation", "test"] = "test"
    """split that is scored, where --data has several"""
    output: str | None = None
    """JSON file for the figures; default only printed"""
    overwrite: bool = False
    """replace --output"""
    predictions: str | None = None
    """CSV file for the per-sample predictions"""
    checkpoint: Literal["best_accuracy", "best_loss", "last"] | None = None
    """which checkpoint; default the one the run was scored with"""
    allow_leaky_split: bool = False
    """score even samples whose group, photo, clip or row was trained on, and say so"""
    cache: str | None = None
    """folder of cached features; default the run's"""
    workers: Workers = 2
    """processes that decode beside the encoder; threads, for a frozen one on a CPU (where torch has 2 to 8 threads,
    these decode and encode in turn, and this changes nothing)"""
