"""The benchmark's parts about clips: reading them beside what else one could do, and extracting their features.

Belongs here: clips, found or made, and the other ways of reading them. The clock is `common/benchmark.py`'s.
"""

import functools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import datasets
import numpy as np
import torch
from PIL import Image

from common.benchmark import Bench, Measured, Part, ratio, side_by_side, spread
from common.benchmark_encoding import epoch_of_features, extraction, features_of, make_encoder
from common.benchmark_gpu import throughput
from common.benchmark_training import epochs_of_training
from common.encoders import Encoder
from common.images import content_hash
from video.batches import ClipBatches
from video.clips import check_clips, find_clips
from video.decode import count_frames, read_clip
from video.frames import ClipViews
from video.model import VideoConfig, VideoModel
from video.motions import motion_frames
from video.sampling import Sampling
from video.ucf101 import name_class

R0_FRAMES, R0_SIZE = 100, 480
WIDTH, HEIGHT, LENGTH = 320, 240, 180
MADE = f"{WIDTH}×{HEIGHT} XVID, {LENGTH} frames"
_READ = 8  # clips of a folder for part a: the other ways of reading them take up to a second each
_HASHED = 64  # MB
_BITS = 300_000  # a second, about what UCF101's clips have


def loading(bench: Bench) -> Measured:
    """Frames of a clip against decoding it, against R0's reader and against a seek for every frame."""
    sampling = Sampling(frames=bench.options.frames)
    size = bench.options.image_size
    measured = Measured()
    own = write_clip(bench.folder / "clip.avi")
    sets: dict[str, Sequence[str]] = {MADE: [str(own)]}
    sets |= {name: spread(paths, _READ) for name, paths in clips_of(bench).items()}
    for name, paths in sets.items():
        ours = f"{bench.options.frames} uniform frames at {size}"
        ways = {
            f"{name}: decoding alone": decode_all,
            f"{name}: {ours}": lambda path: read_clip(path, sampling, size=size),
            f"{name}: R0's reader, by PyAV and Pillow ({R0_FRAMES} first frames at {R0_SIZE})": read_as_r0,
            f"{name}: a seek for each frame": lambda path: read_by_seeking(path, sampling, size),
        }
        rounds = 5 if len(paths) == 1 else 1

        def repeated(way, paths=paths, rounds=rounds) -> None:
            for path in list(paths) * rounds:
                way(path)

        sides = side_by_side(
            {key: functools.partial(repeated, way) for key, way in ways.items()}
            | {f"{name}: checking (hash, number of frames)": functools.partial(_check, bench, list(paths) * rounds)},
            bench.options.repeats,
            units=len(paths) * rounds,
            unit="clip",
        )
        alone, frames, r0, seeking, _ = sides.values()
        measured.sides += sides.values()
        measured.figures += [
            ratio(f"{name}: {ours}, of decoding alone", frames, alone, aim=1.3),
            ratio(f"{name}: R0's reader (by PyAV and Pillow), of ours", r0, frames),
            ratio(f"{name}: a seek for each frame, of ours", seeking, frames),
        ]
        measured.facts[f"clips: {name}"] = about_clips(paths)
    measured.notes.append(
        "R0's reader as R0 wrote it, but with PyAV and Pillow for OpenCV: every frame from the first on to RGB, its "
        f"centre square, {R0_SIZE}×{R0_SIZE}, until there are {R0_FRAMES}"
    )
    return measured


def _check(bench: Bench, paths: Sequence[str]) -> None:
    """As the first process of a first run does it: nothing is known of the clips."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as cache:
        check_clips(paths, Path(cache), stop=True)


def hashing(bench: Bench) -> Measured:
    """What a megabyte more of a file costs wherever it is checked."""
    path = bench.folder / "large"
    path.write_bytes(bytes(_HASHED * 10**6))
    sides = side_by_side({"hashing": lambda: content_hash(path)}, bench.options.repeats, units=_HASHED, unit="MB")
    path.unlink()
    return Measured(sides=list(sides.values()))


def about_clips(paths: Sequence[str]) -> dict[str, Any]:
    """What decoding these clips depends on: the codec, and means over the clips."""
    clips, codecs = [], set()
    for path in paths:
        with av.open(path) as container:
            stream = container.streams.video[0]
            codecs.add(stream.codec_context.name)
            size = stream.codec_context.width, stream.codec_context.height
        clips.append((count_frames(path), *size, Path(path).stat().st_size))
    frames, width, height, size = np.array(clips, dtype=float).T
    return {
        "clips": len(clips),
        "codec": " ".join(sorted(codecs)),
        "frames": round(frames.mean(), 1),
        "width": round(width.mean(), 1),
        "height": round(height.mean(), 1),
        "pixels": round((frames * width * height).mean()),
        "bytes": round(size.mean()),
        "ucf101": all(name_class(path) is not None for path in map(os.path.basename, paths)),
    }


def clip_extraction(bench: Bench) -> Measured:
    """Part b for clips, of each folder by itself; what else one could do with them beside the first's alone."""
    encoder, source = _clip_source(bench)
    measured = Measured()
    for number, (name, files) in enumerate(_clip_files(bench).items()):
        kind = f"clips of {name}"
        measured.add(extraction(bench, encoder, source, files, kind=kind, plain=number == 0, pool=1))
    return measured


def cached_epochs(bench: Bench) -> Measured:
    """Part c for clips: features from the cache and encoded again, then epochs of training on either."""
    encoder, source = _clip_source(bench)
    name, files = next(iter(_clip_files(bench).items()))
    measured = epoch_of_features(bench, encoder, source, files, kind=f"clips of {name}", pool=1)
    rows = datasets.Dataset.from_dict(
        {
            "path": [path for path, _ in files],
            "hash": [digest for _, digest in files],
            "label": [str(place % 2) for place in range(len(files))],
        }
    )
    classes = ["0", "1"]
    config = VideoConfig(
        encoder=encoder.config, preprocessing=vars(source.preprocessing), sampling=asdict(source.sampling)
    )
    store = features_of(bench, encoder, source, files, pool=1)
    kept = ClipBatches(rows, classes, store=store)
    again = ClipBatches(rows, classes, source=source)
    measured.add(epochs_of_training(bench, lambda: _model(config, encoder), kept, again, kind="clips", unit="clip"))
    return measured


def _model(config: VideoConfig, encoder: Encoder) -> VideoModel:
    torch.manual_seed(0)
    model = VideoModel(config)
    model.encoder = encoder
    return model


def gpu(bench: Bench) -> Measured:
    """Part g."""
    encoder, source = _clip_source(bench)
    return throughput(bench, encoder, source, [file for files in _clip_files(bench).values() for file in files])


def _clip_source(bench: Bench) -> tuple[Encoder, ClipViews]:
    encoder = make_encoder(bench)
    preprocessing = replace(encoder.preprocessing, size=bench.options.image_size)
    return encoder, ClipViews(sampling=Sampling(frames=bench.options.frames), preprocessing=preprocessing)


def _clip_files(bench: Bench) -> dict[str, list[tuple[str, str]]]:
    """Clips of each folder of --data; made ones, where none has any: paths and hashes."""
    found = clips_of(bench)
    if not found:
        made = (bench.folder / f"made-{number}.avi" for number in range(bench.options.clips))
        found = {MADE: [str(path if path.exists() else write_clip(path, seed=n)) for n, path in enumerate(made)]}
    return {name: [(path, content_hash(path)) for path in paths] for name, paths in found.items()}


def clips_of(bench: Bench) -> dict[str, Sequence[str]]:
    """Name of a folder of --data → clips of it, evenly spread; folders without any are left out."""
    found: dict[str, Sequence[str]] = {}
    for folder in bench.options.data:
        if paths := find_clips(folder):
            name = Path(folder).name
            name = name if name not in found else f"{name} ({len(found) + 1})"
            found[name] = [str(Path(folder) / path) for path in spread(paths, bench.options.clips)]
    return found


def decode_all(path: str) -> None:
    """Every frame, and nothing done with it: on one thread, as a loader with a process per core has it."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for _ in container.decode(stream):
            pass


def read_as_r0(path: str) -> torch.Tensor:
    """The first frames `(T, 3, 480, 480)` uint8: report R0's reader (see `loading`)."""
    frames = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for frame in container.decode(stream):
            image = frame.to_ndarray(format="bgr24")
            side = min(image.shape[:2])
            y, x = ((length - side) // 2 for length in image.shape[:2])
            square = Image.fromarray(np.ascontiguousarray(image[y : y + side, x : x + side, ::-1]))
            frames.append(np.asarray(square.resize((R0_SIZE, R0_SIZE), Image.Resampling.BILINEAR)))
            if len(frames) == R0_FRAMES:
                break
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def read_by_seeking(path: str, sampling: Sampling, size: int) -> torch.Tensor:
    """The same frames as ours, each by going to the key frame before it and decoding from there: `(T, 3, S, S)`."""
    frames = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        times = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
        for number in sampling.indices(len(times)):
            container.seek(times[number], stream=stream)
            for frame in container.decode(stream):
                if frame.pts is not None and frame.pts >= times[number]:
                    break
            image = frame.to_ndarray(format="rgb24")
            side = min(image.shape[:2])
            y, x = ((length - side) // 2 for length in image.shape[:2])
            square = Image.fromarray(np.ascontiguousarray(image[y : y + side, x : x + side]))
            frames.append(np.asarray(square.resize((size, size), Image.Resampling.BILINEAR)))
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def write_clip(path: Path, *, seed: int = 0) -> Path:
    """A clip like UCF101's: XVID, 320×240, 25 frames a second, two B pictures, one key frame for all; it moves."""
    rng = np.random.default_rng(seed)
    parts = [motion_frames(label, rng, size=HEIGHT) for label in ("left", "grow", "up", "right", "shrink", "down") * 2]
    images = np.concatenate(parts)[:LENGTH]
    images = np.concatenate([images, images[:, :, : WIDTH - HEIGHT]], axis=2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"g": "300", "bf": "2", "sc_threshold": "1000000000"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", _BITS
        stream.codec_context.codec_tag = "XVID"
        stream.codec_context.thread_count = 1
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


PARTS: dict[str, list[Part]] = {"a": [loading, hashing], "b": [clip_extraction], "c": [cached_epochs], "g": [gpu]}
