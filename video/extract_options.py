"""The options of `scripts/extract_features.py`: which clips, which frames of them, and through which encoder.

Belongs here: declarations only, nothing that imports torch.
"""

from common.config import flag, options
from common.errors import UserError
from common.options import Count, DataOptions, EncoderOptions, Seed
from video.options import ClipSourceOptions, FrameOptions

# Options of the groups below that do not change the features of a plain clip, and their defaults.
_OF_TRAINING = {
    "augment": (),
    "views": 1,
    "copies": 0,
    "augment_per": "clip",
    "frame_order": "kept",
    "batch_norm": "auto",
}


@options
class ExtractOptions(FrameOptions, EncoderOptions, ClipSourceOptions, DataOptions):  # type: ignore[misc]  # augment
    """Write what a frozen encoder makes of every clip of a source as one file, to be shared and trained on without
    the clips.

    Leaves FILE.safetensors (features in fp16, and how many frames each clip has) and index.csv beside it: path, label,
    group and split of each clip, so that everybody has the same split. The same head trained on either, file or clips,
    learns from the same numbers. Without --data, the embedded set of moving shapes.

    examples:
      python scripts/extract_features.py --output motions.safetensors
      python scripts/extract_features.py --data DIR --encoder mobilenet_v2 --weights imagenet --output fight.safetensors
      python scripts/extract_features.py --data UCF --split-list 1 --encoder hf:DIR --pool 1 --output ucf.safetensors
      python scripts/train_video.py --features fight.safetensors --head lstm
    """

    output: str
    """FILE.safetensors to write, with index.csv beside it, in a folder that is there"""
    overwrite: bool = False
    """replace --output and its index"""
    classes: tuple[str, ...] = ()
    """use only these classes; default all"""
    pool: Count = 4
    """the encoder's grid is averaged to so many cells a side (1: one vector a frame)"""
    seed: Seed = 0
    """seed of the weights of an encoder that has none: train_video.py --seed draws the same ones"""

    def __post_init__(self) -> None:
        ClipSourceOptions.__post_init__(self)
        FrameOptions.__post_init__(self)
        if not self.output.endswith(".safetensors"):
            raise UserError(f"--output {self.output}: features are written to a .safetensors file; name one")
        if self.features is not None:
            raise UserError("--features: these are computed already; give clips with --data")
        for name, value in _OF_TRAINING.items():
            if getattr(self, name) != value:
                raise UserError(
                    f"{flag(name)}: belongs to a training, not to the features of plain clips; leave it out"
                )
        if self.sampling == "random":
            raise UserError("--sampling random: a file holds one choice of frames, not one per epoch; take uniform")
        if self.train_encoder not in ("auto", "none"):
            raise UserError(f"--train-encoder {self.train_encoder}: features are a frozen encoder's; leave it out")
        self.train_encoder = "none"
        EncoderOptions.__post_init__(self)
