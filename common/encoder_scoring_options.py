"""The options of `scripts/evaluate_encoder.py`: typed, with defaults and their help texts.

Belongs here: declarations only, nothing that imports torch.
"""

from typing import ClassVar

from common.classifier_options import PhotoSourceOptions
from common.config import options
from common.errors import UserError
from common.options import Count, Workers


@options
class EvaluateEncoderOptions(PhotoSourceOptions):
    """Top-1 and top-5 error of a pretrained ImageNet classifier on labelled photos (report R3).

    A label is the name of the folder that a photo is in, or of its file (lion.jpg, lion_2.jpg). It is judged by two
    rules, side by side: R3's, the class's name starts with the label (lion accepts lionfish); and exact. A label that
    no class's name starts with is listed, and its photos are counted apart.

    examples:
      python scripts/evaluate_encoder.py --data FOLDER --encoder alexnet --weights imagenet
      python scripts/evaluate_encoder.py --data FOLDER --weights mobilenet_v2.safetensors --output runs/top-k
      python scripts/evaluate_encoder.py --data FOLDER --encoder alexnet --second-encoder googlenet
    """

    resume: ClassVar[bool] = False  # there is nothing to go on with

    data: str
    """a folder of photos named by their label, a folder per label, or a table with the columns image and label"""
    encoder: str = "mobilenet_v2"
    """mobilenet_v2, resnet18/34/50/101/152, vgg16, alexnet or googlenet"""
    weights: str = "imagenet"
    """of the whole network: imagenet (torchvision's), or a .safetensors or .pth file"""
    second_encoder: str | None = None
    """another network, which judges the photos again that the first one classified worst (report R3, figure 4)"""
    second_weights: str = "imagenet"
    """its weights"""
    show: Count = 6
    """how many of the best- and of the worst-classified photos are shown"""
    output: str | None = None
    """folder for the table, predictions.csv and the pictures; default runs/imagenet-ENCODER-DATA, numbered"""
    overwrite: bool = False
    """replace --output"""
    cache: str | None = None
    """folder that remembers which photos are sound; default $HOIANH_CACHE or ~/.cache/hoianh"""
    batch_size: Count = 32
    """photos that the network sees at once"""
    workers: Workers = 0
    """processes that decode beside it"""

    def __post_init__(self) -> None:
        from common.zoo import check_encoder_name

        PhotoSourceOptions.__post_init__(self)
        if self.second_weights != "imagenet" and self.second_encoder is None:
            raise UserError("--second-weights are of --second-encoder: give both")
        for flag, name, weights in (
            ("", self.encoder, self.weights),
            ("second-", self.second_encoder, self.second_weights),
        ):
            if name is not None:
                check_encoder_name(name)
                if name == "custom_cnn" or name.startswith("hf:"):
                    raise UserError(f"--{flag}encoder {name} has no ImageNet classifier that we know; name another")
                if weights == "none":
                    raise UserError(f"--{flag}weights none: random weights know no class; give imagenet or a file")
