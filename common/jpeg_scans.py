"""How many scans a JPEG has: each of them goes over the whole picture again, however few bytes it holds.

Belongs here: counting them without decoding. What is done with a photo of too many is `common/images.py`'s.
"""

import mmap
import re
import struct
from pathlib import Path

MOST_SCANS = 60
"""Of a photo: usual encoders write about ten."""
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in coded data 0xff is followed by 0 or is a restart's
_ALONE = (0x01, 0xD8)  # markers without a length
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}


def count_scans(source: Path | bytes) -> int:
    """The scans up to the end of the picture (what lies behind, such as a phone's second picture, is none of it).

    One whose first scan holds all its colours has no other. Counting ends at the first above `MOST_SCANS`.
    """
    if isinstance(source, bytes):
        return _count(source)
    with open(source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _count(content)


def _count(content: bytes | mmap.mmap) -> int:
    place, scans, colours, progressive = 0, 0, 0, False
    while scans <= MOST_SCANS and (found := _MARKER.search(content, place)):
        marker, place = content[found.start() + 1], found.end()
        if marker == 0xD9:
            break
        if marker in _ALONE:
            continue
        (length,) = struct.unpack(">H", content[place : place + 2].rjust(2, b"\0"))
        if marker in _FRAMES:
            colours, progressive = (content[place + 7 : place + 8] or b"\0")[0], marker in (0xC2, 0xC6, 0xCA, 0xCE)
        if marker == 0xDA:
            scans += 1
            if not progressive and content[place + 2 : place + 3] == bytes([colours]):
                break
        place += max(length, 2)
    return scans
