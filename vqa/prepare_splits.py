"""Photos in groups and splits: copies, near-duplicates and what the source calls one group stay together.

Belongs here: that, for photos on their way to a question set. Does not belong here: how photos are compared
(`common/near_duplicates.py`) and how groups are split (`common/splits.py`).
"""

import re
from collections import Counter
from collections.abc import Sequence

from common.errors import UserError
from common.near_duplicates import near_duplicate_groups
from common.splits import describe, find_overlap, group_split, link_groups
from vqa.prepare_options import PrepareOptions
from vqa.questions import Photo


def group_photos(photos: Sequence[Photo], *, bits: int | None, pattern: str | None) -> list[str]:
    """Give each photo its group: what the source or `pattern` says, joined where photos are alike. → notes."""
    given = [photo.group for photo in photos]
    if pattern is not None:
        found = [re.search(pattern, photo.name) for photo in photos]
        if not any(found):
            raise UserError(f"--group-pattern {pattern!r}: is in no photo's path, such as {photos[0].name}")
        given = [match[1] or "" if match else group for match, group in zip(found, given, strict=True)]
    digests = [photo.digest for photo in photos]
    alike = [digest[:16] for digest in digests]
    if bits is not None:
        alike = near_duplicate_groups([photo.path for photo in photos], digests, bits=bits)
    groups = link_groups([group or own for group, own in zip(given, alike, strict=True)], alike)
    for photo, group in zip(photos, groups, strict=True):
        photo.group = group
    sizes = Counter(groups)
    several = [size for size in sizes.values() if size > 1]
    how = "exact copies" if bits is None else f"photos that differ in at most {bits} of 64 bits"
    return [f"groups: {len(sizes):,}; {len(several):,} of several photos ({sum(several):,}), {how} are together"]


def split_photos(photos: Sequence[Photo], options: PrepareOptions) -> tuple[list[Photo], list[str]]:
    """Photos with group and split, and notes: whole groups, stratified by label; the source's own splits stay unless
    they share a group, which is refused."""
    photos = sorted(photos, key=lambda photo: photo.name)
    notes = group_photos(photos, bits=options.near_duplicates, pattern=options.group_pattern)
    for photo in photos:
        photo.split = photo.split or "train"
    for one, two in (("train", "validation"), ("train", "test"), ("validation", "test")):
        groups = [{"groups": [photo.group for photo in photos if photo.split == split]} for split in (one, two)]
        if overlap := find_overlap(*groups, names=(one, two)):
            raise UserError(
                f"leak: {describe(overlap)}, by the source's own splits; split anew with --no-keep-splits, or call "
                "fewer photos alike with --near-duplicates"
            )
    for split, fraction in (("test", options.test_fraction), ("validation", options.validation_fraction)):
        if any(photo.split == split for photo in photos):
            notes.append(f"{split}: the source's own")
            continue
        train = [photo for photo in photos if photo.split == "train"]
        _, taken = group_split(
            [photo.label for photo in train],
            [photo.group for photo in train],
            fraction=fraction,
            seed=options.seed,
            what=options.source,
        )
        for place in taken:
            train[place].split = split
        notes.append(
            f"{split}: {len(taken):,} of {len(train):,} photos, whole groups, stratified (seed {options.seed})"
        )
    return photos, notes
