"""Photos that other people's tables point to: which paths may be followed, and which files are photos.

Belongs here: from a reference (path, COCO number, bytes) to a file inside the data folder that can be decoded, and its
content hash. Does not belong here: decoding itself (`common/images.py`).
"""

import functools
import itertools
import math
import os
import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from common.errors import UserError
from common.files import beside, remove
from common.images import MAX_BYTES, content_hash, read_image
from common.places import allowed_places, is_inside

SUFFIXES = tuple(".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .tif .tiff .ppm .pgm .pbm .jp2 .j2k .avif".split())
"""What a folder is searched for where photos and other files may lie together."""
MOST_TEXT = 100_000
"""Characters of one cell of a table."""
MOST_FOLDERS = 100_000
MOST_DEPTH = 100
"""Of folders in a data folder. Links among them can make a few into more than anybody can look through."""

_MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp", b"II*": "tif"}


class PhotoFolder:
    """Where the references of a source lead, and where they may lead (see `common/places.py`)."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self.allowed = allowed_places(self.root)
        self._folders: dict[str, str] = {}  # as named → where they really are: few, while photos are many

    def find(self, reference: str) -> str:
        """The absolute path that `reference` stands for; whether anything is there is not checked.

        Raises `UserError`, not to be skipped, for a URL and for a path that leads elsewhere.
        """
        if "://" in reference or reference.startswith("data:"):
            raise UserError(f"photo {reference[:100]} is a URL; download the photos and name the files")
        if "\0" in reference or broken_text(reference):
            raise UserError(f"photo {reference!r} is no path")
        path = self._resolve(self.numbered.get(int(reference), reference) if is_number(reference) else reference)
        if not os.path.lexists(path):
            # One name has two spellings in Unicode: macOS writes "phở.jpg" decomposed, a CSV mostly has it composed.
            for form in ("NFC", "NFD"):
                other = self._resolve(unicodedata.normalize(form, reference))
                path = other if os.path.lexists(other) else path
        return path

    def _resolve(self, reference: str) -> str:
        parent, name = os.path.split(os.path.join(self.root, reference))
        if parent not in self._folders:
            self._folders[parent] = os.path.realpath(parent)
        path = os.path.join(self._folders[parent], name)
        real = os.path.realpath(path) if name in ("", ".", "..") or os.path.islink(path) else path
        if not is_inside(real, self.allowed):
            raise UserError(f"photo {reference} leads out of the data folder {self.root}; --images names another")
        return path

    @functools.cached_property
    def numbered(self) -> Mapping[int, str]:
        """COCO's photos by number: `N.jpg`, `00000000000N.jpg`, `COCO_val2014_00000000000N.jpg`, here or one below."""
        named = re.compile(r"(?:COCO_\w+?_)?(\d{1,18})\.(?:jpe?g|png|webp)", re.IGNORECASE)
        found: dict[int, str] = {}
        for folder in (self.root, *sorted(entry.path for entry in os.scandir(self.root) if entry.is_dir())):
            for name in sorted(os.listdir(folder)) if os.access(folder, os.R_OK | os.X_OK) else ():
                if match := named.fullmatch(name):
                    found.setdefault(int(match[1]), os.path.join(folder, name))
        return found


def walk_files(folder: str | Path, root: str | Path | None = None) -> Iterator[str]:
    """Paths of every file in `folder` and in the folders in it, by name; hidden ones are left out, and links that lead
    in a circle are not followed.

    `root`: the data folder that `folder` is part of, default itself. Raises `UserError` for a folder that cannot be
    read, for a link to a folder outside of the data folder, and for more folders than anybody has.
    """
    allowed = allowed_places(folder if root is None else root)
    yield from _walk(str(folder), (), allowed, itertools.count(1))


def _walk(folder: str, above: tuple[str, ...], allowed: list[str], count: Iterator[int]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if above and not is_inside(real, allowed):  # what a person named may lie anywhere
        raise UserError(f"{folder}: is a link that leads out of the data folder; copy the folder there")
    above = (*above, real)
    if next(count) > MOST_FOLDERS or len(above) > MOST_DEPTH:
        deep = len(above) > MOST_DEPTH
        what = f"{MOST_DEPTH} folders one in another" if deep else f"{MOST_FOLDERS:,} folders in it"
        raise UserError(f"{folder[:200]}: there are more than {what}; do links lead from one to the other?")
    for name in list_names(folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            if os.path.realpath(path) not in above:  # else a link that leads in a circle
                yield from _walk(path, above, allowed, count)
        else:
            yield path


def list_names(folder: str | Path) -> list[str]:
    """The names in a folder, sorted, without hidden ones, such as the "._NAME.jpg" that macOS leaves beside each file.

    Raises `UserError` for a folder that cannot be read, and for a name that is no text: it could not be written down.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
    for name in names:
        if broken_text(name):
            raise UserError(f"{folder}: the name of the file {os.fsencode(name)!r} in it is not UTF-8; rename it")
    return names


def is_number(reference: str) -> bool:
    return reference.isascii() and reference.isdecimal() and len(reference) <= 18


def broken_text(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def photo_reference(value: Any, *, cache: Path | None, write: bool) -> str | Path:
    """A photo as a source gives it: a path or number as text, or bytes, which become a file of the cache (a `Path`)."""
    if isinstance(value, dict):  # `datasets.Image`
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        if cache is None:
            raise UserError("holds photos themselves; give a file that names photo files")
        return _store(value, cache / "images", write=write)
    if isinstance(value, float) and value.is_integer():  # a column of numbers in which some are missing
        value = int(value)
    return plain_text(value).strip()


def plain_text(value: Any) -> str:
    if isinstance(value, str):
        if len(value) > MOST_TEXT:
            raise UserError(f"holds {len(value):,} characters; a text has at most {MOST_TEXT:,}")
        return value
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, list | dict | bytes):
        raise UserError(f"holds a {type(value).__name__}, not text")
    if value in (math.inf, -math.inf):
        raise UserError("holds an infinite number, not text")
    return str(value)


def _store(content: bytes, folder: Path, *, write: bool) -> Path:
    suffix = next((suffix for magic, suffix in _MAGIC.items() if content.startswith(magic)), "img")
    path = folder / f"{sha256(content).hexdigest()}.{suffix}"
    if write and not (path.is_file() and path.stat().st_size == len(content)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            fresh = beside(path)
            try:
                fresh.write_bytes(content)
                fresh.replace(path)
            finally:
                remove(fresh)
        except OSError as error:
            raise UserError(f"photo cannot be written to the cache, {path} ({error.strerror})") from None
    return path


def check_photos(paths: Sequence[str], cache: Path, *, stop: bool) -> dict[str, str | UserError]:
    """Each photo's hash, or what is wrong with it; with `stop` nothing after the first that is wrong.

    Every photo is hashed every time: that is how a changed one is noticed. Decoding, the slow part, is done once per
    content: `checked-photos.txt` in the cache lists the good ones, a hash per line.
    """
    record = cache / "checked-photos.txt"
    known = set(record.read_text(encoding="utf-8", errors="replace").split()) if record.is_file() else set()

    def check(path: str) -> str | UserError:
        try:
            _check_is_file(path)
            digest = content_hash(path)
            if digest not in known:
                read_image(path)
            return digest
        except UserError as error:
            return error

    results: dict[str, str | UserError] = {}
    pool = ThreadPoolExecutor(max_workers=min(16, (os.cpu_count() or 1) + 2))  # Pillow decodes without the GIL
    # `read_image` turns warnings off while it decodes, which in threads can leave them off: this puts them back.
    with warnings.catch_warnings(action="ignore"):
        try:
            progress = tqdm(paths, desc="checking photos", unit="photo", disable=None, delay=3, leave=False)
            for path, result in zip(progress, pool.map(check, paths), strict=True):
                results[path] = result
                if stop and isinstance(result, UserError):
                    break
        finally:
            pool.shutdown(cancel_futures=True)
    good = dict.fromkeys(result for result in results.values() if isinstance(result, str))
    remember(record, [digest for digest in good if digest not in known])
    return results


def _check_is_file(path: str) -> None:
    if not path:
        raise UserError("image is blank")
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder, not a photo")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is not a file")
    if os.path.isfile(path) and os.path.getsize(path) > MAX_BYTES:
        raise UserError(f"{path}: has {os.path.getsize(path):,} bytes; photos of at most {MAX_BYTES:,} are read")
    if not os.path.isfile(path):
        folder, name = os.path.split(path)
        if not is_number(name):
            raise UserError(f"{path}: no such photo")
        raise UserError(
            f"no photo {int(name)}.jpg, {int(name):012d}.jpg or COCO_*_{int(name):012d}.jpg in {folder} or in a folder "
            "in it; --images names the folder of COCO's photos"
        )


def remember(record: Path, lines: Sequence[str]) -> None:
    """Append in one write, which several processes may do at once."""
    if not lines:
        return
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with open(record, "ab", buffering=0) as file:
            content = memoryview("".join(f"{line}\n" for line in lines).encode())
            while content:  # what a full disk has no room for is told at the second try
                content = content[file.write(content) :]
    except OSError as error:
        raise UserError(f"cache {record}: cannot be written ({error.strerror}); give another with --cache") from None
