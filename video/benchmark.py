"""The benchmark's parts about clips: reading them beside what else one could do, and extracting their features.

Belongs here: clips, found or made, and the other ways of reading them. The clock is `common/benchmark.py`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from common.benchmark import Bench, Measured, Part, ratio, side_by_side
from common.benchmark_encoding import extraction, make_encoder, throughput
from common.errors import UserError
from common.images import content_hash
from video.clips import find_clips
from video.decode import read_clip
from video.frames import ClipViews
from video.motions import motion_frames
from video.sampling import Sampling

R0_FRAMES, R0_SIZE = 100, 480
WIDTH, HEIGHT, LENGTH = 320, 240, 180
_BITS = 300_000  # a second, about what UCF101's clips have


def loading(bench: Bench) -> Measured:
    """Frames of a clip against decoding it, against R0's reader and against a seek for every frame."""
    sampling = Sampling(frames=bench.options.frames)
    size = bench.options.image_size
    measured = Measured()
    own = write_clip(bench.folder / "clip.avi")
    sets = {f"{WIDTH}×{HEIGHT} XVID, {LENGTH} frames": [str(own)]}
    sets |= {Path(folder).name: some for folder, some in clips_of(bench).items()}
    for name, paths in sets.items():
        ours = f"{bench.options.frames} uniform frames at {size}"
        ways = {
            f"{name}: decoding alone": decode_all,
            f"{name}: {ours}": lambda path: read_clip(path, sampling, size=size),
            f"{name}: R0's reader ({R0_FRAMES} first frames at {R0_SIZE})": read_as_r0,
            f"{name}: a seek for each frame": lambda path: read_by_seeking(path, sampling, size),
        }
        rounds = 5 if len(paths) == 1 else 1

        def repeated(way, paths=paths, rounds=rounds) -> None:
            for path in paths * rounds:
                way(path)

        sides = side_by_side(
            {key: lambda way=way: repeated(way) for key, way in ways.items()},
            bench.options.repeats,
            units=len(paths) * rounds,
            unit="clip",
        )
        alone, frames, r0, seeking = sides.values()
        measured.sides += sides.values()
        measured.figures += [
            ratio(f"{name}: {ours}, of decoding alone", frames, alone, aim=1.3),
            ratio(f"{name}: R0's reader, of ours", r0, frames),
            ratio(f"{name}: a seek for each frame, of ours", seeking, frames),
        ]
    measured.notes.append(
        "R0's reader as R0 wrote it, but with PyAV and Pillow for OpenCV: every frame from the first on to RGB, its "
        f"centre square, {R0_SIZE}×{R0_SIZE}, until there are {R0_FRAMES}"
    )
    return measured


def clip_extraction(bench: Bench) -> Measured:
    """Part b for clips."""
    encoder, source, files = _clip_files(bench)
    return extraction(bench, encoder, source, files, kind="clips")


def gpu(bench: Bench) -> Measured:
    """Part g."""
    return throughput(bench, *_clip_files(bench))


def _clip_files(bench: Bench):
    encoder = make_encoder(bench)
    preprocessing = replace(encoder.preprocessing, size=bench.options.image_size)
    source = ClipViews(sampling=Sampling(frames=bench.options.frames), preprocessing=preprocessing)
    found = [path for some in clips_of(bench).values() for path in some]
    if not found:
        found = [str(write_clip(bench.folder / f"made-{n}.avi", seed=n)) for n in range(bench.options.clips)]
    return encoder, source, [(path, content_hash(path)) for path in found]


def clips_of(bench: Bench) -> Mapping[str, Sequence[str]]:
    """Folder of --data → clips of it, evenly spread; folders without any are left out."""
    found = {}
    for folder in bench.options.data:
        if not Path(folder).is_dir():
            raise UserError(f"--data {folder}: no such folder")
        if paths := find_clips(folder):
            count = min(bench.options.clips, len(paths))
            found[folder] = [str(Path(folder) / paths[n * len(paths) // count]) for n in range(count)]
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


PARTS: dict[str, list[Part]] = {"a": [loading], "b": [clip_extraction], "g": [gpu]}
