"""Clips as files: which of them a folder holds, where a reference may lead, and whether there is anything to decode.

Belongs here: from a folder or a reference to a file inside the data folder, its content hash and its number of frames.
Does not belong here: decoding (`video/decode.py`), and what label or split a clip has (`video/data.py`).
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from common.errors import UserError
from common.images import content_hash
from common.photos import PhotoFolder, remember, walk_files

SUFFIXES = tuple(".avi .mp4 .mkv .mov .webm .mpg .mpeg .m4v .gif .wmv .flv .3gp .ogv .ts".split())
"""What a folder is searched for; a table may name clips of any kind that PyAV reads."""
MAX_BYTES = 4 * 2**30
"""Of a clip's file, which is read whole for its hash."""


class ClipFolder(PhotoFolder):
    """`PhotoFolder`'s rule for clips: a path or link that leads out of the data folder and the Hub cache is refused."""

    numbered: Mapping[int, str] = {}  # photos may be named by COCO's number, clips have no such names

    def find(self, reference: str) -> str:
        """The absolute path of `reference`; whether anything is there is not checked. Raises `UserError`."""
        try:
            return super().find(reference)
        except UserError:  # which speaks of photos
            path = os.path.join(self.root, reference)
            link = f" (a link to {os.path.realpath(path)})" if "\0" not in reference and os.path.islink(path) else ""
            raise UserError(
                f"clip {reference[:200]!r}{link} is no path inside the data folder {self.root}; copy it there, or list "
                "clips in a table and name their folder with --clips"
            ) from None


class CheckedClip(NamedTuple):
    """A clip that can be decoded."""

    hash: str
    """SHA-256 of its bytes, hex"""
    frames: int


def find_clips(folder: str | Path) -> list[str]:
    """Paths, relative to `folder`, of every clip in it and in the folders in it; hidden ones are left out."""
    return [os.path.relpath(path, folder) for path in walk_files(folder) if path.lower().endswith(SUFFIXES)]


def check_clips(paths: Sequence[str], cache: Path, *, stop: bool) -> dict[str, CheckedClip | UserError]:
    """Each clip's hash and number of frames, or what is wrong; with `stop` nothing after the first that is wrong.

    Every clip is hashed every time: that is how a changed one is noticed. Its frames are counted once per content:
    `checked-clips.txt` in the cache lists the good ones, "hash frames" a line.
    """
    from video import decode  # PyAV is loaded where clips are opened, not by every reader of a table

    record = cache / "checked-clips.txt"
    known = _read_record(record)
    before = set(known)

    def check(path: str) -> CheckedClip | UserError:
        try:
            _check_is_file(path)
            digest = content_hash(path)
            if digest not in known:
                frames = decode.count_frames(path)
                if frames < 1:
                    raise UserError(f"{path}: holds no frames")
                known[digest] = frames
            return CheckedClip(digest, known[digest])
        except UserError as error:
            return error

    results: dict[str, CheckedClip | UserError] = {}
    pool = ThreadPoolExecutor(max_workers=min(16, (os.cpu_count() or 1) + 2))  # hashing and FFmpeg leave the GIL
    try:
        progress = tqdm(paths, desc="checking clips", unit="clip", disable=None, delay=3, leave=False)
        for path, result in zip(progress, pool.map(check, paths), strict=True):
            results[path] = result
            if stop and isinstance(result, UserError):
                break
    finally:
        pool.shutdown(cancel_futures=True)
        remember(record, [f"{digest} {known[digest]}" for digest in sorted(set(known) - before)])
    return results


def _check_is_file(path: str) -> None:
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder, not a clip")
    if not os.path.isfile(path):
        raise UserError(f"{path}" + (" is not a file" if os.path.exists(path) else ": no such clip"))
    size = os.path.getsize(path)
    if size == 0:
        raise UserError(f"{path}: the file is empty")
    if size > MAX_BYTES:
        raise UserError(f"{path}: has {size:,} bytes; clips of at most {MAX_BYTES:,} are read: cut it into clips")


def _read_record(record: Path) -> dict[str, int]:
    text = record.read_text(encoding="utf-8", errors="replace") if record.is_file() else ""
    whole = text[: text.rfind("\n") + 1]  # a line that was cut short may end in the wrong number
    pairs = (line.partition(" ") for line in whole.splitlines())
    return {digest: int(frames) for digest, _, frames in pairs if frames.isdecimal() and len(digest) == 64}
