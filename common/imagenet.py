"""The 1,000 classes of ImageNet: what they are called, and which of them a person's label means.

Belongs here: names and the two rules by which a label accepts classes. Does not belong here: networks
(`common/heads.py`), scoring photos (`common/encoder_scoring.py`).

Names are torchvision's, which come with it: one of each class's synonyms. A label may mean several classes: "cardigan"
is a dog and a jacket.
"""

import difflib
import re
import unicodedata
from collections.abc import Sequence

import torchvision

from common import zoo
from common.errors import UserError

_WORDNET = re.compile(r"^n\d{8}_")  # ImageNet's own number before a name: n01440764_tench


def class_names(encoder: str) -> list[str]:
    """What the classes of a network of the zoo are called, in its order. Raises `UserError` if it has no such."""
    entry = None if encoder.startswith(zoo.HF) else zoo.describe(encoder)
    if entry is None or entry.weights is None:
        raise UserError(f"encoder {encoder} is no ImageNet classifier of torchvision's; see --help for those that are")
    return list(torchvision.models.get_weight(entry.weights).meta["categories"])


def name_key(text: str) -> str:
    """A label or a class's name without what file names change: case, separators, apostrophes, Unicode's forms."""
    text = unicodedata.normalize("NFC", _WORDNET.sub("", text)).casefold()
    return re.sub(r"[\s_-]+", " ", re.sub("['’]", "", text)).strip()


def starting(label: str, names: Sequence[str]) -> list[int]:
    """Report R3's rule: the classes whose name starts with the label, so that "lion" accepts lionfish, too."""
    key = name_key(label)
    return [place for place, name in enumerate(names) if key and name_key(name).startswith(key)]


def exact(label: str, names: Sequence[str]) -> list[int]:
    """The classes whose name is the label."""
    key = name_key(label)
    return [place for place, name in enumerate(names) if name_key(name) == key]


def nearest(label: str, names: Sequence[str]) -> str | None:
    """The class that a misspelled label may have meant, if one is spelled much like it."""
    by_key = {name_key(name): name for name in names}
    found = difflib.get_close_matches(name_key(label), by_key, n=1, cutoff=0.8)
    return by_key[found[0]] if found else None
