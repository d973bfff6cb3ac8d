"""The options of the image commands: typed, with defaults and their help texts.

Belongs here: declarations only, nothing that imports torch.
"""

from typing import Literal

from common.columns import check_columns
from common.config import options
from common.errors import UserError
from common.options import (
    Count,
    DataOptions,
    EncoderOptions,
    Epochs,
    Fraction,
    Positive,
    RunOptions,
    ScoreOptions,
    TrainingOptions,
    Workers,
)


@options
class PhotoSourceOptions:
    """photos (common/classifier_data)"""

    images: str | None = None
    """folder the photos of a table are in; default the table's own"""
    columns: tuple[str, ...] = ()
    """other column names of a table, as OURS=THEIRS: image label group split id"""
    on_bad_image: Literal["fail", "skip"] = "fail"
    """a missing or unreadable photo, or a class folder without any, stops the run, or is left out and counted"""

    def __post_init__(self) -> None:
        check_columns(self.columns, "image=file_name")


@options
class ImageModelOptions:
    """model (common/classifier)"""

    pool: Count = 1
    """the encoder's grid is averaged to so many cells a side before the linear layer (1: the mean of the grid)"""
    fully_connected: bool = False
    """alexnet, vgg16: keep their fully connected layers but the last, with their weights, between grid and classes (as
    report R3 does); they are trained if the encoder is"""
    dropout: Fraction = 0.0
    """before the linear layer"""


@options
class TrainImageOptions(
    ImageModelOptions, EncoderOptions, TrainingOptions, PhotoSourceOptions, DataOptions, RunOptions
):
    """Train a classifier of photos on an encoder: a linear probe, its last stages, or all of it; score it; leave a run.

    With weights the encoder is frozen unless --train-encoder says otherwise, and what it makes of a photo is computed
    once.

    examples:
      accelerate launch scripts/train_image.py --data FOLDER --encoder mobilenet_v2 --weights imagenet --output RUN
      python scripts/train_image.py --config configs/image/finetune.yaml --data FOLDER --weights FILE.safetensors
      python scripts/train_image.py --data FOLDER --encoder resnet50 --weights imagenet --train-encoder layer4
      python scripts/train_image.py --data photos.csv --columns image=file_name --encoder custom_cnn
    """

    data: str | None = None
    """a folder per class, or DIR/train/CLASS and so on; photos named by their label (label_3.jpg); or a table with the
    columns image and label, perhaps group and split; or a Hub id"""
    encoder: str = "mobilenet_v2"
    """mobilenet_v2, custom_cnn, resnet18/34/50/101/152, vgg16, alexnet, googlenet, or hf:NAME_OR_PATH"""
    augment: tuple[Literal["crop", "flip", "turn", "color", "blur"], ...] = ()
    """what training views of a photo vary: a random crop, mirrored, turned by quarters, colours, blur"""
    epochs: Epochs = 30
    """passes over the training split"""
    batch_size: Count = 8
    """photos per step, over all processes"""
    learning_rate: Positive = 1e-3
    """of everything but the encoder"""
    score: Literal["best_accuracy", "best_loss", "last"] = "best_loss"
    """checkpoint that is scored at the end"""

    def __post_init__(self) -> None:
        for base in (RunOptions, PhotoSourceOptions, EncoderOptions):
            base.__post_init__(self)
        if self.data is None:
            raise UserError("--data is missing: name a folder with a folder of photos per class, or a table")
        if self.resize == "pad":
            raise UserError("--resize pad: the mean of the grid would count the padding; give crop or squash")
        if self.fully_connected and self.encoder not in ("alexnet", "vgg16"):
            raise UserError(
                f"--fully-connected: {self.encoder} has one layer behind its grid, the last; only alexnet and vgg16 "
                "have more"
            )
        if self.fully_connected and (self.pool != 1 or self.stages):
            raise UserError("--fully-connected takes the whole grid of the last stage: leave --pool and --stages out")


@options
class EvaluateImageOptions(PhotoSourceOptions, ScoreOptions):
    """Score a trained image run again, on its own test split or on other photos.

    The label of a photo is the folder it is in, or its name: resistor_3.jpg, Resistor-3.jpg and resistor.jpg are of
    class resistor. A label that the run has no class for is refused.

    examples:
      python scripts/evaluate.py RUN --help      # the options of that run's task
      python scripts/evaluate.py RUN --split validation
      python scripts/evaluate.py RUN --data FOLDER --output heldout.json --predictions heldout.csv
    """

    def __post_init__(self) -> None:
        PhotoSourceOptions.__post_init__(self)


@options
class PredictImageOptions:
    """Classify photos with a trained run.

    examples:
      python scripts/predict_image.py --run RUN --image photo.jpg
      python scripts/predict_image.py --run RUN --image FOLDER --output classes.csv
    """

    run: str
    """run directory, or a checkpoint directory"""
    image: str
    """a photo, or a folder of photos"""
    checkpoint: Literal["best_accuracy", "best_loss", "last"] | None = None
    """which of the run's checkpoints; default the one it was scored with"""
    top: Count = 5
    """classes to show"""
    json: bool = False
    """print one JSON object per photo instead of text"""
    output: str | None = None
    """CSV file: of each photo its --top classes and their probabilities"""
    overwrite: bool = False
    """replace --output"""
    on_bad_image: Literal["fail", "skip"] = "fail"
    """of a folder, a photo that cannot be read stops everything, or is left out and counted"""
    workers: Workers = 0
    """processes that decode beside the model"""
