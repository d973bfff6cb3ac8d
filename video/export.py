"""Video runs to share: what is said of them, and the model as ONNX.

Belongs here: from a checkpoint to `common.export.Shareable`, and the model's forward over padded clips, which ONNX
needs: in PyTorch frames of several clips come one after another, unpadded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from common.config import build
from common.errors import UserError
from common.export import Onnx, Shareable
from common.export_card import About, Left
from common.export_onnx import Inputs, OnnxModel
from common.export_photos import OPEN, spread
from common.images import normalise
from common.pretrained import needed
from common.recurrent import KINDS, time_mask
from common.runs import cache_directory
from video.model import VideoConfig, VideoModel
from video.options import TrainVideoOptions
from video.predict import Classifier, load_clip
from video.sampling import Sampling
from video.scoring import load_source

_CLIPS = 4  # that the check reads
_OF_CLIPS = """import video

classify = video.pipeline("FOLDER")
print(classify("clip.mp4", top_k=3))"""
_OF_FEATURES = """import torch, video

classify = video.pipeline("FOLDER")
print(classify(torch.zeros(16, FEATURES), top_k=3))  # features of a clip's frames, (T, FEATURES)"""


def open_shareable(left: Left, checkpoint: Path) -> Shareable:
    """A checkpoint of a video run, to be shared. Raises `UserError` for a damaged one."""
    model = Classifier.from_pretrained(checkpoint).model.cpu()
    config = model.config
    about = About(
        task="video-classification",
        what=_what(config),
        made_up="the embedded motions of Hỏi Ảnh (generated clips)",
        use=_OF_CLIPS if config.encoder is not None else _OF_FEATURES.replace("FEATURES", str(config.features)),
        limits=_limits(config),
    )
    return Shareable(about=about, save=model.save_pretrained, onnx=lambda: _onnx(model, left))


def _what(config: VideoConfig) -> str:
    frames = f"Features of a clip's frames ({config.features} numbers each) go"
    if config.encoder is not None:
        frames = f"Frames of a clip go through {config.encoder['name']}, and their features"
    head = f"the {config.head} of the frames"
    if config.head in KINDS:
        both = "bidirectional " * config.bidirectional
        layers = f"{config.layers} layers of " if config.layers > 1 else ""
        head = f"{layers}{both}{config.head.upper()} of {config.hidden} units, read out by {config.readout}"
    classes = f"{', '.join(config.classes[:20])}{' …' * (len(config.classes) > 20)}"
    return f"{frames} through {head} and a linear layer; out comes one of {len(config.classes)} classes: {classes}."


def _limits(config: VideoConfig) -> list[str]:
    said = ["Every clip gets one of the classes, whatever it shows; it does not hear."]
    if config.encoder is None:
        said.append("It takes features of frames, not clips: they must be made as those of its training data were.")
    else:
        assert config.sampling is not None  # `Classifier` would have refused it
        sampling = Sampling(**config.sampling)
        said.append(f"It sees {sampling.frames} frames of a clip ({sampling.kind}) and nothing between them.")
    if config.frame_order == "shuffled":
        said.append("Its frames are shuffled: it is a control, to show what their order is worth.")
    return said


class PaddedVideo(nn.Module):
    """`VideoModel` of padded clips, with the same result: `pixels (B, T, 3, S, S)` uint8, or `features (B, T, D)` for a
    model without an encoder, and `lengths (B,)` ≥ 1 → logits `(B, classes)`, and temporal attention `(B, T)`, if there
    is any. What pads a clip may be anything."""

    def __init__(self, model: VideoModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, lengths: torch.Tensor, pixels: torch.Tensor | None = None, features: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        model = self.model
        if pixels is not None:
            frames = model.encoder(normalise(pixels.flatten(0, 1), model._preprocessing))
            features = model._pooled(frames).unflatten(0, (pixels.shape[0], pixels.shape[1]))
        features = needed(features, "pixels or features").to(model.classifier.weight.dtype)
        if model.config.difference:
            before = torch.cat([features[:, :1], features[:, :-1]], dim=1)
            features = torch.cat([features, features - before], dim=-1)
        features = model.project(model.input_dropout(model.norm(features)))
        mask = time_mask(lengths, features.shape[1])
        output: Any = model.classify(features.masked_fill(~mask.unsqueeze(-1), 0.0), lengths, mask)
        return (output.logits,) if output.attention is None else (output.logits, output.attention)


def _onnx(model: VideoModel, left: Left) -> Onnx:
    config = model.config
    if config.frame_order == "shuffled":
        raise UserError(f"{left.path}: its frames are shuffled by a rule that ONNX has not; share it with --to folder")
    clips, said = _clips(model, left)
    fed = "features" if config.encoder is None else "pixels"
    shape = (
        f"(clips, frames, {config.features}) float32" if fed == "features" else "(clips, frames, 3, size, size) uint8"
    )
    outputs = ["logits"] + ["attention"] * (config.head in KINDS and config.readout == "attention")
    description: dict[str, Any] = {
        "inputs": {
            fed: f"{shape}, filled up behind a clip's end with anything",
            "lengths": "(clips,) int64, how many frames each clip has, 1 or more",
        },
        "outputs": {"logits": "(clips, classes) float32, before the soft-max"},
    }
    if "attention" in outputs:
        description["outputs"]["attention"] = "(clips, frames) float32, what each frame counts; sums to 1"
    if fed == "pixels":
        assert config.preprocessing is not None  # it has an encoder
        description["frames"] = {
            "sampling": config.sampling,
            "size": config.preprocessing["size"],
            "resize": config.preprocessing["resize"],
            "layout": "red, green, blue planes, 0-255; normalisation is in the model",
        }
    samples = []
    for count in sorted({1, min(2, len(clips)), len(clips)}):
        some = clips[-count:]
        samples.append(
            {fed: pad_sequence(some, batch_first=True), "lengths": torch.tensor([len(clip) for clip in some])}
        )
    return Onnx(
        model=OnnxModel(
            module=PaddedVideo(model),
            inputs={fed: {0: "clips", 1: "frames"}, "lengths": {0: "clips"}},
            outputs=outputs,
            reference=lambda inputs: _own_forward(model, inputs, fed),
            samples=samples,
            about_samples=said,
        ),
        description=description | {"classes": config.classes},
        use="\n".join(_lines(config, fed)),
        limits=["The lines above do not turn clips that a phone filmed upright."] * (fed == "pixels"),
    )


def _own_forward(model: VideoModel, inputs: Inputs, fed: str) -> tuple[torch.Tensor, ...]:
    """The model's own way: frames one after another, unpadded."""
    mask = time_mask(inputs["lengths"], inputs[fed].shape[1])
    output = model(**{fed: inputs[fed][mask], "lengths": inputs["lengths"]})
    return (output.logits,) if output.attention is None else (output.logits, output.attention)


def _clips(model: VideoModel, left: Left) -> tuple[list[torch.Tensor], str]:
    """Clips of the run's own validation split as `(T, 3, S, S)` or `(T, D)`, the last one cut to half; of noise, if
    these are not here."""
    config = model.config
    try:
        options = build(TrainVideoOptions, left.config, where=str(left.path / "config.yaml"))
        data, stored = load_source(options, cache_directory(options.cache))
        rows = data.splits["validation"]
        places = spread(len(rows), _CLIPS)
        if config.encoder is None:
            if stored is None:
                raise UserError(f"{left.path / 'config.yaml'}: names no features, which the model was trained on")
            clips, said = [stored[rows[place]["place"]] for place in places], "stored features of validation"
        else:
            source = Classifier(model=model).source
            assert source is not None  # it has an encoder
            read = [load_clip(source, "kept", rows[place]["path"]) for place in places]
            clips, said = [clip["pixels"][clip["places"]] for clip in read], "clips of validation"
    except UserError:
        noise, frames = torch.Generator().manual_seed(0), 16
        if config.encoder is None:
            clips = [torch.randn(frames, config.features, generator=noise) for _ in range(_CLIPS)]
        else:
            assert config.preprocessing is not None  # it has an encoder
            shape = (frames, 3, config.preprocessing["size"], config.preprocessing["size"])
            clips = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=noise) for _ in range(_CLIPS)]
        said = "noise, as the run's clips were not here"
    return [*clips[:-1], clips[-1][: (len(clips[-1]) + 1) // 2]], said


def _lines(config: VideoConfig, fed: str) -> list[str]:
    """The lines of Python for onnxruntime: a clip to a class."""
    run = [
        f'logits = session.run(["logits"], {{"{fed}": {fed}[None], "lengths": np.array([len({fed})])}})[0][0]',
        'print(about["classes"][logits.argmax()])',
    ]
    imports = ["import json", "import numpy as np", "import onnxruntime"]
    if fed == "features":
        return [*imports, "", *OPEN, 'features = np.load("features.npy")  # (frames, numbers) float32', *run]
    assert config.preprocessing is not None and config.sampling is not None  # it has an encoder
    size = config.preprocessing["size"]
    return [
        "import av",
        *imports,
        "",
        *OPEN,
        *_frame_lines(size, config.preprocessing["resize"]),
        *_sampling_lines(Sampling(**config.sampling), size),
        *run,
    ]


def _frame_lines(size: int, resize: str) -> Sequence[str]:
    """Lines that make `frames`, a list of `(S, S, 3)` uint8, of the file clip.mp4."""
    read = ['with av.open("clip.mp4") as file:', "    frames = [square(frame) for frame in file.decode(video=0)]"]
    if resize == "squash":
        return [
            "",
            "def square(frame):",
            f'    return frame.reformat({size}, {size}, "gbrp", interpolation="BILINEAR").to_ndarray()',
            "",
            *read,
        ]
    return [
        "",
        "def square(frame):",
        "    sides, short = (frame.width, frame.height), min(frame.width, frame.height)",
        f"    x, y = (round((side * {size} / short - {size}) / 2) for side in sides)",
        f'    whole = frame.reformat({size} + 2 * x, {size} + 2 * y, "gbrp", interpolation="BILINEAR").to_ndarray()',
        f"    return whole[y : y + {size}, x : x + {size}]",
        "",
        *read,
    ]


def _sampling_lines(sampling: Sampling, size: int) -> Sequence[str]:
    """Lines that make `pixels (T, 3, S, S)` of `frames`: `Sampling.indices` in scoring."""
    wanted = sampling.max_frames if sampling.kind == "all" else sampling.frames
    chosen = {
        "first": f"np.arange(min(count, {wanted}))",
        "stride": f"np.arange(0, count, {sampling.stride})[:{wanted}]",
    }.get(
        sampling.kind,
        f"np.arange(count) if count <= {wanted} else (2 * np.arange({wanted}) + 1) * count // {2 * wanted}",
    )
    lines = ["count = len(frames)", f"chosen = {chosen}"]
    missing = f"max(0, {sampling.frames} - len(chosen))"
    if sampling.short == "repeat":
        lines.append(f'chosen = np.pad(chosen, (0, {missing}), mode="edge")')
    elif sampling.short == "loop":
        lines.append(f"chosen = np.resize(chosen, max({sampling.frames}, len(chosen)))")
    lines.append(
        f"pixels = np.stack([frames[number] for number in chosen]).transpose(0, 3, 1, 2)  # (T, 3, {size}, {size})"
    )
    if sampling.short == "zeros":
        lines.append(f"pixels = np.pad(pixels, ((0, {missing}), (0, 0), (0, 0), (0, 0)))")
    return lines
