"""Which frames of a clip are looked at: numbers only, no pixels.

Belongs here: the rules that turn a clip's length into frame numbers, for clips longer and shorter than wanted. Does not
belong here: reading those frames (`video/decode.py`) nor masking what is missing (`video/batches.py`).
"""

from dataclasses import dataclass

import numpy as np

from common.errors import UserError

KINDS = ("first", "uniform", "random", "stride", "all")
SHORTS = ("mask", "repeat", "loop", "zeros")
BLACK = -1
"""The number that stands for a black frame, which no clip holds."""
MOST = 100_000
"""Frames that a sampling may ask for."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A rule for choosing frames; `asdict` and `Sampling(**values)` invert each other. Raises `UserError`."""

    kind: str = "uniform"
    """first: the first `frames`; uniform: the midpoints of `frames` equal segments; random: a random frame of each of
    these segments (for training); stride: every `stride`-th, at most `frames` of them; all: every frame."""
    frames: int = 16
    """how many frames; with kind "all" the least number, which `short` fills up to"""
    stride: int = 1
    """kind "stride" only: from one frame to the next"""
    short: str = "mask"
    """what a clip with too few frames gives. mask: fewer frames, and the model masks the rest; repeat: the last frame
    again; loop: from the start again; zeros: black frames, which count as frames (report R0 did so, and its accuracy
    was poor)"""
    max_frames: int = 2048
    """kind "all" only: a longer clip is thinned evenly to so many"""

    def __post_init__(self) -> None:
        for name, allowed in (("kind", KINDS), ("short", SHORTS)):
            if getattr(self, name) not in allowed:
                raise UserError(f"sampling {name} {getattr(self, name)!r}: allowed are {', '.join(allowed)}")
        for name in ("frames", "stride", "max_frames"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
                raise UserError(f"sampling {name} {value!r}: give a whole number from 1 to {MOST:,}")
        if self.kind == "all" and self.frames > self.max_frames:
            raise UserError(
                f"sampling frames {self.frames}: kind all fills up to them; at most max_frames, {self.max_frames}"
            )

    def indices(self, count: int, generator: np.random.Generator | None = None) -> np.ndarray:
        """Frame numbers `(T,)` int64 in 0..count-1, or `BLACK`, in order but for short="loop".

        T is `frames`, or less for a short clip with short="mask", or more with kind "all". Only kind "random" uses the
        generator; without one it takes the midpoints, as "uniform" does.
        """
        if count < 1:
            raise UserError(f"a clip of {count} frames: there is nothing to sample")
        return self._fill(self._choose(count, generator))

    def _choose(self, count: int, generator: np.random.Generator | None) -> np.ndarray:
        if self.kind == "first":
            return np.arange(min(count, self.frames), dtype=np.int64)
        if self.kind == "stride":
            return np.arange(0, count, self.stride, dtype=np.int64)[: self.frames]
        wanted = self.max_frames if self.kind == "all" else self.frames
        if count <= wanted:  # segments shorter than a frame would give frames twice
            return np.arange(count, dtype=np.int64)
        segment = np.arange(wanted, dtype=np.int64)
        if self.kind == "random" and generator is not None:
            return generator.integers(segment * count // wanted, (segment + 1) * count // wanted, dtype=np.int64)
        return (2 * segment + 1) * count // (2 * wanted)

    def _fill(self, chosen: np.ndarray) -> np.ndarray:
        missing = self.frames - len(chosen)
        if missing <= 0 or self.short == "mask":
            return chosen
        if self.short == "loop":
            return np.resize(chosen, self.frames)  # NumPy's resize repeats from the start
        return np.append(chosen, np.full(missing, chosen[-1] if self.short == "repeat" else BLACK, dtype=np.int64))
