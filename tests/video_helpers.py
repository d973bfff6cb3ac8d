"""What the tests of the video models and commands share: tiny clips, and data sets of them."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

LABELS = ("chạy", "ngã", "nhảy")


def write_frames(path: Path, images: Sequence[np.ndarray], *, codec: str = "mpeg4", pixels: str = "yuv420p") -> Path:
    """A clip of RGB images `(H, W, 3)` uint8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=12)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.bit_rate, stream.codec_context.thread_count = pixels, 2_000_000, 1
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pixels, threads=1)))
        container.mux(stream.encode())
    return path


def write_clip(path: Path, *, seed: int, brightness: float = 120, count: int = 6, size: int = 24) -> Path:
    """A clip of `count` frames: noise, a clip's own, around a brightness that rises by 4 from frame to frame."""
    noise = np.random.default_rng(seed).normal(0, 12, (size, size, 3))
    images = [np.clip(brightness + 4 * number + noise, 0, 255).astype(np.uint8) for number in range(count)]
    return write_frames(path, images)


def write_set(folder: Path, *, clips: dict[str, int] | None = None) -> Path:
    """A data set of files train.csv, validation.csv and test.csv: the class is the brightness, two clips a group.

    Clips are of 1 to 6 frames. `clips`: how many of each split.
    """
    number = 0
    for split, count in (clips or {"train": 12, "validation": 6, "test": 6}).items():
        rows = []
        for place in range(count):
            label = (place // 2) % len(LABELS)
            path = folder / "clips" / f"{split}{place:02d}.avi"
            write_clip(path, seed=number, brightness=40 + 70 * label, count=1 + number % 6)
            group = f"{split}-{place // 2}"
            rows.append({"path": f"clips/{path.name}", "label": LABELS[label], "group": group})
            number += 1
        write_csv(folder / f"{split}.csv", rows)
    return folder


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def history(run: Path) -> list[dict]:
    """`history.jsonl` without how long each epoch took, and where it was taken up again."""
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key not in ("seconds", "resumed")} for row in rows]
